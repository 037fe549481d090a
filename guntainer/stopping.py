"""Stopping a container: ask who can hear, wait while somebody does, then kill. Written once, for every caller.

A pid namespace's init ignores signals that it has no handler for (pid_namespaces(7)), so it is looked at before it is
asked: SigCgt in /proc/PID/status. SIGKILL from outside ends the init and with it the whole namespace.
"""

from __future__ import annotations

import os

from guntainer.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KILL = 9
INTERRUPT = 2
LOOK_AGAIN_S = 0.02
_PROCESSES_LIMIT = 4096  # of one container that are asked; the kill afterwards reaches all


def stop(pid: int, pidfd: int, signal: int, grace_s: float) -> Iterator[float]:
    """The steps of stopping the container whose init is `pid`.

    Each number yielded is how long, in seconds, to wait for the init's exit before the next step; the caller stops
    iterating once it is gone. After the last step it has been killed.
    """
    if signal == KILL:
        kill(pidfd)
        return
    if catches(pid, signal):
        send(pidfd, signal)
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
    kill(pidfd)


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


def kill(pidfd: int) -> None:
    send(pidfd, KILL)


def send(pidfd: int, signal: int) -> None:
    """Signal a container's init; nothing happens where it is gone."""
    try:
        syscalls.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        pass


def _status(pid: int, field: bytes) -> bytes:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read(4096)
    except OSError:
        return b""
    start = text.find(b"\n" + field + b":\t")
    return text[start + len(field) + 3 : text.find(b"\n", start + 1)] if start >= 0 else b""


def catches(pid: int, signal: int) -> bool:
    """Whether a process has a handler for a signal: SigCgt of proc(5)."""
    return bool(int(_status(pid, b"SigCgt") or b"0", 16) >> (signal - 1) & 1)


def alive(pid: int) -> bool:
    return _status(pid, b"State")[:1] not in (b"", b"Z", b"X")


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
