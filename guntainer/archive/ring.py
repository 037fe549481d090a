"""Bytes on their way from the feeder to the unpacker, in memory that both have.

A pipe would copy each byte twice, into pages that it makes and gives back. Here the writer fills one part of a ring after
the other and tells its length through a pipe; the reader gives each part back through another one. Whoever of the two
ends, the other meets the end of its pipe.
"""

from __future__ import annotations

import ctypes
import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PART_BYTES = 256 << 10
"""Of a part: it stays in a processor's own cache until it is read."""
PARTS = 8
_LENGTH = 4  # bytes of a message: whole at every read, since every write is one, pipe(7)


class Ring:
    """Made before the fork(2); afterwards each side keeps its end: `writer` or `reader`, once."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PARTS * PART_BYTES)
        self._told, self._tell = os.pipe2(os.O_CLOEXEC)
        self._freed, self._free = os.pipe2(os.O_CLOEXEC)

    @property
    def writers(self) -> tuple[int, int]:
        """The descriptors that the writer keeps."""
        return self._tell, self._freed

    def writer(self, idle: Callable[[], bool]) -> Writer:
        """The writing end; the caller has closed the reader's descriptors.

        Args:
            idle: does some other work while the ring is full, and returns whether there may be more of it.
        """
        return Writer(self._memory, self._tell, self._freed, idle)

    def reader(self) -> Reader:
        """The reading end; the writer's descriptors are closed by this."""
        os.close(self._tell)
        os.close(self._freed)
        return Reader(self._memory, self._told, self._free)


class Writer:
    """Fills the ring."""

    def __init__(self, memory: mmap.mmap, tell: int, freed: int, idle: Callable[[], bool]) -> None:
        self._memory = memoryview(memory)
        self._tell = tell
        self._freed = freed
        self._idle = idle
        self._part = 0
        self._had = 0
        self._left = PARTS  # that may be filled, the one at hand as well
        os.set_blocking(freed, False)

    def write(self, data: memoryview) -> None:
        """Put bytes into the ring; waits where it is full.

        Raises:
            BrokenPipeError: the reader is gone.
        """
        while data:
            if not self._left:
                self._wait()
            at = self._part * PART_BYTES + self._had
            count = min(len(data), PART_BYTES - self._had)
            self._memory[at : at + count] = data[:count]
            self._had += count
            data = data[count:]
            if self._had == PART_BYTES:
                self._send()

    def _send(self) -> None:
        os.write(self._tell, self._had.to_bytes(_LENGTH, "little"))
        self._part = (self._part + 1) % PARTS
        self._had = 0
        self._left -= 1

    def _wait(self) -> None:
        while True:
            try:
                freed = os.read(self._freed, PARTS)
            except BlockingIOError:
                if self._idle():
                    continue
                os.set_blocking(self._freed, True)
                freed = os.read(self._freed, PARTS)
                os.set_blocking(self._freed, False)
            if not freed:
                raise BrokenPipeError
            self._left += len(freed)
            return

    def close(self) -> None:
        """The reader gets what is in the ring, and then the end."""
        if self._had:
            self._send()
        os.close(self._tell)


class Reader:
    """Empties the ring."""

    def __init__(self, memory: mmap.mmap, told: int, free: int) -> None:
        self._memory = memoryview(memory)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._told = told
        self._free = free
        self._part = -1

    def next(self) -> memoryview:
        """The next bytes, at the end none; waits for them. What the call before this returned is gone."""
        length = self._next()
        at = self._part * PART_BYTES
        return self._memory[at : at + length]

    def address(self) -> tuple[int, int]:
        """As `next`: (where the bytes are, how many)."""
        length = self._next()
        return self._address + self._part * PART_BYTES, length

    def _next(self) -> int:
        if self._part >= 0:
            try:
                os.write(self._free, b"\0")
            except BrokenPipeError:
                pass  # a writer that has said all needs no more room
        length = int.from_bytes(os.read(self._told, _LENGTH), "little")
        self._part = (self._part + 1) % PARTS
        return length

    def close(self) -> None:
        os.close(self._told)
        os.close(self._free)
