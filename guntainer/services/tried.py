"""One try of a command that finds out whether a service is ready: launched, read, and ended with all that it has started.

What it prints goes through a pipe, so that it takes no room anywhere, however much it is: the end of it is kept, masked as it
comes. What has left its session on purpose, as a daemon does, is the service's own, and lives on.
"""

from __future__ import annotations

import asyncio
import os

import anyio

from guntainer import faults, processes, stopping
from guntainer.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer import planner, report
    from guntainer.launcher.client import Child, Launcher
    from guntainer.masking import Patterns

KEPT_BYTES = 4096
_PIECE = 64 << 10
_PAUSE_S = 0.01
"""Between two pieces: who prints for ever takes no time from others."""
_ROUNDS, _ROUND_S = 50, 0.002
"""Of killing what is left."""


class Said:
    """The end of what a command prints; its owner closes it.

    Args:
        secret: what is masked in that; None: nothing.
    """

    def __init__(self, secret: Patterns | None) -> None:
        self._masker = secret.stream() if secret is not None else None
        self._kept = b""
        self._timer: asyncio.TimerHandle | None = None
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read, self._readable)

    def handed_over(self) -> int:
        """The end that is written to; the caller's to close, when nobody writes any more."""
        write, self._write = self._write, -1
        return write

    def _readable(self) -> None:
        self._loop.remove_reader(self._read)
        self._take()
        self._timer = self._loop.call_later(_PAUSE_S, self._loop.add_reader, self._read, self._readable)

    def _take(self) -> None:
        """Take what is there, but a piece at most."""
        try:
            data = os.read(self._read, _PIECE)
        except BlockingIOError:
            return
        self._keep(data if self._masker is None else self._masker.feed(data))

    def _keep(self, data: bytes) -> None:
        self._kept = (self._kept + data[-KEPT_BYTES:])[-KEPT_BYTES:]

    def end(self) -> bytes:
        """The end of all that it has printed, when it has ended."""
        self._take()
        if self._masker is not None:
            self._keep(self._masker.end())
        return self._kept

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._read)
        for fd in (self._read, self._write):
            if fd >= 0:
                os.close(fd)


async def ended(
    launcher: Launcher, plan: planner.Plan, fds: list[int], most_s: float, around: stopping.Target
) -> report.Exit | None:
    """Launch, and how it has ended; None: not in time. Whatever happens, it has been waited for, and nothing of it is left.

    Args:
        around: the container that it is launched into.
    """
    child = await launcher.launch(plan, fds)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    loop.add_reader(child.pidfd, _reap, child, done)
    try:
        with anyio.move_on_after(most_s):
            await asyncio.shield(done)
    finally:
        with anyio.CancelScope(shield=True):
            late = not done.done()
            if late:
                await _kill(child.pid, around)  # first: later they may be below nobody that we know
                child.target.send(stopping.KILL)
                await asyncio.wait({done})
            await _kill(child.pid, around)
            launcher.forget(child)
    return None if late else faults.exit_of(done.result(), child.zygote.faults, child.launch_id, child.operations)


def _reap(child: Child, done: asyncio.Future[int]) -> None:
    asyncio.get_running_loop().remove_reader(child.pidfd)
    try:
        done.set_result(os.waitpid(child.pid, 0)[1])
    except ChildProcessError:
        done.set_result(stopping.KILL)  # somebody else of this process has waited for it


async def _kill(session: int, around: stopping.Target) -> None:
    """Kill whoever is left of a session, below its leader or in a container, until nobody is."""
    for _ in range(_ROUNDS):
        members = {*processes.descendants(session), *_members(around)}
        if not sum([_killed(pid, session) for pid in members if _is_in(pid, session)]):
            return
        await anyio.sleep(_ROUND_S)


def _members(around: stopping.Target) -> list[int]:
    """Its processes: below its init, where it has a pid namespace; else wherever its mounts are seen."""
    try:
        if around.mounts >= 0:
            return list(processes.inside(os.fstat(around.mounts)))
        return processes.descendants(around.pid)
    except OSError:
        return []  # it has ended meanwhile, and with it everybody in there


def _is_in(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session and processes.alive(pid)
    except OSError:
        return False


def _killed(pid: int, session: int) -> bool:
    """Kill one, and nobody who has its number meanwhile; whether it was there."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _is_in(pid, session):
            return False
        syscalls.pidfd_send_signal(pidfd, stopping.KILL)
        return True
    except OSError:
        return False
    finally:
        os.close(pidfd)
