"""Write an archive with libarchive, entry by entry: libarchive_write(3) through libarchive-c's function table.

What is written where is the caller's: nothing here opens a file.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from guntainer import errors
from guntainer.archive.library import load_libarchive, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_BLOCK = 1 << 20
_HOLE = 1 << 30
_MAP_NORESERVE = 0x4000
_IFREG, _IFLNK = 0o100000, 0o120000


class Writer:
    """One archive on its way into a descriptor, which stays the caller's.

    Args:
        format: as libarchive names it: pax, gnutar, zip, raw, …
        filter: what it is compressed with; "": nothing.
    """

    def __init__(self, fd: int, format: str = "pax", filter: str = "") -> None:  # noqa: A002
        self._ffi = ffi = load_libarchive()
        self._zeros: Any = None
        entry = ffi.c_archive_entry_p
        # functions that libarchive-c's own table has not
        self._symlink = ffi.ffi("entry_copy_symlink", [entry, ffi.c_char_p], None)
        self._hard_link = ffi.ffi("entry_copy_hardlink", [entry, ffi.c_char_p], None)
        self._extent = ffi.ffi("entry_sparse_add_entry", [entry, ffi.c_longlong, ffi.c_longlong], None)
        self._xattr = ffi.ffi("entry_xattr_add_entry", [entry, ffi.c_char_p, ffi.c_void_p, ffi.c_size_t], None)
        self._write = ffi.ffi("write_data", [ffi.c_archive_p, ctypes.c_void_p, ctypes.c_size_t], ctypes.c_ssize_t)
        self._archive = ffi.write_new()
        try:
            if format == "raw":
                ffi.ffi("write_set_format_raw", [ffi.c_archive_p], ffi.c_int, ffi.check_int)(self._archive)
            else:
                ffi.get_write_format_function(format)(self._archive)
            if format == "pax":
                self._option("format", "pax", "xattrheader", "SCHILY")
            if filter:
                ffi.get_write_filter_function(filter)(self._archive)
                self._option("filter", filter, "threads", str(len(os.sched_getaffinity(0))))
            ffi.write_set_bytes_per_block(self._archive, _BLOCK)
            ffi.write_set_bytes_in_last_block(self._archive, 1)
            ffi.write_open_fd(self._archive, fd)
        except BaseException:
            self.free()
            raise

    def _option(self, kind: str, module: str, name: str, value: str) -> None:
        """An option that this build of the library may not know."""
        words = [word.encode() for word in (module, name, value)]
        ffi = self._ffi
        ffi.ffi(f"write_set_{kind}_option", [ffi.c_archive_p, *[ffi.c_char_p] * 3], ffi.c_int)(self._archive, *words)

    def begin(
        self,
        name: bytes,
        kind: int,
        mode: int,
        *,
        size: int = 0,
        mtime_ns: int = 0,
        owner: tuple[int, int] = (0, 0),
        link: bytes = b"",
        xattrs: Sequence[tuple[bytes, bytes]] = (),
        extents: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """An entry's header.

        Args:
            kind: S_IFREG and so on; 0: a hard link to the entry named `link`.
            extents: (offset, length) of a sparse file's bytes; what lies between them is told by `hole`.

        Raises:
            OSError: it can not be written.
            GuntainerError: it can not be said in this format.
        """
        ffi = self._ffi
        entry = ffi.entry_new()
        try:
            ffi.entry_copy_pathname(entry, name)
            ffi.entry_set_filetype(entry, kind or _IFREG)
            ffi.entry_set_perm(entry, mode)
            ffi.entry_set_mtime(entry, *divmod(mtime_ns, 1_000_000_000))
            ffi.entry_set_uid(entry, owner[0])
            ffi.entry_set_gid(entry, owner[1])
            ffi.entry_set_size(entry, size)
            if not kind:
                self._hard_link(entry, link)
            elif kind == _IFLNK:
                self._symlink(entry, link)
            for key, value in xattrs:
                self._xattr(entry, key, value, len(value))
            for extent in extents if extents is not None else ():
                self._extent(entry, *extent)
            ffi.write_header(self._archive, entry)
        except ffi.ArchiveError as error:
            raise self._failure(error) from None
        finally:
            ffi.entry_free(entry)

    def data(self, data: bytes) -> None:
        """Bytes of the entry that was begun."""
        self._put(data, len(data))

    def hole(self, length: int) -> None:
        """Zeros between a sparse file's bytes: libarchive counts them, and does not look at them."""
        if not length:
            return
        if self._zeros is None:
            self._zeros = mmap.mmap(-1, _HOLE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._zeros))
        while length > 0:
            self._put(address, min(length, _HOLE))
            length -= _HOLE

    def _put(self, buffer: Any, length: int) -> None:
        if length and self._write(self._archive, buffer, length) != length:
            raise self._failure(self._ffi.archive_error(self._archive, -1))

    def end(self) -> None:
        """The entry that was begun is whole."""
        try:
            self._ffi.write_finish_entry(self._archive)
        except self._ffi.ArchiveError as error:
            raise self._failure(error) from None

    def close(self) -> None:
        """The archive's end.

        Raises:
            OSError: it can not be written.
        """
        try:
            self._ffi.write_close(self._archive)
        except self._ffi.ArchiveError as error:
            raise self._failure(error) from None

    def free(self) -> None:
        """After `close`, or instead of it where something has failed."""
        if self._archive is not None:
            archive, self._archive = self._archive, None
            self._ffi.write_fail(archive)
            self._ffi.write_free(archive)

    def _failure(self, error: Any) -> Exception:
        if error.errno in errno.errorcode and error.errno > 0:
            return OSError(error.errno, os.strerror(error.errno))
        return errors.GuntainerError(text_of(error))
