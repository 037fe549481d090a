"""Compress a stream on its way into a file: gzip by isal, several times faster than zlib, the rest by libarchive's filters."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Compressor(Protocol):
        """What takes a stream."""

        def write(self, data: bytes) -> None: ...

        def close(self) -> None:
            """The stream's end."""

        def free(self) -> None:
            """After `close`, or instead of it."""


_LEVEL = 2  # isal's own default, about gzip's 1


class Sink:
    """Bytes into a descriptor, counted, and hashed where that is asked for."""

    def __init__(self, fd: int, digest: Any = None) -> None:
        self._fd = fd
        self._digest = digest
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        if self._digest is not None:
            self._digest.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """Nothing is held back."""

    free = close


class _Gzip:
    """RFC 1952, with no time and no name in it: the same bytes give the same file."""

    def __init__(self, sink: Sink) -> None:
        from isal import isal_zlib

        self._sink = sink
        self._stream = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, 31)

    def write(self, data: bytes) -> None:
        packed = self._stream.compress(data)
        if packed:
            self._sink.write(packed)

    def close(self) -> None:
        self._sink.write(self._stream.flush())

    def free(self) -> None:
        """Nothing is held."""


class _Filter:
    """One of libarchive's filters, over its format of one entry that is nothing but its bytes."""

    def __init__(self, name: str, fd: int) -> None:
        from guntainer.archive.writing import Writer

        self._writer = Writer(fd, "raw", name)
        self.free = self._writer.free
        self.write = self._writer.data
        self._writer.begin(b"data", 0o100000, 0o644)

    def close(self) -> None:
        self._writer.end()
        self._writer.close()


def compressor(name: str, sink: Sink, fd: int) -> Compressor:
    """What compresses by the filter `name` into a sink; one of libarchive's goes straight into its descriptor."""
    if not name:
        return sink
    return _Gzip(sink) if name == "gzip" else _Filter(name, fd)
