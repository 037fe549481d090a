"""Bytes of files, copied: shared by reflinks, else copied by the kernel, else read and written; holes stay holes."""

from __future__ import annotations

import errno
import fcntl
import os

from guntainer.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REFLINK, COPY = "reflink copy", "copy"
"""What a copy is: its bytes are shared with what was copied, until they are written; or they are its own."""
_BLOCK = 1 << 20
_AT_ONCE = 1 << 30  # bytes that copy_file_range is asked for
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_NOT_THIS_FILE = (errno.EINVAL, errno.ETXTBSY)


class Data:
    """All files of one copy: what a file system has refused for one it is not asked again for the next."""

    def __init__(self) -> None:
        self._cloned = self._copied = 0
        self._no_clones: set[int] = set()
        self._by_range = True

    @property
    def kind(self) -> str:
        """What the copy is, of most of its bytes."""
        return REFLINK if self._cloned > self._copied else COPY

    def copy(self, source: int, fd: int, status: os.stat_result) -> None:
        """All of a file into an empty one; holes stay holes."""
        if status.st_dev not in self._no_clones:
            try:
                clone(source, fd)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise
                if error.errno not in _NOT_THIS_FILE:
                    self._no_clones.add(status.st_dev)
            else:
                self._cloned += status.st_size
                return
        self._copied += status.st_size
        size = status.st_size
        if status.st_blocks * 512 >= size:
            self._extent(source, fd, 0, size)
            return
        for start, end in extents(source, size):
            self._extent(source, fd, start, end)
        os.ftruncate(fd, size)

    def _extent(self, source: int, fd: int, at: int, end: int) -> None:
        while at < end:
            count = self._some(source, fd, at, min(end - at, _AT_ONCE))
            if count == 0:
                return  # it was made shorter
            at += count

    def _some(self, source: int, fd: int, at: int, length: int) -> int:
        if self._by_range:
            try:
                count = os.copy_file_range(source, fd, length, at, at)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise
                count = 0
            if count:
                return count
            self._by_range = False  # not between these file systems, or not in this kernel: copy_file_range(2)
        return os.pwrite(fd, os.pread(source, min(length, _BLOCK), at), at)


def clone(source: int, fd: int) -> None:
    """Let an empty file share another one's bytes: FICLONE of ioctl_ficlone(2).

    Raises:
        OSError: the file system has no reflinks, or they are two file systems.
    """
    fcntl.ioctl(fd, abi.FICLONE, source)


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has bytes, as (start, end): SEEK_DATA and SEEK_HOLE of lseek(2)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end
