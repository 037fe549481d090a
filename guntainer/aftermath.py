"""A shell in what a failed job has left: another container on its layer, with its mounts, variables, user and network.

It is launched as the job was, and its streams are the caller's terminal: see `terminal`, which is made for poll(2), and here is
served by the event loop.
"""

from __future__ import annotations

import _signal
import _socket
import asyncio
import copy
import os
import select

from guntainer import planner, runfolder
from guntainer.container import Container
from guntainer.jobs.model import NO_LIMITS, Scratch
from guntainer.stdio import Stdio
from guntainer.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.assembly import Ground
    from guntainer.container import Left, Outcome
    from guntainer.jobs.model import Job

SHELL = "/bin/sh"
_STOP_S = 1.0


async def shell(left: Left, note: Callable[[str], None]) -> Outcome:
    """Run the rootfs's shell on the caller's terminal, until it ends.

    Raises:
        GuntainerError: it could not be launched.
        CancelledError: after it was ended, and the terminal is as it was.
    """
    for folder in (left.layer, *(mount.layer for mount in left.job.mounts if mount.layer)):
        runfolder.make_mountable(folder)
    container: Container | None = None

    def lost(_number: int) -> None:
        if container is not None:
            container.kill()

    container = Container(
        _job(left.job),
        left.rootfs,
        _on(left.ground, left.layer),
        left.launcher,
        lambda: TerminalStdio(lost),
        note,
        joined=left.joined,
        copied=left.copied,
        terminal=os.environ.get("TERM") or "xterm",
    )
    return await container.run(left.isolation, copy=left.copied is not None)


def _job(job: Job) -> Job:
    """The shell as a job: what the failed one had is in its mounts and variables by now."""
    return job.replace(
        command=(SHELL,),
        entrypoint=(),
        stdin=None,
        timeout_s=None,
        stop_signal=int(_signal.SIGHUP),
        stop_timeout_s=_STOP_S,
        limits=NO_LIMITS,
        scratch=Scratch(),
        services=(),
        workspace=None,
        artifacts=None,
        cache_folders=(),
        secrets=(),
    )


def _on(ground: Ground, layer: str) -> Ground:
    """A ground whose one writable layer is there already, and stays."""
    found = copy.copy(ground)
    kept = _Kept(ground.run().path, layer)
    found.run = lambda: kept
    found.assemblies = {}
    found.belongings = None
    return found


class _Kept(runfolder.RunFolder):
    """A run folder for one container, which takes the layer that it is given."""

    def __init__(self, path: str, layer: str) -> None:
        super().__init__()
        self.path = path
        self._layer = layer

    def layer(self) -> str:
        return self._layer

    def give_back(self, folder: str) -> bool:
        return True  # whoever has left it does that


class TerminalStdio(Stdio):
    """The caller's terminal as the streams of a container.

    Args:
        lost: called with a signal when nobody is left at the caller's end.
    """

    def __init__(self, lost: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = _socket.socketpair()
        self.fds = [theirs.detach()]
        self.cut = ""
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._tty: Terminal | None = Terminal(ours, lambda _number: None, lost, self._later)
        self._served = _Served(loop, self._tty)
        self.plan = planner.Stdio(terminal=0, rows=self._tty.rows, columns=self._tty.columns)

    def launched(self) -> None:
        """The container has its end: keys go to it from now on."""
        self._close_ours()
        assert self._tty is not None
        self._tty.enter(lambda: False)
        self._served.begin()

    async def drain(self) -> None:
        """What the container has written last."""
        self._served.end()
        if self._tty is not None:
            self._tty.drain()

    def close(self) -> None:
        """The terminal is as it was; once more does nothing."""
        self._close_ours()
        self._served.end()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._tty is not None:
            self._tty.close()
            self._tty = None

    def _close_ours(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def _later(self, due: Callable[[], None], seconds: float) -> None:
        if due in self._timers:
            self._timers[due].cancel()
        self._timers[due] = asyncio.get_running_loop().call_later(seconds, due)


class _Served:
    """What of poll(2) a Terminal uses, on an event loop: descriptors are added and removed, and it is told of each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tty: Terminal) -> None:
        self._loop = loop
        self._tty = tty
        self._waits: dict[int, int] = {}
        self._alive = False

    def begin(self) -> None:
        self._alive = True
        self._loop.add_signal_handler(_signal.SIGWINCH, self._tty.resize)
        self._tty.register(self)  # type: ignore[arg-type]

    def end(self) -> None:
        """Once more does nothing."""
        if self._alive:
            self._alive = False
            self._loop.remove_signal_handler(_signal.SIGWINCH)
            for fd in tuple(self._waits):
                self.unregister(fd)

    def register(self, fd: int, events: int) -> None:
        before = self._waits.get(fd, 0)
        self._waits[fd] = events
        if events & select.POLLIN and not before & select.POLLIN:
            self._loop.add_reader(fd, self._ready, fd)
        elif before & select.POLLIN and not events & select.POLLIN:
            self._loop.remove_reader(fd)
        if events & select.POLLOUT and not before & select.POLLOUT:
            self._loop.add_writer(fd, self._ready, fd)
        elif before & select.POLLOUT and not events & select.POLLOUT:
            self._loop.remove_writer(fd)

    def unregister(self, fd: int) -> None:
        before = self._waits.pop(fd)  # KeyError: it was not there, as poll(2)'s has it
        if before & select.POLLIN:
            self._loop.remove_reader(fd)
        if before & select.POLLOUT:
            self._loop.remove_writer(fd)

    def _ready(self, fd: int) -> None:
        if self._alive and fd in self._waits:
            self._tty.ready(fd, self)  # type: ignore[arg-type]
            if self._alive:
                self._tty.register(self)  # type: ignore[arg-type]
