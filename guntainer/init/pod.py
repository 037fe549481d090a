"""A fork helper that has namespaces of its own, in which all that it clones are: the network of a job and of its services.

Its first message is (flags of unshare(2), operations), marshalled, with the descriptors that these name; the operations are
of a plan, see `ops`, and this process itself goes through them. The answer is as of a launch with the number 0. What fails
goes to the fault pipe under that number, and ends this process.

A process of a user namespace can join a network namespace that belongs to it or to one below, and no other: setns(2). Who
is cloned in there need not join.
"""

from __future__ import annotations

import _socket
import marshal
import os
import struct

from guntainer.init import ops
from guntainer.kernel import abi, syscalls
from guntainer.kernel.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NETWORK = "/proc/sys/net/ipv4"


def enter(
    receive: Callable[[_socket.socket], tuple[bytes, list[int]]],
    sock: _socket.socket,
    fault_fd: int,
    life_fd: int,
    above: int,
) -> None:
    """Take the first message and do as it says.

    Args:
        above: every descriptor from here on is closed at the end.
    """
    data, fds = receive(sock)
    if not data:
        os._exit(0)  # nobody is there any more
    flags, operations, ping_groups = marshal.loads(data)
    for kind in ("user", "network"):
        try:
            syscalls.unshare(flags & abi.NAMESPACES[kind])
        except OSError as error:
            sock.send(marshal.dumps((0, 0, error.errno, kind)))
            os._exit(0)
    program = _program(operations)
    program.prepare(0, fault_fd, [life_fd, -1, *fds])
    # Whoever has a user namespace below has no rights over this network: what these would be for, all may do, as in docker.
    _set("ip_unprivileged_port_start", "0")
    _set("ping_group_range", "{} {}".format(*ping_groups))
    program.interpret()
    os.closerange(above, 1 << 16)
    sock.send(marshal.dumps((0, 0, 0, "")))


def _program(operations: tuple[tuple[Any, ...], ...]) -> Program:
    program = Program()
    for number, operation in enumerate(operations):
        program.step = number
        ops.OPERATIONS[operation[0]](program, *operation[1:])
    program.finish()
    return program


def _set(name: str, text: str) -> None:
    try:
        with open(f"{_NETWORK}/{name}", "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        pass  # /proc/sys is read-only in a container around us


def sockets() -> list[_socket.socket]:
    """Of the network that this process is in, not blocking, one of each family that it has."""
    made: list[_socket.socket] = []
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            made.append(_socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC))
        except OSError:
            continue
    return made


def answer_with_sockets(sock: _socket.socket, launch_id: int) -> None:
    """`sockets`, for whoever looks from outside whether a port is open in this network."""
    made = sockets()
    payload = struct.pack(f"{len(made)}i", *(one.fileno() for one in made))
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, payload)] if made else []
    sock.sendmsg([marshal.dumps((launch_id, 0, 0, ""))], rights)
    for one in made:
        one.close()
