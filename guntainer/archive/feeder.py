"""The process beside an unpacker that reads the archive's bytes: it takes their digest and undoes their compression.

    feeder     archive ─ decompressor ─→ pipe      hashes whenever the pipe is full, and what is left at the end
    unpacker                             pipe ─ libarchive ─→ tree

Two processes rather than two threads: decompressing, hashing and writing then have a core each, not turns at one lock, and
the first block is decompressed before the unpacker has loaded libarchive. It is forked by the unpacker, before that has a
second thread, and needs no look after it: its writes fail when the unpacker is gone, and while it only hashes it looks
whether its parent still is the same.
"""

from __future__ import annotations

import marshal
import os
import time

from guntainer import errors
from guntainer.archive.feeding import COMPRESSED, HEAD, PIPE_BYTES, Feeding
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE_LAST = (b"PK\3\4", b"PK\5\6", b"7z\xbc\xaf\x27\x1c")  # zip and 7z: their table of contents is at their end


class Limits(Value):
    """What an archive may unpack to."""

    size_bytes: int = 64 << 30
    entries: int = 4_000_000

    @property
    def stream_bytes(self) -> int:
        """What it may decompress to: a bomb may be in what no entry holds. Names, pads and end marks are in the sum."""
        return self.size_bytes + self.entries * 4096 + (1 << 20)


class Feeder:
    """The unpacker's end.

    Args:
        fd: the archive, open for reading; its offset belongs to the feeder from here on where it is compressed.
        name: of the archive, for messages.
        hash_it: take the SHA-256 of the whole file.
        limits: it stops where more comes out of a compression than they let in.
    """

    def __init__(self, fd: int, name: str, *, hash_it: bool, limits: Limits) -> None:
        self._fd = fd
        self._name = name
        self._most = limits.stream_bytes
        self.head = os.pread(fd, HEAD, 0)
        """How the archive begins; under a compression known after `source`."""
        self._packed = self.head.startswith(COMPRESSED)
        self._pipe = self._spool = -1
        self._pid = 0
        self._answers: Any = None
        if self._packed or hash_it:
            self._fork(hash_it)

    def _fork(self, hash_it: bool) -> None:
        source, sink = os.pipe2(os.O_CLOEXEC) if self._packed else (-1, -1)
        answers, answer = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self._pid = _fork_patiently()
        if self._pid == 0:
            try:
                close_all_but(self._fd, sink, answer)
                Feeding(self._fd, sink, answer, parent, hash_it=hash_it, most=self._most).run()
            finally:
                os._exit(0)
        os.close(answer)
        self._answers = open(answers, "rb")
        if source >= 0:
            os.close(sink)
            self._pipe = source

    @property
    def decompresses(self) -> bool:
        return self._packed

    def source(self, folder: int) -> int:
        """What libarchive is to read: the archive itself, or a pipe, or a file without a name.

        Args:
            folder: an open folder for such a file.
        """
        if not self._packed:
            return self._fd
        self.head = self._next().encode("latin-1")
        if not self.head.startswith(_TABLE_LAST):
            return self._pipe
        # read as a stream, a zip has no modes and no links, and a 7z nothing
        self._spool = self._spooled(folder)
        return self._spool

    def _spooled(self, folder: int) -> int:
        name = f".{os.urandom(8).hex()}"
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        os.unlink(name, dir_fd=folder)
        while data := os.read(self._pipe, PIPE_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def consumed(self) -> int:
        """Bytes of the archive that were read so far: the two processes share its offset."""
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def failure(self) -> str:
        """What is wrong with the compression, where that ended the stream; waits for the next byte of it, or its end."""
        return self._next() if self._packed and not os.read(self._pipe, 1) else ""

    def finish(self) -> tuple[str, str]:
        """Wait for the end of the file: (what is wrong with its compression, or "", its digest, or "")."""
        if not self._pid:
            return "", ""
        # what comes after the archive's last entry is looked at as well: a checksum, garbage, a cut
        while self._packed and os.read(self._pipe, PIPE_BYTES):
            pass
        failure, digest = self._next(), self._next()
        self.close()
        return failure, digest

    def _next(self) -> str:
        try:
            return str(marshal.load(self._answers))
        except EOFError:
            raise errors.ArchiveError(
                f"{self._name}: the process that decompresses and hashes it has died", hint="run it again"
            ) from None

    def close(self) -> None:
        """The feeder is dead and waited for after this; does nothing the second time."""
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
            self._pid = 0
            self._answers.close()
            for fd in (self._pipe, self._spool):
                if fd >= 0:
                    os.close(fd)


def _fork_patiently() -> int:
    """fork(2); where no more processes are allowed just now, again and again for a while: others may end."""
    for _ in range(100):
        try:
            return os.fork()
        except BlockingIOError:
            time.sleep(0.05)
    return os.fork()


def close_all_but(*kept: int) -> None:
    """In a forked process: locks and pipes whose last holder's end means something must not live on in it."""
    low = 0
    for fd in sorted(fd for fd in kept if fd >= 0):
        if fd > low:  # an empty range would be taken for an endless one
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 16)
