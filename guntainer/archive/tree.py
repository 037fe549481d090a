"""Write a tree that an archive describes, without ever leaving it.

libarchive only reads here. Everything is made by this module, relative to a descriptor of the tree's root, by openat2 with
RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS (openat2(2), Linux 5.6): no entry can be written through a symbolic link, whatever
came before it. Symbolic links themselves are data, and may say what they like.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.kernel import abi, syscalls
from guntainer.store.remove import remove_inside

_RULES = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def show(name: bytes) -> str:
    """An entry's name for a message: on one line, whatever it holds."""
    text = name.decode("utf-8", "backslashreplace")
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200]) + "'"


def parts_of(name: bytes, what: str = "entry") -> tuple[bytes, ...]:
    """A name's parts, () for the root.

    Raises:
        ArchiveRefused: it is absolute, or has `..`.
    """
    if name.startswith(b"/"):
        raise errors.ArchiveRefused(f"{what} {show(name)} has an absolute name")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise errors.ArchiveRefused(f"{what} {show(name)} leads out of the rootfs")
    return parts


class Tree:
    """A tree under construction. Folders get their modes and times at the end: they may be unwritable."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._folders: dict[tuple[bytes, ...], tuple[int, int | None]] = {}
        self._parent: tuple[tuple[bytes, ...], int] = ((), os.dup(root_fd))

    def close(self) -> None:
        os.close(self._parent[1])

    def _open(self, parts: tuple[bytes, ...], name: bytes) -> int:
        """The folder `parts`, made where missing; kept open, since entries come grouped by folder."""
        if self._parent[0] == parts:
            return self._parent[1]
        fd = self._walk(parts, name)
        os.close(self._parent[1])
        self._parent = (parts, fd)
        return fd

    def _walk(self, parts: tuple[bytes, ...], name: bytes) -> int:
        try:
            return syscalls.openat2(self._root, os.fsdecode(b"/".join(parts)) or ".", _FOLDER, resolve=_RULES)
        except FileNotFoundError:
            above = self._walk(parts[:-1], name)
            try:
                os.mkdir(parts[-1], 0o700, dir_fd=above)
                self._folders.setdefault(parts, (0o755, None))
            finally:
                os.close(above)
            return self._walk(parts, name)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise errors.ArchiveRefused(f"entry {show(name)} goes through a symbolic link") from None
            if error.errno == errno.ENOTDIR:
                raise errors.ArchiveRefused(f"entry {show(name)} goes through a file") from None
            raise

    def _place(self, name: bytes) -> tuple[int, bytes, tuple[bytes, ...]]:
        parts = parts_of(name)
        if not parts:
            raise errors.ArchiveRefused(f"entry {show(name)} would replace the rootfs itself")
        return self._open(parts[:-1], name), parts[-1], parts

    def _clear(self, folder: int, last: bytes, parts: tuple[bytes, ...]) -> None:
        """A later entry replaces an earlier one, as in tar."""
        if parts in self._folders:
            for known in [known for known in self._folders if known[: len(parts)] == parts]:
                del self._folders[known]
        remove_inside(folder, os.fsdecode(last))

    def folder(self, name: bytes, mode: int, mtime_ns: int | None) -> None:
        parts = parts_of(name)
        if parts:
            above, last, _ = self._place(name)
            try:
                os.mkdir(last, 0o700, dir_fd=above)
            except FileExistsError:
                if os.stat(last, dir_fd=above, follow_symlinks=False).st_mode & 0o170000 != 0o040000:
                    self._clear(above, last, parts)
                    os.mkdir(last, 0o700, dir_fd=above)
        self._folders[parts] = (mode, mtime_ns)

    def file(self, name: bytes) -> int:
        """A new empty file, open for writing; the caller closes it."""
        folder, last, parts = self._place(name)
        try:
            return os.open(last, _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, last, parts)
            return os.open(last, _NEW, 0o600, dir_fd=folder)

    def symlink(self, name: bytes, target: bytes, mtime_ns: int | None) -> None:
        folder, last, parts = self._place(name)
        try:
            os.symlink(target, last, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, last, parts)
            os.symlink(target, last, dir_fd=folder)
        if mtime_ns is not None:
            os.utime(last, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)

    def link(self, name: bytes, target: bytes) -> None:
        """A hard link to an earlier entry; both are looked up without following anything."""
        goal = parts_of(target, f"hard link {show(name)} to")
        if not goal:
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)} is a link to a folder")
        folder, last, parts = self._place(name)
        if goal == parts:
            return
        above = self._walk_existing(goal[:-1], name, target)
        try:
            kind = os.stat(goal[-1], dir_fd=above, follow_symlinks=False).st_mode & 0o170000
            if kind == 0o040000:
                raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)} is a link to a folder")
            try:
                os.link(goal[-1], last, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                self._clear(folder, last, parts)
                os.link(goal[-1], last, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise errors.ArchiveRefused(
                f"hard link {show(name)} to {show(target)}, which did not come before it"
            ) from None
        finally:
            os.close(above)

    def _walk_existing(self, parts: tuple[bytes, ...], name: bytes, target: bytes) -> int:
        try:
            return syscalls.openat2(self._root, os.fsdecode(b"/".join(parts)) or ".", _FOLDER, resolve=_RULES)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                why = "goes through a symbolic link" if error.errno == errno.ELOOP else "goes through a file"
            elif error.errno == errno.ENOENT:
                why = "did not come before it"
            else:
                raise
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)}, which {why}") from None

    def again(self, name: bytes) -> int:
        """A hard link that brings data of its own (cpio): the file, emptied, open for writing."""
        folder, last, _ = self._place(name)
        return os.open(last, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    def fifo(self, name: bytes, mode: int, mtime_ns: int | None) -> None:
        folder, last, parts = self._place(name)
        try:
            os.mkfifo(last, mode, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, last, parts)
            os.mkfifo(last, mode, dir_fd=folder)
        if mtime_ns is not None:
            os.utime(last, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)

    def finish(self) -> None:
        """Modes and times of the folders, the deepest first: an upper one may close the way."""
        for parts in sorted(self._folders, key=len, reverse=True):
            mode, mtime_ns = self._folders[parts]
            fd = syscalls.openat2(self._root, os.fsdecode(b"/".join(parts)) or ".", _FOLDER, resolve=_RULES)
            try:
                os.fchmod(fd, mode)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
