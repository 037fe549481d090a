"""The process that takes artifacts out of a container's root: it walks, copies what matches, says what came of it, and ends.

Nothing that lies in a container is trusted. Every path is opened below that root by openat2(2): a link leads nowhere else. What
comes out are plain files of the caller's, with the modes 0644 and 0755, never links, FIFOs, sockets or devices. How many
there are, how large they are together, and how many names are looked at is bounded, a file by its apparent size.
"""

from __future__ import annotations

import errno
import os
import stat

from guntainer import errors
from guntainer.artifacts import named
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.globs import Pattern

MOST_FILES = 10_000
_MOST_SEEN = 1_000_000
_MOST_MATCHES = 100_000
_MOST_PATH_BYTES = 4 << 20  # of all that is taken: they stand in the job's result
_MOST_TOLD = 1000
_MEMORY_BYTES = 1 << 30
_LONGEST_PATH = 4095  # bytes that a system call takes: path_resolution(7)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BELOW = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_NO_XDEV
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def main() -> None:
    """Walk, copy, say what came of it; with a bound on the memory that names of files can take: setrlimit(2)."""
    import marshal
    import resource

    from guntainer import errand

    errand.enter()
    with open(0, "rb", closefd=False) as file:
        patterns, cwd, roots, into, most_bytes = marshal.loads(file.read())
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = min(one for one in (_MEMORY_BYTES, soft, hard) if one != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        work = Collecting(patterns, cwd, roots, into, most_bytes)
        work.run()
        said, code = marshal.dumps((work.files, list(work.refused.items()), work.special, work.stopped)), 0
    except OSError as error:
        said, code = errors.describe_oserror(error).encode("utf-8", "surrogateescape"), 1
    except MemoryError:
        said, code = b"the names of its files take more than a GiB of memory", 1
    with open(1, "wb", closefd=False) as out:
        out.write(said)
    os._exit(code)


class _Stop(Exception):
    """Enough, or no room for more."""


class Collecting:
    """One walk.

    Args:
        roots: (path inside without its first slash, an open folder); the first one is the container's root.
        into: where to copy to: the open results folder, the name of the job's in there, and the path of the first.
    """

    def __init__(
        self,
        patterns: tuple[str, ...],
        cwd: str,
        roots: list[tuple[str, int]],
        into: tuple[int, str, str],
        most_bytes: int,
    ) -> None:
        from guntainer.globs import Pattern
        from guntainer.store.filedata import Data

        read = [Pattern(text, cwd) for text in patterns]
        self._wanted = [one for one in read if not one.excludes]
        self._unwanted = [one for one in read if one.excludes]
        self._roots = [*roots, *_as_the_container_sees_them(roots)]
        self._results, self._job, path = into
        self._folder = f"{path}/{self._job}/artifacts"
        self._into = self._out = -1
        self._left = self._most = most_bytes
        self._data = Data()
        self._done: set[str] = set()
        self._seen = self._path_bytes = 0
        self.files: list[tuple[str, int]] = []
        self.refused: dict[str, str] = {}
        """Path → why it is left out; not all of them."""
        self.special = 0
        self.stopped = ""

    def run(self) -> None:
        """Do it all.

        Raises:
            OSError: what was there of an earlier run can not be removed.
        """
        from guntainer.resultsfolder import below
        from guntainer.store.remove import remove_tree

        self._into = below(self._results, self._job, shown=os.path.dirname(self._folder))
        try:
            remove_tree(f"/proc/self/fd/{self._into}/artifacts")
            for pattern in self._wanted:
                self._base(pattern)
        except _Stop as stop:
            self.stopped = str(stop)
        finally:
            for fd in (self._into, self._out):
                if fd >= 0:
                    os.close(fd)

    def _base(self, pattern: Pattern) -> None:
        """What a pattern begins with has links followed, inside."""
        place, root, rest = self._root_of(pattern.base)
        try:
            fd = self._follow(root, rest)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self._refuse(pattern.base, _why(error, place))
            return
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                self._walk(pattern, pattern.base, fd)
            else:
                self._take(pattern.base, fd)
        finally:
            os.close(fd)

    def _root_of(self, path: str) -> tuple[str, int, str]:
        """(its place, its descriptor, the path from there) of the root that a path lies in."""
        for place, fd in reversed(self._roots[1:]):
            if path == place or path.startswith(f"{place}/"):
                return place, fd, path[len(place) + 1 :]
        return "", self._roots[0][1], path

    def _follow(self, root: int, path: str) -> int:
        """An O_PATH descriptor of what a path means; of a workspace's, what leads out of that is refused."""
        rules = abi.RESOLVE_IN_ROOT if root == self._roots[0][1] else abi.RESOLVE_BENEATH
        return syscalls.openat2(
            root, path or ".", os.O_PATH, resolve=rules | abi.RESOLVE_NO_MAGICLINKS | abi.RESOLVE_NO_XDEV
        )

    def _walk(self, pattern: Pattern, base: str, folder: int) -> None:
        """All that matches below a folder, in the order of the names; no link to a folder is followed."""
        waiting = [""]
        while waiting:
            below = waiting.pop()
            here = _join(base, below)
            if any(one.matches(here) for one in self._unwanted):
                continue
            try:
                fd = syscalls.openat2(folder, below or ".", _FOLDER, resolve=_BELOW)
            except OSError as error:
                self._refuse(here, _why(error, ""))
                continue
            try:
                waiting += reversed([_join(below, name) for name in self._entries(pattern, here, fd)])
            finally:
                os.close(fd)

    def _entries(self, pattern: Pattern, here: str, fd: int) -> list[str]:
        """Take what matches in an open folder; returns the folders to look into."""
        folders = []
        with os.scandir(fd) as entries:
            names = []
            for entry in entries:
                self._seen += 1
                if self._seen > _MOST_SEEN:
                    raise _Stop(f"more than {_MOST_SEEN} names were looked at: the rest is left out")
                names.append((entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()))
        for name, is_folder, is_link in sorted(names):
            path = _join(here, name)
            if is_folder:
                other = next((one for place, one in self._roots[1:] if place == path), None)
                if other is not None:  # what was mounted there
                    self._walk(pattern, path, other)
                elif pattern.may_match_below(path):
                    folders.append(name)
            elif pattern.matches(path):
                self._entry(path, name, fd, is_link=is_link)
        return folders

    def _entry(self, path: str, name: str, folder: int, *, is_link: bool) -> None:
        place, root, rest = self._root_of(path)
        try:
            fd = self._follow(root, rest) if is_link else os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            self._refuse(path, _why(error, place))
            return
        try:
            if is_link and stat.S_ISDIR(os.fstat(fd).st_mode):
                self._refuse(path, "links to folders")
            else:
                self._take(path, fd)
        finally:
            os.close(fd)

    def _take(self, path: str, fd: int) -> None:
        """Copy a file, behind an O_PATH descriptor, if there is room for it."""
        if path in self._done or any(one.matches(path) for one in self._unwanted):
            return
        if len(self._done) >= _MOST_MATCHES:
            raise _Stop(f"more than {_MOST_MATCHES} files match: the rest is left out")
        self._done.add(path)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            self.special += 1
            return
        if len(self.files) >= MOST_FILES:
            raise _Stop(f"more than {MOST_FILES} files match: the rest is left out")
        self._path_bytes += len(path)
        if self._path_bytes > _MOST_PATH_BYTES:
            raise _Stop(f"the paths of those that match have more than {_size(_MOST_PATH_BYTES)}: the rest is left out")
        if status.st_size > self._left:
            self._refuse(path, f"more than {_size(self._most)} together (max-size)")
            return
        try:
            source = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            self._refuse(path, _why(error, ""))
            return
        try:
            self._copy(path, source, status)
        finally:
            os.close(source)

    def _copy(self, path: str, source: int, status: os.stat_result) -> None:
        folder, _, name = path.rpartition("/")
        above = made = -1
        try:
            if len(os.fsencode(f"{self._folder}/{path}")) > _LONGEST_PATH:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))  # nobody could open it there
            above = self._made(folder)
            made = os.open(name, _NEW, 0o600, dir_fd=above)
            self._data.copy(source, made, status)
            os.fchmod(made, 0o755 if status.st_mode & 0o111 else 0o644)
            os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
        except OSError as error:
            if made >= 0:
                os.unlink(name, dir_fd=above)
            if error.errno in _NO_ROOM:
                raise _Stop(f"no space left for {named([path])} and what comes after it") from None
            self._refuse(path, _why(error, ""))
            return
        finally:
            for fd in (above, made):
                if fd >= 0:
                    os.close(fd)
        self._left -= status.st_size
        self.files.append((path, status.st_size))

    def _made(self, path: str) -> int:
        """A folder to copy to, made where it is missing. No link is followed there either: another job may write to it."""
        if self._out < 0:
            from guntainer.resultsfolder import below

            self._out = below(self._into, "artifacts", shown=self._folder)
        try:
            return syscalls.openat2(self._out, path or ".", _FOLDER, resolve=_BELOW)
        except FileNotFoundError:
            pass
        fd = os.dup(self._out)
        for part in path.split("/"):
            above = fd
            try:
                try:
                    os.mkdir(part, dir_fd=above)
                except FileExistsError:
                    pass
                fd = syscalls.openat2(above, part, _FOLDER, resolve=_BELOW)
            finally:
                os.close(above)
        return fd

    def _refuse(self, path: str, why: str) -> None:
        if len(self.refused) < _MOST_TOLD:
            self.refused.setdefault(path, why)


def _as_the_container_sees_them(roots: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Mounts whose places go by links of the rootfs, at the places that these lead to: /var/run/ws is /run/ws."""
    (_, top), *mounts = roots
    found = []
    for place, fd in mounts:
        try:
            below = syscalls.openat2(top, place, os.O_PATH, resolve=abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS)
        except OSError:
            continue  # the container has changed what was there
        try:
            start, end = (os.readlink(f"/proc/self/fd/{one}").rstrip("/") for one in (top, below))
        finally:
            os.close(below)
        seen = end.removeprefix(start).strip("/")
        if end.startswith(f"{start}/") and seen not in ("", place):
            found.append((seen, fd))
    return found


def _why(error: OSError, place: str) -> str:
    if error.errno == errno.EXDEV:
        return f"links that lead out of /{place}" if place else "they lie in something that is mounted"
    if error.errno == errno.ELOOP:
        return "links that lead to themselves"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "links that lead nowhere"
    return error.strerror or str(error)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} bytes"
