"""What /proc tells of processes: proc(5). Of one that is gone, it is what is true of nothing.

A process id may be another's by the time of the next look; who must be sure holds a pidfd.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SEGV = 11
_PROCESSES_LIMIT = 4096  # of one container that are asked; the kill afterwards reaches all


def _field(pid: int, name: bytes) -> bytes:
    """A field of /proc/PID/status; empty where the process is gone."""
    text = _read(pid, "status")
    start = text.find(b"\n" + name + b":\t")
    return text[start + len(name) + 3 : text.find(b"\n", start + 1)] if start >= 0 else b""


def _read(pid: int, name: str) -> bytes:
    """A file of /proc/PID; empty where it can not be read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


# -- what there is


def alive(pid: int) -> bool:
    return _field(pid, b"State")[:1] not in (b"", b"Z", b"X")


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, itself not among them: /proc/PID/task/TID/children."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < _PROCESSES_LIMIT:
        parent = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for thread in threads:
            children = [int(word) for word in _read(parent, f"task/{thread}/children").split()]
            found += children
            waiting += children
    return found


def inside(mounts: os.stat_result) -> Iterator[int]:
    """The processes in a mount namespace: those whose link in /proc/PID/ns leads to it, namespaces(7)."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if os.path.samestat(os.stat(f"/proc/{name}/ns/mnt"), mounts):
                    yield int(name)
            except OSError:
                continue  # gone, or not ours to look at


def command_line(pid: int) -> bytes:
    """The words of its command, each ended by a zero byte; none of a kernel's thread, nor of who has ended."""
    return _read(pid, "cmdline")


def has_executed(pid: int) -> bool:
    """Whether a container's init is its command by now: until then it has our command line, and our signal settings."""
    return command_line(pid) != command_line(os.getpid())


def writes(pid: int) -> int:
    """How often a process has called write(2): syscw of /proc/PID/io."""
    try:
        return int(_read(pid, "io").partition(b"syscw: ")[2].split(b"\n")[0] or 0)
    except ValueError:
        return 0


# -- what signals mean to them


def _in_set(pid: int, name: bytes, signal: int) -> bool:
    return bool(int(_field(pid, name) or b"0", 16) >> (signal - 1) & 1)


def catches(pid: int, signal: int) -> bool:
    """Whether a process has a handler for a signal: SigCgt."""
    return _in_set(pid, b"SigCgt", signal)


def listens(pid: int, signal: int) -> bool:
    """Whether a process catches a signal, or blocks it, as who takes it with sigwait(3) or a signalfd(2) does."""
    return catches(pid, signal) or _in_set(pid, b"SigBlk", signal)


def decides(pid: int, signal: int) -> bool:
    """Whether a process has a mind of its own about a signal: it listens, or ignores it on purpose."""
    return listens(pid, signal) or _in_set(pid, b"SigIgn", signal)


def forking(pid: int) -> bool:
    """Whether a process blocks even SIGSEGV: C libraries do so around a fork, and few others do."""
    return _in_set(pid, b"SigBlk", _SEGV)


def heard_in_group(pid: int, signal: int) -> bool:
    """Whether a signal that a terminal sends to the init's process group means something to anybody in it.

    Who merely dies of it does not count, nor does who ignores it, unless it is the init: a shell without job control starts
    whatever it does not wait for so.
    """
    if decides(pid, signal):
        return True
    return any(listens(other, signal) for other in descendants(pid) if _group(other) == pid)


def heard_below(pid: int, signal: int) -> bool:
    """The same, of the others in that group alone, and not of those that merely fork."""
    below = (other for other in descendants(pid) if _group(other) == pid)
    return any(listens(other, signal) and not forking(other) for other in below)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
