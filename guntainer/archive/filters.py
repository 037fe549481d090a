"""Undo a compression with libarchive's filters, to the very end of the file: libarchive_read(3) with its format "raw"."""

from __future__ import annotations

import ctypes
import os

from guntainer.archive.library import load_libarchive, prepare_process, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BLOCK = 1 << 18


def undo(fd: int, write: Callable[[memoryview], None]) -> str:
    """Decompress all of the open file, one compression in another as well.

    Args:
        write: called with each block; it is gone when the call returns.

    Returns:
        what is wrong with the compression, or "".
    """
    prepare_process()
    ffi = load_libarchive()
    archive, entry = ffi.read_new(), ffi.entry_new()
    for name in ("raw", "empty"):
        ffi.get_read_format_function(name)(archive)
    ffi.read_support_filter_all(archive)
    try:
        ffi.read_open_fd(archive, fd, _BLOCK)
        if ffi.read_next_header2(archive, entry) != ffi.ARCHIVE_EOF:
            _blocks(ffi, archive, write)
        # some filters end at what they do not know, without a word
        behind = os.pread(fd, _BLOCK, ffi.filter_bytes(archive, -1))
    except ffi.ArchiveError as error:
        return _explain(text_of(error))
    finally:
        ffi.entry_free(entry)
        ffi.read_free(archive)
    return "damaged (something else follows the compressed bytes)" if behind.strip(b"\0") else ""


def _blocks(ffi: Any, archive: Any, write: Callable[[memoryview], None]) -> None:
    buffer, length, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_longlong()
    while True:
        code = ffi.read_data_block(archive, buffer, length, offset)
        if code == ffi.ARCHIVE_EOF:
            return
        if code < 0:
            raise ffi.archive_error(archive, code)
        if length.value:
            write(memoryview((ctypes.c_char * length.value).from_address(buffer.value or 0)).cast("B"))


def _explain(text: str) -> str:
    """libarchive's words for what is wrong, in ours."""
    low = text.lower()
    if "program" in low:
        return f"can not be decompressed ({text})"
    # liblzma's "no progress is possible": there was no more input
    if "truncated" in low or "no progress" in low or "remaining data" in low:
        return "truncated"
    return f"damaged ({text})"
