"""Where an archive's bytes come from: a file, a part of one, or a stream that is downloaded while it is unpacked.

    ("file", path, offset, size)   at offset 0 the file to its end, whatever `size` says; else `size` bytes from `offset`:
                                   a layer in the tar of an image that is not compressed
    ("remote", request)            plain values, from which `remote.download.open_stream` makes a stream

The unpacker and its feeder hold the same source: the unpacker asks how far it is, the feeder reads it. A file can be read
again, so its digest may lag behind; a stream can not, and is hashed as it comes.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Stream(Protocol):
        """What `remote.download.open_stream` returns."""

        size: int
        """Bytes that will come; -1 unknown."""

        def read(self, n: int) -> bytes:
            """Up to `n` bytes, b"" at the end; blocks.

            Raises:
                GuntainerError: it can not be had to its end.
            """

        def close(self) -> None: ...


class FilePart:
    """Bytes of an open file, whose offset belongs to this.

    Args:
        size: bytes from `offset` on; None: to the file's end.
    """

    def __init__(self, fd: int, offset: int = 0, size: int | None = None) -> None:
        self.kept = fd
        self._offset = offset
        status = os.fstat(fd)
        self.size = status.st_size - offset if size is None else size
        self.key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        """What stands for the file's content, as `store.lookup.identity_of` has it."""
        self.whole = offset == 0 and size is None
        """libarchive may read the descriptor itself."""
        os.lseek(fd, offset, os.SEEK_SET)

    def __repr__(self) -> str:
        return f"FilePart({self.kept}, {self._offset}, {self.size})"

    lasting = True
    """It can be read again."""

    def start(self) -> None:
        pass

    def changed(self) -> bool:
        """Whether somebody has written to the file since it was opened."""
        status = os.fstat(self.kept)
        return (status.st_size, status.st_mtime_ns) != (self.key[2], self.key[3])

    def consumed(self) -> int:
        """Bytes read so far, by whichever process: they share the file's offset."""
        return os.lseek(self.kept, 0, os.SEEK_CUR) - self._offset

    def peek(self, n: int) -> bytes:
        """The first `n` bytes, or fewer where there are not so many."""
        return self.again(0, n)

    def read(self, n: int) -> bytes:
        """The next bytes, at most `n`; b"" at the end."""
        if self.whole:
            return os.read(self.kept, n)
        return os.read(self.kept, max(0, min(n, self.size - self.consumed())))

    def again(self, at: int, n: int) -> bytes:
        """Up to `n` bytes from `at`; those that are read next stay the same."""
        if not self.whole:
            n = max(0, min(n, self.size - at))
        return os.pread(self.kept, n, self._offset + at)

    def advance(self, at: int) -> None:
        """What was read again up to there counts as read."""
        os.lseek(self.kept, self._offset + at, os.SEEK_SET)

    def close(self) -> None:
        os.close(self.kept)


class Download:
    """A stream from a server: opened by the feeder alone, read once.

    Args:
        request: what `remote.download.open_stream` takes.
    """

    whole = False
    lasting = False
    key: tuple[int, ...] = ()

    def __init__(self, request: tuple[Any, ...]) -> None:
        self._request = request
        self._stream: Stream | None = None
        self._ahead = b""
        self._read = 0
        # Its offset is the number of bytes read, its size that of all: both processes see them.
        self.kept = self._count = os.memfd_create("download", os.MFD_CLOEXEC)

    def __repr__(self) -> str:
        return f"Download({self._read} of {self.size})"  # without the request: it may hold a token

    def again(self, at: int, n: int) -> bytes:
        raise ValueError("a download can be read once")

    @property
    def size(self) -> int:
        """Bytes that will come; 0: nobody knows yet."""
        return os.fstat(self._count).st_size

    def start(self) -> None:
        """Connect; in the feeder.

        Raises:
            GuntainerError: it can not be had.
        """
        from guntainer.remote.download import open_stream

        self._stream = open_stream(self._request)
        if self._stream.size > 0:
            try:
                os.ftruncate(self._count, self._stream.size)
            except OSError:
                pass  # over RLIMIT_FSIZE: it is for the progress alone

    def consumed(self) -> int:
        return os.lseek(self._count, 0, os.SEEK_CUR)

    def changed(self) -> bool:
        return False

    def peek(self, n: int) -> bytes:
        while len(self._ahead) < n:
            data = self._more(n - len(self._ahead))
            if not data:
                break
            self._ahead += data
        return self._ahead[:n]

    def read(self, n: int) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:n], self._ahead[n:]
        else:
            data = self._more(n)
        self._read += len(data)
        os.lseek(self._count, self._read, os.SEEK_SET)
        return data

    def _more(self, n: int) -> bytes:
        assert self._stream is not None
        return self._stream.read(n)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        os.close(self._count)


def open_source(source: tuple[Any, ...]) -> FilePart | Download:
    """A task's source, opened.

    Raises:
        OSError: the file can not be opened.
    """
    if source[0] == "remote":
        return Download(source[1])
    _, path, offset, size = source
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return FilePart(fd, offset, size if offset else None)
