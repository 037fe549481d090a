"""The numbers of system calls by name, per architecture: libseccomp's tables, and what is newer than the library.

The only place of this room with ctypes. An architecture is a number as audit(8) has it, AUDIT_ARCH_* of <linux/audit.h>;
x32, which has none of its own there, has libseccomp's.
"""

from __future__ import annotations

import ctypes

from guntainer import errors

X86_64, X86, X32 = 0xC000_003E, 0x4000_0003, 0x4000_003E
AARCH64, ARM = 0xC000_00B7, 0x4000_0028
RISCV64, LOONGARCH64 = 0xC000_00F3, 0xC000_0102
X32_BIT = 0x4000_0000
"""__X32_SYSCALL_BIT: an x32 call comes as one of x86_64 with this bit in its number, seccomp(2)."""

_UNKNOWN = -1  # __NR_SCMP_ERROR
# The calls that an entrance's first argument chooses: libseccomp's numbers for them, and the part of that argument that the
# kernel looks at: ipc(2) has a version in the upper half.
_GROUPS = ((b"socketcall", (-120, -101), 0xFFFF_FFFF), (b"ipc", (-224, -201), 0xFFFF))

# From 424 on, a number means the same everywhere: <asm-generic/unistd.h>. Linux 5.1 to 6.17.
_EVERYWHERE = {
    name: number
    for number, name in enumerate(
        (
            *("pidfd_send_signal", "io_uring_setup", "io_uring_enter", "io_uring_register", "open_tree", "move_mount"),
            *("fsopen", "fsconfig", "fsmount", "fspick", "pidfd_open", "clone3", "close_range", "openat2"),
            *("pidfd_getfd", "faccessat2", "process_madvise", "epoll_pwait2", "mount_setattr", "quotactl_fd"),
            *("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "memfd_secret"),
            *("process_mrelease", "futex_waitv", "set_mempolicy_home_node", "cachestat", "fchmodat2"),
            *("map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue", "statmount", "listmount"),
            *("lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "mseal", "setxattrat", "getxattrat"),
            *("listxattrat", "removexattrat", "open_tree_attr", "file_getattr", "file_setattr"),
        ),
        start=424,
    )
}
_NEWER = {
    X86_64: {"uretprobe": 335, "uprobe": 336},
    RISCV64: {"riscv_hwprobe": 258, "riscv_flush_icache": 259},
}
# What i386 has besides the entrance through socketcall and ipc, under which libseccomp files these: syscall_32.tbl.
_DIRECT = {
    X86: {
        name: number
        for start, names in (
            (337, ("recvmmsg",)),
            (345, ("sendmmsg",)),
            (359, ("socket", "socketpair", "bind", "connect", "listen", "accept4", "getsockopt", "setsockopt")),
            (367, ("getsockname", "getpeername", "sendto", "sendmsg", "recvfrom", "recvmsg", "shutdown")),
            (393, ("semget", "semctl", "shmget", "shmctl", "shmat", "shmdt", "msgget", "msgsnd", "msgrcv", "msgctl")),
        )
        for number, name in enumerate(names, start)
    }
}

_library: ctypes.CDLL | None = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    Place = tuple[int, int, int]


def library() -> ctypes.CDLL:
    """libseccomp, loaded: seccomp_syscall_resolve_name(3), seccomp_arch_native(3).

    Raises:
        HostError: it is not there.
    """
    global _library
    if _library is None:
        try:
            loaded = ctypes.CDLL("libseccomp.so.2")
            loaded.seccomp_arch_native.restype = ctypes.c_uint32
            loaded.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
        except (OSError, AttributeError):
            raise errors.HostError(
                "the seccomp filter needs the library libseccomp.so.2, which is not here",
                hint="install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora, Alpine, Arch), "
                "or go without a filter: --security-opt seccomp=unconfined --root-emulation off",
                probe="seccomp",
            ) from None
        _library = loaded
    return _library


def native() -> int:
    """This machine's architecture."""
    number: int = library().seccomp_arch_native()
    return number


def places(architecture: int, name: str) -> tuple[Place, ...] | None:
    """Where the call `name` enters the kernel: numbers, and what the first argument must be there.

    Returns:
        (number, mask of the first argument or 0, its value under that mask) each; empty where this architecture has no
        such call; None where nobody knows one of that name, on any architecture.
    """
    number = library().seccomp_syscall_resolve_name_arch(architecture, name.encode())
    if number >= 0:
        return ((number, 0, 0),)
    if number == _UNKNOWN:
        newer = _EVERYWHERE.get(name) or _NEWER.get(architecture, {}).get(name)
        if newer:
            return ((newer | X32_BIT if architecture == X32 else newer, 0, 0),)
        return () if any(name in names for names in _NEWER.values()) else None
    direct = _DIRECT.get(architecture, {}).get(name)
    found = [(direct, 0, 0)] if direct is not None else []
    for group, (last, first), mask in _GROUPS:
        if last <= number <= first:
            entrance = library().seccomp_syscall_resolve_name_arch(architecture, group)
            if entrance >= 0:
                found.append((entrance, mask, first + 1 - number))
    return tuple(found)
