"""The operations that make a container's root and what is mounted in it; their names and their order are the plan's, see `ops`.

Host paths are used before `pivot`, container paths after it; from then on the process's root IS the rootfs, so that no
symbolic link in it can lead outside.
"""

from __future__ import annotations

import os
import struct

from guntainer.init import CONTEXT, HELD, KEPT_ROOT, OLD_ROOT, VIEW
from guntainer.kernel import abi
from guntainer.kernel.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.kernel.program import Argument, Result

_HERE = abi.AT_FDCWD
_PATH_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_COPY = abi.OPEN_TREE_CLONE | abi.OPEN_TREE_CLOEXEC | abi.AT_RECURSIVE
_MOVE = abi.MOVE_MOUNT_F_EMPTY_PATH | abi.MOVE_MOUNT_T_EMPTY_PATH


def _keep(program: Program, name: str, *arguments: Argument, at: int) -> None:
    """A call whose result is a descriptor, moved to the number `at`."""
    fd = program.call(name, *arguments)
    program.call("dup3", fd, at, os.O_CLOEXEC)


def _attributes(
    program: Program, fd: int, path: str, attributes: int, *, recursive: bool, on_error: int | None = None
) -> None:
    """mount_setattr(2), Linux 5.12: struct mount_attr is attr_set, attr_clr, propagation, userns_fd."""
    flags = (0 if path else abi.AT_EMPTY_PATH) | (abi.AT_RECURSIVE if recursive else 0)
    attr = program.data(struct.pack("4Q", attributes, 0, 0, 0))
    program.call("mount_setattr", fd, path, flags, attr, 32, on_error=on_error)


# -- the root


def private_mounts(program: Program) -> None:
    """No mount made here is seen outside, and none of outside appears here later."""
    program.call("mount", 0, "/", 0, abi.MS_REC | abi.MS_PRIVATE, 0)


def scratch_memory(program: Program, base: str, size: str) -> None:
    """A tmpfs for the writable layer: private to this mount namespace, gone with it."""
    options = "mode=0700" + (f",size={size}" if size else "")
    program.call("mount", "tmpfs", base, "tmpfs", abi.MS_NOSUID | abi.MS_NODEV, options)
    for name in ("upper", "work", "merged"):
        program.call("mkdirat", _HERE, f"{base}/{name}", 0o755)


def overlay(program: Program, lowers: tuple[str, ...], base: str, upper: str, work: str, target: str) -> None:
    """The copy-on-write root: overlayfs with userxattr, Linux 5.11. volatile: nothing here survives a crash anyway.

    Its options have to fit into one page, mount(2), so that many lower folders are named as seen from `base`.
    """
    if base:
        program.call("chdir", base)
    lower = ":".join(overlay_escape(path) for path in lowers)
    options = f"lowerdir={lower},upperdir={overlay_escape(upper)},workdir={overlay_escape(work)},userxattr,volatile"
    program.call("mount", "overlay", target, "overlay", 0, options)


def overlay_escape(path: str) -> str:
    """Colons separate lower folders and commas options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def bind_root(program: Program, source: str) -> None:
    """A plain folder as the root: pivot_root wants a mount point."""
    program.call("mount", source, source, 0, abi.MS_BIND, 0)


def hold(program: Program, slot: int, path: str) -> None:
    """Take hold of a host path for a later `place`: a detached copy of its mounts, open_tree(2), Linux 5.2."""
    _keep(program, "open_tree", _HERE, path, _COPY, at=HELD + slot)


def pivot(program: Program, new_root: str) -> None:
    """Make the rootfs the root; the old one stays mounted over it until `leave_host`: `..` of the root leads there."""
    _keep(program, "openat", _HERE, "/", _PATH_FOLDER, at=OLD_ROOT)
    program.call("chdir", new_root)
    program.call("pivot_root", ".", ".")


def leave_host(program: Program) -> None:
    """Let go of the old root: nothing of the host is reachable by a path from here on."""
    program.call("fchdir", OLD_ROOT)
    program.call("umount2", ".", abi.MNT_DETACH)
    program.call("chdir", "/")


def read_only_root(program: Program) -> None:
    _attributes(program, _HERE, "/", abi.MOUNT_ATTR_RDONLY, recursive=False)


def offer_root(program: Program, channel: int, slots: tuple[int, ...]) -> None:
    """Hand out the root through a socket, and what is placed of these slots: unix(7).

    Who has them can look into them after the container's end; what is mounted there is gone by then.
    """
    _keep(program, "openat", _HERE, "/", _PATH_FOLDER, at=KEPT_ROOT)
    message = program.rights_message(KEPT_ROOT, *(HELD + slot for slot in slots))
    program.call_with_fd("sendmsg", 0, channel, message, abi.MSG_NOSIGNAL)


# -- the kernel's file systems


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
    program.call("dup3", kind, CONTEXT, os.O_CLOEXEC)
    program.call("fsconfig", CONTEXT, abi.FSCONFIG_CMD_CREATE, 0, 0, 0, on_error=end)
    # MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC are the same numbers as MOUNT_ATTR_RDONLY and so on
    made = program.call("fsmount", CONTEXT, abi.FSMOUNT_CLOEXEC, flags, on_error=end)
    program.call("dup3", made, VIEW, os.O_CLOEXEC)
    _attach_view(program, target, on_error=end)
    program.here(end)


def host_view(program: Program, source: str, target: str, required: bool) -> None:
    """A kernel file system of the host, with all below it, read-only: where a new one may not be mounted."""
    end = program.label()
    failed = None if required else end
    tree = program.call("open_tree", OLD_ROOT, source.lstrip("/"), _COPY, on_error=failed)
    program.call("dup3", tree, VIEW, os.O_CLOEXEC)
    # read-only while it is still detached: no moment in which it can be written to
    _attributes(program, VIEW, "", abi.MOUNT_ATTR_RDONLY, recursive=True, on_error=failed)
    _attach_view(program, target, on_error=failed)
    program.here(end)


def _attach_view(program: Program, target: str, *, on_error: int | None) -> None:
    """At a folder of the skeleton, which must be no link."""
    place_fd = program.call("openat", _HERE, target, _PATH_FOLDER | os.O_NOFOLLOW, on_error=on_error)
    program.call("move_mount", VIEW, "", place_fd, "", _MOVE, on_error=on_error)


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
    program.call("fchdir", OLD_ROOT)
    for name in DEVICES:
        program.call("mknodat", _HERE, f"/dev/{name}", abi.S_IFREG | 0o666, 0)
        # The source is found from the working directory, the old root; the target from the root, the new one.
        program.call("mount", f"dev/{name}", f"/dev/{name}", 0, abi.MS_BIND, 0)
        # a device can be written to all the same; its mode and its owner are the host's own
        _attributes(program, _HERE, f"/dev/{name}", abi.MOUNT_ATTR_RDONLY, recursive=False)
    for text, path in _DEV_LINKS:
        program.call("symlinkat", text, _HERE, path)


def folder(program: Program, path: str, mode: int) -> None:
    """A folder in a file system that was mounted here, so no link can be in the way."""
    program.call("mkdirat", _HERE, path, mode)


def mask(program: Program, paths: tuple[str, ...], empty: str) -> None:
    """Hide paths of the kernel's file systems, where they are: a file behind /dev/null, a folder behind an empty one.

    Args:
        empty: a folder of the host's in which there is nothing. A tmpfs for each place would cost three times as much.
    """
    program.call("fchdir", OLD_ROOT)
    for path in paths:
        is_folder, end = program.label(), program.label()
        program.call("faccessat", _HERE, path, os.F_OK, 0, on_error=end)
        bound = program.call("mount", "/dev/null", path, 0, abi.MS_BIND, 0, on_error=is_folder)
        program.jump_to(bound, end)
        program.here(is_folder)
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


# -- the user's mounts


def make_folder(program: Program, path: str) -> None:
    """A folder inside the rootfs, with all on the way to it, where it is missing: an image's working directory, as in docker.

    What is in its way stays there: who changes to it tells.
    """
    _make_inside(program, path, is_folder=True)


def place(program: Program, slot: int, target: str, is_folder: bool, attributes: int) -> None:
    """Attach what was held at a path inside the rootfs, made where it is missing."""
    if attributes:
        _attributes(program, HELD + slot, "", attributes, recursive=True)
    fd = _make_inside(program, target, is_folder=is_folder)
    program.call("move_mount", HELD + slot, "", fd, "", _MOVE)


def place_tmpfs(program: Program, target: str, flags: int, options: str) -> None:
    """A memory file system at a path inside the rootfs, made where it is missing."""
    program.call("fchdir", _make_inside(program, target, is_folder=True))
    program.call("mount", "tmpfs", ".", "tmpfs", flags, options or 0)
    program.call("chdir", "/")


def _make_inside(program: Program, path: str, *, is_folder: bool) -> Result:
    """An O_PATH descriptor of `path`, made with its parents where missing; links are followed inside the root only.

    The working directory is the root for RESOLVE_IN_ROOT. Magic links of /proc are refused: they lead to other roots.
    """
    rules = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
    how = program.data(struct.pack("3Q", os.O_PATH | os.O_CLOEXEC, 0, rules))  # struct open_how: flags, mode, resolve
    program.call("chdir", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for depth, name in enumerate(parts):
        above = program.call("openat2", _HERE, "/".join(parts[:depth]) or ".", how, 24)
        if depth == len(parts) - 1 and not is_folder:
            program.call("mknodat", above, name, abi.S_IFREG | 0o644, 0, ignore=True)  # it may be there
        else:
            program.call("mkdirat", above, name, 0o755, ignore=True)
    return program.call("openat2", _HERE, "/".join(parts) or ".", how, 24)
