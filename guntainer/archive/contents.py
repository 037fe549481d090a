"""The bytes of files: from libarchive's blocks to the tree, and how many there may be."""

from __future__ import annotations

import ctypes
import os

from guntainer import errors
from guntainer.archive.batch import MOST_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.archive.calls import Calls
    from guntainer.archive.feeder import Feeder, Limits
    from guntainer.archive.tree import Owner, Tree
    from guntainer.archive.xattrs import Attributes, Xattrs

_EOF = 1  # ARCHIVE_EOF
_BATCH_NS = 1 << 62  # times further from 1970 are for Python to take or to refuse
_Bytes = ctypes.c_char * (1 << 30)  # one type for blocks of all sizes: each more would have to be made


class Short(Exception):
    """A file has fewer bytes than its entry says."""


class Contents:
    """Writes what is in files.

    Args:
        is_tar: whether it is one, asked when its first header was read: a file in it may end with a hole, and has never more
            bytes than its entry says. Of others the end must be asked for: a checksum is looked at there.
    """

    def __init__(
        self,
        ffi: Any,
        calls: Calls,
        tree: Tree,
        xattrs: Xattrs,
        limits: Limits,
        feeder: Feeder,
        is_tar: Callable[[Any], bool],
    ) -> None:
        self._ffi = ffi
        self._calls = calls
        self._tree = tree
        self._xattrs = xattrs
        self._limits = limits
        self._feeder = feeder
        self._is_tar = is_tar
        self._is_exact: bool | None = None
        self._most = limits.unpacked_bytes(feeder.size)
        self.size = 0
        """Bytes of all files so far."""
        self.block = (ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_longlong())
        """What libarchive puts a block of a file into: its address, length and place in the file."""
        self._block_at = tuple(map(ctypes.addressof, self.block))

    def small(self, archive: Any, name: bytes, size: int, mode: int, mtime_ns: int, owner: Owner) -> bool:
        """Put a small file into the tree's batch; False: it is not for that, and nothing of it was read."""
        batch = self._tree.batch
        # an archive may say anything: what is below zero is for who reads to the end, whatever was said
        if batch is None or not 0 <= size <= MOST_BYTES or mode > 0o777 or not -_BATCH_NS < mtime_ns < _BATCH_NS:
            return False
        spot = self._tree.spot(name)
        if spot is None:
            return False
        place = batch.place(size)
        buffer, length, offset = self.block
        if self._is_exact is None:
            self._is_exact = self._is_tar(archive)
        had, code = 0, _EOF
        while had < size or not self._is_exact:
            code = self._next_block(archive)
            count = length.value
            if code or offset.value != had or count > size - had:
                break
            ctypes.memmove(place + had, buffer, count)
            had += count
            code = _EOF
        if code and had == size:
            self._count(size)
            batch.add(*spot, name, mode, mtime_ns, owner, size)
            return True
        # it has holes, or is longer than was said
        first = batch.taken(had)
        fd = self._tree.file(name)
        self._count(had)
        os.pwrite(fd, first, 0)
        self.write(archive, fd, size, mode, mtime_ns, owner, code=code, at=had)
        return True

    def _next_block(self, archive: Any) -> int:
        """Ask for more of a file: 0, or ARCHIVE_EOF."""
        code: int = self._calls.read_data_block(archive, *self._block_at)
        if code < 0:
            raise self._ffi.archive_error(archive, code)  # only a warning to libarchive: a wrong checksum in a 7z
        return code

    def write(
        self,
        archive: Any,
        fd: int,
        size: int,
        mode: int,
        mtime_ns: int | None,
        owner: Owner,
        xattrs: Attributes | None = None,
        *,
        code: int | None = None,
        at: int = 0,
    ) -> None:
        """The bytes of a file, then its owner, attributes, mode and time: each would not take the ones before it afterwards.

        Args:
            size: 0 as well where the archive does not know it yet: bytes come until there are no more.
            code: what came of asking for a block, where that was done.
            at: how many bytes are written already.
        """
        length = self.block[1]
        try:
            while True:
                if code is None:
                    code = self._next_block(archive)
                if code == _EOF:
                    break
                if length.value:
                    at = self._block_to(fd)
                code = None
            if size > at:
                if not self._is_tar(archive):
                    # some of libarchive's readers do not miss them: warc
                    raise Short
                os.ftruncate(fd, size)  # a sparse file's last hole
            if owner is not None:
                os.fchown(fd, *owner)
            if xattrs is not None:
                self._xattrs.put(fd, xattrs)
            os.fchmod(fd, mode)
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)

    def _block_to(self, fd: int) -> int:
        """Write the block at hand; returns where it ends."""
        buffer, length, offset = self.block
        self._count(length.value)
        view = memoryview(_Bytes.from_address(buffer.value or 0)).cast("B")[: length.value]
        at = offset.value
        while view:
            sent = os.pwrite(fd, view, at)
            at += sent
            view = view[sent:]
        return at

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self._most:
            self._most = self._more()

    def _more(self) -> int:
        """How many bytes may come, of a download by as much of it as has come by now.

        Raises:
            ArchiveRefused: no more than have come already.
        """
        packed = max(self._feeder.size, self._feeder.consumed())
        most = self._limits.unpacked_bytes(packed)
        if self.size <= most:
            return most
        if most == self._limits.size_bytes:
            raise errors.ArchiveRefused(f"unpacks to more than {most >> 20} MiB")
        raise errors.ArchiveRefused(
            f"unpacks to more than {self._limits.ratio} times its size ({self.size >> 20} MiB of {packed >> 10} KiB)",
            hint="if that is meant, say how much may come: --max-unpacked SIZE",
        )
