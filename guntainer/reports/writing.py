"""The files that reports are written to: whole, or not there. What can not be written is found out before any job starts.

A job may have been given the folder in which one is to lie. So a file's folder is opened before any job runs, and the file gets
its name in there: no link, and no FIFO, that was put in its place meanwhile leads or holds us anywhere.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors, wholefile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from typing import Self

_OPEN_ALREADY = ("/dev/fd/", "/dev/std", "/proc/")
_STDOUT = "/dev/stdout"
_BEGINNING = 4096


class Target:
    """Where one report goes. What the user has named is looked for here, and never again.

    Args:
        option: what the user called it by, for messages.

    Raises:
        UsageError: it can not be written.
    """

    def __init__(self, path: str, *, option: str) -> None:
        self.path = path
        self.option = option
        self.place = os.path.realpath(path) if "\0" not in path else path  # a symlink stays one
        self._folder = self._special = -1
        try:
            self._open()
        except (OSError, ValueError) as error:  # ValueError: a NUL in it
            self.close()
            raise refused(path, option, error) from None

    def __repr__(self) -> str:
        return f"Target({self.path!r}, option={self.option!r})"

    def _open(self) -> None:
        if os.path.isdir(self.path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if self.path == _STDOUT:
            os.fstat(1)  # it is written to as it is, whoever has made it
            return
        if is_no_file(self.path):
            if not os.access(self.path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._special = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
            return
        self._folder = os.open(os.path.dirname(self.place), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        wholefile.try_to_write(self._folder, os.path.basename(self.place), keep_links=True)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write the report, so that a reader sees the whole of it or none. A pipe is waited for.

        Raises:
            GuntainerError: it can not be written; nothing of it stays.
        """
        try:
            if self.path == _STDOUT:
                wholefile.write_and_close(os.dup(1), pieces)  # it may be a socket, which can not be opened
                return
            if self._special >= 0:
                way = f"/proc/self/fd/{self._special}"
                wholefile.write_and_close(os.open(way, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), pieces)
                return
            wholefile.write(self._folder, os.path.basename(self.place), pieces, keep_links=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            why = error.strerror or str(error)
            raise errors.GuntainerError(f"{self.option} {self.path}: {why}; the report is not written") from None

    def close(self) -> None:
        """Let go of what was opened; does nothing the second time."""
        for fd in (self._folder, self._special):
            if fd >= 0:
                os.close(fd)
        self._folder = self._special = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refused(path: str, option: str, error: OSError | ValueError) -> errors.UsageError:
    """What is said of a file that can not be written."""
    if isinstance(error, FileNotFoundError):
        folder = os.path.dirname(path) or "."
        return errors.UsageError(f"{option} {path}: {folder}: No such file or directory", hint="make it first")
    why = getattr(error, "strerror", None) or str(error)
    return errors.UsageError(f"{option} {path}: {why}", hint="name a file that can be written")


def own_files(results_folder: str | None, sources: Iterable[str] = ()) -> dict[str, str]:
    """What no report is written over, by real path, for `claim`.

    Args:
        results_folder: has files of its own.
        sources: the job file, and those that it takes over from.
    """
    found = {os.path.realpath(path): "that is read as a job file" for path in sources}
    if results_folder is not None:
        folder = os.path.realpath(results_folder)
        found.update((f"{folder}/{name}", "that is a file of the results folder") for name in ("batch.json", ".lock"))
    return found


def claim(path: str, option: str, taken: dict[str, str], jobs: Container[str] = (), folder: str | None = None) -> None:
    """Take a file for a report.

    Args:
        taken: what is taken already: an option, or why it can not be had, by real path.
        jobs: names of folders in `folder`, the results folder: what is in there is each job's own.

    Raises:
        UsageError: it is taken.
    """
    if not path:
        raise errors.UsageError(f"{option}: the name of the file is empty")
    where = path if path == "-" or "\0" in path else os.path.realpath(path)
    if folder is not None and where.startswith(f"{os.path.realpath(folder)}/"):
        first, _, rest = where[len(os.path.realpath(folder)) + 1 :].partition("/")
        if rest and (first in jobs or os.path.lexists(f"{folder}/{first}/result.json")):
            raise errors.UsageError(f"{option} {path}: that is among a job's results", hint="name another file")
    why = taken.setdefault(where, option)
    if why.startswith("that "):
        raise errors.UsageError(f"{option} {path}: {why}", hint="name another file")
    if why != option:
        raise errors.UsageError(f"{why} and {option} would both be written to {path}")
    if not _may_go(path, option):
        raise errors.UsageError(f"{option} {path}: is there already, and is no such report", hint="name another file")


def _may_go(path: str, option: str) -> bool:
    """Whether a report may take the place of what is there: of an earlier one, of an empty file, of what is no file."""
    try:
        if not os.path.isfile(path) or is_no_file(path):
            return True
        with open(path, "rb") as file:
            begin = file.read(_BEGINNING)
    except (OSError, ValueError):
        return True  # whoever writes it says why it can not be written
    return not begin or begin.lstrip().startswith(b"{" if option == "--json" else b"<")


def is_no_file(path: str) -> bool:
    """A pipe, a terminal, /dev/null, /dev/fd/3: written to as it is, since nothing else can take its name."""
    return os.path.exists(path) and (not os.path.isfile(path) or os.path.abspath(path).startswith(_OPEN_ALREADY))
