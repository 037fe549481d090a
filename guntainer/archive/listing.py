"""What is in an archive, without unpacking it: read to its end as an unpacker does, with nothing written.

In a process of its own, as an unpack: libarchive may crash, and its memory is bounded. For a process with one thread.
"""

from __future__ import annotations

import marshal
import os

from guntainer import errors
from guntainer.archive import inspection, worker
from guntainer.archive.feeder import Feeder, Limits, die_with_parent
from guntainer.archive.reading import Reader
from guntainer.archive.source import open_source
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_TOPS = 4096
_IFMT, _IFREG = 0o170000, 0o100000
_PROGRAMS = ("bin", "sbin", "lib", "lib64")
_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"LZIP", "lzip"),
    (b"\x5d\0\0", "lzma"),
    (b"\x1f\x9d", "compress"),
    (b"\x89LZO", "lzop"),
)


class Listing(Value):
    """An archive as it lies there."""

    format: str
    """As libarchive calls it: `POSIX pax interchange format`."""
    compression: str
    """`gzip`, …; "" where there is none."""
    digest: str
    """64 hex digits of the sha256 of all its bytes."""
    size_bytes: int
    entries: int
    unpacked_bytes: int
    """Of its files, as their headers say."""
    architecture: str = ""
    """Of the first program in it: as `inspection.architecture`; "" unknown."""
    image: bool = False
    """It is that of a container image."""


def compression_of(path: str) -> str:
    """How a file is compressed, by its first bytes; "" not at all, or in a way without a name here."""
    with open(path, "rb") as file:
        head = file.read(8)
    return next((name for mark, name in _COMPRESSIONS if head.startswith(mark)), "")


def look(path: str, name: str) -> Listing:
    """Read an archive to its end.

    Raises:
        ArchiveError, ArchiveRefused: it can not be, or passes the limits of an unpack.
    """
    parent = os.getpid()

    def work(write: int) -> None:
        message = marshal.dumps(_answer(path, name, parent))
        while message:
            message = message[os.write(write, message) :]

    pid, read = worker.forked(work)
    try:
        with open(read, "rb") as file:
            data = file.read()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    if not data:
        raise errors.ArchiveError(f"{name}: what read it has died", hint="it may be damaged on purpose")
    answer = marshal.loads(data)
    if isinstance(answer, tuple):
        kind, text, hint = answer
        raise getattr(errors, kind, errors.ArchiveError)(text, hint=hint)
    return Listing(compression=compression_of(path), **answer)


def _answer(path: str, name: str, parent: int) -> dict[str, Any] | tuple[str, str, str]:
    try:
        return _list(path, name, parent)
    except errors.GuntainerError as error:
        return type(error).__name__, error.message, error.hint
    except OSError as error:
        return "ArchiveError", f"{name}: {errors.describe_oserror(error)}", ""
    except BaseException as error:
        return "ArchiveError", f"{name}: {type(error).__name__}: {error}", ""


def _list(path: str, name: str, parent: int) -> dict[str, Any]:
    worker.bound_memory()
    source = open_source(("file", path, 0, os.stat(path).st_size))
    limits = Limits()
    feeder = Feeder(source, name, hash_it=True, limits=limits)
    try:
        die_with_parent(parent)
        from guntainer.archive.library import prepare_process
        from guntainer.runfolder import temporary_folder

        prepare_process()
        folder = os.open(temporary_folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return _Lister(source.kept, name, feeder, folder, limits, lambda _done: None).facts()
    finally:
        feeder.close()


class _Lister(Reader):
    """Reads, and writes nothing; a file without a name in `folder` where a zip lies in a compression."""

    def facts(self) -> dict[str, Any]:
        if self._feeder.empty:
            raise errors.ArchiveError(f"{self._name}: empty")
        self._tops: set[bytes] = set()
        self._inner: set[bytes] = set()  # what is in the first of them, which may be the only one
        self._format = ""
        self._architecture = ""
        try:
            self._read()
            failure, digest = self._feeder.finish()
        finally:
            self._tree.close()
        if failure:
            raise errors.ArchiveError(f"{self._name}: {failure} after {self._entries} entries")
        return {
            "format": self._format,
            "digest": digest,
            "size_bytes": self._feeder.size,
            "entries": self._entries,
            "unpacked_bytes": self._contents.size,
            "architecture": self._architecture,
            "image": any(inspection.is_image(map(os.fsdecode, names)) for names in self._levels()),
        }

    def _levels(self) -> tuple[set[bytes], ...]:
        return (self._tops, self._inner) if len(self._tops) == 1 else (self._tops,)

    def _entry(self, archive: Any, entry: Any) -> None:
        ffi = self._ffi
        if not self._format:
            self._format = (ffi.format_name(archive) or b"").decode("utf-8", "replace")
        name = ffi.entry_pathname(entry) or b""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if parts and len(self._tops) + len(self._inner) < _MOST_TOPS:
            self._tops.add(parts[0])
            if len(self._tops) == 1:
                self._inner.update(parts[1:2])
        if ffi.entry_hardlink(entry) is None and ffi.entry_filetype(entry) & _IFMT == _IFREG:
            self._contents.size += max(0, int(ffi.entry_size(entry)))
            if not self._architecture and {os.fsdecode(part) for part in parts[:-1]} & set(_PROGRAMS):
                self._architecture = self._machine(archive)

    def _machine(self, archive: Any) -> str:
        ffi = self._ffi
        buffer, length, offset = self._contents.block
        code = ffi.read_data_block(archive, buffer, length, offset)
        if code < 0:
            raise ffi.archive_error(archive, code)
        if code == ffi.ARCHIVE_EOF or not length.value or offset.value:
            return ""
        import ctypes

        return inspection.machine_of(ctypes.string_at(buffer.value or 0, min(length.value, inspection.ELF_HEAD))) or ""
