"""A rootfs as a stack of folders, and what the host may read inside of it before anything runs there.

Every look goes through openat2, because nothing in a rootfs is trusted; in a stack what is seen is what overlayfs would show.
"""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.kernel import abi, syscalls
from guntainer.spec import Account
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.image.config import Config
    from guntainer.jobs.model import Job, Mount

_FILE_LIMIT = 1 << 20  # bytes of a passwd or group that are looked at
_ID_LIMIT = (1 << 32) - 2
_MOST_LINKS = 40  # as the kernel has it: path_resolution(7)


class Rootfs(Value):
    """What a container's root is made of."""

    lowers: tuple[str, ...]
    """Folders, uppermost first: overlayfs's lower folders."""
    base: str = ""
    """The folder that they are seen from, where they are relative: fifty long paths would not fit into one mount(2)."""
    config: Config | None = None
    """What an image says of how it is run."""
    mounts: tuple[Mount, ...] = ()
    """Of the host's own folders, where these are the rootfs."""
    accounts: str = ""
    """The folder whose passwd and group count, where it is none of its own."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The lowers, absolute."""
        return tuple(f"{self.base}/{lower}" for lower in self.lowers) if self.base else self.lowers

    def job(self, job: Job) -> Job:
        """A job as it is run on this: what it leaves open is as the image has it."""
        if self.config is not None or job.entrypoint is not None or (job.key and not job.command):
            from guntainer.image import config

            job = config.applied(job, self.config or config.NO_CONFIG)
        if self.mounts:
            own = {mount.target.rstrip("/") for mount in job.mounts}
            job = job.replace(mounts=(*(one for one in self.mounts if one.target not in own), *job.mounts))
        return job


def _lookup(folders: tuple[str, ...], parts: list[str], flags: int = os.O_PATH | os.O_NOFOLLOW) -> int | None:
    """A descriptor of what overlayfs shows at a path none of whose parts is a link; None: nothing."""
    path = "/".join(parts) or "."
    for folder in folders:
        try:
            root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fd = syscalls.openat2(root, path, flags, resolve=abi.RESOLVE_BENEATH | abi.RESOLVE_NO_MAGICLINKS)
        except FileNotFoundError:
            continue
        except OSError:
            return None  # a whiteout, a file or a link on the way hides what lies below
        finally:
            os.close(root)
        if _is_whiteout(os.fstat(fd)):
            os.close(fd)
            return None
        return fd
    return None


def _is_whiteout(status: os.stat_result) -> bool:
    """A character device 0:0: overlayfs.rst, "whiteouts and opaque directories"."""
    return status.st_mode & 0o170000 == 0o020000 and status.st_rdev == 0


class opened:  # noqa: N801 - used as a function
    """`with opened(folders, path) as fd:` what overlayfs shows there, a link as itself, opened with O_PATH; -1: nothing."""

    def __init__(self, folders: tuple[str, ...], path: str) -> None:
        self._fd = _lookup(folders, path.split("/"))

    def __enter__(self) -> int:
        return -1 if self._fd is None else self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)


def _resolved(folders: tuple[str, ...], path: str, missing: dict[str, None] | None = None) -> list[str] | None:
    """The parts of a path with its links followed, inside of the stack; None: it leads nowhere.

    Args:
        missing: what is not there is added to it, and the way goes on as if it were.
    """
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        fd = _lookup(folders, [*done, part])
        if fd is None:
            if missing is None:
                return None
            done.append(part)
            missing["/".join(done)] = None
            continue
        try:
            if os.fstat(fd).st_mode & 0o170000 != 0o120000:
                done.append(part)
                continue
            target = os.readlink("", dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        links += 1
        if links > _MOST_LINKS:
            return None
        if target.startswith("/"):
            done.clear()
        todo += [one for one in target.split("/") if one not in ("", ".")][::-1]
    return done


def missing(folders: tuple[str, ...], path: str) -> tuple[str, ...]:
    """What would have to be made for a path to be there, from above: paths without links, relative to the root."""
    found: dict[str, None] = {}
    _resolved(folders, path, found)
    return tuple(found)


def _open(folders: tuple[str, ...], path: str, flags: int) -> int:
    """Open what a path inside means, links followed.

    Raises:
        OSError: there is nothing, or nothing of that kind.
    """
    if len(folders) > 1:
        parts = _resolved(folders, path)
        fd = _lookup(folders, parts, flags) if parts is not None else None
        if fd is None:
            raise FileNotFoundError(path)
        return fd
    root = os.open(folders[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.openat2(root, path, flags, resolve=abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(root)


def read_inside(folders: tuple[str, ...], path: str) -> bytes:
    """The first MiB of a regular file inside; b"" where there is none."""
    try:
        # O_NONBLOCK: a FIFO in its place must not hang us
        fd = _open(folders, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(fd, _FILE_LIMIT)
    except OSError:
        return b""
    finally:
        os.close(fd)


def is_folder(folders: tuple[str, ...], path: str) -> bool | None:
    """Whether a path is a folder itself, not a link to one; None where there is nothing."""
    fd = _lookup(folders, path.split("/"))
    if fd is None:
        return None
    try:
        return os.fstat(fd).st_mode & 0o170000 == 0o040000
    finally:
        os.close(fd)


_PACKAGE_MANAGERS = ("var/lib/dpkg", "etc/apk", "var/lib/rpm", "usr/lib/sysimage/rpm", "var/lib/pacman", "var/db/xbps")


def has_package_manager(folders: tuple[str, ...]) -> bool:
    """Whether this is a distribution's rootfs, whose packages want owners and devices."""
    return any(_is_folder_inside(folders, path) for path in _PACKAGE_MANAGERS)


def _is_folder_inside(folders: tuple[str, ...], path: str) -> bool:
    try:
        os.close(_open(folders, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _rows(folders: tuple[str, ...], path: str, columns: int) -> list[list[str]]:
    text = read_inside(folders, path).decode("utf-8", "surrogateescape")
    rows = [line.split(":") for line in text.splitlines() if not line.startswith("#")]
    return [row for row in rows if len(row) >= columns]


def account(folders: tuple[str, ...], user: str | None) -> Account:
    """Who `-u` means: `UID[:GID]` or `name[:group]`, looked up in the rootfs's passwd and group; None: root.

    Raises:
        UsageError: the name is not there, or a number is out of range.
    """
    name, _, group = (user or "0").partition(":")
    passwd = _rows(folders, "etc/passwd", 4)
    row = next((row for row in passwd if row[0] == name), None)
    if row is None and name.isdecimal():
        row = next((row for row in passwd if row[2] == name), None)
        uid = _number(name, user)
    elif row is None:
        raise errors.UsageError(f"user {name!r} is not in the rootfs's /etc/passwd", hint="give a number, or add it")
    else:
        uid = _number(row[2], user)
    gid = _number(row[3], user) if row is not None else 0
    groups: tuple[int, ...] = ()
    if group:
        gid = _group(folders, group, user)
    elif row is not None:
        groups = _member_of(folders, row[0], gid)
    home = row[5] if row is not None and len(row) > 5 and row[5].startswith("/") else "/root" if uid == 0 else "/"
    return Account(uid=uid, gid=gid, groups=groups, home=home)


_MOST_GROUPS = 256


def _member_of(folders: tuple[str, ...], name: str, gid: int) -> tuple[int, ...]:
    """The groups besides `gid` that the rootfs's group(5) has this user in."""
    rows = [row for row in _rows(folders, "etc/group", 4) if name in row[3].split(",") and row[2].isdecimal()]
    found = dict.fromkeys(int(row[2]) for row in rows if int(row[2]) <= _ID_LIMIT)
    return tuple(one for one in found if one != gid)[:_MOST_GROUPS]


def _group(folders: tuple[str, ...], group: str, user: str | None) -> int:
    if group.isdecimal():
        return _number(group, user)
    row = next((row for row in _rows(folders, "etc/group", 3) if row[0] == group), None)
    if row is None:
        raise errors.UsageError(f"group {group!r} is not in the rootfs's /etc/group", hint="give a number, or add it")
    return _number(row[2], user)


def _number(text: str, user: str | None) -> int:
    if not text.isdecimal() or int(text) > _ID_LIMIT:
        raise errors.UsageError(f"user {user!r}: {text!r} is not an id from 0 to {_ID_LIMIT}")
    return int(text)
