"""What Copy takes: a file or a folder below the Gunfile's, its digest, and its way into a rootfs.

Neither side is trusted: the source is opened beneath its folder (openat2(2), RESOLVE_BENEATH), no link in it is followed, and
every path on the other side is looked up in the rootfs as its root.
"""

from __future__ import annotations

import hashlib
import os
import stat

from guntainer import errors
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BENEATH = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_MAGICLINKS
_INSIDE = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 1 << 20
_DEEPEST = 200  # folders held open at once


def open_source(base: str, path: str) -> int:
    """A descriptor of the file or the folder at `path` below `base`.

    Raises:
        UsageError: it is not there, or leads out, or is something else.
    """
    try:
        folder = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = syscalls.openat2(folder, path, _READ, resolve=_BENEATH)
        finally:
            os.close(folder)
    except OSError as error:
        raise errors.UsageError(_why(path, error)) from None
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        os.close(fd)
        raise errors.UsageError(f"{path}: neither a file nor a folder")
    return fd


def _why(path: str, error: OSError) -> str:
    if error.errno == 18:  # EXDEV
        return f"{path}: leads out of the Gunfile's folder"
    if error.errno == 2 and set(path) & set("*?["):
        return f"{path}: {error.strerror}: patterns are not expanded"
    return f"{path}: {error.strerror}"


class Content:
    """What is behind a descriptor of `open_source`, read once, in one order.

    Args:
        name: for messages.
        place: where it is copied to; None: it is only read.
    """

    def __init__(self, name: str, place: Place | None = None) -> None:
        self._name = name
        self._place = place
        self._hash = hashlib.sha256()

    def digest(self, fd: int) -> str:
        """Read it all; of names, kinds, modes, links and bytes, but not of times and owners.

        Raises:
            GuntainerError: it holds what can not be copied.
        """
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            if self._place is not None:
                self._place.folder("", os.fstat(fd))
            self._folder(fd, "", 0)
        else:
            self._file(fd, "")
        return self._hash.hexdigest()

    def _say(self, *words: object) -> None:
        data = "\0".join(map(str, words)).encode("utf-8", "surrogateescape")
        self._hash.update(len(data).to_bytes(8, "big") + data)

    def _folder(self, fd: int, above: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise errors.GuntainerError(f"{self._name}: folders in it are deeper than {_DEEPEST}")
        for name in sorted(os.listdir(fd)):
            path = f"{above}/{name}" if above else name
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            mode = status.st_mode
            if stat.S_ISLNK(mode):
                target = os.readlink(name, dir_fd=fd)
                self._say(path, "link", target)
                if self._place is not None:
                    self._place.link(path, target, status)
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                self._open(fd, name, path, depth, is_folder=stat.S_ISDIR(mode))
            else:
                raise errors.GuntainerError(f"{self._name}/{path}: only files, folders and links can be copied")

    def _open(self, above: int, name: str, path: str, depth: int, *, is_folder: bool) -> None:
        fd = os.open(name, _READ | os.O_NOFOLLOW | (os.O_DIRECTORY if is_folder else 0), dir_fd=above)
        try:
            if not is_folder:
                self._file(fd, path)
                return
            status = os.fstat(fd)
            self._say(path, "folder", stat.S_IMODE(status.st_mode))
            if self._place is not None:
                self._place.folder(path, status)
            self._folder(fd, path, depth + 1)
        finally:
            os.close(fd)

    def _file(self, fd: int, path: str) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise errors.GuntainerError(f"{self._name}: changed while it was read", hint="run it again")
        self._say(path, "file", stat.S_IMODE(status.st_mode))
        made = self._place.file(path) if self._place is not None else -1
        try:
            found = hashlib.sha256()
            while data := os.read(fd, _BLOCK):
                found.update(data)
                if made >= 0:
                    _write(made, data)
            self._hash.update(found.digest())
            if made >= 0:
                os.fchmod(made, stat.S_IMODE(status.st_mode))
                os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            if made >= 0:
                os.close(made)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Place:
    """Where in a rootfs something is copied to; everything there becomes root's.

    Args:
        root: an open folder, that of the rootfs.
        target: the path in it.
        name: of the source: of a file that is copied into a folder.
    """

    def __init__(self, root: int, target: str, name: str, *, is_folder: bool) -> None:
        self._root = root
        self._target = target.rstrip("/") or "/"
        into = not is_folder and (target.endswith("/") or self._is_folder(self._target))
        if into:
            self._target = f"{self._target.rstrip('/')}/{os.path.basename(name)}"
        make_folders(root, self._target if is_folder else os.path.dirname(self._target))

    def _at(self, path: str) -> str:
        return f"{self._target.rstrip('/')}/{path}" if path else self._target

    def _is_folder(self, path: str) -> bool:
        try:
            os.close(_inside(self._root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def folder(self, path: str, status: os.stat_result) -> None:
        """The folder, made where it is missing; what is in it stays. That which everything is copied to keeps its mode."""
        if not path:
            return
        if self._is_folder(self._at(path)):
            return
        above, name = self._above(path)
        try:
            _clear(above, name)
            os.mkdir(name, 0o700, dir_fd=above)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=above)
        finally:
            os.close(above)

    def link(self, path: str, target: str, status: os.stat_result) -> None:
        above, name = self._above(path)
        try:
            _clear(above, name)
            os.symlink(target, name, dir_fd=above)
            os.utime(name, ns=(status.st_mtime_ns,) * 2, dir_fd=above, follow_symlinks=False)
        finally:
            os.close(above)

    def file(self, path: str) -> int:
        """A new empty file in place of what was there; the caller closes it."""
        above, name = self._above(path)
        try:
            _clear(above, name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, 0o600, dir_fd=above)
        finally:
            os.close(above)

    def _above(self, path: str) -> tuple[int, str]:
        folder, _, name = self._at(path).rpartition("/")
        return _inside(self._root, folder or "/", os.O_RDONLY | os.O_DIRECTORY), name


def _inside(root: int, path: str, flags: int) -> int:
    return syscalls.openat2(root, path.strip("/") or ".", flags, resolve=_INSIDE)


def _clear(above: int, name: str) -> None:
    """Make room for a file or a link. A folder is not replaced.

    Raises:
        GuntainerError: one is there.
    """
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise errors.GuntainerError(f"{name}: a folder is there already") from None


def make_folders(root: int, path: str) -> None:
    """The folders on a path in a rootfs, where they are missing; links are followed inside of it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for count in range(1, len(parts) + 1):
        try:
            os.close(_inside(root, "/".join(parts[:count]), os.O_PATH | os.O_DIRECTORY))
            continue
        except FileNotFoundError:
            pass
        above = _inside(root, "/".join(parts[: count - 1]), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.mkdir(parts[count - 1], 0o755, dir_fd=above)
            os.chmod(parts[count - 1], 0o755, dir_fd=above)
        except FileExistsError:
            raise errors.GuntainerError(f"/{'/'.join(parts[:count])}: a link there leads nowhere") from None
        finally:
            os.close(above)


def copy(base: str, path: str, root: str, target: str, digest: str) -> dict[str, Any]:
    """In a helper: copy into the rootfs that is mounted at `root`.

    Raises:
        GuntainerError: what is copied has another digest by now.
    """
    os.umask(0)
    source = open_source(base, path)
    place = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    is_folder = stat.S_ISDIR(os.fstat(source).st_mode)
    found = Content(path, Place(place, target, path, is_folder=is_folder)).digest(source)
    if found != digest:
        raise errors.GuntainerError(f"{path}: changed while it was copied", hint="run it again")
    return {}
