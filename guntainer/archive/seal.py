"""A tree in one number, by which a change of it is found later: taken when it is unpacked, and again by `store verify`.

It is a sha256 over every entry's path, kind, mode, owner; of what is no folder the size, the time of the last change, the
device's numbers, the target of a link. The bytes of files are not read: what changes them and puts size and time back is not
seen. Nor are extended attributes, and what is in a folder that its owner may not enter.
"""

from __future__ import annotations

import os
from array import array
from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH_BYTES = 4000  # of a path in one call
_MOST = 1 << 63
_by_name = attrgetter("name")


def seal(*folders: str) -> str:
    """64 hex digits for folders and all that is in them; one that is missing counts as such.

    Raises:
        OSError: they can not be read.
    """
    # hashlib's own front would load a dozen other algorithms
    from _hashlib import openssl_sha256

    digest = openssl_sha256(usedforsecurity=False)
    for folder in folders:
        try:
            root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            digest.update(b"missing\0")
            continue
        try:
            for row in _rows(root):
                digest.update(row)
        finally:
            os.close(root)
    return digest.hexdigest()


def _rows(root: int) -> Iterator[bytes]:
    """What is hashed, folder by folder."""
    # what is the caller's is root's, as in the container: the same seen from inside of a namespace and from outside
    own = (os.geteuid(), os.getegid())
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            fd = open_below(root, path)
        except PermissionError:
            yield os.fsencode(path) + b"\0closed\0"
            continue
        try:
            with os.scandir(fd) as entries:
                listed = sorted(entries, key=_by_name)
            status = os.fstat(fd)
            numbers = array("q", (status.st_mode, *_owner(status, own)))
            names = [path]
            for entry in listed:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/{name}" if path else name)
                    continue
                names.append(name)
                status = entry.stat(follow_symlinks=False)
                time = status.st_mtime_ns % _MOST  # from the year 2262 on, 64 bits do not hold it
                numbers.extend((status.st_mode, *_owner(status, own), status.st_size, time))
                if status.st_rdev or status.st_mode & 0o170000 == 0o120000:
                    names.append(str(status.st_rdev) if status.st_rdev else os.readlink(name, dir_fd=fd))
            yield b"%d\0" % len(names) + "\0".join(names).encode("utf-8", "surrogateescape") + b"\0" + numbers.tobytes()
        finally:
            os.close(fd)


def _owner(status: os.stat_result, own: tuple[int, int]) -> tuple[int, int]:
    uid, gid = status.st_uid, status.st_gid
    return 0 if uid == own[0] else uid, 0 if gid == own[1] else gid


def open_below(root: int, path: str) -> int:
    """A folder by its path, which may be longer than one call takes."""
    if len(path) < _PATH_BYTES // 4:
        return os.open(path or ".", _FOLDER, dir_fd=root)
    fd = os.dup(root)
    rest = os.fsencode(path)
    while rest:
        cut = len(rest) if len(rest) <= _PATH_BYTES else rest.rindex(b"/", 0, _PATH_BYTES)
        try:
            below = os.open(rest[:cut], _FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd, rest = below, rest[cut + 1 :]
    return fd
