"""Undo an .xz of several blocks on several cores: the .xz file format, sections 2 to 4.

A block can be decompressed without those before it, and the index at the file's end says where each begins. So each thread
takes the next block; what comes out is written in their order. The block whose turn it is passes its bytes on as they come,
those behind it keep theirs until it is their turn: how many are under way is bounded by what that takes.

Every checksum is looked at: by liblzma in the blocks, here in the index. What is unusual (several streams, padding, a damaged
index, large blocks, a download, which has no end yet) is not for this module: `filters` reads it in one go.
"""

from __future__ import annotations

import os
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from guntainer.archive.source import FilePart

MAGIC = b"\xfd7zXZ\0"
_END = b"YZ"
_HEADER = _FOOTER = 12
_INDEX_BYTES = 1 << 20
_DICTIONARY = 8 << 20  # of xz -6, the default
_MOST_BYTES = 42 << 20  # dictionaries, and blocks that wait for their turn: an unpacker is to stay below 64 MiB
_MOST_THREADS = 8
_IN = _OUT = 64 << 10
_AHEAD = 16  # pieces of _OUT that the block whose turn it is may be ahead of its writer


class _Damaged(Exception):
    """A block is not what its index says."""


def undo(source: FilePart, write: Callable[[bytes], None], compressed: tuple[bytes, ...]) -> str | None:
    """Decompress all of it.

    Args:
        write: called with each piece, in order, in this thread.
        compressed: how what is compressed itself begins: that is left to `filters`.

    Returns:
        what is wrong with the compression, or ""; None: it is not for this module, and nothing was written.
    """
    try:
        from _lzma import FORMAT_XZ, LZMADecompressor, LZMAError
    except ImportError:
        return None  # a Python without it
    blocks = _blocks(source)
    threads = _threads(blocks)
    if threads < 2:
        return None
    start = source.again(0, _HEADER)

    def decoder(**more: Any) -> Any:
        made = LZMADecompressor(FORMAT_XZ, **more)
        made.decompress(start)
        return made

    try:
        at, size, _ = blocks[0]
        head = decoder(memlimit=_DICTIONARY + (1 << 20)).decompress(source.again(at, min(size, _IN)), 8)
    except LZMAError:
        return None  # a larger dictionary, or damage, which the other way has words for
    if head.startswith(compressed):
        return None
    _give_back_at_once()
    crew = _Crew(source, blocks, decoder, threads)
    try:
        for piece in crew.pieces():
            write(piece)
    except (LZMAError, EOFError, MemoryError, _Damaged) as error:
        return f"damaged ({error})"
    finally:
        crew.stop()
    source.advance(source.size)
    return ""


def _give_back_at_once() -> None:
    """Have memory of pieces returned when they are freed: malloc would keep as much again for each thread, mallopt(3)."""
    import ctypes

    m_mmap_threshold, m_arena_max = -3, -8
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return  # musl's
    mallopt(m_mmap_threshold, _OUT * 3 // 4)
    mallopt(m_arena_max, 1)


def _threads(blocks: list[tuple[int, int, int]]) -> int:
    """How many of these blocks may be under way at once."""
    if len(blocks) < 2:
        return 1
    largest = max(out for _, _, out in blocks)
    dictionary = min(_DICTIONARY, largest)
    fit = (_MOST_BYTES + largest) // (largest + dictionary)
    return min(fit, len(blocks), len(os.sched_getaffinity(0)), _MOST_THREADS)


def _blocks(source: FilePart) -> list[tuple[int, int, int]]:
    """Each block's (place, bytes in the file, bytes that come out); [] where the file is not simply one stream.

    A number is 7 bits a byte, the lowest first: 1.2. The index is read from its end: 2.1.2.1, its records: 4.3.
    """
    footer = source.again(source.size - _FOOTER, _FOOTER) if source.size > 2 * _FOOTER else b""
    if len(footer) < _FOOTER or footer[10:] != _END or crc32(footer[4:10]) != int.from_bytes(footer[:4], "little"):
        return []
    size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    begin = source.size - _FOOTER - size
    if size > _INDEX_BYTES or begin < _HEADER or footer[8:10] != source.again(6, 2):
        return []
    index = source.again(begin, size)
    if len(index) < size or crc32(index[:-4]) != int.from_bytes(index[-4:], "little") or index[0] != 0:
        return []
    numbers = _numbers(index[1:-4])
    try:
        found, at = [], _HEADER
        for _ in range(next(numbers)):
            unpadded, out = next(numbers), next(numbers)
            length = unpadded + -unpadded % 4
            found.append((at, length, out))
            at += length
    except StopIteration:
        return []
    return found if at == begin else []


def _numbers(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0


class _Crew:
    """Threads at blocks. All that they share is under one lock; liblzma works without it, and without the interpreter's."""

    def __init__(
        self, source: FilePart, blocks: list[tuple[int, int, int]], decoder: Callable[[], Any], threads: int
    ) -> None:
        # not at the top: it takes longer to load than a small archive to be read
        from threading import Condition, Thread

        self._source = source
        self._blocks = blocks
        self._decoder = decoder
        self._threads = threads
        self._changed = Condition()
        self._next = 0  # the block that nobody has taken yet
        self._turn = 0  # the one that is being written
        self._ready: list[list[bytes]] = [[] for _ in blocks]
        self._through: dict[int, Exception | None] = {}  # a block that is decompressed: what is wrong with it
        largest = max(out for _, _, out in blocks)
        self._room = _MOST_BYTES - threads * min(_DICTIONARY, largest)
        self._stopped = False
        for _ in range(threads):
            Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def pieces(self) -> Iterator[bytes]:
        """What comes out, in order.

        Raises:
            Exception: what a thread has failed with, when what comes before it was had.
        """
        for number, (at, size, _) in enumerate(self._blocks):
            while some := self._some(number):
                yield from some
            error = self._through[number]
            if error is not None:
                raise error
            with self._changed:
                self._turn += 1
                self._changed.notify_all()
            self._source.advance(at + size)

    def _some(self, number: int) -> list[bytes]:
        """What is ready of a block, but not all at once: what is held here is room that nobody has counted."""
        with self._changed:
            ready = self._ready[number]
            self._changed.wait_for(lambda: ready or number in self._through)
            some = ready[:_AHEAD]
            del ready[:_AHEAD]
            self._room += sum(map(len, some))
            self._changed.notify_all()
        return some

    def _work(self) -> None:
        while (number := self._take()) is not None:
            error = None
            try:
                self._block(number)
            except Exception as caught:
                error = caught
            with self._changed:
                self._through[number] = error
                self._changed.notify_all()

    def _take(self) -> int | None:
        """The next block to do; None: there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._next < self._turn + self._threads)
            if self._stopped or self._next == len(self._blocks):
                return None
            self._next += 1
            return self._next - 1

    def _block(self, number: int) -> None:
        """Decompress one block; liblzma looks at its checksum when it has all of it."""
        at, size, left = self._blocks[number]
        end = at + size
        decoder = self._decoder()
        while True:
            data = b""
            if decoder.needs_input:
                if at == end:
                    break
                data = self._source.again(at, min(_IN, end - at))
                at += len(data)
                if not data:
                    raise _Damaged("a part of it is missing")
            out = decoder.decompress(data, _OUT)
            left -= len(out)
            if left < 0:
                break
            if out and not self._hand_over(number, out):
                return
        if left:
            raise _Damaged("a block is not as long as the index says")

    def _hand_over(self, number: int, out: bytes) -> bool:
        """Put a piece where the writer finds it, when there is room; False: nobody wants it any longer."""
        ready = self._ready[number]

        def is_room() -> bool:
            if number == self._turn:
                return len(ready) < _AHEAD
            return self._room >= len(out)

        with self._changed:
            self._changed.wait_for(lambda: self._stopped or is_room())
            ready.append(out)
            self._room -= len(out)
            if number == self._turn:
                self._changed.notify_all()
            return not self._stopped
