"""Folders that a layer brings by the way, without an entry: in a stack they are to look as the layers below have them.

A layer with `tmp/x` and no `tmp` leaves the mode and the owner of /tmp alone (image-spec layer.md); but overlayfs shows a
merged folder as its uppermost lower has it, and there it is 0755 and root's. So over such a stack lies one folder more, that
holds nothing but those folders, with the attributes that they are to have.
"""

from __future__ import annotations

import errno
import os

from guntainer.kernel import abi, syscalls
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_RULES = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Lower(Value):
    """One folder of a stack."""

    path: str
    implied: frozenset[bytes] = frozenset()
    """Its folders without an entry, as `archive.whiteouts` has them."""
    plain: bool = True
    """Whether its folders are a layer's at all: those of an `opaque` only lead to its whiteouts."""


def write(folder: str, lowers: Sequence[Lower]) -> bool:
    """Make `folder`, to be put on top of a stack; returns False, and makes nothing, where the stack needs none.

    Args:
        lowers: the uppermost first.

    Raises:
        OSError: of the disk. An owner that this process may not give stays its own.
    """
    wanted: dict[bytes, os.stat_result] = {}
    for path in sorted({path for lower in lowers for path in lower.implied}):
        shown = _shown(lowers, path)
        if shown is not None:
            wanted[path] = shown
    if not wanted:
        return False
    os.mkdir(folder, 0o755)
    root = os.open(folder, _FOLDER)
    try:
        made: dict[bytes, os.stat_result] = {}
        for path in wanted:
            _make(root, path)
            for part in _ways(path):
                if part not in made:
                    made[part] = wanted.get(part) or _seen(lowers, part)
        # the deepest first: an upper one may close the way, and its time is changed by what is made in it
        for path in sorted(made, key=lambda path: path.count(b"/"), reverse=True):
            _dress(root, path, made[path])
    finally:
        os.close(root)
    return True


def _ways(path: bytes) -> list[bytes]:
    """a, a/b, a/b/c."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _shown(lowers: Sequence[Lower], path: bytes) -> os.stat_result | None:
    """How a folder is to look, where its uppermost one says nothing of that; None: as it does already, or there is none."""
    implied = False
    for lower in lowers:
        status, ends = _look(lower.path, path)
        if status is not None and lower.plain:
            if path not in lower.implied:
                return status if implied else None
            implied = True
        if ends:
            return None
    return None


def _seen(lowers: Sequence[Lower], path: bytes) -> os.stat_result:
    """How overlayfs shows a folder that is there."""
    for lower in lowers:
        status, _ = _look(lower.path, path)
        if status is not None:
            return status
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))


def _look(tree: str, path: bytes) -> tuple[os.stat_result | None, bool]:
    """(the folder of that path in a tree, or None; whether the trees below are hidden there)."""
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = syscalls.openat2(root, os.fsdecode(path), os.O_PATH | os.O_NOFOLLOW, resolve=_RULES)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        return None, error.errno != errno.ENOENT
    finally:
        os.close(root)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    is_folder = status.st_mode & 0o170000 == 0o040000
    return (status, False) if is_folder else (None, True)


def _make(root: int, path: bytes) -> None:
    fd = os.dup(root)
    try:
        for part in path.split(b"/"):
            above = fd
            try:
                os.mkdir(part, 0o700, dir_fd=above)
            except FileExistsError:
                pass
            fd = os.open(part, _FOLDER, dir_fd=above)
            os.close(above)
    finally:
        os.close(fd)


def _dress(root: int, path: bytes, status: os.stat_result) -> None:
    fd = syscalls.openat2(root, os.fsdecode(path), _FOLDER, resolve=_RULES)
    try:
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            try:
                os.fchown(fd, status.st_uid, status.st_gid)
            except PermissionError:
                pass  # of a sub-id, made outside of the namespace that maps it
        os.fchmod(fd, status.st_mode & 0o7777)
        os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)
