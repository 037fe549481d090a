"""The operations that a container's set-up is made of: each adds its system calls to a program, and can tell what it does.

A plan's operations are tuples `(name, argument…)` of plain values, made by `planner` and compiled here by whoever launches.
OPERATIONS is the closed set of names. Host paths are used before `pivot`, container paths after it; from then on the
process's root IS the rootfs, so that no symbolic link in it can lead outside.
"""

from __future__ import annotations

import os

from guntainer.kernel import abi
from guntainer.kernel.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Descriptors of a child's own, at fixed numbers above anything that is handed over; all close-on-exec.
_OLD_ROOT = 190
_MASTER = 191
_SLAVE = 192
_VIEW = 193
_CONTEXT = 194
_HELD = 200

_HERE = abi.AT_FDCWD
_PATH_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOVE = abi.MOVE_MOUNT_F_EMPTY_PATH | abi.MOVE_MOUNT_T_EMPTY_PATH
_IFREG = 0o100000


def _number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little", signed=value < 0)


def _keep(program: Program, name: str, *arguments: Any, at: int) -> None:
    """A call whose result is a descriptor, moved to the number `at`."""
    fd = program.call(name, *arguments)
    program.call("dup3", fd, at, os.O_CLOEXEC)


def _attributes(
    program: Program, fd: int, path: str, attributes: int, *, recursive: bool, on_error: int | None = None
) -> None:
    """mount_setattr(2), Linux 5.12: struct mount_attr is attr_set, attr_clr, propagation, userns_fd."""
    flags = (0 if path else abi.AT_EMPTY_PATH) | (abi.AT_RECURSIVE if recursive else 0)
    attr = program.data(_number(attributes) + bytes(24))
    program.call("mount_setattr", fd, path, flags, attr, 32, on_error=on_error)


def id_map(program: Program, uid_map: str, gid_map: str) -> None:
    """Map ids of the new user namespace: user_namespaces(7). setgroups is denied first, or gid_map would be refused."""
    for path, text in (("setgroups", "deny"), ("uid_map", uid_map), ("gid_map", gid_map)):
        fd = program.call("openat", _HERE, f"/proc/self/{path}", os.O_WRONLY | os.O_CLOEXEC)
        program.call("write", fd, text, len(text))


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


def map_ids(program: Program, uid_map: str, gid_map: str) -> None:
    """Ids of a new user namespace, as whoever clones has them: it maps them, since more than one id takes rights outside."""
    program.wait_for_maps(uid_map, gid_map)


LIFE, LIFE_WRITER, FIRST = 0, 1, 2
"""Indexes of the descriptors that every launch has (see `death_signal`), and of the first of its own."""


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


def private_mounts(program: Program) -> None:
    """No mount made here is seen outside, and none of outside appears here later."""
    program.call("mount", 0, "/", 0, abi.MS_REC | abi.MS_PRIVATE, 0)


def scratch_memory(program: Program, base: str, size: str) -> None:
    """A tmpfs for the writable layer: private to this mount namespace, gone with it."""
    options = "mode=0700" + (f",size={size}" if size else "")
    program.call("mount", "tmpfs", base, "tmpfs", abi.MS_NOSUID | abi.MS_NODEV, options)
    for name in ("upper", "work", "merged"):
        program.call("mkdirat", _HERE, f"{base}/{name}", 0o755)


def overlay(program: Program, lowers: tuple[str, ...], upper: str, work: str, target: str) -> None:
    """The copy-on-write root: overlayfs with userxattr, Linux 5.11. volatile: nothing here survives a crash anyway."""
    lower = ":".join(_overlay_escape(path) for path in lowers)
    options = f"lowerdir={lower},upperdir={_overlay_escape(upper)},workdir={_overlay_escape(work)},userxattr,volatile"
    program.call("mount", "overlay", target, "overlay", 0, options)


def _overlay_escape(path: str) -> str:
    """Colons separate lower folders and commas options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def bind_root(program: Program, source: str) -> None:
    """A plain folder as the root: pivot_root wants a mount point."""
    program.call("mount", source, source, 0, abi.MS_BIND, 0)


def hold(program: Program, slot: int, path: str) -> None:
    """Take hold of a host path for a later `place`: a detached copy of its mounts, open_tree(2), Linux 5.2."""
    flags = abi.OPEN_TREE_CLONE | abi.OPEN_TREE_CLOEXEC | abi.AT_RECURSIVE
    _keep(program, "open_tree", _HERE, path, flags, at=_HELD + slot)


def pivot(program: Program, new_root: str) -> None:
    """Make the rootfs the root; the old one stays mounted over it until `leave_host`: `..` of the root leads there."""
    _keep(program, "openat", _HERE, "/", _PATH_FOLDER, at=_OLD_ROOT)
    program.call("chdir", new_root)
    program.call("pivot_root", ".", ".")


def mount(program: Program, kind: str, target: str, flags: int, options: str, required: bool) -> None:
    """A new file system of the kernel's at a folder of the skeleton, which must be no link."""
    program.call("openat", _HERE, target, _PATH_FOLDER | os.O_NOFOLLOW)
    program.call("mount", kind, target, kind, flags, options or 0, ignore=not required)


def cgroup_view(program: Program, target: str, flags: int) -> None:
    """The container's own control groups, where allowed: fsopen(2), Linux 5.2.

    mount(2) refuses to mount a file system over itself, and the host's view of /sys has all control groups there.
    """
    end = program.label()
    kind = program.call("fsopen", "cgroup2", abi.FSOPEN_CLOEXEC, on_error=end)
    program.call("dup3", kind, _CONTEXT, os.O_CLOEXEC)
    program.call("fsconfig", _CONTEXT, abi.FSCONFIG_CMD_CREATE, 0, 0, 0, on_error=end)
    # MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC are the same numbers as MOUNT_ATTR_RDONLY and so on
    made = program.call("fsmount", _CONTEXT, abi.FSMOUNT_CLOEXEC, flags, on_error=end)
    program.call("dup3", made, _VIEW, os.O_CLOEXEC)
    place_fd = program.call("openat", _HERE, target, _PATH_FOLDER | os.O_NOFOLLOW, on_error=end)
    program.call("move_mount", _VIEW, "", place_fd, "", _MOVE, on_error=end)
    program.here(end)


DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEV_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


def devices(program: Program) -> None:
    """The host's harmless devices, bound onto empty files of the new /dev, and its links: spec section "Devices"."""
    program.call("fchdir", _OLD_ROOT)
    for name in DEVICES:
        program.call("mknodat", _HERE, f"/dev/{name}", _IFREG | 0o666, 0)
        # The source is found from the working directory, the old root; the target from the root, the new one.
        program.call("mount", f"dev/{name}", f"/dev/{name}", 0, abi.MS_BIND, 0)
        # a device can be written to all the same; its mode and its owner are the host's own
        _attributes(program, _HERE, f"/dev/{name}", abi.MOUNT_ATTR_RDONLY, recursive=False)
    for text, path in _DEV_LINKS:
        program.call("symlinkat", text, _HERE, path)


def folder(program: Program, path: str, mode: int) -> None:
    """A folder in a file system that was mounted here, so no link can be in the way."""
    program.call("mkdirat", _HERE, path, mode)


def host_view(program: Program, source: str, target: str, required: bool) -> None:
    """A kernel file system of the host, with all below it, read-only: where a new one may not be mounted."""
    end = program.label()
    failed = None if required else end
    flags = abi.OPEN_TREE_CLONE | abi.OPEN_TREE_CLOEXEC | abi.AT_RECURSIVE
    tree = program.call("open_tree", _OLD_ROOT, source.lstrip("/"), flags, on_error=failed)
    program.call("dup3", tree, _VIEW, os.O_CLOEXEC)
    # read-only while it is still detached: no moment in which it can be written to
    _attributes(program, _VIEW, "", abi.MOUNT_ATTR_RDONLY, recursive=True, on_error=failed)
    place_fd = program.call("openat", _HERE, target, _PATH_FOLDER | os.O_NOFOLLOW, on_error=failed)
    program.call("move_mount", _VIEW, "", place_fd, "", _MOVE, on_error=failed)
    program.here(end)


def place(program: Program, slot: int, target: str, is_folder: bool, attributes: int) -> None:
    """Attach what was held at a path inside the rootfs, made where it is missing."""
    if attributes:
        _attributes(program, _HELD + slot, "", attributes, recursive=True)
    fd = _make_inside(program, target, is_folder=is_folder)
    program.call("move_mount", _HELD + slot, "", fd, "", _MOVE)


def place_tmpfs(program: Program, target: str, flags: int, options: str) -> None:
    """A memory file system at a path inside the rootfs, made where it is missing."""
    program.call("fchdir", _make_inside(program, target, is_folder=True))
    program.call("mount", "tmpfs", ".", "tmpfs", flags, options or 0)
    program.call("chdir", "/")


def _make_inside(program: Program, path: str, *, is_folder: bool) -> Any:
    """An O_PATH descriptor of `path`, made with its parents where missing; links are followed inside the root only.

    The working directory is the root for RESOLVE_IN_ROOT. Magic links of /proc are refused: they lead to other roots.
    """
    how = program.data(
        _number(os.O_PATH | os.O_CLOEXEC) + _number(0) + _number(abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS)
    )
    program.call("chdir", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for depth, name in enumerate(parts):
        above = program.call("openat2", _HERE, "/".join(parts[:depth]) or ".", how, 24)
        if depth == len(parts) - 1 and not is_folder:
            program.call("mknodat", above, name, _IFREG | 0o644, 0, ignore=True)  # it may be there
        else:
            program.call("mkdirat", above, name, 0o755, ignore=True)
    return program.call("openat2", _HERE, "/".join(parts) or ".", how, 24)


def leave_host(program: Program) -> None:
    """Let go of the old root: nothing of the host is reachable by a path from here on."""
    program.call("fchdir", _OLD_ROOT)
    program.call("umount2", ".", abi.MNT_DETACH)
    program.call("chdir", "/")


def read_only_root(program: Program) -> None:
    _attributes(program, _HERE, "/", abi.MOUNT_ATTR_RDONLY, recursive=False)


def hostname(program: Program, name: str) -> None:
    program.call("sethostname", name, len(os.fsencode(name)))


def loopback_up(program: Program) -> None:
    """Bring `lo` up in an own network namespace: netdevice(7); struct ifreq is a name and, here, flags."""
    af_inet, sock_dgram = 2, 2
    sock = program.call("socket", af_inet, sock_dgram | os.O_CLOEXEC, 0)
    program.call(
        "ioctl", sock, abi.SIOCSIFFLAGS, program.data(b"lo".ljust(16, b"\0") + _number(abi.IFF_UP, 2) + bytes(22))
    )


def offer_network(program: Program, channel: int, ping_groups: tuple[int, int]) -> None:
    from guntainer.init import private_network  # few containers have one

    private_network.offer(program, channel, ping_groups)


def await_network(program: Program, channel: int) -> None:
    from guntainer.init import private_network

    private_network.wait(program, channel)


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
    _keep(program, "openat", _HERE, "/dev/ptmx", how, at=_MASTER)
    program.call("ioctl", _MASTER, abi.TIOCSPTLCK, program.data(bytes(4)))
    _keep(program, "ioctl", _MASTER, abi.TIOCGPTPEER, how, at=_SLAVE)
    if rows and columns:
        size = b"".join(_number(cells, 2) for cells in (rows, columns, 0, 0))
        program.call("ioctl", _SLAVE, abi.TIOCSWINSZ, program.data(size))
    program.call_with_fd("sendmsg", 0, channel, program.rights_message(_MASTER), 0)
    program.call("ioctl", _SLAVE, abi.TIOCSCTTY, 0)
    program.call("mknodat", _HERE, "/dev/console", _IFREG | 0o620, 0)
    program.call("mount", "/dev/pts/0", "/dev/console", 0, abi.MS_BIND, 0)
    for fd in (0, 1, 2):
        program.call("dup3", _SLAVE, fd, 0)


def limits(program: Program, values: tuple[tuple[int, int, int], ...]) -> None:
    """Resource limits as (resource, soft, hard): prlimit(2)."""
    for which, soft, hard in values:
        program.call("prlimit64", 0, which, program.data(_limit(soft) + _limit(hard)), 0)


def _limit(value: int) -> bytes:
    return _number(value) if value >= 0 else b"\xff" * 8  # RLIM_INFINITY


def mask(program: Program, paths: tuple[str, ...], empty: str) -> None:
    """Hide paths of the kernel's file systems, where they are: a file behind /dev/null, a folder behind an empty one.

    Args:
        empty: a folder of the host's in which there is nothing. A tmpfs for each place would cost three times as much.
    """
    program.call("fchdir", _OLD_ROOT)
    for path in paths:
        folder, end = program.label(), program.label()
        program.call("faccessat", _HERE, path, os.F_OK, 0, on_error=end)
        bound = program.call("mount", "/dev/null", path, 0, abi.MS_BIND, 0, on_error=folder)
        program.jump_to(bound, end)
        program.here(folder)
        program.call("mount", empty.lstrip("/"), path, 0, abi.MS_BIND, 0)
        _attributes(program, _HERE, path, abi.MOUNT_ATTR_RDONLY, recursive=False)
        program.here(end)


def read_only(program: Program, paths: tuple[str, ...]) -> None:
    """Make paths of the kernel's file systems read-only, where they are."""
    for path in paths:
        end = program.label()
        program.call("faccessat", _HERE, path, os.F_OK, 0, on_error=end)
        program.call("mount", path, path, 0, abi.MS_BIND | abi.MS_REC, 0)
        _attributes(program, _HERE, path, abi.MOUNT_ATTR_RDONLY, recursive=True)
        program.here(end)


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
    packed = b"".join(_number(one, 4) for one in groups)
    program.call("setgroups", len(groups), program.data(packed) if groups else 0)
    if gid:
        program.call("setresgid", gid, gid, gid)
    if uid:
        program.call("prctl", abi.PR_SET_KEEPCAPS, 1, 0, 0, 0)
        program.call("setresuid", uid, uid, uid)
        header = program.data(_number(_CAPABILITY_VERSION_3, 4) + _number(0, 4), shared=False)
        sets = _number(_SYS_ADMIN, 4) + _number(_SYS_ADMIN, 4) + bytes(16)  # effective, permitted, inheritable; twice
        program.call("capset", header, program.data(sets))


def seccomp(program: Program, instructions: bytes) -> None:
    """Install a filter of system calls: seccomp(2). struct sock_fprog is a count and a pointer."""
    program.call("seccomp", abi.SECCOMP_SET_MODE_FILTER, 0, program.filter(instructions))


FAULTS, INIT = 188, 189
"""The only descriptors above 2 that are open when the command is looked up and executed; close-on-exec both."""


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
    rules = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
    how = program.data(_number(_PATH_FOLDER) + _number(0) + _number(rules))
    program.call("fchdir", program.call("openat2", _HERE, path, how, 24))


def no_new_privileges(program: Program) -> None:
    program.call("prctl", abi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _capability_names(numbers: tuple[int, ...]) -> str:
    from guntainer import capabilities as names

    return ", ".join(names.KNOWN[number].removeprefix("CAP_").lower() for number in numbers)


def _flags(flags: int) -> str:
    names = ((abi.MS_NOSUID, "nosuid"), (abi.MS_NODEV, "nodev"), (abi.MS_NOEXEC, "noexec"), (abi.MS_RDONLY, "ro"))
    return ",".join(name for bit, name in names if flags & bit) or "-"


if TYPE_CHECKING:
    Operation = tuple[Callable[..., None], Callable[..., str]]

OPERATIONS: dict[str, Operation] = {
    "id_map": (id_map, lambda u, g: f"map ids: uid {u.strip()!r}, gid {g.strip()!r} (inside, outside, count)"),
    "into_cgroup": (into_cgroup, lambda *a: f"begin in a control group of its own: {a[2]}"),
    "cgroup_namespace": (cgroup_namespace, lambda: "see that control group alone"),
    "map_ids": (
        map_ids,
        lambda u, g: f"have ids mapped: uid {u.strip()!r}, gid {g.strip()!r} (inside, outside, count)",
    ),
    "new_session": (new_session, lambda: "start a session of its own"),
    "death_signal": (death_signal, lambda signal=9: "die when the supervisor dies"),
    "private_mounts": (private_mounts, lambda: "keep mounts private"),
    "scratch_memory": (scratch_memory, lambda b, s: f"mount a tmpfs for the writable layer at {b} {s}".rstrip()),
    "overlay": (
        overlay,
        lambda lowers, upper, work, target: f"mount an overlay at {target}: {upper} over {' over '.join(lowers)}",
    ),
    "bind_root": (bind_root, lambda source: f"make {source} a mount point"),
    "hold": (hold, lambda slot, path: f"take hold of {path} as #{slot}"),
    "pivot": (pivot, lambda root: f"pivot_root to {root}"),
    "mount": (
        mount,
        lambda k, t, f, o, r: f"mount {k} at {t} ({_flags(f)}) {o}".rstrip() + ("" if r else ", where allowed"),
    ),
    "cgroup_view": (cgroup_view, lambda t, f: f"mount cgroup2 at {t} ({_flags(f)}), where allowed"),
    "devices": (devices, lambda: f"bind /dev/{{{','.join(DEVICES)}}}, link fd, stdin, stdout, stderr, ptmx"),
    "folder": (folder, lambda p, m: f"make the folder {p} ({m:04o})"),
    "host_view": (
        host_view,
        lambda s, t, r: f"show the host's {s} at {t}, read-only" + ("" if r else " where allowed"),
    ),
    "place": (place, lambda s, t, d, a: f"attach #{s} at {t}" + (", read-only" if a & abi.MOUNT_ATTR_RDONLY else "")),
    "place_tmpfs": (place_tmpfs, lambda t, f, o: f"mount tmpfs at {t} ({_flags(f)}) {o}".rstrip()),
    "leave_host": (leave_host, lambda: "unmount the host's root"),
    "read_only_root": (read_only_root, lambda: "make the root read-only"),
    "hostname": (hostname, lambda name: f"set the host name {name}"),
    "loopback_up": (loopback_up, lambda: "bring lo up"),
    "offer_network": (offer_network, lambda *_: "make the device eth0, hand out the network namespace"),
    "await_network": (await_network, lambda *_: "wait until the network is there; keep loopback addresses inside"),
    "stdio": (stdio, lambda *_: "take over stdin, stdout and stderr"),
    "terminal": (terminal, lambda *_: "open a pseudo-terminal and /dev/console"),
    "limits": (limits, lambda values: f"set {len(values)} resource limit(s)"),
    "mask": (mask, lambda paths, _: f"hide {', '.join(paths)}"),
    "read_only": (read_only, lambda paths: f"make read-only {', '.join(paths)}"),
    "session_keyring": (session_keyring, lambda: "join a session keyring of its own"),
    "capabilities": (capabilities, lambda dropped: "drop capabilities: " + _capability_names(dropped)),
    "credentials": (
        credentials,
        lambda uid, gid, groups: f"become uid {uid}, gid {gid}" + (f", groups {groups}" if groups else ""),
    ),
    "seccomp": (seccomp, lambda instructions: f"install a seccomp filter of {len(instructions) // 8} instructions"),
    "seal": (seal, lambda *_: "close every descriptor above 2 but that of faults"),
    "workdir": (workdir, lambda path: f"change to {path}"),
    "no_new_privileges": (no_new_privileges, lambda: "set no_new_privs"),
}


def describe(operation: tuple[Any, ...]) -> str:
    """One operation as a line for people: what `--dry-run` prints."""
    return OPERATIONS[operation[0]][1](*operation[1:])


def subject(operation: tuple[Any, ...]) -> str:
    """What an operation works on, for an error: its target, else its first text."""
    name = operation[0]
    if name in ("mount", "place", "host_view", "overlay"):
        return str(operation[{"mount": 2, "place": 2, "host_view": 2, "overlay": 4}[name]])
    return next((part for part in operation[1:] if isinstance(part, str)), "")
