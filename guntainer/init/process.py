"""The operations that make a container's process: its ids, namespaces, streams, limits, and what it is not allowed.

Their names and their order are the plan's, see `ops`.
"""

from __future__ import annotations

import os
import struct

from guntainer.init import FAULTS, INIT, LIFE, LIFE_WRITER, MASTER, SLAVE
from guntainer.kernel import abi
from guntainer.kernel.program import Program

_HERE = abi.AT_FDCWD
_RLIM_INFINITY = 0xFFFF_FFFF_FFFF_FFFF

# -- ids, control group, session, names


def id_map(program: Program, uid_map: str, gid_map: str) -> None:
    """Map ids of the new user namespace: user_namespaces(7). setgroups is denied first, or gid_map would be refused."""
    for path, text in (("setgroups", "deny"), ("uid_map", uid_map), ("gid_map", gid_map)):
        fd = program.call("openat", _HERE, f"/proc/self/{path}", os.O_WRONLY | os.O_CLOEXEC)
        program.call("write", fd, text, len(text))


def map_ids(program: Program, uid_map: str, gid_map: str) -> None:
    """Ids of a new user namespace, as whoever clones has them: it maps them, since more than one id takes rights outside."""
    program.wait_for_maps(uid_map, gid_map)


def into_cgroup(program: Program, index: int, own_memory: bool, _limits: str) -> None:
    """Begin in the control group behind a descriptor: CLONE_INTO_CGROUP of clone(2), Linux 5.7; no call of the child's.

    Args:
        own_memory: its limit of memory is so small that the set-up may reach it. The kernel's OOM killer kills whoever shares
            the memory of the one that it takes, which would be the supervisor; a copy of that memory costs a launch a third.
    """
    program.cgroup = index
    program.own_memory = own_memory


def cgroup_namespace(program: Program) -> None:
    """See no control group but the own and those below: cgroup_namespaces(7).

    Not with the clone itself, which takes the parent's control group for the root of the new namespace.
    """
    program.call("unshare", abi.CLONE_NEWCGROUP)


def death_signal(program: Program, signal: int = 9) -> None:
    """Die with the supervisor: PR_SET_PDEATHSIG, then a look whether it died before that.

    LIFE is the reading end of a pipe, never written to, whose writing end the supervisor alone holds: end of file, a read
    that does not fail with EAGAIN, means that it is gone. A clone of the supervisor itself has a copy of the writing end
    and closes that first. In a new pid namespace getppid(2) is 0 and tells nothing.
    """
    program.call("prctl", abi.PR_SET_PDEATHSIG, signal, 0, 0, 0)
    alive, dead = program.label(), program.label()
    program.call_with_fd("close", 0, LIFE_WRITER, ignore=True)
    look = program.call_with_fd("read", 0, LIFE, program.data(bytes(8), shared=False), 1)
    program.on_error(look, alive)
    program.jump_to(look, dead)
    program.here(dead)
    program.call("exit_group", 125)
    program.here(alive)


def new_session(program: Program) -> None:
    program.call("setsid")


def join(program: Program, index: int, namespaces: int) -> None:
    """Enter the namespaces of a container, by its init's pidfd: setns(2), Linux 5.8. Of its pid namespace, for children only."""
    program.call_with_fd("setns", 0, index, namespaces)


def hostname(program: Program, name: str) -> None:
    program.call("sethostname", name, len(os.fsencode(name)))


# -- network


def loopback_up(program: Program) -> None:
    """Bring `lo` up in an own network namespace: netdevice(7); struct ifreq is a name and, here, flags."""
    af_inet, sock_dgram = 2, 2
    sock = program.call("socket", af_inet, sock_dgram | os.O_CLOEXEC, 0)
    program.call("ioctl", sock, abi.SIOCSIFFLAGS, program.data(struct.pack("16sH22x", b"lo", abi.IFF_UP)))


def offer_network(program: Program, channel: int, ping_groups: tuple[int, int]) -> None:
    from guntainer.init import private_network  # few containers have one

    private_network.offer(program, channel, ping_groups)


def await_network(program: Program, channel: int) -> None:
    from guntainer.init import private_network

    private_network.wait(program, channel)


# -- streams


def stdio(program: Program, stdin: int, stdout: int, stderr: int) -> None:
    """Descriptors 0, 1 and 2; -1 leaves one as it is."""
    for target, index in enumerate((stdin, stdout, stderr)):
        if index >= 0:
            program.call_with_fd("dup3", 0, index, target, 0)


def terminal(program: Program, channel: int, rows: int, columns: int) -> None:
    """A pseudo-terminal of the container's own devpts, controlling this session; its master goes through `channel`.

    The devpts is new, so the first terminal in it is number 0.
    """
    how = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    program.call("dup3", program.call("openat", _HERE, "/dev/ptmx", how), MASTER, os.O_CLOEXEC)
    program.call("ioctl", MASTER, abi.TIOCSPTLCK, program.data(bytes(4)))
    program.call("dup3", program.call("ioctl", MASTER, abi.TIOCGPTPEER, how), SLAVE, os.O_CLOEXEC)
    if rows and columns:
        program.call("ioctl", SLAVE, abi.TIOCSWINSZ, program.data(struct.pack("4H", rows, columns, 0, 0)))
    program.call_with_fd("sendmsg", 0, channel, program.rights_message(MASTER), 0)
    program.call("ioctl", SLAVE, abi.TIOCSCTTY, 0)
    program.call("mknodat", _HERE, "/dev/console", abi.S_IFREG | 0o620, 0)
    program.call("mount", "/dev/pts/0", "/dev/console", 0, abi.MS_BIND, 0)
    for fd in (0, 1, 2):
        program.call("dup3", SLAVE, fd, 0)


# -- limits and privileges


def limits(program: Program, values: tuple[tuple[int, int, int], ...]) -> None:
    """Resource limits as (resource, soft, hard), a negative one for none: prlimit(2)."""
    for which, *bounds in values:
        both = struct.pack("2Q", *(bound if bound >= 0 else _RLIM_INFINITY for bound in bounds))
        program.call("prlimit64", 0, which, program.data(both), 0)


def session_keyring(program: Program) -> None:
    """An empty session keyring instead of the caller's: keyctl(2)."""
    program.call("keyctl", abi.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)


_LAST_KNOWN, _LAST_POSSIBLE = 40, 63


def capabilities(program: Program, dropped: tuple[int, ...]) -> None:
    """Take capabilities out of the bounding set: at its execve(2), root gets what is left there, capabilities(7)."""
    for number in dropped:
        program.call("prctl", abi.PR_CAPBSET_DROP, number, 0, 0, 0)
    for number in range(_LAST_KNOWN + 1, _LAST_POSSIBLE + 1):
        program.call("prctl", abi.PR_CAPBSET_DROP, number, 0, 0, 0, ignore=True)  # those of later kernels


_CAPABILITY_VERSION_3 = 0x20080522
_SYS_ADMIN = 1 << 21


def credentials(program: Program, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Become a user of the user namespace: setgroups(2), setresgid(2), setresuid(2).

    CAP_SYS_ADMIN stays until the command executes, for the seccomp filter, which asks for it or for no_new_privs; the
    execve(2) of another user than root takes it away.
    """
    packed = struct.pack(f"{len(groups)}I", *groups)
    program.call("setgroups", len(groups), program.data(packed) if groups else 0)
    if gid:
        program.call("setresgid", gid, gid, gid)
    if uid:
        program.call("prctl", abi.PR_SET_KEEPCAPS, 1, 0, 0, 0)
        program.call("setresuid", uid, uid, uid)
        header = program.data(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), shared=False)  # version, pid
        # effective, permitted, inheritable; twice: capget(2)
        program.call("capset", header, program.data(struct.pack("2I16x", _SYS_ADMIN, _SYS_ADMIN)))


def seccomp(program: Program, instructions: bytes) -> None:
    """Install a filter of system calls: seccomp(2). struct sock_fprog is a count and a pointer."""
    program.call("seccomp", abi.SECCOMP_SET_MODE_FILTER, 0, program.filter(instructions))


def no_new_privileges(program: Program) -> None:
    program.call("prctl", abi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


# -- before the command


def seal(program: Program, init: int = -1, kept: bool = False) -> None:
    """Close every descriptor that the command is not to have, before any path of the rootfs's is followed any further.

    Until a command executes, /proc/self/fd of its process leads to all that this one has open: folders of the host, and of
    whoever cloned it. A working directory, a command, or the interpreter that it names may be a link to there.

    Args:
        init: the index of the descriptor of the host's init, kept as INIT; -1: there is none.
        kept: what is INIT already stays open, for an init of ours that closes it by itself.
    """
    program.move_fault_fd(FAULTS)
    if init >= 0:
        program.call_with_fd("dup3", 0, init, INIT, os.O_CLOEXEC)
    program.call("close_range", 3, FAULTS - 1, 0)
    program.call("close_range", (INIT if init >= 0 or kept else FAULTS) + 1, 0xFFFF_FFFF, 0)


def workdir(program: Program, path: str) -> None:
    """The working directory, as the user that the command is: links are followed inside of the root, magic links are not."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    rules = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
    how = program.data(struct.pack("3Q", flags, 0, rules))  # struct open_how: flags, mode, resolve
    program.call("fchdir", program.call("openat2", _HERE, path, how, 24))
