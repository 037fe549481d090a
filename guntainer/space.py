"""Whether the file system of a writable layer is full: statvfs(3).

A command that is told ENOSPC ends as it likes, and the kernel's answers to a set-up on a full disk lead astray: overlayfs
without room for its work folder is mounted read-only, and what can not be made "does not exist". So it is looked at when
something has failed.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.errors import GuntainerError

_LITTLE_BYTES, _FEW_INODES = 64 << 10, 16
"""What a file system may still have when it refuses a little more."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def full(path: str) -> str:
    """Where the file system of `path` is mounted, when hardly a block or an inode is left in it; else ""."""
    try:
        found = os.statvfs(path)
    except OSError:
        return ""
    blocks = found.f_blocks > 0 and found.f_bavail * found.f_frsize < _LITTLE_BYTES
    if not blocks and not (found.f_files > 0 and found.f_favail < _FEW_INODES):
        return ""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def note(layer: str) -> str:
    """Of a container that has failed: that its writable layer is full; "" where it is not, or there is none on disk."""
    place = full(layer) if layer else ""
    return f"no space left on {place} (TMPDIR), where the writable layers are" if place else ""


def explain(error: GuntainerError, layer: str) -> None:
    """Name a full file system in the error of a set-up; one that comes from something else is left as it is."""
    place = full(layer) if layer else ""
    if place:
        error.hint = f"no space is left on {place}: free some, set TMPDIR to a larger disk, or use --scratch memory"
        error.probe = "tmpdir"


def hint(error: OSError) -> str:
    """What to do about a file of ours, a log or a layer, that could not be made; "" where it is not for want of room."""
    if error.errno not in _FULL:
        return ""
    return "free some, or have it on a larger disk: TMPDIR, for logs --results"
