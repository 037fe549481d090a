"""Probes of namespaces: can they be made, are there enough, may what a container mounts be mounted in them. namespaces(7)."""

from __future__ import annotations

import errno
import os

from guntainer import errors, hostids, refusals
from guntainer.doctor.finding import Finding, degraded, missing, ok
from guntainer.init.trial import Trial, refused_namespace
from guntainer.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.doctor.examine import Circumstances

_ALWAYS = ("user", "mount", "uts", "ipc", "cgroup")
_FEW = 64
_PLENTY = 15000  # what a remedy sets
_POINT = "/proc"
"""A folder that is always there, to mount things over in a mount namespace that nobody else sees."""
_MOUNT_FLAGS = abi.MS_NOSUID | abi.MS_NOEXEC
_LOOK = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC


def inside(flags: int = 0) -> Trial:
    """A trial that has become root of a user namespace, with these namespaces more."""
    trial = Trial(abi.CLONE_NEWUSER | flags)
    trial.operation("id_map", f"0 {hostids.UID} 1\n", f"0 {hostids.GID} 1\n")
    return trial


def user_trial() -> tuple[str, int] | None:
    """What is refused in the way to being root in a user namespace, and of its rights; None where nothing is.

    A security module may let the namespace be made and take the rights in it away.
    """
    trial = inside(abi.CLONE_NEWNS)
    trial.operation("private_mounts")
    trial.call("mount", "tmpfs", _POINT, "tmpfs", abi.MS_NOSUID, 0)
    kind, number = _refused(_flags("user", "mount"))
    if kind == "mount" and number == errno.ENOSPC:
        trial = inside()
    elif number:
        return "clone", number
    return trial.run()


def _refused(flags: int) -> tuple[str, int]:
    """As trial.refused_namespace, which asks by another call than a launch does, and therefore only where that was refused."""
    try:
        Trial(flags).run()
    except OSError as error:
        kind, number = refused_namespace(flags)
        return kind, number or error.errno or 0
    return "", 0


def user(around: Circumstances) -> Finding:
    failed = user_trial()
    if failed is None:
        return ok(f"root of one of one's own, as uid {hostids.UID}")
    step, number = failed
    if step == "clone":
        error: errors.GuntainerError = refusals.of_clone(number, "user", around.host)
    else:
        hint, probe = refusals.of_setup(step, _POINT + "/", number, around.host)
        error = errors.SetupError(step, "", number, hint=hint, probe=probe)
    return refused(error, "user-namespace")


def refused(error: errors.GuntainerError, own: str) -> Finding:
    """The finding of a refusal: another probe's fault where the error names another."""
    if error.probe and error.probe != own:
        return missing(error.message, because=error.probe)
    return missing(error.message, *([f"# {error.hint}"] if error.hint else []))


def limits(around: Circumstances) -> Finding:
    limit = {kind: around.host.limit(kind) for kind in abi.NAMESPACES}
    off = {kind: f"{hostids.limit_name(kind)} is 0" for kind, most in limit.items() if most == 0}
    kind, number = _refused(_flags(*abi.NAMESPACES))
    if number == errno.ENOSPC and kind not in off:
        off[kind] = f"all {kind} namespaces that are allowed are in use ({hostids.limit_name(kind)} is {limit[kind]})"
    if off:
        remedy = [line for one in off for line in around.system.sysctl(hostids.limit_name(one), _PLENTY)]
        found = "; ".join(off.values())
        return missing(found, *remedy) if set(off) & set(_ALWAYS) else degraded(found, *remedy)
    least, of = min(((most, kind) for kind, most in limit.items() if most is not None), default=(_PLENTY, "user"))
    if least < _FEW:
        name = hostids.limit_name(of)
        return degraded(f"{name} is {least}: no more containers at once", *around.system.sysctl(name, _PLENTY))
    return ok(f"{least} of each kind, or more")


def _flags(*kinds: str) -> int:
    return sum(abi.NAMESPACES[kind] for kind in kinds)


def others(around: Circumstances) -> Finding:
    kind, number = _refused(_flags(*_ALWAYS))
    if number:
        return refused(refusals.of_clone(number, kind, around.host), "namespaces")
    return ok("mount, uts, ipc and cgroup")


def pid(around: Circumstances) -> Finding:
    kind, number = _refused(_flags("user", "pid"))
    if number:
        error = refusals.of_clone(number, kind, around.host)
        why = f"{error.message}; containers run without (isolation no-pid)"
        return degraded(why, because=error.probe if error.probe != "pid-namespace" else "")
    return ok("a container ends as a whole")


def proc(around: Circumstances) -> Finding:
    if _refused(_flags("user", "pid"))[1]:
        return degraded("the host's /proc is shown, read-only: there is no pid namespace", because="pid-namespace")
    trial = inside(abi.CLONE_NEWNS | abi.CLONE_NEWPID)
    trial.operation("private_mounts")
    trial.call("mount", "proc", _POINT, "proc", _MOUNT_FLAGS | abi.MS_NODEV, 0)
    failed = trial.run()
    if failed is None:
        return ok("a new /proc for each container")
    masked = _mounts_below_proc(around.host)
    why = f": parts of the one here are masked ({', '.join(masked[:3])}{', …' if masked[3:] else ''})" if masked else ""
    found = f"a new /proc is refused ({errno.errorcode.get(failed[1], failed[1])}){why}"
    shown = _host_proc()
    if shown is not None:
        return missing(f"{found}, and the host's can not be shown ({shown[0]}: {os.strerror(shown[1])})", *_UNMASK)
    return degraded(f"{found}; the host's is shown, read-only (isolation host-proc)", *_UNMASK)


_UNMASK = (
    "# where this is a container: start it with its /proc unmasked",
    "docker run --security-opt systempaths=unconfined …",
    "podman run --security-opt unmask=ALL …",
)


def _mounts_below_proc(host: refusals.Host) -> list[str]:
    words = [line.split() for line in host.text("/proc/self/mountinfo").splitlines()]
    return sorted(one[4] for one in words if len(one) > 4 and one[4].startswith("/proc/"))


def _host_proc() -> tuple[str, int] | None:
    """What is refused of showing the host's /proc instead."""
    trial = inside(abi.CLONE_NEWNS)
    trial.operation("private_mounts")
    flags = abi.OPEN_TREE_CLONE | abi.OPEN_TREE_CLOEXEC | abi.AT_RECURSIVE
    tree = trial.call("open_tree", abi.AT_FDCWD, "/proc", flags)
    attributes = trial.data(abi.MOUNT_ATTR_RDONLY.to_bytes(8, "little") + bytes(24))
    trial.call("mount_setattr", tree, "", abi.AT_EMPTY_PATH | abi.AT_RECURSIVE, attributes, 32)
    return trial.run()


def devpts(_around: Circumstances) -> Finding:
    trial = inside(abi.CLONE_NEWNS)
    trial.operation("private_mounts")
    trial.call("mount", "devpts", _POINT, "devpts", _MOUNT_FLAGS, "newinstance,ptmxmode=0666,mode=0620")
    trial.call("openat", abi.AT_FDCWD, _POINT + "/ptmx", _LOOK, 0)
    return _mounted(trial, "devpts", "CONFIG_UNIX98_PTYS")


def mqueue(_around: Circumstances) -> Finding:
    trial = inside(abi.CLONE_NEWNS | abi.CLONE_NEWIPC)
    trial.operation("private_mounts")
    trial.call("mount", "mqueue", _POINT, "mqueue", _MOUNT_FLAGS | abi.MS_NODEV, 0)
    return _mounted(trial, "mqueue", "CONFIG_POSIX_MQUEUE")


def _mounted(trial: Trial, kind: str, config: str) -> Finding:
    failed = trial.run()
    if failed is None:
        return ok(f"a new {kind} for each container")
    why = f"this kernel has none: {config} is needed" if failed[1] == errno.ENODEV else os.strerror(failed[1])
    return missing(f"{kind} can not be used ({failed[0]}): {why}")


def network(around: Circumstances) -> Finding:
    kind, number = _refused(_flags("user", "network"))
    if number:
        return refused(refusals.of_clone(number, kind, around.host), "network-namespace")
    trial = inside(abi.CLONE_NEWNET)
    trial.operation("loopback_up")
    failed = trial.run()
    if failed is not None:
        return missing(f"lo can not be brought up: {os.strerror(failed[1])}")
    return ok("a network of one's own, with lo")
