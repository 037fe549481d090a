"""Stopping a container: ask who can hear, wait while somebody does, then kill. Written once, for every caller.

A pid namespace's init ignores signals that it has no handler for (pid_namespaces(7)), so it is looked at before it is
asked: SigCgt in /proc/PID/status. SIGKILL from outside ends the init and with it the whole namespace. Where there is no pid
namespace, everything that is below the init or in the container's mount namespace is found in /proc, and killed before it.
"""

from __future__ import annotations

import os
import select

from guntainer.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guntainer.cgroups.cgroup import Cgroup

KILL = 9
INTERRUPT = 2
LOOK_AGAIN_S = 0.02
_PIPE = 13
_YOUNG_S = 1.0  # a command of this age may be about to set its handlers
_KEY_AGAIN_S = 0.1
_COUNT_S = 0.2
_JUDGE_S = 0.05
READER_AGAIN_S = 0.2  # longer than the judging takes
_AT_ONCE_S = 0.05
_PROCESSES_LIMIT = 4096  # of one container that are asked; the kill afterwards reaches all
_ROUNDS = 300  # of killing what is found, until nothing is; who sleeps in the kernel for ever is left to it
_ROUND_S = 0.002


class Target:
    """A container as who stops it sees it.

    Args:
        pid, pidfd: its init's.
        mounts: a descriptor of its mount namespace where it has no pid namespace, else -1. The caller closes it.
    """

    __slots__ = ("cgroup", "mounts", "pid", "pidfd")

    def __init__(self, pid: int = 0, pidfd: int = -1, mounts: int = -1) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.mounts = mounts
        self.cgroup: Cgroup | None = None
        """Its control group, where it has one."""

    def send(self, signal: int) -> None:
        """Signal its init; nothing happens where that is gone."""
        send(self.pidfd, signal)

    def kill(self) -> None:
        """Kill all of it; its init can be waited for."""
        if self.cgroup is not None:
            self.cgroup.kill()
        self.sweep()
        send(self.pidfd, KILL)

    def sweep(self) -> None:
        """Without a pid namespace: kill everything of it but its init, also when that has ended; else nothing is left then."""
        if self.cgroup is not None and _readable(self.pidfd):
            self.cgroup.kill()
        if self.mounts >= 0:
            # a number whose process has ended may be another's by now
            init = 0 if _readable(self.pidfd) else self.pid
            _kill_members(init, os.fstat(self.mounts))


def _kill_members(init: int, mounts: os.stat_result) -> None:
    import time

    spared = {init, os.getpid()}
    for _ in range(_ROUNDS):
        found = [one for one in {*descendants(init), *_inside(mounts)} - spared if alive(one)]
        if not found:
            return
        for one in found:
            try:
                os.kill(one, KILL)
            except ProcessLookupError:
                pass
            except PermissionError:
                spared.add(one)
        time.sleep(_ROUND_S)


def _inside(mounts: os.stat_result) -> Iterator[int]:
    """The processes in a mount namespace: those whose link in /proc/PID/ns leads to it, namespaces(7)."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if os.path.samestat(os.stat(f"/proc/{name}/ns/mnt"), mounts):
                    yield int(name)
            except OSError:
                continue  # gone, or not ours to look at


def stop(target: Target, signal: int, grace_s: float) -> Iterator[float]:
    """The steps of stopping a container.

    Each number yielded is how long, in seconds, to wait for the init's exit before the next step; the caller stops
    iterating once it is gone. After the last step it has been killed.
    """
    pid = target.pid
    if signal == KILL:
        target.kill()
        return
    if catches(pid, signal):
        target.send(signal)
        if signal == INTERRUPT:
            # A terminal sends it to the whole foreground group; a shell waits for its command to die of it.
            _ask_others(pid, signal)
        yield grace_s
    else:
        hearing = _ask_others(pid, signal)
        waited_s = 0.0
        while hearing and waited_s < grace_s:
            yield LOOK_AGAIN_S
            waited_s += LOOK_AGAIN_S
            hearing = [other for other in hearing if alive(other)]
    target.kill()


def _ask_others(pid: int, signal: int) -> list[int]:
    """Send the signal to everything but the init; returns those that have a handler for it."""
    hearing = []
    for other in descendants(pid):
        if catches(other, signal):
            hearing.append(other)
        try:
            os.kill(other, signal)
        except (ProcessLookupError, PermissionError):
            continue
    return hearing


def send(pidfd: int, signal: int) -> None:
    """Signal a container's init; nothing happens where it is gone."""
    try:
        syscalls.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        pass


def _field(pid: int, name: bytes) -> bytes:
    """A field of /proc/PID/status, see proc(5); empty where the process is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read()
    except OSError:
        return b""
    start = text.find(b"\n" + name + b":\t")
    return text[start + len(name) + 3 : text.find(b"\n", start + 1)] if start >= 0 else b""


def _in_set(pid: int, name: bytes, signal: int) -> bool:
    return bool(int(_field(pid, name) or b"0", 16) >> (signal - 1) & 1)


def catches(pid: int, signal: int) -> bool:
    """Whether a process has a handler for a signal: SigCgt of proc(5)."""
    return _in_set(pid, b"SigCgt", signal)


def listens(pid: int, signal: int) -> bool:
    """Whether a process catches a signal, or blocks it, as who takes it with sigwait(3) or a signalfd(2) does."""
    return catches(pid, signal) or _in_set(pid, b"SigBlk", signal)


def decides(pid: int, signal: int) -> bool:
    """Whether a process has a mind of its own about a signal: it listens, or ignores it on purpose."""
    return listens(pid, signal) or _in_set(pid, b"SigIgn", signal)


def heard_in_group(pid: int, signal: int) -> bool:
    """Whether a signal that a terminal sends to the init's process group means something to anybody in it.

    Who merely dies of it does not count, nor does who ignores it, unless it is the init: a shell without job control starts
    whatever it does not wait for so.
    """
    if decides(pid, signal):
        return True
    return any(listens(other, signal) for other in descendants(pid) if _group(other) == pid)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def has_executed(pid: int) -> bool:
    """Whether a container's init is its command by now: until then it has our command line, and our signal settings."""
    return _command_line(pid) != _command_line(os.getpid())


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    return _field(pid, b"State")[:1] not in (b"", b"Z", b"X")


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, itself not among them: /proc/PID/task/TID/children of proc(5)."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < _PROCESSES_LIMIT:
        parent = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    children = [int(word) for word in file.read().split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found


class Deaf:
    """Ends a container where the kernel keeps a signal from its init that would end any other process.

    That is so for the keys of a terminal, and for SIGPIPE (pid_namespaces(7)). Whoever has a mind of its own about the
    signal is left alone.

    Args:
        later: calls a function after so many seconds, once.
    """

    def __init__(self, target: Target, later: Callable[[Callable[[], None], float], None]) -> None:
        self._target = target
        self._pid = target.pid
        self._later = later
        self._launched = _now()
        self._foreground: Callable[[], int] = int
        self._pressed = 0
        self._was_heard = False
        self._image = b""
        self.key = 0
        """The signal of the key for which it was killed."""
        self.unread = False
        """It has written to a pipe that nobody reads any more, and the kernel kept SIGPIPE from it."""
        self._left_at: float | None = None
        self._reader = -1
        self._writes = 0

    def typed(self, signal: int, foreground: Callable[[], int]) -> None:
        """A key is about to send `signal` to the process group that `foreground` tells, 0 where it is not known."""
        self._foreground = foreground
        self._pressed = signal
        self._image = _command_line(self._pid)
        self._was_heard = self._heard(signal)
        if self._was_heard or self._is_young():
            self._later(self._look_again, _KEY_AGAIN_S)
        else:
            self._look_again()

    def _heard(self, signal: int) -> bool:
        if self._foreground() not in (0, self._pid):
            return True  # not for pid 1, so nothing is kept from anybody
        return has_executed(self._pid) and heard_in_group(self._pid, signal)

    def _look_again(self) -> None:
        """Who has heard the key may have no handler any more, but not because it has become another program."""
        answered = self._was_heard and _command_line(self._pid) == self._image
        if not has_executed(self._pid):
            self._later(self._look_again, _KEY_AGAIN_S)
        elif not answered and not self._heard(self._pressed):
            self.key = self._pressed
            self._target.kill()

    def reader_left(self) -> int:
        """Nobody reads the container's stdout any more: read it ourselves, to see whether somebody still writes.

        Returns:
            a descriptor that is readable then, for `written`; -1 where it is not to be looked at.
        """
        self._left_at = self._left_at or _now()
        if not has_executed(self._pid) or decides(self._pid, _PIPE):
            return -1
        try:
            self._reader = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1  # a socket
        self._writes = _writes(self._pid)
        self._later(self._count_again, _COUNT_S)
        return self._reader

    def _count_again(self) -> None:
        """What it has written elsewhere meanwhile does not count: unless it is what has just come."""
        if self._reader >= 0:
            # in this order: a write is seen in the pipe before it is counted
            count = _writes(self._pid)
            if not _readable(self._reader):
                self._writes = count
            self._later(self._count_again, _COUNT_S)

    def written(self) -> None:
        """Something was written: in a moment it is counted as well, for whoever it was."""
        self._later(self._judge, _JUDGE_S)

    def _judge(self) -> None:
        """The init, which SIGPIPE would have ended, or another one, which it will end at its next write."""
        if _writes(self._pid) > self._writes and not decides(self._pid, _PIPE):
            self.unread = True
            self._target.kill()
        self.close()

    def ended(self) -> None:
        """The init has ended: who ends in the very moment in which the reader leaves was told so by its write."""
        if self._left_at is not None and not self.unread:
            self.unread = not decides(self._pid, _PIPE) and _now() - self._left_at < _AT_ONCE_S

    def close(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    def _is_young(self) -> bool:
        return _now() - self._launched < _YOUNG_S or not has_executed(self._pid)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _writes(pid: int) -> int:
    """How often a process has called write(2): syscw of proc(5)."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            return int(file.read().partition(b"syscw: ")[2].split(b"\n")[0] or 0)
    except (OSError, ValueError):
        return 0


def _now() -> float:
    import time

    return time.monotonic()
