"""Ask systemd for a scope: one D-Bus call, StartTransientUnit, spoken here, since a client library is more than that call.

    connection   $XDG_RUNTIME_DIR/systemd/private, the manager's own socket; else the user's bus. Root asks the system's.
    in           the D-Bus specification, sections "Message Protocol" and "Authentication Protocol"; org.freedesktop.systemd1(5)

The manager makes a control group below its own, delegates it (Delegate=yes: no other writes there), and moves us into it.
"""

from __future__ import annotations

import _socket
import os
import struct

from guntainer import errors, hostids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT_S = 5.0
_LONGEST = 1 << 20
_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_MANAGER = {
    _PATH: ("o", "/org/freedesktop/systemd1"),
    _DESTINATION: ("s", "org.freedesktop.systemd1"),
    _INTERFACE: ("s", "org.freedesktop.systemd1.Manager"),
}
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = {
    _PATH: ("o", "/org/freedesktop/DBus"),
    _DESTINATION: ("s", "org.freedesktop.DBus"),
    _INTERFACE: ("s", "org.freedesktop.DBus"),
}


class NoManager(errors.HostError):
    """There is no manager to ask, or it did not do what it was asked for."""

    refused = False
    """It has answered, with an error."""
    absent = False
    """There is none."""


def start_scope(name: str, pids: list[int], above: str) -> None:
    """Start the scope `name` with these processes in it; returns when the manager has taken the request.

    Args:
        above: the slice that it is to be in; "": the manager's own choice.

    Raises:
        NoManager: nobody answers, or it was refused.
    """
    _ask(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", _request(name, pids, above))


def delegates(unit: str) -> bool:
    """Whether the manager leaves the control group of a unit to who runs in it; also where there is no manager to mind.

    It is of help to know: limits of that unit hold for what we start below it, and for nothing in another scope.
    """
    kind = unit.rpartition(".")[2].capitalize()
    escaped = "".join(c if c.isascii() and c.isalnum() else "".join(f"_{b:02x}" for b in c.encode()) for c in unit)
    target = {**_MANAGER, _PATH: ("o", f"/org/freedesktop/systemd1/unit/{escaped}"), _INTERFACE: ("s", _PROPERTIES)}
    try:
        answer = _ask(target, "Get", "ss", _text(_text(b"", f"org.freedesktop.systemd1.{kind}"), "Delegate"))
    except NoManager as error:
        return not error.refused
    return answer[-4:] == struct.pack("<I", 1)  # a variant with a boolean


def _ask(target: dict[int, tuple[str, str]], member: str, signature: str, body: bytes) -> bytes:
    reasons = []
    for path, is_bus in _addresses():
        try:
            with _Connection(path) as connection:
                if is_bus:
                    connection.call(_BUS, "Hello", "", b"")
                return connection.call(target, member, signature, body)
        except FileNotFoundError:
            continue
        except OSError as error:
            reasons.append(f"{path}: {error.strerror or error}")
    if reasons:
        raise NoManager(f"systemd can not be asked for a scope: {'; '.join(reasons)}")
    nobody = NoManager("there is no systemd manager of yours that could make a scope")
    nobody.absent = True
    raise nobody


def _addresses() -> Iterator[tuple[str, bool]]:
    """(path of a socket, whether a bus is behind it)."""
    if hostids.UID == 0:
        yield "/run/systemd/private", False
        return
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{hostids.UID}"
    yield f"{folder}/systemd/private", False
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    path = next((part[len("unix:path=") :] for part in address.split(";") if part.startswith("unix:path=")), "")
    yield path.partition(",")[0] or f"{folder}/bus", True


# -- marshalling: everything is aligned to its own size, counted from the start of the message


def _pad(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def _number(data: bytes, value: int) -> bytes:
    return _pad(data, 4) + struct.pack("<I", value)


def _text(data: bytes, value: str) -> bytes:
    encoded = value.encode()
    return _number(data, len(encoded)) + encoded + b"\0"


def _signature(data: bytes, value: str) -> bytes:
    return data + bytes([len(value)]) + value.encode() + b"\0"


def _array(data: bytes, content: bytes, size: int) -> bytes:
    """An array of items aligned to `size`; `content` was marshalled from a multiple of 8, as it stands in the message."""
    return _pad(_number(data, len(content)), size) + content


def _property(data: bytes, name: str, kind: str, value: bytes) -> bytes:
    """(sv); `value` is appended with the alignment that it asks for by itself."""
    data = _signature(_text(_pad(data, 8), name), kind)
    return _pad(data, 1 if kind == "y" else 4) + value


def _request(name: str, pids: list[int], above: str) -> bytes:
    properties = b""
    description = "guntainer's containers"
    properties = _property(properties, "Description", "s", _text(b"", description))
    properties = _property(properties, "Delegate", "b", struct.pack("<I", 1))
    properties = _property(properties, "CollectMode", "s", _text(b"", "inactive-or-failed"))
    if above:
        properties = _property(properties, "Slice", "s", _text(b"", above))
    listed = struct.pack(f"<{len(pids)}I", *pids)
    properties = _property(properties, "PIDs", "au", struct.pack("<I", len(listed)) + listed)
    body = _text(_text(b"", name), "fail")
    body = _array(body, properties, 8)
    return _array(body, b"", 8)


def _message(fields: dict[int, tuple[str, str]], serial: int, body: bytes) -> bytes:
    content = b""
    for code, (kind, value) in fields.items():
        content = _signature(_pad(content, 8) + bytes([code]), kind)
        content = _signature(content, value) if kind == "g" else _text(content, value)
    head = struct.pack("<cBBBII", b"l", _CALL, 0, 1, len(body), serial)
    return _pad(_array(head, content, 8), 8) + body


class _Connection:
    """A connection that makes one call after the other."""

    def __init__(self, path: str) -> None:
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._serial = 0
        self._rest = b""
        self._before = b""
        """What is sent with the first call."""
        try:
            self._sock.settimeout(_TIMEOUT_S)
            self._sock.connect(path)
            self._authenticate()
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _authenticate(self) -> None:
        """The kernel tells the other end who we are; we say which of that we mean."""
        identity = str(hostids.UID).encode().hex()
        self._sock.sendall(b"\0AUTH EXTERNAL " + identity.encode() + b"\r\n")
        while b"\r\n" not in self._rest:
            self._receive()
        line, _, self._rest = self._rest.partition(b"\r\n")
        if not line.startswith(b"OK"):
            raise OSError(0, f"does not let us in: {line[:60]!r}")
        self._before = b"BEGIN\r\n"

    def _receive(self) -> None:
        data = self._sock.recv(1 << 16)
        if not data or len(self._rest) > _LONGEST:
            raise OSError(0, "hangs up" if not data else "talks too much")
        self._rest += data

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._receive()
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def call(self, target: dict[int, tuple[str, str]], member: str, signature: str, body: bytes) -> bytes:
        """Call a method and wait for its answer; returns its body.

        Raises:
            NoManager: the answer is an error.
            OSError: there is no answer, or none that makes sense.
        """
        self._serial += 1
        fields = {**target, _MEMBER: ("s", member)}
        if signature:
            fields[_SIGNATURE] = ("g", signature)
        self._sock.sendall(self._before + _message(fields, self._serial, body))
        self._before = b""
        while True:
            kind, found, answer = self._message()
            if found.get(_REPLY_SERIAL) != self._serial:
                continue  # a signal
            if kind == _ERROR:
                said = _first_text(answer) or str(found.get(_ERROR_NAME, "no reason given"))
                refusal = NoManager(f"systemd refuses to make a scope: {said}")
                refusal.refused = True
                raise refusal
            if kind == _RETURN:
                return answer

    def _message(self) -> tuple[int, dict[int, object], bytes]:
        order, kind, _flags, _version, length, _serial, fields = struct.unpack("<cBBBIII", self._take(16))
        if order != b"l" or length > _LONGEST or fields > _LONGEST:
            raise OSError(0, "says what is no D-Bus")
        content = self._take(fields + -fields % 8)[:fields]
        return kind, dict(_fields(content)), self._take(length)


def _fields(content: bytes) -> Iterator[tuple[int, object]]:
    """The header's fields; only the kinds of values that a header has."""
    at = 0
    try:
        while at < len(content):
            at += -at % 8
            code, length = content[at], content[at + 1]
            kind = content[at + 2 : at + 2 + length]
            at += 3 + length
            if kind == b"g":
                end = at + 1 + content[at]
                yield code, content[at + 1 : end].decode()
                at = end + 1
                continue
            at += -at % 4
            (number,) = struct.unpack_from("<I", content, at)
            at += 4
            if kind in (b"s", b"o"):
                yield code, content[at : at + number].decode(errors="replace")
                at += number + 1
            else:
                yield code, number
    except (IndexError, struct.error):
        raise OSError(0, "says what is no D-Bus") from None


def _first_text(body: bytes) -> str:
    if len(body) < 4:
        return ""
    length = int.from_bytes(body[:4], "little")
    return body[4 : 4 + length].decode(errors="replace")
