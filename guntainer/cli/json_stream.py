"""Where the lines of `batch --json` go, each when it happens: a file, standard output, a pipe that somebody reads. See `json_lines`."""

from __future__ import annotations

import errno
import os
import re
import stat

from guntainer import errors, events, json_lines
from guntainer.reports.writing import refused
from guntainer.watcher import Announcer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.report import Report, Result
    from guntainer.screen import Screen

_OURS = re.compile(r"/dev/fd/(\d{1,9})|/proc/(?:self|thread-self)/fd/(\d{1,9})")
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY


class JsonStream(Announcer):
    """Writes a line of each thing that it is told and that has one.

    A file is emptied first. When nothing more can be written, say because the disk is full, that is told once, `failure` says it
    again, and the batch goes on; what was written is whole lines.

    Args:
        path: as the user gave it; "-": standard output.

    Raises:
        UsageError: it can not be written.
    """

    def __init__(self, path: str) -> None:
        super().__init__(self._write)
        self._path = path
        self.failure: errors.GuntainerError | None = None
        self._own = ""
        """What stands in the file is ours alone: its path."""
        self._screen: Screen | None = None
        self._opened: Screen | None = None
        """Which is closed here."""
        self._exit_code: int | None = None
        self._warn: Callable[[str], None] = lambda _: None
        self._fd = 1 if path == "-" else self._open()

    def _open(self) -> int:
        path = self._path
        try:
            number = _number(path)
            if number >= 0:
                return os.dup(number)  # with its place in the file; a socket can not be opened
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if os.path.exists(path) and not os.path.isfile(path):
                return os.open(path, _OPEN)  # a FIFO waits for its reader here
            self._own = path
            return os.open(path, _OPEN | os.O_CREAT | os.O_TRUNC, 0o666)
        except (OSError, ValueError) as error:  # ValueError: a NUL in it
            raise refused(path, "--json", error) from None

    def attach(self, out: Screen, err: Screen, warn: Callable[[str], None]) -> None:
        """The event loop runs: from now on nothing here waits for a reader.

        Args:
            out, err: standard output and standard error; where it is one of these, lines go through that.
        """
        from guntainer.screen import Screen

        self._warn = warn
        if self._path == "-" or (not self._own and os.path.sameopenfile(self._fd, 1)):
            self._screen = out
        elif not self._own and os.path.sameopenfile(self._fd, 2):
            self._screen = err
        elif not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self._screen = self._opened = Screen(self._fd, self._fail)

    async def finished(self, result: Result) -> None:
        if self._screen is not None:
            await self._screen.room()
        await super().finished(result)

    def end(self, report: Report, exit_code: int | None = None) -> None:
        """All jobs have ended.

        Args:
            exit_code: that the batch ends with.
        """
        self._exit_code = exit_code
        super().end(report)

    def _write(self, event: events.Event) -> None:
        if self.failure is not None:
            return
        line = json_lines.line(event, exit_code=self._exit_code)
        if not line:
            return
        if self._screen is not None:
            self._screen.put(line)
            return
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            self._take_back(len(line) - len(rest))
            self._fail(error)

    def _take_back(self, count: int) -> None:
        """The beginning of a line that can not be written to its end."""
        if count and self._own:
            try:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - count)
            except OSError:
                pass  # a line that is cut is no JSON: nobody takes it for one

    def _fail(self, error: OSError) -> None:
        if self.failure is None:
            why = f"--json {self._path}: {error.strerror}"
            self.failure = errors.GuntainerError(f"{why}; the report is not whole")
            self._warn(f"{why}; no more lines are written there, and the batch goes on")

    async def flush(self) -> None:
        """Wait until a reader has taken everything, or is not waited for any more; not for standard output or error."""
        if self._opened is not None:
            await self._opened.flush()

    def hurry(self) -> None:
        """As that of a screen."""
        if self._opened is not None:
            self._opened.hurry()

    def close(self) -> None:
        """Once more does nothing."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if self._path != "-" and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _number(path: str) -> int:
    """The descriptor of ours that a path means; -1: none."""
    path = os.path.normpath(path) if path.startswith("/") else path
    found = _OURS.fullmatch(path)
    if found is not None:
        return int(found[1] or found[2])
    return _STANDARD.get(path, -1)
