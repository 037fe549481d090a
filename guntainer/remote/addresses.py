"""URLs as they are connected to: where they lead, what of them may be shown, where a redirect may lead. Pure."""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.references import parse_url
from guntainer.jobs.values import printable
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS = ("https_proxy", "http_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables of the environment that say how to connect; those in lower case are also read in upper case."""


class Address(Value):
    """A URL, taken apart."""

    tls: bool
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query."""

    @property
    def origin(self) -> tuple[bool, str, int]:
        """RFC 6454: what is sent to one of them is no other's business."""
        return self.tls, self.host, self.port

    @property
    def authority(self) -> str:
        """`HOST[:PORT]`, for the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """For messages: a query may be a signature that lets everybody in."""
        return printable(self.url.partition("?")[0])

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse_address(url: str) -> tuple[Address, str]:
    """(where a URL leads, its user information or "").

    Raises:
        UsageError: it is not well formed.
    """
    clean, _ = parse_url(url)
    scheme, _, rest = clean.partition("://")
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    user, _, authority = rest[:end].rpartition("@")
    target = rest[end:] if rest[end:].startswith("/") else f"/{rest[end:]}"
    tls = scheme == "https"
    host, port = split_host(authority, 443 if tls else 80)
    return Address(tls=tls, host=host, port=port, target=target), user


def split_host(authority: str, default: int) -> tuple[str, int]:
    """`HOST[:PORT]` → (host in lower case without brackets, port)."""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = authority.partition(":")
    return host.lower().rstrip("."), int(port) if port.isascii() and port.isdigit() else default


def is_loopback(host: str) -> bool:
    """Whether a host's name alone says that it is this machine: nothing is looked up."""
    if host in ("localhost", "::1") or host.endswith(".localhost"):  # RFC 6761 6.3
        return True
    parts = host.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isascii() and part.isdigit() for part in parts)


def redirected(address: Address, location: str) -> Address:
    """Where a redirect leads to: RFC 9110 10.2.2.

    Raises:
        RemoteError: it leads from TLS to where everybody on the way can read and change it, or nowhere.
    """
    from urllib.parse import urljoin

    # header fields come as latin-1: bytes that are not ASCII are quoted as they are
    plain = "".join(c if c < "\x7f" else f"%{ord(c):02X}" for c in location.strip())
    try:
        found, _ = parse_address(urljoin(address.url, plain))
    except (errors.UsageError, ValueError):
        raise errors.RemoteError(f"{address.shown}: redirects to something that is no http(s) URL") from None
    if address.tls and not found.tls and not is_loopback(found.host):
        raise errors.RemoteError(
            f"{address.shown}: redirects to {found.shown}, which is not encrypted", hint="it is not followed"
        )
    return found


class Proxy(Value):
    """A proxy: HTTP/1.1, RFC 9110 7.7."""

    host: str
    port: int
    login: str = ""
    """`user:password`, as it stands in the URL."""

    def __repr__(self) -> str:
        return f"Proxy({self.host!r}, {self.port})"


def settings_of(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What of an environment says how to connect, for a process with another one; names as in SETTINGS."""
    found = []
    for name in SETTINGS:
        # in upper case a CGI program would get it from a header of its caller: CVE-2016-5385
        other = "" if name == "http_proxy" and "REQUEST_METHOD" in environ else environ.get(name.upper(), "")
        value = environ.get(name, other)
        if value:
            found.append((name, value))
    return tuple(found)


def proxy_for(address: Address, settings: Mapping[str, str]) -> Proxy | None:
    """The proxy by which to go; None: directly, as always to this machine itself.

    Raises:
        RemoteError: it is of a kind that is not known here.
    """
    name = "https_proxy" if address.tls else "http_proxy"
    given = settings.get(name) or settings.get("all_proxy", "")
    if not given or is_loopback(address.host) or _bypassed(address, settings.get("no_proxy", "")):
        return None
    scheme, mark, _ = given.partition("://")
    if mark and scheme.lower() != "http":
        raise errors.RemoteError(
            f"{address.shown}: a proxy by {printable(scheme)}:// is not supported",
            hint=f"set {name} to one by http://, or no_proxy",
        )
    try:
        proxy, login = parse_address(given if mark else f"http://{given}")
    except errors.UsageError:
        raise errors.RemoteError(f"{address.shown}: {name} is not a URL", hint="expected http://HOST:PORT") from None
    return Proxy(host=proxy.host, port=proxy.port, login=login)


def _bypassed(address: Address, no_proxy: str) -> bool:
    """`.example.org,10.0.0.0/8,host:8080,*`: whose end is listed, as curl and Go have it."""
    for entry in no_proxy.replace(",", " ").split():
        if entry == "*":
            return True
        if "/" in entry:
            if _in_network(address.host, entry):
                return True
            continue
        host, port = (entry, 0) if entry.count(":") > 1 and "[" not in entry else split_host(entry, 0)
        host = host.lower().removeprefix("*").lstrip(".")
        if port in (0, address.port) and host and (address.host == host or address.host.endswith(f".{host}")):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
