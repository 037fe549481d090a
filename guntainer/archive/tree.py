"""Write a tree that an archive describes, without ever leaving it.

libarchive only reads here. Everything is made by this module, relative to a descriptor of the tree's root, by openat2 with
RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS (openat2(2), Linux 5.6): no entry can be written through a symbolic link, whatever
came before it. Symbolic links themselves are data, and may say what they like.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.archive.batch import NAME_MAX, Batch, open_batch
from guntainer.archive.names import parts_of, show
from guntainer.kernel import abi, syscalls
from guntainer.store.remove import remove_inside

_RULES = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_KEPT_BYTES = 256 << 20
RECORD_BYTES = 300  # of memory that a folder takes which is to be finished, beside its name and attributes
_PATH_MAX = 4096  # what no system call takes, nobody could open: path_resolution(7)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.archive.xattrs import Attributes, Xattrs

    Owner = tuple[int, int] | None
    Folder = tuple[int, int | None, Owner, Attributes | None, int]


class Unwritten(Exception):
    """A file of the batch could not be written: its name, and why."""

    def __init__(self, name: bytes, error: OSError) -> None:
        super().__init__(name, error)
        self.name = name
        self.error = error


class Tree:
    """A tree under construction. Folders get their modes and times at the end: they may be unwritable.

    Args:
        layer: it is one of an image's: which folders were made by the way is remembered.
    """

    def __init__(self, root_fd: int, *, layer: bool = False) -> None:
        self._root = root_fd
        self._layer = layer
        self._folders: dict[bytes, Folder] = {}
        # the how-manieth clearing was that of a name: what was remembered of it and below it before that is void
        self._cleared: dict[bytes, int] = {}
        self._clearings = 0
        self._parent: tuple[tuple[bytes, ...], int] = ((), os.dup(root_fd))
        self._kept = 0
        self.batch: Batch | None = open_batch(root_fd, self._write_anew)
        """Small files that are yet to be written: whatever looks at the tree where one of them may be, has it written first."""
        self._anew = False
        self._known: tuple[bytes, bytes] | None = None
        """The part of a name before its last one, as it was written, and what it says, where `_parent` is that."""
        self.implied = 0
        """Folders made by the way, for which there was no entry."""
        self.implied_names: set[bytes] = set()
        """Those of a layer that got no entry later either; some of them may be something else by now."""

    def close(self) -> None:
        if self.batch is not None:
            self.batch.end()
        os.close(self._parent[1])

    def flush(self) -> None:
        """Have what is in the batch written.

        Raises:
            Unwritten: some of it can not be.
        """
        if self.batch is not None and not self._anew:
            self.batch.flush()

    def _flush_at(self, path: bytes) -> None:
        if self.batch is not None and not self._anew and path in self.batch:
            self.batch.flush()

    def spot(self, name: bytes) -> tuple[int, bytes, bytes] | None:
        """Where a file of the batch belongs: (the open folder, its name there, its parts joined); None: not in the batch."""
        if len(name) >= _PATH_MAX:
            return None  # refused by `file`
        last = name[name.rfind(b"/") + 1 :]
        before = name[: len(name) - len(last)]
        if self._known is None or self._known[0] != before or last in (b"", b".", b".."):
            parts = parts_of(name)
            if not parts or parts[-1] != last:
                return None
            self._open(parts[:-1], name)
            self._known = (before, b"".join(part + b"/" for part in parts[:-1]))
        return (self._parent[1], last, self._known[1] + last) if len(last) <= NAME_MAX else None

    def _write_anew(self, name: bytes, mode: int, mtime_ns: int, owner: Owner, data: bytes) -> None:
        """Write what the batch could not: most often, a name that is there already."""
        self._anew = True
        # whoever waits for the batch has this folder in hand; none of the batch's files is that, or lies above it
        parent, known = self._parent, self._known
        self._parent = ((), os.dup(self._root))
        try:
            fd = self.file(name)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if owner is not None:
                    os.fchown(fd, *owner)
                os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
        except OSError as error:
            raise Unwritten(name, error) from None
        finally:
            os.close(self._parent[1])
            self._parent, self._known = parent, known
            self._anew = False

    def charge(self, size: int) -> None:
        """Count bytes that are kept until the end.

        Raises:
            ArchiveRefused: an archive of names alone would take all memory.
        """
        self._kept += size
        if self._kept > _KEPT_BYTES:
            raise errors.ArchiveRefused(f"more than {_KEPT_BYTES >> 20} MiB of names of folders and links")

    def parent(self, parts: tuple[bytes, ...], name: bytes) -> int:
        """The open folder that holds `parts`, made where it is missing; it stays this tree's."""
        return self._open(parts[:-1], name)

    def existing(self, path: bytes) -> int:
        """A descriptor of a folder of the tree, for the caller to close.

        Raises:
            OSError: there is none, or it lies behind a link.
        """
        return syscalls.openat2(self._root, os.fsdecode(path) or ".", _FOLDER, resolve=_RULES)

    def _open(self, parts: tuple[bytes, ...], name: bytes) -> int:
        """The folder `parts`, made where missing; kept open, since entries come grouped by folder."""
        if self._parent[0] == parts:
            return self._parent[1]
        if self.batch:
            for count in range(1, len(parts) + 1):
                self._flush_at(b"/".join(parts[:count]))
        fd = self._walk(parts, name)
        if self.batch is not None:
            self.batch.close_later(self._parent[1])
        else:
            os.close(self._parent[1])
        self._parent = (parts, fd)
        self._known = None
        return fd

    def _walk(self, parts: tuple[bytes, ...], name: bytes) -> int:
        """The folder `parts`, with those on the way to it made where they are missing."""
        known = len(parts)
        while True:
            try:
                fd = self._existing(parts[:known])
                break
            except FileNotFoundError:
                known -= 1
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise errors.ArchiveRefused(f"entry {show(name)} goes through a symbolic link") from None
                if error.errno == errno.ENOTDIR:
                    raise errors.ArchiveRefused(f"entry {show(name)} goes through a file") from None
                raise
        for count in range(known + 1, len(parts) + 1):
            above = fd
            try:
                os.mkdir(parts[count - 1], 0o755, dir_fd=above)
                self.implied += 1
                if self._layer:
                    path = b"/".join(parts[:count])
                    self.charge(len(path) + RECORD_BYTES)
                    self.implied_names.add(path)
                fd = syscalls.openat2(above, os.fsdecode(parts[count - 1]), _FOLDER, resolve=_RULES)
            finally:
                os.close(above)
        return fd

    def _existing(self, parts: tuple[bytes, ...]) -> int:
        return self.existing(b"/".join(parts))

    def place(self, name: bytes) -> tuple[int, bytes, tuple[bytes, ...]]:
        """Where an entry belongs: (the open folder, its name there, its parts)."""
        if len(name) >= _PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        parts = parts_of(name)
        if not parts:
            raise errors.ArchiveRefused(f"entry {show(name)} would replace the rootfs itself")
        if self.batch:
            self._flush_at(b"/".join(parts))
        return self._open(parts[:-1], name), parts[-1], parts

    def clear(self, folder: int, last: bytes, parts: tuple[bytes, ...]) -> None:
        """A later entry replaces an earlier one, as in tar."""
        self.flush()
        path = b"/".join(parts)
        if path not in self._cleared:
            self.charge(len(path) + RECORD_BYTES)
        self._clearings += 1
        self._cleared[path] = self._clearings
        remove_inside(folder, os.fsdecode(last))

    def folder(
        self,
        name: bytes,
        mode: int,
        mtime_ns: int | None,
        owner: Owner = None,
        xattrs: Attributes | None = None,
    ) -> bool:
        """A folder; returns whether it has replaced something that was none."""
        parts = parts_of(name)
        replaces = False
        if parts:
            above, last, _ = self.place(name)
            try:
                os.mkdir(last, 0o700, dir_fd=above)
            except FileExistsError:
                if os.stat(last, dir_fd=above, follow_symlinks=False).st_mode & 0o170000 != 0o040000:
                    self.clear(above, last, parts)
                    os.mkdir(last, 0o700, dir_fd=above)
                    replaces = True
        else:
            mode |= 0o700  # the rootfs itself: nobody could use it, or look at it after this
        path = b"/".join(parts)
        self.charge((0 if path in self._folders else len(path) + RECORD_BYTES) + _size(xattrs))
        self._folders[path] = (mode, mtime_ns, owner, xattrs, self._clearings)
        if self._layer:
            self.implied_names.discard(path)
        return replaces

    def file(self, name: bytes) -> int:
        """A new empty file, open for writing; the caller closes it."""
        folder, last, parts = self.place(name)
        try:
            return os.open(last, _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            self.clear(folder, last, parts)
            return os.open(last, _NEW, 0o600, dir_fd=folder)

    def symlink(self, name: bytes, target: bytes, mtime_ns: int | None, owner: Owner = None) -> None:
        folder, last, parts = self.place(name)
        try:
            os.symlink(target, last, dir_fd=folder)
        except FileExistsError:
            self.clear(folder, last, parts)
            os.symlink(target, last, dir_fd=folder)
        if owner is not None:
            os.chown(last, *owner, dir_fd=folder, follow_symlinks=False)
        if mtime_ns is not None:
            os.utime(last, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)

    def again(self, name: bytes) -> int:
        """A hard link that brings data of its own (cpio): the file, emptied, open for writing."""
        self.flush()
        folder, last, _ = self.place(name)
        # nobody else works in the tree, so what is looked at here is what is opened below
        mode = os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode
        if mode & 0o170000 != 0o100000:
            # opening a FIFO would wait for a reader
            raise errors.ArchiveRefused(f"hard link {show(name)} holds bytes, and is not one to a file")
        if mode & 0o200 == 0:
            os.chmod(last, 0o600, dir_fd=folder)
        return os.open(last, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    def fifo(self, name: bytes, mode: int, mtime_ns: int | None, owner: Owner = None) -> None:
        folder, last, parts = self.place(name)
        try:
            os.mkfifo(last, mode, dir_fd=folder)
        except FileExistsError:
            self.clear(folder, last, parts)
            os.mkfifo(last, mode, dir_fd=folder)
        if owner is not None:
            os.chown(last, *owner, dir_fd=folder, follow_symlinks=False)
        if mtime_ns is not None:
            os.utime(last, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)

    def finish(self, attributes: Xattrs) -> None:
        """Owners, modes and times of the folders, the deepest first: an upper one may close the way."""
        for path in sorted(self._folders, key=lambda path: path.count(b"/") if path else -1, reverse=True):
            mode, mtime_ns, owner, xattrs, number = self._folders[path]
            if self._cleared and self._is_void(path, number):
                continue
            fd = self.existing(path)
            try:
                if owner is not None:
                    os.fchown(fd, *owner)
                if xattrs is not None:
                    attributes.put(fd, xattrs)
                os.fchmod(fd, mode)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)

    def _is_void(self, path: bytes, number: int) -> bool:
        """Whether a folder, or one that it lies in, was replaced after it was remembered."""
        at = len(path)
        while at > 0:
            if self._cleared.get(path[:at], 0) > number:
                return True
            at = path.rfind(b"/", 0, at)
        return False


def _size(attributes: Attributes | None) -> int:
    return sum(len(name) + len(value) + RECORD_BYTES for name, value in attributes or ())
