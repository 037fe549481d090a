"""The process beside an unpacker that reads the archive's bytes: it takes their digest and, of gzip, undoes the compression.

    feeder     archive ─ isal ─→ pipe          hashes whenever the pipe is full, and what is left at the end
    unpacker                     pipe ─ libarchive ─→ tree

Two processes rather than two threads: decompressing, hashing and writing then have a core each, not turns at one lock, and
the first block is decompressed before the unpacker has loaded libarchive. It is forked by the unpacker, before that has a
second thread, and needs no look after it: its writes fail when the unpacker is gone, and while it only hashes it looks
whether its parent still is the same.
"""

from __future__ import annotations

import fcntl
import marshal
import os

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BLOCK = 256 << 10  # of the compressed file; larger ones are mapped anew for each block
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_GZIP = b"\x1f\x8b\x08"  # RFC 1952 2.3.1: two magic bytes, and the only method there is


class Feeder:
    """The unpacker's end.

    Args:
        fd: the archive, open for reading; its offset belongs to the feeder from here on where it is gzip.
        hash_it: take the SHA-256 of the whole file.
    """

    def __init__(self, fd: int, *, hash_it: bool) -> None:
        self._fd = fd
        self._gzip = os.pread(fd, len(_GZIP), 0) == _GZIP
        self.source_fd = fd
        """What libarchive reads: a pipe, or the archive itself."""
        self._pid = 0
        self._answers: Any = None
        if self._gzip or hash_it:
            self._fork(hash_it)

    def _fork(self, hash_it: bool) -> None:
        source, sink = os.pipe2(os.O_CLOEXEC) if self._gzip else (-1, -1)
        answers, answer = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                close_all_but(self._fd, sink, answer)
                _Feeding(self._fd, sink, answer, parent, hash_it=hash_it).run()
            finally:
                os._exit(0)
        os.close(answer)
        self._answers = open(answers, "rb")
        if source >= 0:
            os.close(sink)
            self.source_fd = source

    @property
    def decompresses(self) -> bool:
        return self._gzip

    def consumed(self) -> int:
        """Bytes of the archive that were read so far: the two processes share its offset."""
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def failure(self) -> str:
        """What is wrong with the compression, where that ended the stream; waits for the next byte of it, or its end."""
        return self._next() if self._gzip and not os.read(self.source_fd, 1) else ""

    def finish(self) -> tuple[str, str]:
        """Wait for the end of the file: (what is wrong with its compression, or "", its digest, or "")."""
        if not self._pid:
            return "", ""
        # what comes after the archive's last entry is looked at as well: a checksum, garbage, a cut
        while self._gzip and os.read(self.source_fd, _PIPE_BYTES):
            pass
        failure, digest = self._next(), self._next()
        self.close()
        return failure, digest

    def _next(self) -> str:
        try:
            return str(marshal.load(self._answers))
        except EOFError:
            raise errors.ArchiveError("the process that reads the archive has died", hint="run it again") from None

    def close(self) -> None:
        """The feeder is dead and waited for after this; does nothing the second time."""
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
            self._pid = 0
            self._answers.close()
            if self._gzip:
                os.close(self.source_fd)


def close_all_but(*kept: int) -> None:
    """In a forked process: locks and pipes whose last holder's end means something must not live on in it."""
    low = 0
    for fd in sorted(fd for fd in kept if fd >= 0):
        if fd > low:  # an empty range would be taken for an endless one
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 16)


class _Feeding:
    """The feeder's end."""

    def __init__(self, fd: int, sink: int, answer: int, parent: int, *, hash_it: bool) -> None:
        self._fd = fd
        self._sink = sink
        self._answer = answer
        self._parent = parent
        self._hash_it = hash_it
        self._hash: Any = None
        self._hashed = 0
        self._read = 0

    def run(self) -> None:
        """Two answers: what is wrong with the compression, then the digest."""
        try:
            self._say(self._decompress() if self._sink >= 0 else "")
            self._say(self._digest() if self._hash_it else "")
        except BrokenPipeError:
            pass  # the unpacker has given up
        except OSError as error:
            self._say(f"can not be read ({error.strerror})")
            self._say("")

    def _say(self, text: str) -> None:
        os.write(self._answer, marshal.dumps(text))
        if self._sink >= 0:
            # after the answer: the end of the stream tells the unpacker that there is one
            os.close(self._sink)
            self._sink = -1

    def _decompress(self) -> str:
        try:
            fcntl.fcntl(self._sink, _F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            pass  # over the user's share of pipe memory: pipe-user-pages-soft
        os.set_blocking(self._sink, False)
        from isal import isal_zlib

        try:
            return self._members(isal_zlib)
        except OSError:
            raise
        except Exception as error:
            return f"damaged ({error})"

    def _members(self, zlib: Any) -> str:
        """A gzip file is one member after another, RFC 1952 2.2; zeros after the last are padding, as gzip(1) has it.

        isal's bare decompressor: its file-like one imports more than a whole unpack of a small rootfs takes.
        """
        member: Any = None
        data, at_end = b"", False
        while True:
            if not data and not at_end:
                data = os.read(self._fd, _BLOCK)
                self._read += len(data)
                at_end = not data
            if member is None:
                data = data.lstrip(b"\0")
                if not data:
                    if at_end:
                        return ""
                    continue
                member = zlib.decompressobj(wbits=31)
            out = member.decompress(data, _BLOCK)
            self._write(out)
            if member.eof:
                data, member = member.unused_data, None
            elif at_end and not out:
                return "truncated"
            else:
                data = member.unconsumed_tail

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._sink, view) :]
            except BlockingIOError:
                if not self._hash_it or self._hashed >= self._read:
                    os.set_blocking(self._sink, True)
                    view = view[os.write(self._sink, view) :]
                    os.set_blocking(self._sink, False)
                else:
                    self._hash_block()

    def _hash_block(self) -> bool:
        """Take one more block of the file into the digest; False at its end."""
        if self._hash is None:
            # hashlib's own front would load a dozen other algorithms
            from _hashlib import openssl_sha256

            self._hash = openssl_sha256(usedforsecurity=False)
        block = os.pread(self._fd, _BLOCK, self._hashed)
        self._hash.update(block)
        self._hashed += len(block)
        return bool(block)

    def _digest(self) -> str:
        while self._hash_block():
            if os.getppid() != self._parent:
                raise BrokenPipeError
        return str(self._hash.hexdigest())
