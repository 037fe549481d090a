"""The process beside an unpacker that reads the archive's bytes: it takes their digest and undoes their compression.

    feeder     source ─ decompressor ─→ ring      hashes whenever the ring is full, and what is left at the end
    unpacker                            ring ─ libarchive ─→ tree

A download takes the same way: it is connected, read and hashed in the feeder.

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
from guntainer.archive.feeding import COMPRESSED, GZIP, HEAD, Feeding
from guntainer.archive.ring import Reader, Ring
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.archive.source import Download, FilePart

_TABLE_LAST = (b"PK\3\4", b"PK\5\6", b"7z\xbc\xaf\x27\x1c")  # zip and 7z: their table of contents is at their end


_FREE_BYTES = 1 << 30  # that may come out of an archive of any size


class Limits(Value):
    """What an archive may unpack to.

    Real rootfs are packed 2 to 5 times smaller than they are, and 20 where they are nothing but text; long runs of zeros in
    one go up to 1,000 in gzip and to 10,000 and more in xz and zstd. So a GiB may come out of anything, and beyond it 250
    times the archive's size.
    """

    size_bytes: int = 64 << 30
    entries: int = 4_000_000
    """Folders that are made by the way are counted as well."""
    ratio: int = 250
    """How many times its own size may come out of an archive; 0: as many as you like."""

    def unpacked_bytes(self, archive_bytes: int) -> int:
        """What an archive of that size may unpack to; of 0, which is not known, any."""
        if not self.ratio or not archive_bytes:
            return self.size_bytes
        return min(self.size_bytes, max(_FREE_BYTES, self.ratio * archive_bytes))

    def stream_bytes(self, archive_bytes: int) -> int:
        """What it may decompress to: a bomb may be in what no entry holds. Names, pads and end marks are in the sum."""
        return self.unpacked_bytes(archive_bytes) + self.entries * 4096 + (1 << 20)


class Feeder:
    """The unpacker's end.

    Args:
        source: where it is read belongs to this from here on; the caller closes it afterwards.
        name: of the archive, for messages.
        hash_it: take the SHA-256 of the source's bytes.
        limits: it stops where more comes out of a compression than they let in.
        diff_id: the sha256 that must come out of the compression; "": any.
    """

    def __init__(
        self, source: FilePart | Download, name: str, *, hash_it: bool, limits: Limits, diff_id: str = ""
    ) -> None:
        self._source = source
        self._name = name
        self._most = limits.stream_bytes(source.size)
        self._diff_id = diff_id
        self.head = source.peek(HEAD) if source.lasting else b""
        """How the archive begins; what is streamed through the ring after `source`."""
        self._streams = not source.whole or self.head.startswith(COMPRESSED)
        # without a compression its own digest is what is compared
        self._hash_it = hash_it or bool(diff_id)
        self._ring: Reader | None = None
        self._spool = -1
        self._pid = 0
        self._answers: Any = None
        if self._streams or self._hash_it:
            self._fork()

    def _fork(self) -> None:
        ring = Ring() if self._streams else None
        answers, answer = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        if self.head.startswith(COMPRESSED) and not self.head.startswith(GZIP):
            # both need it before they can do anything
            from guntainer.archive.library import load_libarchive, prepare_process

            prepare_process()
            load_libarchive()
        self._pid = _fork_patiently()
        if self._pid == 0:
            try:
                close_all_but(self._source.kept, answer, *(ring.writers if ring is not None else ()))
                if not self._source.lasting:
                    die_with_parent(parent)  # it may wait for a server, and write nothing meanwhile
                self._feed(ring, answer, parent)
            finally:
                os._exit(0)
        os.close(answer)
        self._answers = open(answers, "rb")
        if ring is not None:
            self._ring = ring.reader()

    def _feed(self, ring: Ring | None, answer: int, parent: int) -> None:
        Feeding(
            self._source,
            ring,
            answer,
            parent,
            hash_it=self._hash_it,
            most=self._most,
            name=self._name,
            diff_id=self._diff_id,
        ).run()

    @property
    def decompresses(self) -> bool:
        """Whether what is read here comes from it."""
        return self._streams

    @property
    def size(self) -> int:
        """Bytes of the source; 0 where it is empty, or a download of which nobody knows."""
        return self._source.size

    @property
    def empty(self) -> bool:
        """Whether there is nothing to read, as far as is known without waiting."""
        return self._source.lasting and not self._source.size

    def source(self, folder: int) -> int | Reader:
        """What libarchive is to read: the descriptor of the archive itself or of a file without a name, or a ring.

        Args:
            folder: an open folder for such a file.

        Raises:
            ArchiveError: it is empty.
            GuntainerError: it could not be downloaded.
        """
        if self._ring is None:
            return self._source.kept
        self.head = self._next().encode("latin-1")
        if not self.head and not self._source.lasting:
            failure = self.failure()
            raise errors.ArchiveError(f"{self._name}: {failure or 'empty'}")
        if not self.head.startswith(_TABLE_LAST):
            return self._ring
        # read as a stream, a zip has no modes and no links, and a 7z nothing
        self._spool = _spooled(self._ring, folder)
        return self._spool

    def consumed(self) -> int:
        """Bytes of the source that were read so far."""
        return self._source.consumed()

    def failure(self) -> str:
        """What is wrong with the stream, where that ended it; waits for the next byte of it, or its end.

        Raises:
            GuntainerError: it could not be downloaded, or is not what was demanded.
        """
        return self._next() if self._ring is not None and not self._ring.next() else ""

    def finish(self) -> tuple[str, str]:
        """Wait for the end of the source: (what is wrong with the stream, or "", its digest, or "").

        Raises:
            GuntainerError: as `failure`.
        """
        if not self._pid:
            return "", ""
        # what comes after the archive's last entry is looked at as well: a checksum, garbage, a cut
        while self._ring is not None and self._ring.next():
            pass
        failure, digest = self._next(), self._next()
        self.close()
        return failure, digest

    def _next(self) -> str:
        try:
            answer = marshal.load(self._answers)
        except EOFError:
            raise errors.ArchiveError(
                f"{self._name}: the process that decompresses and hashes it has died", hint="run it again"
            ) from None
        if isinstance(answer, str):
            return answer
        kind, message, hint, probe = answer
        cls = getattr(errors, kind, errors.ArchiveError)
        raise cls(message, hint=hint, probe=probe)

    def close(self) -> None:
        """The feeder is dead and waited for after this; does nothing the second time."""
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
            self._pid = 0
            self._answers.close()
            if self._ring is not None:
                self._ring.close()
            if self._spool >= 0:
                os.close(self._spool)


def _spooled(ring: Reader, folder: int) -> int:
    """A file without a name with all that comes."""
    name = f".{os.urandom(8).hex()}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    os.unlink(name, dir_fd=folder)
    while view := ring.next():
        while view:
            view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _fork_patiently() -> int:
    """fork(2); where no more processes are allowed just now, again and again for a while: others may end."""
    for _ in range(100):
        try:
            return os.fork()
        except BlockingIOError:
            time.sleep(0.05)
    return os.fork()


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends: prctl(2) PR_SET_PDEATHSIG."""
    from guntainer.kernel import abi, syscalls

    syscalls.prctl(abi.PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def close_all_but(*kept: int) -> None:
    """In a forked process: locks and pipes whose last holder's end means something must not live on in it."""
    low = 0
    for fd in sorted(fd for fd in kept if fd >= 0):
        if fd > low:  # an empty range would be taken for an endless one
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 16)
