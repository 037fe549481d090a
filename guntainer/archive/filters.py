"""Undo a compression with libarchive's filters, to the very end of the file: libarchive_read(3) with its format "raw"."""

from __future__ import annotations

import ctypes

from guntainer.archive.library import load_libarchive, prepare_process, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BLOCK = 64 << 10
_Bytes = ctypes.c_char * (1 << 30)  # one type for blocks of all sizes: each more would have to be made
_LOOKED_AHEAD = 4  # blocks that may have been read, and not consumed yet


class _Input:
    """What libarchive reads from: archive_read_open(3).

    Args:
        read: returns the next bytes, at most as many as it is asked for; b"" at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._blocks: list[tuple[int, bytes]] = []
        self._at = 0
        self.error: BaseException | None = None

    def more(self, _archive: int, _data: int, buffer: Any) -> int:
        """archive_read_callback(3): nothing may be raised through it."""
        try:
            data = self._read(_BLOCK)
        except BaseException as error:
            self.error = error
            return -1
        # the last one has to stay until the next call
        self._blocks = [*self._blocks[1 - _LOOKED_AHEAD :], (self._at, data)]
        self._at += len(data)
        buffer[0] = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        return len(data)

    def is_padded(self, consumed: int) -> bool:
        """Whether there is nothing but zeros from there on; reads to the end, or to what is something else."""
        for at, data in self._blocks:
            if data[max(0, consumed - at) :].strip(b"\0"):
                return False
        while data := self._read(_BLOCK):
            if data.strip(b"\0"):
                return False
        return True


def undo(read: Callable[[int], bytes], write: Callable[[memoryview], None]) -> str:
    """Decompress all of it, one compression in another as well.

    Args:
        read: returns the next bytes, at most as many as it is asked for; b"" at the end.
        write: called with each block; it is gone when the call returns.

    Returns:
        what is wrong with the compression, or "".

    Raises:
        whatever `read` and `write` raise.
    """
    prepare_process()
    ffi = load_libarchive()
    source = _Input(read)
    more = ffi.READ_CALLBACK(source.more)
    archive, entry = ffi.read_new(), ffi.entry_new()
    for name in ("raw", "empty"):
        ffi.get_read_format_function(name)(archive)
    ffi.read_support_filter_all(archive)
    try:
        ffi.read_open(archive, None, ffi.NO_OPEN_CB, more, ffi.NO_CLOSE_CB)
        if ffi.read_next_header2(archive, entry) != ffi.ARCHIVE_EOF:
            _blocks(ffi, archive, write)
        # some filters end at what they do not know, without a word
        padded = source.is_padded(ffi.filter_bytes(archive, -1))
    except ffi.ArchiveError as error:
        if source.error is not None:
            raise source.error from None
        return _explain(text_of(error))
    finally:
        ffi.entry_free(entry)
        ffi.read_free(archive)
    return "" if padded else "damaged (something else follows the compressed bytes)"


def _blocks(ffi: Any, archive: Any, write: Callable[[memoryview], None]) -> None:
    buffer, length, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_longlong()
    while True:
        code = ffi.read_data_block(archive, buffer, length, offset)
        if code == ffi.ARCHIVE_EOF:
            return
        if code < 0:
            raise ffi.archive_error(archive, code)
        if length.value:
            write(memoryview(_Bytes.from_address(buffer.value or 0)).cast("B")[: length.value])


def _explain(text: str) -> str:
    """libarchive's words for what is wrong, in ours."""
    low = text.lower()
    if "program" in low or "memory" in low:
        return f"can not be decompressed ({text})"
    # liblzma's "no progress is possible": there was no more input
    if "truncated" in low or "no progress" in low or "remaining data" in low:
        return "truncated"
    return f"damaged ({text})"
