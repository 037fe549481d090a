"""The host's ports: which are free, who of this process has them, and how slirp4netns is told of them.

A port that is asked for by number is looked at before anything is started, so that one in use is named. Two containers of
one process never get the same: the second waits until the first has ended, as for any other limit of the host.
"""

from __future__ import annotations

import _socket
import errno
import os

from guntainer import errors
from guntainer.network.tools import ADDRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.jobs.model import Port

_KINDS = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM}
_ANSWER_BYTES = 1 << 12
_TRIES = 64

_taken: dict[tuple[str, int], list[str]] = {}
"""(protocol, number) → the addresses on which containers of this process have it."""


def reserve(ports: Iterable[Port]) -> tuple[Port, ...]:
    """The ports, with a number for each that had none; the caller gives them back by `release`.

    Raises:
        Exhausted: another container of this process has one of them.
        HostError: one is in use, or not for us.
    """
    found: list[Port] = []
    try:
        for port in ports:  # one by one: those before a bad one are given back
            found.append(_reserved(port) if port.host else _chosen(port))  # noqa: PERF401
    except BaseException:
        release(found)
        raise
    return tuple(found)


def release(ports: Iterable[Port]) -> None:
    for port in ports:
        _taken[port.protocol, port.host].remove(port.address)


def _reserved(port: Port) -> Port:
    if _is_taken(port):
        raise errors.Exhausted(
            f"port {port.host}/{port.protocol} is published by another job",
            hint=f'let a free one be chosen: "{port.container}"',
        )
    _bind(port)
    _taken.setdefault((port.protocol, port.host), []).append(port.address)
    return port


def _chosen(port: Port) -> Port:
    for _ in range(_TRIES):
        chosen = port.replace(host=_bind(port))
        if not _is_taken(chosen):
            _taken.setdefault((chosen.protocol, chosen.host), []).append(chosen.address)
            return chosen
    raise errors.Exhausted(f"no free port for {port.container}/{port.protocol}", hint="publish fewer")


def _is_taken(port: Port) -> bool:
    everywhere = type(port).address
    others = _taken.get((port.protocol, port.host), ())
    return any(everywhere in (port.address, other) or port.address == other for other in others)


def _bind(port: Port) -> int:
    """Whether the tool will be able to have the port: ours for a moment; returns its number."""
    sock = _socket.socket(_socket.AF_INET, _KINDS[port.protocol] | _socket.SOCK_CLOEXEC)
    try:
        if port.protocol == "tcp":
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)  # as the tools: old connections do not matter
        sock.bind((port.address, port.host))
        if port.protocol == "tcp":
            sock.listen(1)  # only this tells of another who is bound with the same option
        return int(sock.getsockname()[1])
    except OSError as error:
        raise _refused(port, error) from None
    finally:
        sock.close()


def _refused(port: Port, error: OSError) -> errors.HostError:
    what = f"port {port.host or 'any'}/{port.protocol} can not be published on {port.address}"
    if error.errno == errno.EADDRINUSE:
        return errors.HostError(
            f"{what}: it is in use", hint=f'give another one, or let a free one be chosen: "{port.container}"'
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return errors.HostError(f"{what}: the host has no such address", hint="see `ip address`")
    if error.errno in (errno.EACCES, errno.EPERM):
        return errors.HostError(
            f"{what}: it is root's", hint="take one from 1024 on, or lower net.ipv4.ip_unprivileged_port_start"
        )
    return errors.HostError(f"{what}: {error.strerror}")


class Requests:
    """Tells slirp4netns of ports, one after the other, through its socket: one connection and one line of JSON for each.

    `fd` is readable when the next answer is there, for `ready`; -1 when all have been given.

    Args:
        path: of the socket.

    Raises:
        OSError: it can not be reached.
    """

    def __init__(self, path: str, ports: tuple[Port, ...]) -> None:
        self._path = path
        self._left = list(ports)
        self._answer = b""
        self._sock: _socket.socket | None = None
        self._next()

    @property
    def fd(self) -> int:
        return self._sock.fileno() if self._sock is not None else -1

    def _next(self) -> None:
        self.close()
        if not self._left:
            return
        port = self._left[0]
        request = (
            f'{{"execute": "add_hostfwd", "arguments": {{"proto": "{port.protocol}", "host_addr": "{port.address}", '
            f'"host_port": {port.host}, "guest_addr": "{ADDRESS}", "guest_port": {port.container}}}}}'
        )
        self._answer = b""
        self._sock = sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        sock.connect(self._path)
        sock.send(request.encode())
        sock.shutdown(_socket.SHUT_WR)

    def ready(self) -> None:
        """Take what has come; go on with the next port when the answer is whole.

        Raises:
            HostError: a port is refused.
            OSError: the tool is not there any more.
        """
        assert self._sock is not None
        data = self._sock.recv(_ANSWER_BYTES)
        self._answer += data
        if data and len(self._answer) < _ANSWER_BYTES:
            return
        if b'"error"' in self._answer or b'"return"' not in self._answer:
            port = self._left[0]
            raise errors.HostError(
                f"port {port.host}/{port.protocol} can not be published on {port.address}: slirp4netns refuses it"
            )
        del self._left[0]
        self._next()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def socket_name() -> str:
    """A name that no other container of the run has, short enough to be the end of a path in sockaddr_un: unix(7)."""
    return f"net-{os.urandom(4).hex()}"
