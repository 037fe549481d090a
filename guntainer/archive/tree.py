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
_PASSES = 4  # over hard links to hard links that all came before their targets
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


TYPE_CHECKING = False
if TYPE_CHECKING:
    Owner = tuple[int, int] | None


class Tree:
    """A tree under construction. Folders get their modes and times at the end: they may be unwritable."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._folders: dict[tuple[bytes, ...], tuple[int, int | None, Owner]] = {}
        self._parent: tuple[tuple[bytes, ...], int] = ((), os.dup(root_fd))
        self._pending: list[tuple[bytes, bytes]] = []

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
                os.mkdir(parts[count - 1], 0o700, dir_fd=above)
                self._folders.setdefault(parts[:count], (0o755, None, None))
                fd = syscalls.openat2(above, os.fsdecode(parts[count - 1]), _FOLDER, resolve=_RULES)
            finally:
                os.close(above)
        return fd

    def _existing(self, parts: tuple[bytes, ...]) -> int:
        return syscalls.openat2(self._root, os.fsdecode(b"/".join(parts)) or ".", _FOLDER, resolve=_RULES)

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

    def folder(self, name: bytes, mode: int, mtime_ns: int | None, owner: Owner = None) -> None:
        parts = parts_of(name)
        if parts:
            above, last, _ = self._place(name)
            try:
                os.mkdir(last, 0o700, dir_fd=above)
            except FileExistsError:
                if os.stat(last, dir_fd=above, follow_symlinks=False).st_mode & 0o170000 != 0o040000:
                    self._clear(above, last, parts)
                    os.mkdir(last, 0o700, dir_fd=above)
        else:
            mode |= 0o700  # the rootfs itself: nobody could use it, or look at it after this
        self._folders[parts] = (mode, mtime_ns, owner)

    def file(self, name: bytes) -> int:
        """A new empty file, open for writing; the caller closes it."""
        folder, last, parts = self._place(name)
        try:
            return os.open(last, _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, last, parts)
            return os.open(last, _NEW, 0o600, dir_fd=folder)

    def symlink(self, name: bytes, target: bytes, mtime_ns: int | None, owner: Owner = None) -> None:
        folder, last, parts = self._place(name)
        try:
            os.symlink(target, last, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, last, parts)
            os.symlink(target, last, dir_fd=folder)
        if owner is not None:
            os.chown(last, *owner, dir_fd=folder, follow_symlinks=False)
        if mtime_ns is not None:
            os.utime(last, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)

    def link(self, name: bytes, target: bytes) -> bool:
        """A hard link; both names are looked up without following anything.

        Returns:
            whether it is there: where its target is not yet, it is made by `finish`.
        """
        goal = parts_of(target, f"hard link {show(name)} to")
        if not goal:
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)} is a link to a folder")
        folder, last, parts = self._place(name)
        if goal == parts or self._link(name, target, goal):
            return True
        # a name of its own from here on, as if it were there: a later entry replaces it
        self._clear(folder, last, parts)
        self._pending.append((name, target))
        return False

    def _link(self, name: bytes, target: bytes, goal: tuple[bytes, ...]) -> bool:
        folder, last, parts = self._place(name)
        try:
            above = self._above(goal, name, target)
        except FileNotFoundError:
            return False
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
            return False
        finally:
            os.close(above)
        return True

    def _above(self, goal: tuple[bytes, ...], name: bytes, target: bytes) -> int:
        try:
            return self._existing(goal[:-1])
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            why = "goes through a symbolic link" if error.errno == errno.ELOOP else "goes through a file"
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)}, which {why}") from None

    def _link_pending(self) -> None:
        """Links that came before their targets, the last first: the usual chain needs one pass, a loop never ends."""
        left = self._pending[::-1]
        for _ in range(_PASSES):
            left = [(name, target) for name, target in left if not self._link_late(name, target)]
        if left:
            name, target = left[-1]
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)}, which is not in the archive")

    def _link_late(self, name: bytes, target: bytes) -> bool:
        folder, last, _ = self._place(name)
        try:
            os.stat(last, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return self._link(name, target, parts_of(target))
        return True  # a later entry has taken the name

    def again(self, name: bytes) -> int:
        """A hard link that brings data of its own (cpio): the file, emptied, open for writing."""
        folder, last, _ = self._place(name)
        # nobody else works in the tree, so what is looked at here is what is opened below
        mode = os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode
        if mode & 0o170000 != 0o100000:
            # opening a FIFO would wait for a reader
            raise errors.ArchiveRefused(f"hard link {show(name)} holds bytes, and is not one to a file")
        if mode & 0o200 == 0:
            os.chmod(last, 0o600, dir_fd=folder)
        return os.open(last, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    def fifo(self, name: bytes, mode: int, mtime_ns: int | None, owner: Owner = None) -> None:
        folder, last, parts = self._place(name)
        try:
            os.mkfifo(last, mode, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, last, parts)
            os.mkfifo(last, mode, dir_fd=folder)
        if owner is not None:
            os.chown(last, *owner, dir_fd=folder, follow_symlinks=False)
        if mtime_ns is not None:
            os.utime(last, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)

    def finish(self) -> None:
        """Late hard links, then owners, modes and times of the folders, the deepest first: an upper one may close the way."""
        if self._pending:
            self._link_pending()
        for parts in sorted(self._folders, key=len, reverse=True):
            mode, mtime_ns, owner = self._folders[parts]
            fd = self._existing(parts)
            try:
                if owner is not None:
                    os.fchown(fd, *owner)
                os.fchmod(fd, mode)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
