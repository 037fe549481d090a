"""Remove a tree that nobody trusts: never through a symbolic link, whatever its modes and however deep.

Everything is done by name relative to an open folder, so nothing that is swapped meanwhile can lead outside.

What a removal takes is the kernel's time alone, one call for each name. So a large tree is removed by two threads.
"""

from __future__ import annotations

import _thread
import os

from guntainer import idmap

_DEEP = 200  # folders held open at once; what lies deeper is moved up first
_WIDE = 64  # folders side by side that are worth a second thread
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove `path` and everything below it; nothing happens where it is missing.

    Folders without permissions (a rootfs may have them, overlayfs leaves one) get them first. What belongs to the caller's
    sub-ids is removed in a user namespace that maps them.

    Raises:
        OSError: something can not be removed, for example because another user owns it.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if mode & 0o170000 != 0o040000:
        os.unlink(path)
        return
    try:
        _remove_here(path)
    except PermissionError:
        if not idmap.remove_mapped(path):
            raise


def _remove_here(path: str) -> None:
    parent = os.open(os.path.dirname(os.path.abspath(path)), _FLAGS & ~os.O_NOFOLLOW)
    try:
        _remove_wide(parent, os.path.basename(os.path.abspath(path)))
    finally:
        os.close(parent)


def _remove_wide(parent: int, name: str) -> None:
    """Level by level until there are enough folders to share out, those in two threads, then the levels above them."""
    opened: list[tuple[int, int, str]] = []
    folders = [(parent, name)]
    try:
        while folders and len(folders) < _WIDE and len(opened) < _WIDE:
            above, own = folders.pop(0)
            fd = _open(own, above)
            opened.append((fd, above, own))
            folders += [(fd, below) for below in _empty(fd)]
        _share(folders)
        while opened:
            fd, above, own = opened.pop()
            os.close(fd)
            os.rmdir(own, dir_fd=above)
    finally:
        for fd, _, _ in opened:
            os.close(fd)


def _share(folders: list[tuple[int, str]]) -> None:
    """Remove folders, each given by an open one and its name in there."""
    failed: list[BaseException] = []

    def work() -> None:
        while folders:
            try:
                folder = folders.pop()
            except IndexError:
                return  # the other one was quicker
            _remove_folder(*folder)

    def beside() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
        finally:
            over.release()

    over = _thread.allocate_lock()
    if len(folders) >= _WIDE and len(os.sched_getaffinity(0)) > 1:
        over.acquire()
        try:
            _thread.start_new_thread(beside, ())
        except RuntimeError:
            over.release()  # no more threads are allowed
    try:
        work()
    finally:
        folders.clear()
        over.acquire()
    if failed:
        raise failed[0]


def _open(name: str, parent: int) -> int:
    try:
        return os.open(name, _FLAGS, dir_fd=parent)
    except PermissionError:
        _permit(name, parent)
        return os.open(name, _FLAGS, dir_fd=parent)


def _permit(name: str, parent: int) -> None:
    """Give a folder all of its owner's permissions: by an O_PATH descriptor, since chmod(2) would follow a link."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def _remove_folder(parent: int, name: str) -> None:
    """Depth first, with a stack of (folder's fd, its name in the one above, subfolders still to do)."""
    stack: list[tuple[int, str, list[str]]] = []
    try:
        _enter(stack, parent, name)
        while stack:
            fd, own, folders = stack[-1]
            if not folders:
                os.rmdir(own, dir_fd=stack[-2][0] if len(stack) > 1 else parent)
                os.close(stack.pop()[0])
            elif len(stack) < _DEEP:
                _enter(stack, fd, folders.pop())
            else:
                # too deep to hold everything open: it becomes a subfolder of the top
                stack[0][2].append(_move(folders.pop(), fd, stack[0][0]))
    except BaseException:
        for fd, _, _ in stack:
            os.close(fd)
        raise


def _enter(stack: list[tuple[int, str, list[str]]], parent: int, name: str) -> None:
    below = _open(name, parent)
    folders: list[str] = []
    stack.append((below, name, folders))
    folders += _empty(below)


def _move(name: str, source: int, goal: int) -> str:
    """Move a folder into another one, under a name that nobody has there; returns that."""
    new = f".{os.urandom(8).hex()}"
    try:
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=goal)
    except PermissionError:
        _permit(name, source)  # its `..` is written to
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=goal)
    return new


def _empty(fd: int) -> list[str]:
    """Unlink everything in a folder that is not a folder; returns the names of those that are."""
    folders = []
    writable = False
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in names:
        if is_folder:
            folders.append(name)
            continue
        try:
            os.unlink(name, dir_fd=fd)
        except PermissionError:
            if writable:
                raise
            os.fchmod(fd, 0o700)
            writable = True
            os.unlink(name, dir_fd=fd)
    if folders and not writable:
        mode = os.fstat(fd).st_mode
        if mode & 0o300 != 0o300:
            os.fchmod(fd, 0o700)
    return folders


def remove_inside(parent: int, name: str) -> None:
    """Remove `name` in the open folder `parent`, whatever it is."""
    try:
        if os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & 0o170000 == 0o040000:
            _remove_folder(parent, name)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
