"""Logs of jobs for a report: bounded, however long they are, and read without being led away.

A log may be 10 GB of holes, a FIFO, a link to somebody's keys: in a results folder it is opened beneath that folder, and read
where it is a regular file alone.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from guntainer import errors
from guntainer.jobs.names import folder_name
from guntainer.reports.folder import Folder, Unreadable
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from guntainer.report import Result

STREAMS = ("stdout", "stderr")
MOST_BYTES = 256 << 10
"""Of one job's streams together: a quarter from the beginning, the rest from the end."""
_MOST_SERVICES = 50
_LINE = 4 << 10  # how far a cut is moved to fall between two lines


class Log(Value):
    """What is shown of a stream."""

    stream: str
    attempt: int
    """0: the last one; else which of those before it, from 1."""
    size_bytes: int
    """Of the whole."""
    head: bytes
    tail: bytes
    """What is left out lies between the two; empty where all is in the head."""
    name: str = ""
    """Below the results folder."""

    @property
    def left_out(self) -> int:
        return self.size_bytes - len(self.head) - len(self.tail)


class Logs:
    """Where the logs of a batch are.

    Args:
        folder: the results folder; None: they are where the results say.
        folders: the jobs' own ones in there, by id.
    """

    def __init__(self, folder: Folder | None, folders: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._folders = folders or {}
        self.problems: list[str] = []
        """Files that are there and can not be read, one sentence each."""

    def folder_of(self, job_id: str) -> str:
        """The job's own folder in the results folder."""
        return self._folders.get(job_id) or folder_name(job_id)

    def sizes(self, result: Result, *, services: bool = False) -> list[tuple[str, int, int]]:
        """(stream, attempt, bytes) of each log that there is, those of the last attempt first.

        Args:
            services: those of its services as well, as `services/<name>.log`.
        """
        found = []
        for attempt in (0, *range(len(result.attempts), 0, -1)):
            for stream in (*STREAMS, *(self._services(result, attempt) if services else ())):
                opened = self._open(result, stream, attempt)
                if opened is not None:
                    os.close(opened[0])
                    if opened[1]:
                        found.append((stream, attempt, opened[1]))
        return found

    def read(self, result: Result, stream: str, attempt: int, most: int) -> Log | None:
        """At most so many bytes of a log, from its beginning and its end; None where it can not be read."""
        return self._read(result, stream, attempt, most, most // 4)

    def end(self, result: Result, stream: str, attempt: int, most: int) -> Log | None:
        """At most so many bytes from the end of a log."""
        return self._read(result, stream, attempt, most, 0)

    def _read(self, result: Result, stream: str, attempt: int, most: int, first: int) -> Log | None:
        opened = self._open(result, stream, attempt)
        if opened is None:
            return None
        fd, size = opened
        try:
            head, tail = _ends(fd, size, most, first)
        except OSError as error:
            self._tell(result, stream, error.strerror or str(error))
            return None
        finally:
            os.close(fd)
        name = self._name(result, stream, attempt) if self._folder is not None else ""
        return Log(stream=stream, attempt=attempt, size_bytes=size, head=head, tail=tail, name=name)

    def _name(self, result: Result, stream: str, attempt: int) -> str:
        folder = self.folder_of(result.id)
        return f"{folder}/attempt-{attempt}/{stream}" if attempt else f"{folder}/{stream}"

    def _services(self, result: Result, attempt: int) -> list[str]:
        if self._folder is None:
            return []
        names = self._folder.names(self._name(result, "services", attempt))[:_MOST_SERVICES]
        return [f"services/{name}" for name in names if name.endswith(".log") and name.isprintable()]

    def _open(self, result: Result, stream: str, attempt: int) -> tuple[int, int] | None:
        try:
            if self._folder is not None:
                return self._folder.open(self._name(result, stream, attempt))
            of = result.attempts[attempt - 1] if attempt else result
            path = of.stdout if stream == "stdout" else of.stderr
            return None if path is None else _open_own(path)
        except FileNotFoundError:
            if self._folder is not None and stream == "stdout" and not attempt and result.wall_ns:
                self._tell(result, stream, "is missing")
        except Unreadable as error:
            self._tell(result, stream, str(error))
        except OSError as error:
            self._tell(result, stream, error.strerror or str(error))
        return None

    def _tell(self, result: Result, stream: str, why: str) -> None:
        text = f"{self.folder_of(result.id)}/{stream}: {why}"
        if len(self.problems) < 100 and text not in self.problems:
            self.problems.append(text)


def _open_own(path: str) -> tuple[int, int]:
    """A log of this very batch, in a folder of our own."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise Unreadable("not a regular file")
    return fd, status.st_size


def _ends(fd: int, size: int, most: int, first: int) -> tuple[bytes, bytes]:
    """The `first` bytes of a file and the last of `most`, cut between two lines where there is such a place nearby."""
    if size <= most:
        whole = os.pread(fd, size, 0)
        return (whole, b"") if first else (b"", whole)
    head = os.pread(fd, first, 0) if first else b""
    tail = os.pread(fd, most - first, size - (most - first))
    at = head.rfind(b"\n", max(0, len(head) - _LINE))
    if at >= 0:
        head = head[: at + 1]
    at = tail.find(b"\n", 0, _LINE)
    return head, tail[at + 1 :] if at + 1 < len(tail) else tail


@contextmanager
def open_logs(results_folder: str | None, folders: Mapping[str, str] | None = None) -> Iterator[Logs]:
    """The logs of a batch, while a report is made of them.

    Raises:
        GuntainerError: the results folder is gone.
    """
    folder = None
    if results_folder is not None:
        try:
            folder = Folder(results_folder)
        except OSError as error:
            raise errors.GuntainerError(f"the logs can not be read: {errors.describe_oserror(error)}") from None
    try:
        yield Logs(folder, folders)
    finally:
        if folder is not None:
            folder.close()


def level(sizes: Sequence[int], budget: int, most: int) -> int:
    """The largest number of bytes, at most `most`, that each may have so that all together stay within the budget.

    Who has less leaves the rest to the others.
    """
    left = budget
    ordered = sorted(min(size, most) for size in sizes)
    for place, size in enumerate(ordered):
        share = left // (len(ordered) - place)
        if size > share:
            return share
        left -= size
    return most


def shares(sizes: Sequence[int], first: Sequence[bool], budget: int, most: int) -> list[int]:
    """How many bytes each may have: those that come `first`, the failures, before all others."""
    early = level([size for size, early in zip(sizes, first, strict=True) if early], budget, most)
    left = budget - sum(min(size, early) for size, is_first in zip(sizes, first, strict=True) if is_first)
    late = level([size for size, is_first in zip(sizes, first, strict=True) if not is_first], left, most)
    return [min(size, early if is_first else late) for size, is_first in zip(sizes, first, strict=True)]
