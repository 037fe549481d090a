"""The operations that a container's set-up is made of: each has a function that does it and a line that tells it.

A plan's operations are tuples `(name, argument…)` of plain values, made by `planner` and executed here, in order, by the
child. OPERATIONS is the closed set of names. Host paths are used before `pivot`, container paths after it; from then on
the process's root IS the rootfs, so that no symbolic link in it can lead outside.
"""

from __future__ import annotations

import _socket
import array
import errno
import fcntl
import os
import resource
import select

from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Context:
    """What the operations of one child hand to each other: descriptors only."""

    __slots__ = ("fds", "life", "old_root", "trees")

    def __init__(self, fds: list[int], life: int) -> None:
        self.fds = fds
        self.life = life
        self.trees: dict[int, int] = {}
        self.old_root = -1


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def id_map(_: Context, uid_map: str, gid_map: str) -> None:
    """Map ids of the new user namespace: user_namespaces(7). setgroups is denied first, or gid_map would be refused."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", uid_map)
    _write("/proc/self/gid_map", gid_map)


def new_session(_: Context) -> None:
    os.setsid()


def death_signal(context: Context) -> None:
    """Die with the supervisor: PR_SET_PDEATHSIG, then a look whether it died before that.

    The look is at a pidfd of the supervisor: in a new pid namespace getppid(2) is 0 and tells nothing.
    """
    syscalls.prctl(abi.PR_SET_PDEATHSIG, 9)
    watch = select.poll()
    watch.register(context.life, select.POLLIN)
    if watch.poll(0):
        os._exit(125)


def private_mounts(_: Context) -> None:
    """No mount made here is seen outside, and none of outside appears here later."""
    syscalls.mount(None, "/", None, abi.MS_REC | abi.MS_PRIVATE)


def scratch_memory(_: Context, base: str, size: str) -> None:
    """A tmpfs for the writable layer: private to this mount namespace, gone with it."""
    options = "mode=0700" + (f",size={size}" if size else "")
    syscalls.mount("tmpfs", base, "tmpfs", abi.MS_NOSUID | abi.MS_NODEV, options)
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{base}/{name}", 0o755)


def overlay(_: Context, lowers: tuple[str, ...], upper: str, work: str, target: str) -> None:
    """The copy-on-write root: overlayfs with userxattr, Linux 5.11. volatile: nothing here survives a crash anyway."""
    lower = ":".join(_overlay_escape(path) for path in lowers)
    options = f"lowerdir={lower},upperdir={_overlay_escape(upper)},workdir={_overlay_escape(work)},userxattr,volatile"
    syscalls.mount("overlay", target, "overlay", 0, options)


def _overlay_escape(path: str) -> str:
    """Colons separate lower folders and commas options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def bind_root(_: Context, source: str) -> None:
    """A plain folder as the root: pivot_root wants a mount point."""
    syscalls.mount(source, source, None, abi.MS_BIND)


def hold(context: Context, slot: int, path: str) -> None:
    """Take hold of a host path for a later `place`: a detached copy of its mounts."""
    context.trees[slot] = syscalls.open_tree(path, recursive=True)


def pivot(context: Context, new_root: str) -> None:
    """Make the rootfs the root; the old one stays mounted over it, reachable by descriptor only, until `leave_host`."""
    context.old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(new_root)
    syscalls.pivot_root(".", ".")


def mount(_: Context, kind: str, target: str, flags: int, options: str) -> None:
    """A new file system of the kernel's at a folder of the skeleton."""
    _refuse_link(target)
    syscalls.mount(kind, target, kind, flags, options or None)


def _refuse_link(target: str) -> None:
    fd = os.open(target, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(fd)


DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEV_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


def devices(context: Context) -> None:
    """The host's harmless devices, bound onto empty files of the new /dev, and its links: spec section "Devices"."""
    os.fchdir(context.old_root)
    for name in DEVICES:
        target = f"/dev/{name}"
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        # The source is found from the working directory, the old root; the target from the root, the new one.
        syscalls.mount(f"dev/{name}", target, None, abi.MS_BIND)
    for text, path in _DEV_LINKS:
        os.symlink(text, path)


def folder(_: Context, path: str, mode: int) -> None:
    """A folder in a file system that was mounted here, so no link can be in the way."""
    os.mkdir(path, mode)


def host_view(context: Context, source: str, target: str, required: bool) -> None:
    """A kernel file system of the host, with all below it, read-only: where a new one may not be mounted."""
    _refuse_link(target)
    try:
        tree = syscalls.open_tree(source.lstrip("/"), recursive=True, dir_fd=context.old_root)
        target_fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
        syscalls.move_mount(tree, target_fd, target)
        os.close(target_fd)
        os.close(tree)
        syscalls.mount_setattr(abi.AT_FDCWD, target, abi.MOUNT_ATTR_RDONLY, recursive=True)
    except OSError:
        if required:
            raise


def place(context: Context, slot: int, target: str, is_folder: bool, attributes: int) -> None:
    """Attach what was held at a path inside the rootfs, made where it is missing."""
    tree = context.trees.pop(slot)
    if attributes:
        syscalls.mount_setattr(tree, "", attributes, recursive=True)
    target_fd = open_inside(target, is_folder=is_folder)
    syscalls.move_mount(tree, target_fd, target)
    os.close(target_fd)
    os.close(tree)


def place_tmpfs(_: Context, target: str, flags: int, options: str) -> None:
    """A memory file system at a path inside the rootfs, made where it is missing."""
    os.fchdir(open_inside(target, is_folder=True))
    syscalls.mount("tmpfs", ".", "tmpfs", flags, options or None)


def open_inside(path: str, *, is_folder: bool) -> int:
    """An O_PATH descriptor of `path`, made with its parents where missing; links are followed inside the root only.

    Magic links of /proc are refused: they lead to other roots.
    """
    rules = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            last = depth == len(parts)
            try:
                fd = syscalls.openat2(root, here, os.O_PATH, resolve=rules)
            except FileNotFoundError:
                parent = syscalls.openat2(root, "/".join(parts[: depth - 1]) or ".", os.O_PATH, resolve=rules)
                if last and not is_folder:
                    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                    os.close(os.open(parts[depth - 1], flags, 0o644, dir_fd=parent))
                else:
                    os.mkdir(parts[depth - 1], 0o755, dir_fd=parent)
                os.close(parent)
                fd = syscalls.openat2(root, here, os.O_PATH, resolve=rules)
            if last:
                return fd
            os.close(fd)
        return os.dup(root)
    finally:
        os.close(root)


def leave_host(context: Context) -> None:
    """Let go of the old root: nothing of the host is reachable by a path from here on."""
    os.fchdir(context.old_root)
    syscalls.umount(".", abi.MNT_DETACH)
    os.close(context.old_root)
    os.chdir("/")


def read_only_root(_: Context) -> None:
    syscalls.mount_setattr(abi.AT_FDCWD, "/", abi.MOUNT_ATTR_RDONLY, recursive=False)


def hostname(_: Context, name: str) -> None:
    syscalls.sethostname(name)


def loopback_up(_: Context) -> None:
    """Bring `lo` up in an own network namespace: netdevice(7)."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    request = array.array("B", b"lo".ljust(16, b"\0") + b"\0" * 24)
    fcntl.ioctl(sock.fileno(), abi.SIOCGIFFLAGS, request, True)
    request[16] |= abi.IFF_UP
    fcntl.ioctl(sock.fileno(), abi.SIOCSIFFLAGS, request, True)
    sock.close()


def stdio(context: Context, stdin: int, stdout: int, stderr: int) -> None:
    """Descriptors 0, 1 and 2; -1 leaves one as it is."""
    for target, index in enumerate((stdin, stdout, stderr)):
        if index >= 0:
            os.dup2(context.fds[index], target, inheritable=True)


def terminal(context: Context, channel: int, rows: int, columns: int) -> None:
    """A pseudo-terminal of the container's own devpts, controlling this session; its master goes through `channel`."""
    master, slave = os.openpty()
    if rows and columns:
        fcntl.ioctl(slave, abi.TIOCSWINSZ, array.array("H", (rows, columns, 0, 0)))
    sock = _socket.socket(fileno=context.fds[channel])
    sock.sendmsg([b"m"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [master]))])
    fcntl.ioctl(slave, abi.TIOCSCTTY, 0)
    console = os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY, 0o620)
    os.close(console)
    syscalls.mount(os.ttyname(slave), "/dev/console", None, abi.MS_BIND)
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)


def limits(_: Context, values: tuple[tuple[int, int, int], ...]) -> None:
    """Resource limits as (resource, soft, hard): setrlimit(2)."""
    for which, soft, hard in values:
        resource.setrlimit(which, (soft, hard))


def workdir(_: Context, path: str) -> None:
    os.chdir(path)


def credentials(_: Context, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Become another user of the container's id map."""
    if groups:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def no_new_privileges(_: Context) -> None:
    syscalls.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)


def refuse(_: Context, reason: str) -> None:
    """Fail on purpose: stands in tests where a fault is planted."""
    raise OSError(errno.EPERM, reason, reason)


def _flags(flags: int) -> str:
    names = ((abi.MS_NOSUID, "nosuid"), (abi.MS_NODEV, "nodev"), (abi.MS_NOEXEC, "noexec"), (abi.MS_RDONLY, "ro"))
    return ",".join(name for bit, name in names if flags & bit) or "-"


if TYPE_CHECKING:
    Operation = tuple[Callable[..., None], Callable[..., str]]

OPERATIONS: dict[str, Operation] = {
    "id_map": (id_map, lambda u, g: f"map ids: uid {u.strip()!r}, gid {g.strip()!r} (inside, outside, count)"),
    "new_session": (new_session, lambda: "start a session of its own"),
    "death_signal": (death_signal, lambda: "die when the supervisor dies"),
    "private_mounts": (private_mounts, lambda: "keep mounts private"),
    "scratch_memory": (scratch_memory, lambda b, s: f"mount a tmpfs for the writable layer at {b} {s}".rstrip()),
    "overlay": (
        overlay,
        lambda lowers, upper, work, target: f"mount an overlay at {target}: {upper} over {' over '.join(lowers)}",
    ),
    "bind_root": (bind_root, lambda source: f"make {source} a mount point"),
    "hold": (hold, lambda slot, path: f"take hold of {path} as #{slot}"),
    "pivot": (pivot, lambda root: f"pivot_root to {root}"),
    "mount": (mount, lambda k, t, f, o: f"mount {k} at {t} ({_flags(f)}) {o}".rstrip()),
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
    "stdio": (stdio, lambda *_: "take over stdin, stdout and stderr"),
    "terminal": (terminal, lambda *_: "open a pseudo-terminal and /dev/console"),
    "limits": (limits, lambda values: f"set {len(values)} resource limit(s)"),
    "workdir": (workdir, lambda path: f"change to {path}"),
    "credentials": (credentials, lambda u, g, more: f"become {u}:{g}" + (f" with groups {list(more)}" if more else "")),
    "no_new_privileges": (no_new_privileges, lambda: "set no_new_privs"),
    "refuse": (refuse, lambda reason: f"refuse: {reason}"),
}


def describe(operation: tuple[Any, ...]) -> str:
    """One operation as a line for people: what `--dry-run` prints."""
    return OPERATIONS[operation[0]][1](*operation[1:])
