"""A container's stdin, stdout and stderr: files that are handed over, or pipes that are pumped.

Where nobody watches, the container's stdout IS its log file: no pipe, no pump, no wake-up. Where output is shown as well,
a pipe is read in large chunks into the log and to the watcher; a watcher that is slow holds the container back, not
memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import os

from guntainer import errors, planner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Sink = Callable[[str, bytes], Awaitable[None]]

CHUNK = 1 << 20
_F_SETPIPE_SZ = 1031
DRAIN_S = 2.0
"""How long output is waited for after the container has ended: only a descriptor that escaped can keep a pipe open."""


class Stdio:
    """One container's standard streams.

    Args:
        stdin: a host path to read from; None: /dev/null.
        stdout, stderr: paths of the logs, made or emptied; they may be the same.
        sink: called with ("stdout" | "stderr", bytes) for each chunk; None: nobody watches.
    """

    def __init__(self, stdin: str | None, stdout: str, stderr: str, sink: Sink | None) -> None:
        self._sink = sink
        self._logs: list[int] = []
        self._pumps: list[tuple[str, int, int]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.fds: list[int] = []
        self.cut: str = ""
        try:
            self._open(stdin or "/dev/null", stdout, stderr)
        except OSError as error:
            self.close()
            raise errors.HostError(f"stdio: {errors.describe_oserror(error)}") from None

    plan = planner.Stdio(stdin=0, stdout=1, stderr=2)

    def _open(self, stdin: str, stdout: str, stderr: str) -> None:
        self.fds.append(os.open(stdin, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY))
        for name, path in (("stdout", stdout), ("stderr", stderr)):
            # O_APPEND: a container that opens /dev/stdout again must not write over its own log
            fresh = 0 if name == "stderr" and path == stdout else os.O_TRUNC
            log = os.open(path, os.O_WRONLY | os.O_CREAT | fresh | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if self._sink is None:
                self.fds.append(log)
                continue
            self._logs.append(log)
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            self.fds.append(write)
            self._pumps.append((name, read, log))
            try:
                fcntl.fcntl(read, _F_SETPIPE_SZ, CHUNK)
            except OSError:
                pass  # over the user's share of pipe memory: pipe-user-pages-soft

    def launched(self) -> None:
        """The container has its own copies now: give ours up, start pumping."""
        self._close_ours()
        self._tasks = [asyncio.create_task(self._pump(*pump)) for pump in self._pumps]

    async def _pump(self, name: str, read: int, log: int) -> None:
        assert self._sink is not None
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(read, CHUNK)
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_reader(read, _wake, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(read)
                continue
            if not data:
                return
            if not self.cut:
                try:
                    _write_all(log, data)
                except OSError as error:
                    # The job goes on; its log is cut, and the result says so.
                    self.cut = f"{name} was cut: {errors.describe_oserror(error)}"
            await self._sink(name, data)

    async def drain(self) -> None:
        """Wait, with a bound, for the last bytes of a container that has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)

    def _close_ours(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()

    def close(self) -> None:
        """Close what is still open; pumps end."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        self._close_ours()
        for _, read, _log in self._pumps:
            os.close(read)
        for log in self._logs:
            os.close(log)
        self._pumps.clear()
        self._logs.clear()


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _write_all(fd: int, data: bytes) -> None:
    sent = os.write(fd, data)
    while sent < len(data):
        sent += os.write(fd, memoryview(data)[sent:])
