"""A container's stdin, stdout and stderr: files that are handed over, or pipes that are pumped.

Where nobody watches, the container's stdout IS its log file: no pipe, no pump, no wake-up. Where output is shown as well,
a pipe is read in large chunks into the log and to the watcher; a watcher that is slow holds the container back, not
memory. When the container has ended, its log gets all that it has written, whatever the watcher does.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat

from guntainer import errors, planner, space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from guntainer.masking import Masker, Patterns

    Sink = Callable[[str, bytes], Awaitable[None]]
    Opener = Callable[[str, int], int]

CHUNK = 1 << 20
PIECE = 128 << 10
"""The most that the watcher is given at once: small enough that a slow one is seen to go on."""
_F_SETPIPE_SZ = 1031
DRAIN_S = 2.0
"""How long a descriptor that escaped may keep a pipe open after the container has ended, and how long a watcher may then
take nothing."""


def _open_new(path: str, flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o644)


def open_log(path: str, flags: int, opener: Opener = _open_new) -> int:
    """Open a log to be written, made where it is missing; a file, whatever another job may have put in its place.

    Args:
        opener: as that of open(): a link is not followed, a FIFO not waited for.

    Raises:
        OSError: it can not be made, or something else is there.
    """
    fd = opener(path, flags)
    if not _is_input(os.fstat(fd).st_mode):  # a device is nobody's to make but the host's root
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file", path)
    os.set_blocking(fd, True)
    return fd


class Stdio:
    """One container's standard streams.

    Args:
        stdin: a host path to read from; None: /dev/null.
        stdout, stderr: paths of the logs, made or emptied; they may be the same.
        sink: called with ("stdout" | "stderr", bytes) for each chunk; None: nobody watches.
        secret: what neither the logs nor the watcher may get to see; None: nothing.
        opener: opens the logs, as `open_log` does.
    """

    def __init__(
        self,
        stdin: str | None,
        stdout: str,
        stderr: str,
        sink: Sink | None,
        secret: Patterns | None = None,
        opener: Opener = open_log,
    ) -> None:
        self._sink = sink
        self._opener = opener
        self._secret = secret
        self._pumps: list[_Pump] = []
        self.fds: list[int] = []
        self.cut: str = ""
        try:
            self._open(stdin, stdout, stderr)
        except OSError as error:
            self.close()
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise errors.Exhausted(
                    "stdio: no more descriptors are allowed", hint="raise `ulimit -n`", probe="nofile"
                ) from None
            raise errors.HostError(f"stdio: {errors.describe_oserror(error)}", hint=space.hint(error)) from None
        except errors.HostError:
            self.close()
            raise

    plan = planner.Stdio(stdin=0, stdout=1, stderr=2)

    def _open(self, stdin: str | None, stdout: str, stderr: str) -> None:
        self.fds.append(_open_stdin(stdin) if stdin else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for name, path in (("stdout", stdout), ("stderr", stderr)):
            # O_APPEND: a container that opens /dev/stdout again must not write over its own log
            fresh = 0 if name == "stderr" and path == stdout else os.O_TRUNC
            log = self._opener(path, fresh | os.O_APPEND)
            if self._sink is None and not self._secret:
                self.fds.append(log)
                continue
            self._pumps.append(_Pump(name, log, self._sink, self._secret.stream() if self._secret else None))
            self.fds.append(self._pumps[-1].open())

    def launched(self) -> None:
        """The container has its own copies now: give ours up, start pumping."""
        self._close_ours()
        for pump in self._pumps:
            pump.start()

    async def drain(self) -> None:
        """Wait for the last bytes of a container that has ended: for the log all of them, for the watcher while it takes any."""
        tasks = {pump.task for pump in self._pumps if pump.task is not None}
        while tasks:
            before = sum(pump.passed for pump in self._pumps)
            _, tasks = await asyncio.wait(tasks, timeout=DRAIN_S)
            for pump in self._pumps:
                pump.ending = True
            if tasks and sum(pump.passed for pump in self._pumps) == before:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                break
        for pump in self._pumps:
            pump.empty()
            # The job goes on when its log is cut, and the result says so.
            self.cut = self.cut or pump.cut

    def _close_ours(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()

    def close(self) -> None:
        """Close what is still open; pumps end."""
        self._close_ours()
        for pump in self._pumps:
            pump.close()
        self._pumps.clear()


class _Pump:
    """One stream: from its pipe to its log and to the watcher."""

    def __init__(self, name: str, log: int, sink: Sink | None, masker: Masker | None = None) -> None:
        self._name = name
        self._log = log
        self._sink = sink
        self._masker = masker
        self._read = -1
        self.task: asyncio.Task[None] | None = None
        self.passed = 0
        """How often the watcher has taken something."""
        self.ending = False
        """The container has ended a while ago: what is in the pipe now is the last of it."""
        self.cut = ""

    def open(self) -> int:
        """Make the pipe; returns the end that is the container's."""
        self._read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        try:
            fcntl.fcntl(self._read, _F_SETPIPE_SZ, CHUNK)
        except OSError:
            pass  # over the user's share of pipe memory: pipe-user-pages-soft
        return write

    def start(self) -> None:
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last = False
        while not last:
            last = self.ending
            try:
                data = os.read(self._read, CHUNK)
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_reader(self._read, _wake, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(self._read)
                continue
            if not data and self._masker is None:
                return
            shown = data if self._masker is None else self._masker.feed(data) if data else self._masker.end()
            self._record(shown)
            await self._pass_on(shown)
            if not data:
                return

    async def _pass_on(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            if self._sink is not None:
                await self._sink(self._name, data[at : at + PIECE])
            self.passed += 1
        # a container that writes all the time and a watcher that never waits would keep everybody else from their turn
        await asyncio.sleep(0)

    def _record(self, data: bytes) -> None:
        if self.cut:
            return
        try:
            _write_all(self._log, data)
        except OSError as error:
            self.cut = f"{self._name} was cut: {errors.describe_oserror(error)}"

    def empty(self) -> None:
        """Put what is left in the pipe into the log."""
        left = CHUNK  # a pipe holds no more, and whoever escaped may be writing still
        try:
            while left > 0 and (data := os.read(self._read, left)):
                left -= len(data)
                self._record(data if self._masker is None else self._masker.feed(data))
        except BlockingIOError:
            pass
        if self._masker is not None:
            self._record(self._masker.end())

    def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
        if self._read >= 0:
            os.close(self._read)
        os.close(self._log)


def _open_stdin(path: str) -> int:
    """Open a file to read from; only what opens at once, and has an end.

    Raises:
        HostError: it is a FIFO, a socket or a folder.
    """
    mode = os.stat(path).st_mode
    if _is_input(mode):
        # it may have been put in another's place since: that must not block either
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        mode = os.fstat(fd).st_mode
        if _is_input(mode):
            os.set_blocking(fd, True)
            return fd
        os.close(fd)
    kind = "a folder" if stat.S_ISDIR(mode) else "a socket" if stat.S_ISSOCK(mode) else "a FIFO"
    raise errors.HostError(f"stdin {path}: {kind} can not be read from here", hint="write it to a file and name that")


def _is_input(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _write_all(fd: int, data: bytes) -> None:
    sent = os.write(fd, data)
    while sent < len(data):
        sent += os.write(fd, memoryview(data)[sent:])
