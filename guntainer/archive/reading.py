"""Read an archive with libarchive, entry by entry, into a Tree.

libarchive_read(3) through libarchive-c's function table; its own extraction is not used, because its flags do not stop
every escape. gzip is decompressed by `feeder`, several times faster and with the checksum looked at, which libarchive's
reader does not do.
"""

from __future__ import annotations

import ctypes
import errno
import os

from guntainer import errors
from guntainer.archive.feeder import Feeder
from guntainer.archive.tree import Tree, show
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BLOCK = 1 << 20
_PACKAGES = "libarchive13 (Debian, Ubuntu) or libarchive (Fedora, Arch, Alpine)"
_FORMATS = ("tar", "gnutar", "cpio", "zip", "7zip", "ar", "iso9660", "xar", "rar", "cab", "lha", "warc")
_IFMT, _IFREG, _IFDIR, _IFLNK, _IFIFO, _IFSOCK = 0o170000, 0o100000, 0o040000, 0o120000, 0o010000, 0o140000


class Limits(Value):
    """What an archive may unpack to."""

    size_bytes: int = 64 << 30
    entries: int = 4_000_000


class Counts(Value):
    """What was in an archive, and what was left out of the tree."""

    entries: int = 0
    size_bytes: int = 0
    devices: int = 0
    sockets: int = 0


def load_libarchive() -> Any:
    """libarchive-c's function table.

    Raises:
        HostError: the library is missing; names its package.
    """
    for name in ("libarchive.so.13", "libarchive.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        os.environ.setdefault("LIBARCHIVE", name)  # or libarchive-c would start ldconfig to find it
        break
    try:
        from libarchive import ffi
    except (ImportError, AttributeError, OSError, TypeError):
        raise errors.HostError(
            "libarchive was not found on this host", hint=f"install the package {_PACKAGES}"
        ) from None
    import logging

    logging.getLogger("libarchive").disabled = True  # warnings are counted here, not printed there
    return ffi


class Reader:
    """One archive, from its descriptor to the end.

    Args:
        feeder: reads the archive's bytes; started before this, so that it works while libarchive is being loaded.
        tree_fd: the open folder to unpack into.
        progress: called now and then with the bytes of the archive that were read.
    """

    def __init__(
        self, fd: int, name: str, feeder: Feeder, tree_fd: int, limits: Limits, progress: Callable[[int], None]
    ) -> None:
        self._feeder = feeder
        self._fd = fd
        self._name = name
        self._tree = Tree(tree_fd)
        self._limits = limits
        self._progress = progress
        self._ffi = load_libarchive()
        self._entries = self._size = self._devices = self._sockets = 0

    def unpack(self) -> tuple[Counts, str]:
        """Unpack all of it; returns what was in it, and the archive's SHA-256 where the feeder takes it.

        Raises:
            ArchiveError: not an archive, cut, damaged, encrypted.
            ArchiveRefused: an entry would leave the tree, or a limit is passed.
            OSError: the disk.
        """
        if not os.fstat(self._fd).st_size:
            raise errors.ArchiveError(f"{self._name}: empty")
        ffi = self._ffi
        archive = ffi.read_new()
        try:
            self._open(archive, self._feeder.source_fd)
            self._loop(archive)
            tar = b"tar" in (ffi.format_name(archive) or b"").lower()
            plain = ffi.filter_count(archive) <= 1 and not self._feeder.decompresses
        finally:
            ffi.read_free(archive)
        failure, digest = self._feeder.finish()
        if failure:
            raise errors.ArchiveError(f"{self._name}: {failure} after {self._entries} entries")
        if tar and plain:
            self._check_end_mark()
        self._tree.finish()
        self._tree.close()
        counts = Counts(entries=self._entries, size_bytes=self._size, devices=self._devices, sockets=self._sockets)
        return counts, digest

    def _open(self, archive: Any, source: int) -> None:
        ffi = self._ffi
        for name in _FORMATS:
            if name in ffi.READ_FORMATS:
                ffi.get_read_format_function(name)(archive)
        ffi.read_support_filter_all(archive)
        try:
            ffi.read_open_fd(archive, source, _BLOCK)
        except Exception as error:
            raise self._error(error, archive) from None

    def _check_end_mark(self) -> None:
        """An uncompressed tar that was cut between two entries shows it only by the missing zeros at its end."""
        size = os.fstat(self._fd).st_size
        if any(os.pread(self._fd, 512, max(0, size - 512))):
            raise errors.ArchiveError(
                f"{self._name}: truncated after {self._entries} entries (its end mark is missing)"
            )

    def _error(self, error: Exception, archive: Any) -> errors.GuntainerError:
        text = getattr(error, "msg", None) or str(error)
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        if self._feeder.decompresses:
            text = self._feeder.failure() or text
        low = text.lower()
        if "encrypt" in low or "passphrase" in low:
            return errors.ArchiveError(f"{self._name}: encrypted", hint="unpack it with its password first")
        if "unrecognized archive format" in low:
            return errors.ArchiveError(f"{self._name}: not an archive that libarchive knows")
        if "truncated" in low or "unexpected end" in low:
            return errors.ArchiveError(f"{self._name}: truncated after {self._entries} entries")
        return errors.ArchiveError(f"{self._name}: damaged after {self._entries} entries: {text}")

    def _loop(self, archive: Any) -> None:
        ffi = self._ffi
        entry = ffi.entry_new()
        try:
            while True:
                try:
                    if ffi.read_next_header2(archive, entry) == ffi.ARCHIVE_EOF:
                        return
                    self._entry(archive, entry)
                except (errors.GuntainerError, OSError):
                    raise
                except Exception as error:  # libarchive-c's own kind
                    raise self._error(error, archive) from None
                self._entries += 1
                if self._entries > self._limits.entries:
                    raise errors.ArchiveRefused(f"{self._name}: more than {self._limits.entries} entries")
                if not self._entries % 256:
                    self._progress(self._consumed(archive))
        finally:
            ffi.entry_free(entry)

    def _consumed(self, archive: Any) -> int:
        if self._feeder.decompresses:
            return self._feeder.consumed()
        return int(self._ffi.filter_bytes(archive, -1))

    def _entry(self, archive: Any, entry: Any) -> None:
        ffi = self._ffi
        name = ffi.entry_pathname(entry)
        if name is None:
            raise errors.ArchiveError(f"{self._name}: entry {self._entries + 1} has a name that can not be read")
        mode = ffi.entry_perm(entry) & 0o7777
        mtime_ns = self._mtime(entry)
        link = ffi.entry_hardlink(entry)
        kind = ffi.entry_filetype(entry) & _IFMT
        if link is not None:
            self._tree.link(name, link)
            if ffi.entry_size_is_set(entry) and ffi.entry_size(entry) > 0:
                self._write(archive, self._tree.again(name), ffi.entry_size(entry), None, mtime_ns)
        elif kind == _IFREG:
            self._write(archive, self._tree.file(name), ffi.entry_size(entry), mode, mtime_ns)
        elif kind == _IFDIR:
            self._tree.folder(name, mode, mtime_ns)
        elif kind == _IFLNK:
            target = ffi.entry_symlink(entry)
            if not target:
                raise errors.ArchiveRefused(f"symbolic link {show(name)} has no target")
            self._tree.symlink(name, target, mtime_ns)
        elif kind == _IFIFO:
            self._tree.fifo(name, mode, mtime_ns)
        elif kind == _IFSOCK:
            self._sockets += 1
        else:
            self._devices += 1

    def _mtime(self, entry: Any) -> int | None:
        ffi = self._ffi
        if not ffi.entry_mtime_is_set(entry):
            return None
        return int(ffi.entry_mtime(entry)) * 1_000_000_000 + int(ffi.entry_mtime_nsec(entry))

    def _write(self, archive: Any, fd: int, size: int, mode: int | None, mtime_ns: int | None) -> None:
        ffi = self._ffi
        try:
            at = 0
            # a file's first block may come with its header; an empty file has none
            buffer, length, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_longlong()
            while size or not at:
                if ffi.read_data_block(archive, buffer, length, offset) == ffi.ARCHIVE_EOF:
                    break
                if not length.value:
                    continue
                self._size += length.value
                if self._size > self._limits.size_bytes:
                    raise errors.ArchiveRefused(
                        f"{self._name}: unpacks to more than {self._limits.size_bytes >> 20} MiB"
                    )
                view = memoryview((ctypes.c_char * length.value).from_address(buffer.value or 0)).cast("B")
                at = offset.value
                while view:
                    sent = os.pwrite(fd, view, at)
                    at += sent
                    view = view[sent:]
            if size > at:
                os.ftruncate(fd, size)  # a sparse file's last hole
            if mode is not None:
                os.fchmod(fd, mode)
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)


def no_space(error: OSError, folder: str) -> errors.StoreError:
    """ENOSPC and EDQUOT with the file system and what is free on it."""
    what = "disk quota exceeded" if error.errno == errno.EDQUOT else "no space left"
    try:
        stat = os.statvfs(folder)
        free = f" ({stat.f_bavail * stat.f_frsize >> 20} MiB and {stat.f_favail} files free)"
    except OSError:
        free = ""
    return errors.StoreError(f"unpacking into {folder}: {what}{free}", hint="free some, or use --store DIR or TMPDIR")
