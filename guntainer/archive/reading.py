"""Read an archive with libarchive, entry by entry, into a Tree.

libarchive_read(3) through libarchive-c's function table; its own extraction is not used, because its flags do not stop
every escape, and none of its filters: `feeder` undoes every compression, so what is read here is always the plain archive.
"""

from __future__ import annotations

import errno

from guntainer import errors
from guntainer.archive.calls import Calls
from guntainer.archive.contents import Contents, Short
from guntainer.archive.feeder import Feeder, Limits
from guntainer.archive.library import TOO_MUCH_MEMORY, load_libarchive, text_of
from guntainer.archive.links import Links
from guntainer.archive.names import parts_of, show
from guntainer.archive.tree import Tree, Unwritten
from guntainer.archive.whiteouts import Whiteouts
from guntainer.archive.xattrs import Xattrs
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.archive import ring
    from guntainer.archive.tree import Owner

_BLOCK = 1 << 20
# of a zip by its table only: read without it, a cut one looks whole up to there
_FORMATS = ("tar", "cpio", "zip_seekable", "7zip", "ar", "iso9660", "xar", "rar", "cab", "lha", "warc")
_TAR = 0x30000  # ARCHIVE_FORMAT_TAR, with the kind in the low 16 bits
_DEVICES = (0o020000, 0o060000)
_RECORD_BYTES = 300  # of memory that a name takes which is remembered
_SECOND = 1_000_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IFMT, _IFREG, _IFDIR, _IFLNK, _IFIFO, _IFSOCK = 0o170000, 0o100000, 0o040000, 0o120000, 0o010000, 0o140000


class Counts(Value):
    """What was in an archive, and what was left out of the tree."""

    entries: int = 0
    size_bytes: int = 0
    devices: int = 0
    sockets: int = 0
    unmapped: int = 0
    """Entries whose owner is none of the mapped ids: they are root's."""
    xattrs: int = 0
    """Extended attributes that were left out: see `xattrs`."""
    acls: int = 0
    """Entries whose ACL was left out."""


class Reader:
    """One archive, from its descriptor to the end.

    Args:
        feeder: reads the archive's bytes; started before this, so that it works while libarchive is being loaded.
        tree_fd: the open folder to unpack into.
        progress: called now and then with the bytes of the archive that were read.
        ids: how many ids are mapped: owners from 0 to below it are kept; 0: everything is the caller's.
        layer: it is one of an image's: its whiteouts are collected in `whiteouts`, and it may be empty.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        feeder: Feeder,
        tree_fd: int,
        limits: Limits,
        progress: Callable[[int], None],
        ids: int = 0,
        *,
        layer: bool = False,
    ) -> None:
        self._feeder = feeder
        self._fd = fd
        self._name = name
        self._folder = tree_fd
        self._tree = Tree(tree_fd, layer=layer)
        self._links = Links(self._tree, layer=layer)
        self.whiteouts = Whiteouts(self._tree) if layer else None
        self._limits = limits
        self._progress = progress
        self._ffi = load_libarchive()
        self._ids = ids
        self._unread: list[BaseException] = []
        """Why the ring could not be read."""
        ffi = self._ffi
        self._calls = calls = Calls(ffi)
        self._entries = self._devices = self._sockets = self._unmapped = 0
        self._xattrs = Xattrs(ffi, calls)
        self._fraction_sign: int | None = None
        self._left_out: set[tuple[bytes, ...]] = set()
        self._contents = Contents(ffi, calls, self._tree, self._xattrs, limits, feeder, self._is_tar)

    def unpack(self) -> tuple[Counts, str]:
        """Unpack all of it; returns what was in it, and the archive's SHA-256 where the feeder takes it.

        Raises:
            ArchiveError: not an archive, cut, damaged, encrypted.
            ArchiveRefused: an entry would leave the tree, or a limit is passed.
            OSError: the disk.
        """
        if self._feeder.empty:
            raise errors.ArchiveError(f"{self._name}: empty")
        try:
            self._read()
            failure, digest = self._feeder.finish()
            if failure:
                raise errors.ArchiveError(f"{self._name}: {failure} after {self._entries} entries")
            if not self._entries and self.whiteouts is None:
                raise errors.ArchiveError(f"{self._name}: holds no files")
            try:
                self._links.make_late()
            except Unwritten as late:
                raise self._named(late.error, late.name) from None
            if self.whiteouts is not None:
                self.whiteouts.write()
            self._tree.finish(self._xattrs)
        except errors.ArchiveRefused as error:
            raise errors.ArchiveRefused(f"{self._name}: {error.message}", hint=error.hint) from None
        finally:
            self._tree.close()
        counts = Counts(
            entries=self._entries,
            size_bytes=self._contents.size,
            devices=self._devices,
            sockets=self._sockets,
            unmapped=self._unmapped,
            xattrs=self._xattrs.left_out,
            acls=self._xattrs.acls,
        )
        return counts, digest

    def _read(self) -> None:
        ffi = self._ffi
        archive = ffi.read_new()
        try:
            self._open(archive, self._feeder.source(self._folder))
            self._loop(archive)
            self._check_end_mark(archive)
        finally:
            ffi.read_free(archive)

    def _open(self, archive: Any, source: int | ring.Reader) -> None:
        ffi = self._ffi
        for name in _FORMATS:
            ffi.get_read_format_function(name)(archive)
        # past the end mark of a tar as well: zeros where a header was look like one, and would cut the archive silently
        set_option = ffi.ffi("read_set_options", [ffi.c_archive_p, ffi.c_char_p], ffi.c_int, ffi.check_int)
        try:
            set_option(archive, b"tar:read_concatenated_archives")
            if isinstance(source, int):
                ffi.read_open_fd(archive, source, _BLOCK)
            else:
                # it is called as long as the archive is open
                self._more = ffi.READ_CALLBACK(_giver(source, self._unread))
                ffi.read_open(archive, None, ffi.NO_OPEN_CB, self._more, ffi.NO_CLOSE_CB)
        except Exception as error:
            raise self._error(error) from None

    def _is_tar(self, archive: Any) -> bool:
        ffi = self._ffi
        return int(ffi.ffi("format", [ffi.c_archive_p], ffi.c_int)(archive)) & ~0xFFFF == _TAR

    def _check_end_mark(self, archive: Any) -> None:
        """A tar that was cut between two entries shows it only by the missing zeros at its end.

        Two blocks of them by tar(5); one is enough to know, as for tar(1).
        """
        ffi = self._ffi
        if not self._is_tar(archive) or not self._entries:
            return
        last = ffi.ffi("read_header_position", [ffi.c_archive_p], ffi.c_longlong)(archive)
        if ffi.filter_bytes(archive, 0) - last < 512:
            # the compression, where there is one, knows better what has happened
            failure = self._feeder.failure() if self._feeder.decompresses else ""
            what = failure or "truncated (its end mark is missing)"
            raise errors.ArchiveError(f"{self._name}: {what} after {self._entries} entries")

    def _error(self, error: Exception) -> errors.GuntainerError:
        if self._unread:
            raise self._unread[0]
        if self._feeder.decompresses:
            failure = self._feeder.failure()
            if failure:
                return errors.ArchiveError(f"{self._name}: {failure} after {self._entries} entries")
        text = text_of(error)
        low = text.lower()
        if "encrypt" in low or "passphrase" in low:
            return errors.ArchiveError(f"{self._name}: encrypted", hint="unpack it with its password first")
        if "unrecognized archive format" in low:
            return errors.ArchiveError(f"{self._name}: {self._unknown()}")
        if "truncated" in low or "unexpected end" in low:
            return errors.ArchiveError(f"{self._name}: truncated after {self._entries} entries")
        if text == TOO_MUCH_MEMORY:
            return errors.ArchiveError(f"{self._name}: {text}")
        return errors.ArchiveError(f"{self._name}: damaged after {self._entries} entries: {text}")

    def _unknown(self) -> str:
        """What a file is that libarchive does not take for an archive."""
        if self._feeder.head.startswith(b"PK\3\4"):
            return "truncated (the table at the zip's end is missing)"
        return "holds no files" if self._feeder.head.startswith(b"PK\5\6") else "not an archive that libarchive knows"

    def _loop(self, archive: Any) -> None:
        ffi = self._ffi
        entry = ffi.entry_new()
        self._status = self._calls.status_of(entry)
        next_header = self._calls.read_next_header2
        try:
            while True:
                try:
                    code = next_header(archive, entry)
                    if code == ffi.ARCHIVE_EOF:
                        return
                    if code < 0 and code != ffi.ARCHIVE_WARN:
                        raise ffi.archive_error(archive, code)
                    if code < 0 and _is_loss(ffi.error_string(archive) or b""):
                        raise ffi.archive_error(archive, code)
                    self._entry(archive, entry)
                except errors.GuntainerError:
                    raise
                except Short:
                    raise errors.ArchiveError(f"{self._name}: truncated after {self._entries} entries") from None
                except Unwritten as late:
                    raise self._named(late.error, late.name) from None
                except OSError as error:
                    raise self._named(error, ffi.entry_pathname(entry) or b"") from None
                except Exception as error:  # libarchive-c's own kind
                    raise self._error(error) from None
                self._entries += 1
                if self._entries + self._tree.implied > self._limits.entries:
                    raise errors.ArchiveRefused(f"more than {self._limits.entries} entries")
                if not self._entries % 256:
                    self._progress(self._consumed(archive))
        finally:
            ffi.entry_free(entry)

    def _named(self, error: OSError, name: bytes) -> Exception:
        """What the file system says to an entry, with the entry's name on it; a full one speaks for itself."""
        if error.errno in _FULL:
            return error
        return errors.ArchiveError(f"{self._name}: entry {show(name)}: {error.strerror or error}")

    def _consumed(self, archive: Any) -> int:
        if self._feeder.decompresses:
            return self._feeder.consumed()
        return int(self._ffi.filter_bytes(archive, -1))

    def _entry(self, archive: Any, entry: Any) -> None:
        calls = self._calls
        name = calls.entry_pathname(entry)
        if name is None:
            raise errors.ArchiveError(f"{self._name}: entry {self._entries + 1} has a name that can not be read")
        if self.whiteouts is not None and b".wh." in name and self.whiteouts.take(name):
            return
        mode, size, seconds, ns = self._status()
        kind = mode & _IFMT
        mode &= 0o7777
        mtime_ns = seconds * _SECOND + ns if seconds > 0 else self._mtime(archive, entry, seconds, ns)
        owner = self._owner(entry) if self._ids else None
        link = calls.entry_hardlink(entry)
        xattrs = self._xattrs.of(entry, kind)
        if link is not None:
            self._link(archive, entry, name, link, size, mode, mtime_ns, owner)
        elif kind == _IFREG:
            if (
                xattrs is not None
                or mtime_ns is None
                or not self._contents.small(archive, name, size, mode, mtime_ns, owner)
            ):
                self._contents.write(archive, self._tree.file(name), size, mode, mtime_ns, owner, xattrs)
        elif kind == _IFDIR:
            if self._tree.folder(name, mode, mtime_ns, owner, xattrs) and self.whiteouts is not None:
                self.whiteouts.cover(name)
        elif kind == _IFLNK:
            target = self._ffi.entry_symlink(entry)
            if not target:
                raise errors.ArchiveRefused(f"symbolic link {show(name)} has no target")
            self._tree.symlink(name, target, mtime_ns, owner)
        elif kind == _IFIFO:
            self._tree.fifo(name, mode, mtime_ns, owner)
        elif kind == _IFSOCK:
            self._sockets += 1
            self._leave_out(name)
        elif kind in _DEVICES:
            self._devices += 1
            self._leave_out(name)
        else:
            # of tar's: the rest of a file that begins in another volume
            raise errors.ArchiveRefused(f"entry {show(name)} is of a kind that can not be unpacked")

    def _leave_out(self, name: bytes) -> None:
        self._tree.charge(len(name) + _RECORD_BYTES)
        self._left_out.add(parts_of(name))

    def _mtime(self, archive: Any, entry: Any, seconds: int, ns: int) -> int | None:
        if not seconds and not self._calls.entry_mtime_is_set(entry):
            return None
        if seconds < 0 and ns and self._is_tar(archive):
            if self._fraction_sign is None:
                from guntainer.archive.times import fraction_sign

                self._fraction_sign = fraction_sign(self._ffi)
            ns *= self._fraction_sign
        return seconds * _SECOND + ns

    def _owner(self, entry: Any) -> Owner:
        """(uid, gid) to give to an entry; None where that is root, who has made it."""
        uid, gid = self._calls.entry_uid(entry), self._calls.entry_gid(entry)
        if not (0 <= uid < self._ids and 0 <= gid < self._ids):
            self._unmapped += 1
            uid, gid = (one if 0 <= one < self._ids else 0 for one in (uid, gid))
        return (uid, gid) if uid or gid else None

    def _link(
        self,
        archive: Any,
        entry: Any,
        name: bytes,
        link: bytes,
        size: int,
        mode: int,
        mtime_ns: int | None,
        owner: Owner,
    ) -> None:
        if self._left_out and parts_of(link) in self._left_out:
            self._devices += 1
            self._leave_out(name)
            return
        there = self._links.add(name, link)
        # the last name of a group brings the bytes in cpio's newc
        if size > 0 and self._ffi.entry_size_is_set(entry):
            if not there:
                raise errors.ArchiveRefused(
                    f"hard link {show(name)} to {show(link)} holds bytes, and its target did not come before it"
                )
            self._contents.write(archive, self._tree.again(name), size, mode, mtime_ns, owner)


def _giver(source: ring.Reader, failures: list[BaseException]) -> Callable[[int, int, Any], int]:
    """archive_read_callback(3) that hands a ring's parts out as they are; nothing may be raised through it."""

    def more(_archive: int, _data: int, buffer: Any) -> int:
        try:
            buffer[0], length = source.address()
        except BaseException as error:
            failures.append(error)
            return -1
        return length

    return more


def _is_loss(warning: bytes) -> bool:
    """Whether what is only a warning to libarchive is a loss: an entry passed over, a header that could not be read whole.

    None is a name that is not in the locale's encoding, since bytes are taken, nor an ACL, since none is kept.
    """
    return b"can't be converted" not in warning and b"acl" not in warning.lower()
