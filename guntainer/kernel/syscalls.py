"""System calls that Python has no function for, three lines each, named and documented as in their man pages.

Every function raises OSError with the path it worked on. ctypes.PyDLL keeps the GIL: these calls are made by processes
with one thread, some of them between clone3 and execve, where taking and giving locks is not allowed. Nothing here
allocates threads, logs or imports.
"""

from __future__ import annotations

import ctypes
import os

from guntainer.kernel import abi

_libc = ctypes.PyDLL(None, use_errno=True)
_int, _long, _ulong, _text, _pointer = ctypes.c_int, ctypes.c_long, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_void_p

_mount = _libc.mount
_mount.argtypes = (_text, _text, _text, _ulong, _text)
_umount2 = _libc.umount2
_umount2.argtypes = (_text, _int)
_pivot_root = _libc.pivot_root
_pivot_root.argtypes = (_text, _text)
_prctl = _libc.prctl
_prctl.argtypes = (_int, _ulong, _ulong, _ulong, _ulong)
_sethostname = _libc.sethostname
_sethostname.argtypes = (_text, ctypes.c_size_t)
_syscall = _libc.syscall
_syscall.restype = _long


def _fail(path: str | bytes | None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fsdecode(path) if path is not None else None)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount a file system, or change a mount: mount(2)."""
    encode = os.fsencode
    result = _mount(
        encode(source) if source is not None else None,
        encode(target),
        encode(kind) if kind is not None else None,
        flags,
        encode(options) if options is not None else None,
    )
    if result != 0:
        raise _fail(target)


def umount(target: str, flags: int = 0) -> None:
    """Unmount: umount2(2)."""
    if _umount2(os.fsencode(target), flags) != 0:
        raise _fail(target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Change the root mount of this mount namespace: pivot_root(2)."""
    if _pivot_root(os.fsencode(new_root), os.fsencode(put_old)) != 0:
        raise _fail(new_root)


def open_tree(path: str, *, recursive: bool, dir_fd: int = abi.AT_FDCWD) -> int:
    """A detached copy of the mount at `path`, as a descriptor: open_tree(2), Linux 5.2."""
    flags = abi.OPEN_TREE_CLONE | abi.OPEN_TREE_CLOEXEC | (abi.AT_RECURSIVE if recursive else 0)
    fd: int = _syscall(_long(abi.NR_OPEN_TREE), _int(dir_fd), _text(os.fsencode(path)), ctypes.c_uint(flags))
    if fd < 0:
        raise _fail(path)
    return fd


def move_mount(tree_fd: int, target_fd: int, subject: str) -> None:
    """Attach a detached mount on the file or folder `target_fd`: move_mount(2), Linux 5.2."""
    flags = abi.MOVE_MOUNT_F_EMPTY_PATH | abi.MOVE_MOUNT_T_EMPTY_PATH
    empty = _text(b"")
    if _syscall(_long(abi.NR_MOVE_MOUNT), _int(tree_fd), empty, _int(target_fd), empty, ctypes.c_uint(flags)) != 0:
        raise _fail(subject)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(fd: int, path: str, attributes: int, *, recursive: bool) -> None:
    """Set mount attributes, whole trees at once: mount_setattr(2), Linux 5.12."""
    attr = _MountAttr(attributes, 0, 0, 0)
    flags = (abi.AT_EMPTY_PATH if not path else 0) | (abi.AT_RECURSIVE if recursive else 0)
    result = _syscall(
        _long(abi.NR_MOUNT_SETATTR),
        _int(fd),
        _text(os.fsencode(path)),
        ctypes.c_uint(flags),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    if result != 0:
        raise _fail(path or None)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open a path under rules for its resolution: openat2(2), Linux 5.6."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _syscall(
        _long(abi.NR_OPENAT2),
        _int(dir_fd),
        _text(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        raise _fail(path)
    return fd


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


_pidfd_cell = _int(-1)
_clone_args = _CloneArgs(pidfd=ctypes.addressof(_pidfd_cell))
_clone_args_at = ctypes.byref(_clone_args)
_clone_args_size = ctypes.c_size_t(ctypes.sizeof(_clone_args))
_nr_clone3 = _long(abi.NR_CLONE3)


def clone3(flags: int, *, exit_signal: int) -> tuple[int, int]:
    """Clone this process: clone3(2), Linux 5.3.

    Args:
        flags: CLONE_NEW* and CLONE_PARENT; CLONE_PIDFD is always added. With CLONE_PARENT exit_signal must be 0: the
            kernel takes the caller's own and refuses any other.

    Returns:
        (0, -1) in the child, (pid, pidfd) in the parent. The pidfd is close-on-exec.
    """
    _clone_args.flags = flags | abi.CLONE_PIDFD
    _clone_args.exit_signal = exit_signal
    pid: int = _syscall(_nr_clone3, _clone_args_at, _clone_args_size)
    if pid < 0:
        raise _fail(None)
    return (pid, _pidfd_cell.value) if pid else (0, -1)


def prctl(option: int, argument: int) -> None:
    """Operate on this process: prctl(2)."""
    if _prctl(option, argument, 0, 0, 0) != 0:
        raise _fail(None)


def set_process_name(name: bytes) -> None:
    """What ps and top show, 15 bytes at most: PR_SET_NAME of prctl(2)."""
    text = ctypes.create_string_buffer(name[:15])
    _prctl(abi.PR_SET_NAME, ctypes.addressof(text), 0, 0, 0)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace: sethostname(2)."""
    encoded = os.fsencode(name)
    if _sethostname(encoded, len(encoded)) != 0:
        raise _fail(name)


def close_range_on_exec(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec: close_range(2), Linux 5.11; one by one before that."""
    if _syscall(_long(abi.NR_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(0xFFFF_FFFF), _int(4)) == 0:
        return
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= first:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                pass  # the descriptor of the listing itself


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Signal the process behind a pidfd: pidfd_send_signal(2), Linux 5.1."""
    if _syscall(_long(abi.NR_PIDFD_SEND_SIGNAL), _int(pidfd), _int(number), _pointer(None), ctypes.c_uint(0)) != 0:
        raise _fail(None)
