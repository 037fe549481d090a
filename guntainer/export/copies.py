"""A run on a copy of its rootfs, for want of overlayfs: what guntainer has put into that copy is taken out of it again.

Elsewhere that is a layer of its own, see `skeleton`; in a copy it stands in place of what the rootfs has. A file that the run
has changed is the run's, and stays.
"""

from __future__ import annotations

import os
import stat

from guntainer import rootfs as rootfs_
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.rootfs import Rootfs

_RULES = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def take_out(skeleton: str, copy: str, rootfs: Rootfs) -> None:
    """In a helper: make the copy what the rootfs was, where it still is as the skeleton has made it."""
    root = os.open(copy, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder, folders, files in os.walk(skeleton, topdown=False):
            where = os.path.relpath(folder, skeleton)
            try:
                above = syscalls.openat2(root, where, os.O_RDONLY | os.O_DIRECTORY, resolve=_RULES)
            except OSError:
                continue  # the run has removed it, or put something else there
            try:
                for name in files:
                    _file(above, name, f"{folder}/{name}", rootfs, os.path.normpath(f"{where}/{name}"))
                for name in folders:
                    if rootfs_.is_folder(rootfs.folders, os.path.normpath(f"{where}/{name}")) is None:
                        _rmdir(above, name)
            finally:
                os.close(above)
    finally:
        os.close(root)


def _rmdir(above: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=above)
    except OSError:
        pass  # the run has put something into it


def _file(above: int, name: str, ours: str, rootfs: Rootfs, path: str) -> None:
    try:
        fd = os.open(name, _FILE, dir_fd=above)
    except OSError:
        return
    try:
        with open(ours, "rb") as file:
            wanted = file.read()
        if not stat.S_ISREG(os.fstat(fd).st_mode) or os.pread(fd, len(wanted) + 1, 0) != wanted:
            return
    finally:
        os.close(fd)
    os.unlink(name, dir_fd=above)
    with rootfs_.opened(rootfs.folders, path) as original:
        if original >= 0:
            _put(above, name, original)


def _put(above: int, name: str, original: int) -> None:
    """The rootfs's own, behind a descriptor that may be an O_PATH one."""
    status = os.fstat(original)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink("", dir_fd=original), name, dir_fd=above)
    elif stat.S_ISREG(status.st_mode):
        source = os.open(f"/proc/self/fd/{original}", os.O_RDONLY | os.O_CLOEXEC)
        made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=above)
        try:
            while os.sendfile(made, source, None, 1 << 20):
                pass
            os.fchown(made, status.st_uid, status.st_gid)
            os.fchmod(made, stat.S_IMODE(status.st_mode))
        finally:
            os.close(made)
            os.close(source)
    else:
        return
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=above, follow_symlinks=False)
