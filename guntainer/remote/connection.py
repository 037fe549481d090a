"""One HTTP/1.1 exchange: a request out, a response in (RFC 9110, RFC 9112), by http.client.

What http.client leaves open is bounded here: a header's size and time, a body that comes too slowly, and how much of it comes.
Redirects, logins and retries are of the modules above.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time

from guntainer import __version__, errors
from guntainer.jobs.values import printable, quoted
from guntainer.remote.addresses import Address, Proxy, is_loopback, proxy_for
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Headers = tuple[tuple[str, str], ...]

_BUFFER = 64 << 10
_HEADER_BYTES = 1 << 20
_SLOWEST = 100  # bytes a second: less than a modem of the year 1980 is a server that does not want to
_TRANSFER_CODING = 16  # a chunk of one byte takes six: RFC 9112 7.1
_contexts: dict[tuple[str, str], ssl.SSLContext] = {}


class Broken(Exception):
    """An exchange did not come to its end, and another try may.

    Args:
        why: in words, for the message when no try is left.
        after_s: the server asks to be left alone for so long.
        early: nobody was there at all: more than one more try is of no use.
    """

    def __init__(self, why: str, *, after_s: float = 0.0, early: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.after_s = after_s
        self.early = early


class Wire(Value):
    """How to connect."""

    connect_s: float = 15.0
    """For each of a host's addresses."""
    stall_s: float = 30.0
    """A header must come within this; and of a body at least 100 bytes a second, on the average of such a time."""
    settings: Headers = ()
    """Of the environment: `addresses.settings_of`."""

    def __repr__(self) -> str:
        return f"Wire(connect_s={self.connect_s}, stall_s={self.stall_s})"  # a proxy may have a password


class Response:
    """A response whose header is there, and whose body is read by `read`."""

    def __init__(self, address: Address, connection: _Connection, response: http.client.HTTPResponse) -> None:
        self.address = address
        """Whom it comes from."""
        self.status = response.status
        self._connection = connection
        self._response = response
        self.length = self._length()
        """Of the body, in bytes; -1: not known before its end."""
        self.done = 0
        self.most = 1 << 62
        """Bytes of a body that are read at all."""

    def header(self, name: str) -> str:
        """The first of that name, or ""."""
        return (self._response.headers.get(name) or "").strip()

    def headers(self, name: str) -> list[str]:
        return self._response.headers.get_all(name) or []

    def _length(self) -> int:
        codings = [c for field in self.headers("transfer-encoding") for c in field.lower().replace(" ", "").split(",")]
        lengths = set(self.headers("content-length"))
        if codings not in ([], ["chunked"]) or len(lengths) > 1 or not all(_is_length(text) for text in lengths):
            raise errors.RemoteError(f"{self.address.shown}: the server says in no clear way how long its answer is")
        return -1 if codings or not lengths else int(lengths.pop())

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end.

        Raises:
            Broken: it has broken off, stalled, or is not HTTP.
            RemoteError: more came than was allowed.
        """
        if self.length >= 0:
            size = min(size, self.length - self.done)
        if size <= 0:
            return b""
        try:
            self._connection.allow(self.most * _TRANSFER_CODING)
            data = self._response.read1(size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(self.address, error) from None
        if len(data) > size or (self._response.chunked and (self._response.chunk_left or 0) < 0):
            raise Broken("is not HTTP: a chunk of a negative size")
        if not data and self.length > self.done:
            raise Broken(f"ended after {self.done} of {self.length} bytes")
        self.done += len(data)
        if self.done > self.most:
            raise errors.RemoteError(
                f"{self.address.shown}: more than the {self.most} bytes that are allowed", hint="nothing of it was kept"
            )
        return data

    def read_all(self, most: int) -> bytes:
        """The whole body, of at most `most` bytes."""
        self.most = most
        parts = []
        while data := self.read(_BUFFER):
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def exchange(
    address: Address, headers: Headers, wire: Wire, *, method: str = "GET", body: bytes | None = None
) -> Response:
    """Send one request and read the header of its answer.

    Raises:
        Broken: nobody answered, or not to the end of the header.
        RemoteError: the server's certificate is refused, there is no such host, or what answers is not HTTP.
    """
    settings = dict(wire.settings)
    connection = _Connection(address, proxy_for(address, settings), wire, settings)
    try:
        connection.send_request(method, headers, body)
        response = connection.getresponse()
        try:
            return Response(address, connection, response)
        except BaseException:
            response.close()
            raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise _broken(address, error, connection.proxy if not connection.connected else None) from None
    except BaseException:
        connection.close()
        raise


class _Connection(http.client.HTTPConnection):
    """A connection for one exchange, with TLS where the address wants it, by a proxy where there is one."""

    def __init__(self, address: Address, proxy: Proxy | None, wire: Wire, settings: Mapping[str, str]) -> None:
        host, port = (proxy.host, proxy.port) if proxy else (address.host, address.port)
        super().__init__(host, port, timeout=wire.connect_s)
        self.proxy = proxy
        self.connected = False
        self._address = address
        self._wire = wire
        self._settings = settings
        self._pacing: _Pacing | None = None

    def connect(self) -> None:
        super().connect()
        sock = self.sock
        try:
            if self._address.tls:
                if self.proxy is not None:
                    self._tunnel_by(self.proxy)
                context = _context(self._settings, self._address)
                sock = context.wrap_socket(sock, server_hostname=self._address.host)
        except BaseException:
            sock.close()
            raise
        self.connected = True
        self.sock = self._pacing = _Pacing(sock, self._wire.stall_s)

    def _tunnel_by(self, proxy: Proxy) -> None:
        """CONNECT, RFC 9110 9.3.6. http.client's own leaves the answer's header open, in size and time."""
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        lines = [f"CONNECT {host}:{self._address.port} HTTP/1.1", f"Host: {host}:{self._address.port}"]
        lines += [f"{name}: {value}" for name, value in _proxy_login(proxy)]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        response = http.client.HTTPResponse(_Pacing(self.sock, self._wire.stall_s), method="CONNECT")  # type: ignore[arg-type]
        try:
            response.begin()
        finally:
            response.close()
        if response.status == 407:
            raise errors.RemoteError(
                f"{self._address.shown}: the proxy {proxy.host}:{proxy.port} needs a login",
                hint="give user and password in the proxy's URL",
            )
        if response.status != 200:
            raise ConnectionError(f"answered {response.status}, so there is no way by it")

    def send_request(self, method: str, headers: Headers, body: bytes | None) -> None:
        address = self._address
        target = address.url if self.proxy and not address.tls else address.target
        self.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        self.putheader("Host", address.authority)
        self.putheader("User-Agent", f"guntainer/{__version__}")
        self.putheader("Accept-Encoding", "identity")
        self.putheader("Connection", "close")
        if self.proxy and not address.tls:
            headers = (*headers, *_proxy_login(self.proxy))
        if body is not None:
            headers = (*headers, ("Content-Length", str(len(body))))
        for name, value in headers:
            self.putheader(name, value)
        self.endheaders(body)

    def allow(self, size: int) -> None:
        """From here on a body comes: so many bytes in all, and any time as long as they do come."""
        if self._pacing is not None and self._pacing.paced is not None:
            self._pacing.paced.allow(size)


def _proxy_login(proxy: Proxy) -> Headers:
    if not proxy.login:
        return ()
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes

    return (("Proxy-Authorization", f"Basic {b64encode(unquote_to_bytes(proxy.login)).decode()}"),)


def _context(settings: Mapping[str, str], address: Address) -> ssl.SSLContext:
    """What certificates are checked by: the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR, as OpenSSL has it."""
    key = (settings.get("SSL_CERT_FILE", ""), settings.get("SSL_CERT_DIR", ""))
    if key not in _contexts:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["http/1.1"])
        try:
            if any(key):
                usual = ssl.get_default_verify_paths()
                context.load_verify_locations(key[0] or usual.cafile, key[1] or usual.capath)
            else:
                context.load_default_certs()
        except OSError as error:
            why = f"SSL_CERT_FILE={key[0]}: {error.strerror or 'holds no certificate'}"
            raise errors.HostError(f"{address.shown}: its certificate can not be checked: {why}") from None
        _contexts[key] = context
    return _contexts[key]


class _Paced(io.RawIOBase):
    """A socket's receiving end that does not wait for ever, nor take in more than it is to.

    Time counts while it waits for the server, not while its own reader is busy.
    """

    def __init__(self, sock: socket.socket, stall_s: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._stall_s = stall_s
        self._waited = 0.0
        self._window = 0
        self._left = _HEADER_BYTES
        self._in_header = True

    def allow(self, size: int) -> None:
        if self._in_header:
            self._in_header = False
            self._waited, self._window, self._left = 0.0, 0, size + _HEADER_BYTES
            self._sock.settimeout(self._stall_s)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._in_header:
            self._sock.settimeout(max(self._stall_s - self._waited, 0.001))
        before = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - before
        self._window += count or 0
        self._left -= count or 0
        if self._left < 0:
            raise http.client.HTTPException("sends more than it may")
        if self._waited > self._stall_s:
            if self._in_header or self._window < self._stall_s * _SLOWEST:
                raise TimeoutError("too slow")
            self._waited, self._window = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Pacing:
    """What http.client takes for a socket."""

    def __init__(self, sock: socket.socket, stall_s: float) -> None:
        self._sock = sock
        self._stall_s = stall_s
        self.paced: _Paced | None = None

    def makefile(self, mode: str) -> io.BufferedReader:
        self.paced = _Paced(self._sock, self._stall_s)
        return io.BufferedReader(self.paced, _BUFFER)

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.close()  # the receiving end keeps it open until that is closed, too


def _broken(address: Address, error: Exception, proxy: Proxy | None = None) -> Exception:
    """What to raise for it: Broken, or an error where no other try will do better."""
    whom = f"the proxy {proxy.host}:{proxy.port}" if proxy else f"{address.host}:{address.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.RemoteError(
            f"{address.shown}: the server's certificate is refused: {error.verify_message}",
            hint="if it is your own, set SSL_CERT_FILE to its authority's",
        )
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return Broken(f"{whom}: its name can not be looked up just now", early=True)
        return errors.RemoteError(f"{address.shown}: there is no host of the name of {whom}", hint="check the address")
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        hint = "if the server is without TLS, write http://" if error.reason == "WRONG_VERSION_NUMBER" else ""
        return errors.RemoteError(
            f"{address.shown}: no TLS with {whom} ({quoted(error.reason or 'failed')})", hint=hint
        )
    if isinstance(error, TimeoutError):
        return Broken(f"{whom} is silent or too slow")
    if isinstance(error, OSError):
        why = printable(error.strerror or str(error) or type(error).__name__)[:200]
        return Broken(f"{whom}: {why}", early=isinstance(error, ConnectionRefusedError))
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        tls = "" if address.tls or is_loopback(address.host) else "; it may want https://"
        return Broken(f"{whom} does not speak HTTP{tls}")
    return Broken(f"{whom} does not keep to HTTP ({type(error).__name__})")
