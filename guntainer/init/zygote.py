"""The fork helper's loop: one message in, one clone3, one message out.

A fresh interpreter with one thread for ever and next to nothing loaded, because the cost of a clone follows what its
caller has mapped. It keeps nothing between messages but programs for the next launch, and a descriptor of each container that
may still live: when its socket ends, so do they, and it itself.

Messages are marshal on a SOCK_SEQPACKET socket, so a message is whole or not there:
    in:  (launch id, marshalled plan or None), fds; a plan too large for a datagram comes as a memfd, the first descriptor;
         an empty plan asks for sockets: see `pod`
    out: (launch id, pid, 0, "") with the pidfd, and a descriptor of its mount namespace where it has no pid namespace; or
         (launch id, 0, errno, kind) where clone3 was refused, for this kind of namespace
"""

from __future__ import annotations

import _signal
import _socket
import errno
import gc
import marshal
import os
import struct

from guntainer.init import child, guard
from guntainer.kernel import abi, syscalls
from guntainer.kernel.last_clone import LastClone

MESSAGE_LIMIT = 64 * 1024
FDS_LIMIT = 16
_DIED = _signal.SIGUSR1


def receive(sock: _socket.socket) -> tuple[bytes, list[int]]:
    """One message and its descriptors; (b"", []) at the end."""
    data, ancillary, _, _ = sock.recvmsg(MESSAGE_LIMIT, _socket.CMSG_SPACE(4 * FDS_LIMIT), _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for _level, _kind, payload in ancillary:
        fds += struct.unpack_from(f"{len(payload) // 4}i", payload)
    return data, fds


def serve(sock: _socket.socket, launches: child.Launches, living: guard.Living) -> None:
    """Launch until the supervisor closes its end, or is gone."""
    while True:
        data, fds = receive(sock)
        if not data:
            return
        launch_id, plan = marshal.loads(data)
        if plan == b"":
            from guntainer.init import pod  # it is loaded, where this is asked for

            pod.answer_with_sockets(sock, launch_id)
            continue
        if plan is None:
            large = fds.pop(0)
            with open(large, "rb") as file:
                plan = file.read()
        try:
            pid, pidfd, mounts = _launch(launches, living, plan, fds, launch_id)
        except OSError as error:
            sock.send(marshal.dumps((launch_id, 0, error.errno, error.filename or "")))
        except Exception:
            # a plan that can not be compiled must not end this process: clones under way still use its memory
            sock.send(marshal.dumps((launch_id, 0, errno.EINVAL, "")))
        else:
            handed = [pidfd, mounts] if mounts >= 0 else [pidfd]
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(handed)}i", *handed))
            fds += handed
            if mounts < 0:  # else its init ends what it has started, and then itself: see `reaper`
                living.add(pidfd)
            sock.sendmsg([marshal.dumps((launch_id, pid, 0, ""))], [rights])
        for fd in fds:
            os.close(fd)


def _launch(
    launches: child.Launches, living: guard.Living, plan: bytes, fds: list[int], launch_id: int
) -> tuple[int, int, int]:
    try:
        return launches.launch(plan, fds, launch_id)
    except OSError as error:
        if error.errno != errno.ENOSPC or not living.forget_the_dead():
            raise
        return launches.launch(plan, fds, launch_id)


def main(socket_fd: int, fault_fd: int, life_fd: int, last_fd: int, user_fd: int, *, pod: bool = False) -> None:
    """In the fresh interpreter.

    Args:
        last_fd: of `kernel.last_clone`, -1 where no memory can be shared.
        user_fd: the user namespace in which all containers are, -1 where each has its own.
        pod: have namespaces of its own, in which all containers are: see `pod`.
    """
    above = max(socket_fd, fault_fd, life_fd, last_fd, user_fd) + 1
    os.closerange(above, 1 << 30)  # what the supervisor's own caller has left open
    syscalls.join_session_keyring()
    last = LastClone(last_fd) if last_fd >= 0 else None
    if user_fd >= 0:
        syscalls.setns(user_fd, abi.CLONE_NEWUSER)
        os.close(user_fd)
    syscalls.set_process_name(b"guntainer-fork")
    # Ctrl-C reaches the whole foreground group: the supervisor decides, this process goes with it. Blocked rather than
    # ignored, because what is ignored stays so in the command.
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_DFL)
    blocked = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGPIPE)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, blocked)
    sock = _socket.socket(fileno=socket_fd)
    if pod:
        from guntainer.init import pod as own

        own.enter(receive, sock, fault_fd, life_fd, above)
    # The socket's end tells that the supervisor is gone, unless a fork of it lives on and has a copy. The signal ends the
    # reading then, between two launches and not in the middle of one.
    _signal.signal(_DIED, lambda *_: sock.shutdown(_socket.SHUT_RD))
    syscalls.prctl(abi.PR_SET_PDEATHSIG, int(_DIED))
    launches = child.Launches(fault_fd, (life_fd, -1), parent=True, last=last)
    living = guard.Living()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        serve(sock, launches, living)
    except OSError:
        pass  # the supervisor is gone
    finally:
        living.kill()
        os._exit(0)
