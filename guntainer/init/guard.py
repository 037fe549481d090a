"""Containers end with their supervisor, however that ends: whoever sees it die kills them.

A parent-death signal alone does not do: it is lost when the command changes its credentials or executes a program with the
setuid bit, as `su` and every entry point that drops its rights, and a command can clear it (PR_SET_PDEATHSIG, prctl(2)). So a
process of ours that survives the supervisor for a moment holds a descriptor of each container's init. For a batch that is
the fork helper; `run`, which has none, clones a guard: some system calls in the memory of its caller.
"""

from __future__ import annotations

import _signal
import fcntl
import os
import select

from guntainer.kernel.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FEW = 16
_ABOVE = 256  # a launch uses descriptors at fixed numbers below this, and finds them free: see `descriptors.LEAST`
_LIFE, _TARGET = 0, 1
_POLLFD_BYTES = 8


class Living:
    """Descriptors of containers that may still live, of which the dead are let go of now and then.

    They lie out of the way of launches, whose own must be at the numbers that they expect.

    Args:
        room: how many may be open; beyond that the older half is let go of, and left to its parent-death signal.
    """

    def __init__(self, room: Callable[[], int] = lambda: os.sysconf("SC_OPEN_MAX") - _ABOVE) -> None:
        self._room = room
        self._fds: list[int] = []
        self._most = _FEW

    def add(self, pidfd: int) -> None:
        """Keep a copy of this descriptor; without room for one, the container is left to its parent-death signal."""
        try:
            self._fds.append(fcntl.fcntl(pidfd, fcntl.F_DUPFD_CLOEXEC, _ABOVE))
        except OSError:
            return
        if len(self._fds) >= self._most:
            self.forget_the_dead()

    def forget_the_dead(self) -> bool:
        """So seldom that a launch does not feel it: as many must have come as were found alive the last time.

        A descriptor keeps its pid namespace, and the kernel counts that: whoever is refused one lets go of the dead first.

        Returns:
            Whether there were any.
        """
        poll = select.poll()
        for fd in self._fds:
            poll.register(fd, select.POLLIN)
        dead = {fd for fd, _ in poll.poll(0)}
        alive = [fd for fd in self._fds if fd not in dead]
        room = self._room()
        crowd = len(alive) // 2 if len(alive) >= room else 0
        for fd in [*dead, *alive[:crowd]]:
            os.close(fd)
        self._fds = alive[crowd:]
        self._most = min(max(_FEW, 2 * len(self._fds)), max(room, 1))
        return bool(dead)

    def __len__(self) -> int:
        return len(self._fds)

    def kill(self) -> None:
        """End them all; those that are dead already are not there any more."""
        for fd in self._fds:
            try:
                _signal.pidfd_send_signal(fd, _signal.SIGKILL)
            except OSError:
                pass


class Guard:
    """A process that kills `pidfd`'s when the writing end of the pipe `life` is closed.

    Args:
        life: the reading end; this process has the only writing end.

    Raises:
        OSError: of clone3(2).
    """

    def __init__(self, pidfd: int, life: int) -> None:
        program = Program(0)
        # Out of reach of what is sent to our process group, by a terminal or by hand. All is blocked from its first moment on.
        program.call("setsid", ignore=True)
        program.call("dup3", life, _LIFE, 0, ignore=True)
        program.call("dup3", pidfd, _TARGET, 0, ignore=True)
        program.call("close_range", 2, 0xFFFF_FFFF, 0, ignore=True)  # the writing end among them
        program.call(
            "ppoll", program.data(bytes(_POLLFD_BYTES), shared=False), 1, 0, 0, 0, ignore=True
        )  # 0: life, its hangup
        program.call("pidfd_send_signal", _TARGET, int(_signal.SIGKILL), 0, 0, ignore=True)
        program.call("exit_group", 0)
        program.finish()
        program.prepare(0, -1, [])
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        try:
            self._pid, fd = program.launch(0, exit_signal=int(_signal.SIGCHLD))
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        os.close(fd)
        self._program = program  # its memory must stay while the process lives

    def close(self) -> None:
        """Call it off, and wait until it is gone; does nothing the second time."""
        pid, self._pid = self._pid, 0
        if pid:
            try:
                os.kill(pid, _signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
