"""System calls that Python has no function for, a few lines each, named and documented as in their man pages.

Every function raises OSError with the path it worked on. ctypes.PyDLL keeps the GIL: these calls are made by processes
with one thread. What a container's set-up needs between clone3 and execve is not here but in `program`.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from guntainer.kernel import abi

_libc = ctypes.PyDLL(None, use_errno=True)
_int, _long, _ulong, _text, _pointer = ctypes.c_int, ctypes.c_long, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_void_p

_prctl = _libc.prctl
_prctl.argtypes = (_int, _ulong, _ulong, _ulong, _ulong)
_mprotect = _libc.mprotect
_mprotect.argtypes = (_pointer, ctypes.c_size_t, _int)
_syscall = _libc.syscall
_syscall.restype = _long


def _fail(path: str | bytes | None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fsdecode(path) if path is not None else None)


def raw(number: int, *arguments: int) -> int:
    """Any system call with integer arguments: its result, or -errno."""
    result: int = _syscall(_long(number), *map(_long, arguments))
    return result if result != -1 else -ctypes.get_errno()


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open a path under rules for its resolution: openat2(2), Linux 5.6."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _syscall(
        _long(abi.SYSCALLS["openat2"]),
        _int(dir_fd),
        _text(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        raise _fail(path)
    return fd


class _CloneArgs(ctypes.Structure):
    """struct clone_args of clone(2)."""

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


pidfd_cell = _int(-1)
clone_args = _CloneArgs(pidfd=ctypes.addressof(pidfd_cell))
clone_args_address = ctypes.addressof(clone_args)
CLONE_ARGS_SIZE = ctypes.sizeof(clone_args)


def clone3(flags: int, *, exit_signal: int, cgroup: int = 0) -> tuple[int, int]:
    """Clone this process: clone3(2), Linux 5.3.

    Args:
        flags: CLONE_NEW* and CLONE_PARENT; CLONE_PIDFD is always added. With CLONE_PARENT exit_signal must be 0: the
            kernel takes the caller's own and refuses any other.
        cgroup: with CLONE_INTO_CGROUP, a descriptor of the control group's folder.

    Returns:
        (0, -1) in the child, (pid, pidfd) in the parent. The pidfd is close-on-exec.
    """
    clone_args.flags = flags | abi.CLONE_PIDFD
    clone_args.exit_signal = exit_signal
    clone_args.cgroup = cgroup
    pid: int = _syscall(_long(abi.SYSCALLS["clone3"]), ctypes.byref(clone_args), ctypes.c_size_t(CLONE_ARGS_SIZE))
    if pid < 0:
        raise _fail(None)
    return (pid, pidfd_cell.value) if pid else (0, -1)


def prctl(option: int, argument: int) -> None:
    """Operate on this process: prctl(2)."""
    if _prctl(option, argument, 0, 0, 0) != 0:
        raise _fail(None)


def setns(fd: int, kind: int) -> None:
    """Enter the namespace behind a descriptor: setns(2). Of a user namespace, for a process with one thread."""
    if _syscall(_long(abi.SYSCALLS["setns"]), _int(fd), _int(kind)) != 0:
        raise _fail(None)


def unshare(kinds: int) -> None:
    """Leave the namespaces of these kinds for new ones: unshare(2). A user namespace's, for a process with one thread."""
    if _syscall(_long(abi.SYSCALLS["unshare"]), _int(kinds)) != 0:
        raise _fail(None)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Attach a file system, or change what is attached: mount(2)."""
    words = (_text(os.fsencode(source)), _text(os.fsencode(target)), _text(os.fsencode(kind)))
    if _syscall(_long(abi.SYSCALLS["mount"]), *words, _ulong(flags), _text(os.fsencode(options))) != 0:
        raise _fail(target)


def join_session_keyring() -> None:
    """A session keyring of our own, empty, instead of the one that we were started with: keyctl(2)."""
    _syscall(_long(abi.SYSCALLS["keyctl"]), _int(abi.KEYCTL_JOIN_SESSION_KEYRING), _pointer(None))


def set_process_name(name: bytes) -> None:
    """What ps and top show, 15 bytes at most: PR_SET_NAME of prctl(2)."""
    text = ctypes.create_string_buffer(name[:15])
    _prctl(abi.PR_SET_NAME, ctypes.addressof(text), 0, 0, 0)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Signal the process behind a pidfd: pidfd_send_signal(2), Linux 5.1."""
    nr = _long(abi.SYSCALLS["pidfd_send_signal"])
    if _syscall(nr, _int(pidfd), _int(number), _pointer(None), ctypes.c_uint(0)) != 0:
        raise _fail(None)


_pages: list[mmap.mmap] = []


def executable(code: bytes) -> int:
    """The address of a page of memory with machine code in it, never writable and executable at once: mprotect(2)."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if _mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        raise _fail(None)
    _pages.append(page)  # it stays as long as the process
    return address
