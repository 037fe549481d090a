"""A stack of folders copied into one, for where overlayfs is refused: what it would have shown.

    stack, uppermost first     skeleton, layer, its opaque, layer, …
    here                       folder by folder from the root, each name by the uppermost that has it
    target                     an empty folder

It is done by a process of its own, inside of the container's ids, which its owner kills at any time. The stack is not trusted:
each folder is opened below that of its layer, without links; the target holds nothing but what was made here. Folders
are made 0700, and get their attributes when all is there, the lowest first.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from guntainer import errors, hostids
from guntainer.kernel import abi, syscalls
from guntainer.store.filedata import Data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FULL = 2
"""The exit code where there is no room."""
_CODE = (
    "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {package!r}); "
    "from guntainer.store.flatten import main; main()"
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RULES = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS
_PARTS = 15  # of a path at once: with names of 255 bytes they are shorter than PATH_MAX
_KEPT = ("user.", "security.capability", "system.posix_acl_")
_NOT_TAKEN = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP)


def line(folders: Sequence[str], target: str, *, bare: int, namespace: int, single: bool) -> list[str]:
    """A command line that copies a stack; it says which copy it was on stdout, or what is wrong, and ends with 1 or FULL.

    Args:
        folders: absolute, the uppermost first.
        bare: of the uppermost so many say nothing of how a folder is to look that one below has as well.
        namespace: a descriptor, which it inherits, of the user namespace to enter; -1: none.
        single: the one id that is mapped is the caller's own.
    """
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    enter = namespace if namespace >= 0 else hostids.SINGLE if single else hostids.HERE
    words = (str(enter), str(os.getpid()), str(bare), target, *folders)
    return [sys.executable, "-I", "-S", "-c", _CODE.format(package=package), *words]


def main() -> None:
    """The process's life; argv as of `line`."""
    enter, parent, bare = map(int, sys.argv[1:4])
    target, *folders = sys.argv[4:]
    os.umask(0)
    try:
        hostids.enter(enter)
        syscalls.prctl(abi.PR_SET_PDEATHSIG, 9)  # now, since it is forgotten when ids change
        if os.getppid() != parent:
            os._exit(1)
        said, code = Flattening(folders, target, bare=bare).run(), 0
    except OSError as error:
        said, code = errors.describe_oserror(error), FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1
    os.write(1, said.encode("utf-8", "surrogateescape"))
    os._exit(code)


class Flattening:
    """One copy under way; arguments as of `line`.

    Args:
        without: paths that are left out, and with them sockets, which are nobody's in a copy.
    """

    def __init__(
        self, folders: Sequence[str], target: str, *, bare: int = 0, without: frozenset[str] = frozenset()
    ) -> None:
        self._without = without
        self._roots = [os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for folder in folders]
        self._target = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._bare = bare
        self._made: list[tuple[str, int]] = []
        """Folders, each after the one that it is in, and whose attributes they get."""
        self._names: dict[tuple[int, int], str] = {}
        """Of files with more than one: the first that was made."""
        self._data = Data()

    def run(self) -> str:
        """Copy it all; returns what kind of a copy it is: see `filedata`.

        Raises:
            OSError: of the disk, or a file that can not be read.
        """
        os.chmod(f"/proc/self/fd/{self._target}", 0o700)
        todo = [("", list(range(len(self._roots))))]
        while todo:
            path, lowers = todo.pop()
            self._made.append((path, next((one for one in lowers if one >= self._bare), lowers[0])))
            todo += self._folder(path, lowers)
        for path, lower in reversed(self._made):
            self._dress(path, lower)
        return self._data.kind

    def _folder(self, path: str, lowers: list[int]) -> list[tuple[str, list[int]]]:
        """Make what is in a folder that some of the lowers show; returns the folders in it, and who shows them."""
        folders: dict[str, list[int]] = {}
        hidden: set[str] = set()
        made = _open(self._target, path)
        try:
            for lower in lowers:
                fd = self._lower(lower, path)
                if fd < 0:
                    continue
                try:
                    for name in os.listdir(fd):
                        if name in hidden or (self._without and _join(path, name) in self._without):
                            continue
                        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                        if stat.S_ISDIR(status.st_mode):
                            folders.setdefault(name, []).append(lower)
                            continue
                        hidden.add(name)  # whatever the next ones have of that name
                        if name not in folders:
                            _told(_join(path, name), self._entry, fd, name, status, made, path)
                finally:
                    os.close(fd)
            for name in folders:
                os.mkdir(name, 0o700, dir_fd=made)
        finally:
            os.close(made)
        return [(_join(path, name), shown) for name, shown in folders.items()]

    def _lower(self, lower: int, path: str) -> int:
        """A folder of one of them; -1 where something is mounted on it, which overlayfs would not show either."""
        try:
            return _open(self._roots[lower], path, _RULES | abi.RESOLVE_NO_XDEV)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return -1

    def _entry(self, above: int, name: str, status: os.stat_result, made: int, path: str) -> None:
        """Make what is no folder. Devices stay out, and with them whiteouts: the kernel lets no container use one of its own."""
        kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFCHR, stat.S_IFBLK) or (kind == stat.S_IFSOCK and self._without):
            return
        if status.st_nlink > 1 and self._linked(name, status, made, path):
            return
        if kind == stat.S_IFREG:
            self._file(above, name, made)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=above), name, dir_fd=made)
        else:
            os.mknod(name, kind | 0o600, dir_fd=made)
        _own(name, status, made)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=made)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=made, follow_symlinks=False)

    def _linked(self, name: str, status: os.stat_result, made: int, path: str) -> bool:
        """Whether it is another name of what was made, and was made to be that."""
        key, whole = (status.st_dev, status.st_ino), _join(path, name)
        first = self._names.setdefault(key, whole)
        if first == whole:
            return False
        folder, _, last = first.rpartition("/")
        fd = _open(self._target, folder)
        try:
            os.link(last, name, src_dir_fd=fd, dst_dir_fd=made, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:  # this file system takes fewer names than that of the stack
                raise
            self._names[key] = whole
            return False
        finally:
            os.close(fd)
        return True

    def _file(self, above: int, name: str, made: int) -> None:
        source = os.open(name, _READ, dir_fd=above)
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            fd = os.open(name, _MAKE, 0o600, dir_fd=made)
            try:
                if status.st_size:
                    self._data.copy(source, fd, status)
                _attributes(source, fd, status)
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def _dress(self, path: str, lower: int) -> None:
        source = _open(self._roots[lower], path)
        try:
            made = _open(self._target, path)
            try:
                _attributes(source, made, os.fstat(source))
            finally:
                os.close(made)
        finally:
            os.close(source)


def _open(root: int, path: str, rules: int = _RULES) -> int:
    """A folder below another, however deep; no part of the path is a link."""
    parts = (path or ".").split("/")
    fd = syscalls.openat2(root, "/".join(parts[:_PARTS]), _FOLDER, resolve=rules)
    for at in range(_PARTS, len(parts), _PARTS):
        above = fd
        try:
            fd = syscalls.openat2(above, "/".join(parts[at : at + _PARTS]), _FOLDER, resolve=rules)
        finally:
            os.close(above)
    return fd


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _told(path: str, entry: Callable[..., None], *arguments: object) -> None:
    """Call, and let what goes wrong say where."""
    try:
        entry(*arguments)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _own(name: str | int, status: os.stat_result, made: int | None = None) -> None:
    try:
        if made is None:
            os.chown(name, status.st_uid, status.st_gid)
        else:
            os.chown(name, status.st_uid, status.st_gid, dir_fd=made, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (
            errno.EPERM,
            errno.EINVAL,
        ):  # of an id that is not mapped: overlayfs shows it as nobody's
            raise


def _attributes(source: int, fd: int, status: os.stat_result) -> None:
    """Owner, xattrs, mode and times, in this order: a new owner costs set-uid bits and capabilities, chown(2)."""
    _own(fd, status)
    for name in _xattrs(source):
        try:
            os.setxattr(fd, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NOT_TAKEN:
                raise
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _xattrs(fd: int) -> list[str]:
    """Those that overlayfs would show as well, but for what a security module of the host has put on it."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return []  # a file system without any
    return [name for name in names if name.startswith(_KEPT) and not name.startswith("user.overlay.")]
