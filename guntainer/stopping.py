"""Stopping a container: ask who can hear, wait while somebody does, then kill. Written once, for every caller.

A pid namespace's init ignores signals that it has no handler for (pid_namespaces(7)), so it is looked at before it is
asked: see `processes.catches`. SIGKILL from outside ends the init and with it the whole namespace. Where there is no pid
namespace, everything that is below the init or in the container's mount namespace is found in /proc, and killed before it.
"""

from __future__ import annotations

import os
import select

from guntainer.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from guntainer.cgroups.cgroup import Cgroup

KILL = 9
INTERRUPT = 2
LOOK_AGAIN_S = 0.02
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
        try:
            syscalls.pidfd_send_signal(self.pidfd, signal)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """Kill all of it; its init can be waited for."""
        if self.cgroup is not None:
            self.cgroup.kill()
        self.sweep()
        self.send(KILL)

    def sweep(self) -> None:
        """Without a pid namespace: kill everything of it but its init, also when that has ended; else nothing is left then."""
        if self.cgroup is not None and readable(self.pidfd):
            self.cgroup.kill()
        if self.mounts >= 0:
            # a number whose process has ended may be another's by now
            init = 0 if readable(self.pidfd) else self.pid
            _kill_members(init, os.fstat(self.mounts))


def _kill_members(init: int, mounts: os.stat_result) -> None:
    import time

    from guntainer import processes

    spared = {init, os.getpid()}
    for _ in range(_ROUNDS):
        members = {*processes.descendants(init), *processes.inside(mounts)} - spared
        found = [one for one in members if processes.alive(one)]
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


def stop(target: Target, signal: int, grace_s: float) -> Iterator[float]:
    """The steps of stopping a container.

    Each number yielded is how long, in seconds, to wait for the init's exit before the next step; the caller stops
    iterating once it is gone. After the last step it has been killed.
    """
    from guntainer import processes

    pid = target.pid
    if signal == KILL:
        target.kill()
        return
    if processes.catches(pid, signal):
        target.send(signal)
        if signal == INTERRUPT:
            # A terminal sends it to the whole foreground group; a shell waits for its command to die of it.
            ask_others(pid, signal)
        yield grace_s
    else:
        hearing = ask_others(pid, signal)
        waited_s = 0.0
        while hearing and waited_s < grace_s:
            yield LOOK_AGAIN_S
            waited_s += LOOK_AGAIN_S
            hearing = [other for other in hearing if processes.alive(other)]
    target.kill()


def ask_others(pid: int, signal: int) -> list[int]:
    """Send the signal to everything but the init; returns those that have a handler for it."""
    from guntainer import processes

    hearing = []
    for other in processes.descendants(pid):
        if processes.catches(other, signal):
            hearing.append(other)
        try:
            os.kill(other, signal)
        except (ProcessLookupError, PermissionError):
            continue
    return hearing


def readable(fd: int) -> bool:
    """Whether poll(2) says so now: a pidfd is when its process has ended, pidfd_open(2)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
