"""Constants of the kernel's interface, named as in its headers. Numbers above 423 are the same on every architecture."""

from __future__ import annotations

import os

# clone(2), <linux/sched.h>
CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
CLONE_PIDFD = 0x0000_1000
CLONE_PARENT = 0x0000_8000
CLONE_VM = 0x0000_0100
CLONE_PARENT_SETTID = 0x0010_0000
CLONE_CHILD_CLEARTID = 0x0020_0000
CLONE_CLEAR_SIGHAND = 0x1_0000_0000  # Linux 5.5
CLONE_INTO_CGROUP = 0x2_0000_0000  # Linux 5.7

NAMESPACES = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "cgroup": CLONE_NEWCGROUP,
    "network": CLONE_NEWNET,
}

# mount(2), <linux/mount.h>
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 1
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_CMD_CREATE = 6
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_FDCWD = -100
S_IFREG = 0o100000
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

# openat2(2), Linux 5.6
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# keyctl(2)
KEYCTL_JOIN_SESSION_KEYRING = 1

# seccomp(2)
SECCOMP_SET_MODE_FILTER = 1

# close_range(2), Linux 5.9; the flag 5.11
CLOSE_RANGE_CLOEXEC = 4

# netdevice(7)
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

# <linux/if_tun.h>
TUNSETIFF = 0x4004_54CA
TUNSETPERSIST = 0x4004_54CB
TUNSETIFINDEX = 0x4004_54DA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000

# netlink(7), rtnetlink(7)
AF_INET = 2
AF_INET6 = 10
AF_NETLINK = 16
SOCK_RAW = 3
NLM_F_REQUEST = 0x001
NLM_F_CREATE = 0x400
RTM_NEWROUTE = 24
RTA_DST = 1
RTA_OIF = 4
RTA_PRIORITY = 6
RT_TABLE_LOCAL = 255
RT_SCOPE_HOST = 254
RTPROT_STATIC = 4
RTN_LOCAL = 2

# send(2), recv(2)
MSG_DONTWAIT = 0x40
MSG_NOSIGNAL = 0x4000

# ioctl_ficlone(2), Linux 4.5
FICLONE = 0x4004_9409

# ioctl_tty(2)
TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414

# ioctl_tty(2)
TIOCSPTLCK = 0x4004_5431
TIOCGPTPEER = 0x5441  # Linux 4.13

# System call numbers: syscalls(2). Those above 423 are the same everywhere.
_COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
# name: (x86_64, <asm-generic/unistd.h>: aarch64, riscv64, loongarch64)
_BY_MACHINE = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "execve": (59, 221),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "fchown": (93, 55),
    "umask": (95, 166),
    "setsid": (112, 157),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "mount": (165, 40),
    "umount2": (166, 39),
    "sethostname": (170, 161),
    "exit_group": (231, 94),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "symlinkat": (266, 36),
    "faccessat": (269, 48),
    "utimensat": (280, 88),
    "dup3": (292, 24),
    "ppoll": (271, 73),
    "prlimit64": (302, 261),
    "execveat": (322, 281),
    "unshare": (272, 97),
    "setns": (308, 268),
    "capset": (126, 91),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "keyctl": (250, 219),
    "seccomp": (317, 277),
}
_COLUMN = 0 if os.uname().machine == "x86_64" else 1
SYSCALLS = {name: numbers[_COLUMN] for name, numbers in _BY_MACHINE.items()} | _COMMON
