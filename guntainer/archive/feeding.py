"""The feeder's own end: decompress an archive into a ring, and hash it; download it first, where it is on a server.

gzip is undone by isal, several times faster than by libarchive's reader and with the checksum looked at, which that does not
do; every other compression by libarchive's filters. A compressed file is read to its very end, not to that of the archive
in it: the checksum comes last, and what follows it is damage too. What is not noticed: a changed byte under a compression
without a checksum (.lzma, .Z, zstd and lz4 where their writer left it out).
"""

from __future__ import annotations

import marshal
import os

from guntainer import errors
from guntainer.archive.source import FilePart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.archive.ring import Ring, Writer
    from guntainer.archive.source import Download

    Failure = str | tuple[str, str, str, str]

_BLOCK = 64 << 10  # larger ones are mapped, and their pages cleared, anew for each block
GZIP = b"\x1f\x8b\x08"  # RFC 1952 2.3.1: two magic bytes, and the only method there is
_XZ = b"\xfd7zXZ\0"
# How a file may begin that libarchive has a filter for. One too many does no harm: it is passed on as it is.
COMPRESSED = (
    GZIP,
    b"BZh",  # bzip2
    _XZ,
    b"\x28\xb5\x2f\xfd",  # zstd
    *(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60)),  # a frame to skip before zstd or lz4
    b"\x04\x22\x4d\x18",  # lz4
    b"\x02\x21\x4c\x18",  # lz4 of old
    b"LZIP",
    b"\x5d\0\0",  # lzma
    b"\x1f\x9d",  # compress
    b"\x89LZO",
    b"LRZI",
    b"GRZip",
    b"\xed\xab\xee\xdb",  # rpm
    b"begin",  # uuencode
)
HEAD = 8


class _TooMuch(Exception):
    """A limit is passed."""


class Feeding:
    """One archive's bytes, on their way.

    Args:
        ring: for what comes out; None where nothing is to be.
        answer: the pipe for answers.
        parent: the unpacker's pid.
        most: bytes that may come out.
        diff_id: the sha256 that what comes out of the compression must have; "": any.
    """

    def __init__(
        self,
        source: FilePart | Download,
        ring: Ring | None,
        answer: int,
        parent: int,
        *,
        hash_it: bool,
        most: int,
        name: str = "",
        diff_id: str = "",
    ) -> None:
        self._source = source
        self._sink: Writer | None = ring.writer(self._hash_ahead) if ring is not None else None
        self._answer = answer
        self._parent = parent
        self._hash_it = hash_it
        self._most = most
        self._name = name
        self._diff_id = diff_id
        self._written = 0
        self._told = False
        self._hash: Any = None
        self._hashed = 0
        self._read = 0
        self._diff: Any = None

    def run(self) -> None:
        """Answer two things: what is wrong with the stream, the digest. Before them, of a stream, how it begins.

        What is wrong is a text to follow the archive's name, or an error: (class, message, hint, probe).
        """
        try:
            failure = self._stream() if self._sink is not None else ""
            self._say(failure)
            self._say("" if not self._hash_it or (failure and not self._source.lasting) else self._digest())
        except OSError:
            pass  # the unpacker has given up; or it is told by the answer that is missing

    def _stream(self) -> Failure:
        try:
            self._source.start()
            failure = self._pass_on()
            return failure or (self._demanded(self._diff.hexdigest()) if self._diff is not None else "")
        except BrokenPipeError:
            raise
        except _TooMuch as error:
            return str(error)
        except errors.GuntainerError as error:
            return type(error).__name__, error.message, error.hint, error.probe
        except OSError as error:
            return f"can not be read ({error.strerror})"

    def _demanded(self, found: str) -> Failure:
        if self._diff_id in ("", found):
            return ""
        message = f"{self._name}: the sha256 of what is in it is {found}, but {self._diff_id} was demanded"
        return "RootfsError", message, "nothing was run or kept", ""

    def _tell_head(self, data: bytes) -> None:
        os.write(self._answer, marshal.dumps(data.decode("latin-1")))
        self._told = True

    def _say(self, answer: Failure) -> None:
        if self._sink is not None and not self._told:
            self._tell_head(b"")
        os.write(self._answer, marshal.dumps(answer))
        if self._sink is not None:
            # after the answer: the end of the stream tells the unpacker that there is one
            self._sink.close()
            self._sink = None

    def _pass_on(self) -> Failure:
        head = self._source.peek(HEAD)
        if not head.startswith(COMPRESSED):
            return self._as_it_is()
        if self._diff_id:
            self._diff = _new_hash()
        if head.startswith(_XZ) and isinstance(self._source, FilePart):
            failure = self._blocks(self._source)
            if failure is not None:
                return failure
        if not head.startswith(GZIP):
            return self._filters()
        from isal import isal_zlib

        try:
            return self._filters() if self._twice(isal_zlib) else self._members(isal_zlib)
        except (OSError, _TooMuch, errors.GuntainerError):
            raise
        except Exception as error:
            return f"damaged ({error})"

    def _as_it_is(self) -> Failure:
        """What is not compressed; its digest is that of what comes out as well."""
        while data := self._take(_BLOCK):
            self._write(data)
        return ""

    def _take(self, n: int) -> bytes:
        """The next bytes of the source. A stream's are hashed at once: nobody can come back to them."""
        data = self._source.read(n)
        self._read += len(data)
        if self._hash_it and not self._source.lasting:
            if self._hash is None:
                self._hash = _new_hash()
            self._hash.update(data)
        return data

    def _twice(self, zlib: Any) -> bool:
        """Whether what is in a gzip file is compressed itself."""
        head = zlib.decompressobj(wbits=31).decompress(self._source.peek(4096), HEAD)
        return bool(head.startswith(COMPRESSED))

    def _blocks(self, source: FilePart) -> str | None:
        from guntainer.archive import xz

        def write(data: bytes) -> None:
            self._read = source.consumed()
            self._write(data)

        return xz.undo(source, write, COMPRESSED)

    def _filters(self) -> Failure:
        # not at the top: gzip needs nothing of it, and is to start at once
        from guntainer.archive import filters

        return filters.undo(self._take, self._write)

    def _members(self, zlib: Any) -> Failure:
        """A gzip file is one member after another, RFC 1952 2.2; zeros after the last are padding, as gzip(1) has it.

        Anything else after it gzip(1) passes over with a warning. Here it is damage: the next member with its first byte
        wrong looks the same.

        isal's bare decompressor: its file-like one imports more than a whole unpack of a small rootfs takes.
        """
        member: Any = None
        data, at_end = b"", False
        while True:
            if not data and not at_end:
                data = self._take(_BLOCK)
                at_end = not data
            if member is None:
                data = data.lstrip(b"\0")
                if not data:
                    if at_end:
                        return ""
                    continue
                if not GZIP.startswith(data[: len(GZIP)]):
                    return "damaged (something else follows the compressed bytes)"
                member = zlib.decompressobj(wbits=31)
            out = member.decompress(data, _BLOCK)
            self._write(out)
            if member.eof:
                data, member = member.unused_data, None
            elif at_end and not out:
                return "truncated"
            else:
                data = member.unconsumed_tail

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        if view and not self._told:
            self._tell_head(bytes(view[:HEAD]))
        self._written += len(view)
        if self._written > self._most:
            raise _TooMuch(f"decompresses to more than {self._most >> 20} MiB")
        if self._diff is not None:
            self._diff.update(view)
        assert self._sink is not None
        self._sink.write(view)

    def _hash_ahead(self) -> bool:
        """While the unpacker is behind: whether there was something of the file to be hashed."""
        if not self._hash_it or not self._source.lasting or self._hashed >= self._read:
            return False
        return self._hash_block()

    def _hash_block(self) -> bool:
        """Take one more block of the file into the digest; False at its end."""
        if self._hash is None:
            self._hash = _new_hash()
        block = self._source.again(self._hashed, _BLOCK) if self._source.lasting else b""
        self._hash.update(block)
        self._hashed += len(block)
        return bool(block)

    def _digest(self) -> Failure:
        while self._hash_block():
            if os.getppid() != self._parent:
                raise BrokenPipeError
        digest = str(self._hash.hexdigest())
        # what is not compressed needs no second digest
        return (self._demanded(digest) if self._diff is None else "") or digest


def _new_hash() -> Any:
    # hashlib's own front would load a dozen other algorithms
    from _hashlib import openssl_sha256

    return openssl_sha256(usedforsecurity=False)
