"""A link in an event loop: its descriptors are watched there, and its tool's end is waited for without blocking."""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.network.link import Link


class Attached:
    """The private network of one container of a supervisor.

    Args:
        kill: kills the container, which can not have its network.
    """

    def __init__(self, link: Link, kill: Callable[[], None]) -> None:
        self.link = link
        self.error: Exception | None = None
        """Why there is no network: to be raised when the container has ended."""
        self._kill = kill
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def launched(self, pid: int) -> None:
        """The container with this init has been cloned."""
        self.link.launched(pid, lambda fd: self._loop.add_reader(fd, self._ready, fd), self._loop.remove_reader)
        self._timer = self._loop.call_later(self.link.patience_s, self._late)

    def _ready(self, fd: int) -> None:
        if self.error is not None:
            self._loop.remove_reader(fd)
            return
        self._go_on(lambda: self.link.ready(fd))

    def _late(self) -> None:
        if self.link.rising and self.error is None:
            self._go_on(self.link.late)

    def _go_on(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self.error = error
            self._kill()

    async def passed_on(self) -> None:
        """The container has ended by itself: what it has sent last is passed on."""
        for wait_s in self.link.passing_on():
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """End the tool, wait for that, close everything; not to be cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        self.link.kill()
        pidfd = self.link.pidfd
        if pidfd >= 0:
            ended = asyncio.Event()
            self._loop.remove_reader(pidfd)
            self._loop.add_reader(pidfd, ended.set)
            await ended.wait()
            self._loop.remove_reader(pidfd)
        self.link.close()
