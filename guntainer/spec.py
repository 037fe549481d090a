"""The OCI runtime-spec configuration of a container: typed view, built from a Job.

A Spec is the plain dict that `config.json` would hold (spec version 1.2), so that it can be dumped, compared and checked
against the published schemas as it stands; the TypedDicts are for the reader and the type checker and cost nothing at
run time. Pure: opens no file.

What the OCI words have no place for stands in annotations below `io.guntainer.`: scratch, init, network.
"""

from __future__ import annotations

from guntainer import capabilities, errors
from guntainer.jobs.model import NO_LIMITS, Job, Mount
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NotRequired, TypedDict

    class User(TypedDict):
        uid: int
        gid: int
        additionalGids: NotRequired[list[int]]

    class Process(TypedDict):
        terminal: bool
        user: User
        args: list[str]
        env: list[str]
        cwd: str
        noNewPrivileges: bool
        capabilities: dict[str, list[str]]
        rlimits: NotRequired[list[dict[str, Any]]]

    class SpecMount(TypedDict):
        destination: str
        type: str
        source: str
        options: list[str]

    class IdMapping(TypedDict):
        containerID: int
        hostID: int
        size: int

    class Linux(TypedDict):
        namespaces: list[dict[str, str]]
        uidMappings: list[IdMapping]
        gidMappings: list[IdMapping]
        maskedPaths: list[str]
        readonlyPaths: list[str]
        resources: NotRequired[dict[str, dict[str, Any]]]

    class Spec(TypedDict):
        ociVersion: str
        root: dict[str, Any]
        hostname: str
        process: Process
        mounts: list[SpecMount]
        linux: Linux
        annotations: dict[str, str]


OCI_VERSION = "1.2.0"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ANNOTATION = "io.guntainer."
NO_DEVICES: dict[str, tuple[int, int]] = {}
RESERVED_TARGETS = ("/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/ptmx")

MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
"""What tells of the host or of others on it: hidden, as docker and podman have it."""
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What sets something for the whole host."""


class Account(Value):
    """Who the command runs as inside, as the rootfs's passwd has it."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


def default_mounts(
    network: str, *, cgroups: bool = False, own_cgroup: bool = False, privileged: bool = False, may_mount: bool = False
) -> list[SpecMount]:
    """The kernel's file systems, as the spec's "Default Filesystems" and docker have them.

    Args:
        cgroups: the host has cgroup v2 alone: show the container its own part of it.
        own_cgroup: that part is a control group of its own; else the caller is in it as well.
        privileged: nothing is read-only that the container may write to.
        may_mount: the container can take mounts away: it is not shown what of the host's lies below its own. In the host's
            network that is /sys, whose control groups the caller may write to.
    """
    access = [] if privileged else ["ro"]
    mounts: list[SpecMount] = [
        _mount("/proc", "proc", "proc", "nosuid", "nodev", "noexec"),
        _mount("/dev", "tmpfs", "devfs", "nosuid", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid", "nodev", "noexec", "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "nodev", "noexec"),
    ]
    # A new sysfs may be mounted only by the owner of the network namespace: sysfs(5).
    if network == "host" and may_mount:
        return mounts
    if network == "host":
        mounts.append(_mount("/sys", "none", "/sys", "rbind", "ro"))
    else:
        mounts.append(_mount("/sys", "sysfs", "sysfs", "nosuid", "nodev", "noexec", *access))
    if cgroups:
        own = access if own_cgroup else ["ro"]
        mounts.append(_mount("/sys/fs/cgroup", "cgroup2", "cgroup", "nosuid", "nodev", "noexec", *own))
    return mounts


def _mount(destination: str, kind: str, source: str, *options: str) -> SpecMount:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _volume(mount: Mount) -> SpecMount:
    if mount.kind == "tmpfs":
        size = [f"size={mount.size_bytes}"] if mount.size_bytes is not None else []
        access = ["ro"] if mount.read_only else []
        return _mount(mount.target, "tmpfs", "tmpfs", "nosuid", "nodev", *size, *access)
    if mount.kind == "overlay":
        places = (("lowerdir", mount.source), ("upperdir", f"{mount.layer}/upper"), ("workdir", f"{mount.layer}/work"))
        return _mount(mount.target, "overlay", "overlay", *(f"{name}={path}" for name, path in places))
    return _mount(mount.target, "none", mount.source, "rbind", "ro" if mount.read_only else "rw")


def environment(job: Job, account: Account, *, terminal: str) -> dict[str, str]:
    """PATH, HOME, TERM and HOSTNAME, then the job's own; nothing of the host's is inherited."""
    values = {"PATH": DEFAULT_PATH, "HOME": account.home, "TERM": terminal, "HOSTNAME": job.hostname}
    values.update(job.env)
    return values


def for_job(
    job: Job,
    *,
    tree: str,
    account: Account,
    uids: Iterable[tuple[int, int, int]],
    gids: Iterable[tuple[int, int, int]],
    cgroups: bool = False,
    devices: Mapping[str, tuple[int, int]] = NO_DEVICES,
    terminal: str = "",
    term: str = "xterm",
) -> Spec:
    """The Spec of a job.

    Args:
        tree: the unpacked rootfs on the host.
        account: who runs the command, from the rootfs's own passwd.
        uids, gids: the id maps, (first inside, first outside, count) each.
        cgroups: as for `default_mounts`.
        devices: the disks that the job's limits name, as `resources.of` takes them.
        terminal: "pty" for a pseudo-terminal of the container's own, else "".
        term: the value of TERM.
    """
    kinds = ["user", "mount", "pid", "uts", "ipc", "cgroup"] + (["network"] if job.network != "host" else [])
    user: User = {"uid": account.uid, "gid": account.gid}
    if account.groups:
        user["additionalGids"] = list(account.groups)
    env = environment(job, account, terminal=term)
    config: Spec = {
        "ociVersion": OCI_VERSION,
        "root": {"path": tree, "readonly": job.read_only},
        "hostname": job.hostname,
        "process": {
            "terminal": terminal == "pty",
            "user": user,
            "args": list(job.command) or ["/bin/sh"],
            "env": [f"{key}={value}" for key, value in env.items()],
            "cwd": job.workdir or "/",
            "noNewPrivileges": job.no_new_privileges,
            "capabilities": _capabilities(job),
        },
        "mounts": _all_mounts(job, cgroups=cgroups),
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": [{"containerID": i, "hostID": o, "size": n} for i, o, n in uids],
            "gidMappings": [{"containerID": i, "hostID": o, "size": n} for i, o, n in gids],
            "maskedPaths": _kept(job, MASKED),
            "readonlyPaths": _kept(job, READ_ONLY),
        },
        "annotations": {
            ANNOTATION + "scratch": job.scratch.kind
            + (f":{job.scratch.size_bytes}" if job.scratch.size_bytes is not None else ""),
            ANNOTATION + "init": "true" if job.init else "false",
            ANNOTATION + "seccomp": seccomp_of(job),
            ANNOTATION + "network": job.network,
        },
    }
    if job.make_workdir:
        config["annotations"][ANNOTATION + "make-workdir"] = "true"
    if job.limits != NO_LIMITS:
        from guntainer import resources

        config["linux"]["resources"] = resources.of(job.limits, devices)
        config["process"]["rlimits"] = resources.rlimits(job.limits)
    return config


def seccomp_of(job: Job) -> str:
    """The job's seccomp profile: "default", "unconfined" or a path."""
    return "unconfined" if job.privileged and job.seccomp == "default" else job.seccomp


def capabilities_of(job: Job) -> frozenset[str]:
    """The capabilities that the container's root has.

    With a private network NET_RAW is none of the default ones, as in podman: frames of one's own making reach the host's
    loopback through the tools.
    """
    found = capabilities.chosen(job.cap_add, job.cap_drop, privileged=job.privileged)
    asked_for = job.privileged or {"ALL", "CAP_NET_RAW"} & set(job.cap_add)
    return found if job.network != "private" or asked_for else found - {"CAP_NET_RAW"}


def _capabilities(job: Job) -> dict[str, list[str]]:
    """None is inheritable or ambient: what runs as another user than root has none."""
    names = sorted(capabilities_of(job))
    return {"bounding": names, "effective": names, "permitted": names}


def _kept(job: Job, paths: tuple[str, ...]) -> list[str]:
    if job.privileged or "ALL" in job.unmask:
        return []
    return [path for path in paths if path not in job.unmask]


_REPLACEABLE = ("/dev/shm", "/dev/mqueue")


def _all_mounts(job: Job, *, cgroups: bool) -> list[SpecMount]:
    """The kernel's file systems, then the user's, a folder before what lies in it, as docker and podman have it."""
    own = sorted(job.mounts, key=lambda mount: normal_path(mount.target).count("/"))
    replaced = {normal_path(mount.target) for mount in own} & set(_REPLACEABLE)
    kernels = default_mounts(
        job.network,
        cgroups=cgroups,
        own_cgroup=job.limits.wanted,
        privileged=job.privileged,
        may_mount="CAP_SYS_ADMIN" in capabilities_of(job),
    )
    defaults = [mount for mount in kernels if mount["destination"] not in replaced]
    return defaults + [_volume(mount) for mount in own]


def check_mounts(job: Job) -> None:
    """Refuse what would hide the kernel's own file systems, and two mounts on one path.

    Raises:
        UsageError: naming the mount.
    """
    seen: set[str] = set()
    for mount in job.mounts:
        target = normal_path(mount.target)
        if target in RESERVED_TARGETS or target.startswith(("/proc/", "/sys/")):
            raise errors.UsageError(f"volume {mount.source or 'tmpfs'}:{mount.target}: can not mount on {target}")
        if target in seen:
            raise errors.UsageError(f"volume {mount.source or 'tmpfs'}:{mount.target}: {target} is mounted twice")
        seen.add(target)


def normal_path(path: str) -> str:
    """An absolute path without `.`, empty parts and `..`, which stops at the root as in a chroot."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
