"""The OCI runtime-spec configuration of a container: typed view, built from a Job.

A Spec is the plain dict that `config.json` would hold (spec version 1.2), so that it can be dumped, compared and checked
against the published schemas as it stands; the TypedDicts are for the reader and the type checker and cost nothing at
run time. Pure: opens no file.

What the OCI words have no place for stands in annotations below `io.guntainer.`: scratch, init, network.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.model import Job, Mount
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
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
RESERVED_TARGETS = ("/", "/proc", "/sys", "/dev")


class Account(Value):
    """Who the command runs as inside, as the rootfs's passwd has it."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


def default_mounts(network: str) -> list[SpecMount]:
    """The kernel's file systems, as the spec's "Default Filesystems" and docker have them."""
    mounts: list[SpecMount] = [
        _mount("/proc", "proc", "proc", "nosuid", "nodev", "noexec"),
        _mount("/dev", "tmpfs", "devfs", "nosuid", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid", "nodev", "noexec", "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "nodev", "noexec"),
    ]
    # A new sysfs may be mounted only by the owner of the network namespace: sysfs(5).
    if network == "host":
        mounts.append(_mount("/sys", "none", "/sys", "rbind", "ro"))
    else:
        mounts.append(_mount("/sys", "sysfs", "sysfs", "nosuid", "nodev", "noexec", "ro"))
    return mounts


def _mount(destination: str, kind: str, source: str, *options: str) -> SpecMount:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _volume(mount: Mount) -> SpecMount:
    if mount.kind == "tmpfs":
        size = [f"size={mount.size_bytes}"] if mount.size_bytes is not None else []
        access = ["ro"] if mount.read_only else []
        return _mount(mount.target, "tmpfs", "tmpfs", "nosuid", "nodev", *size, *access)
    return _mount(mount.target, "none", mount.source, "rbind", "ro" if mount.read_only else "rw")


def environment(job: Job, account: Account, *, terminal: str) -> dict[str, str]:
    """PATH, HOME, TERM and HOSTNAME, then the job's own; nothing of the host's is inherited."""
    values = {"PATH": DEFAULT_PATH, "HOME": account.home, "TERM": terminal, "HOSTNAME": job.hostname}
    values.update(job.env)
    return values


def for_job(
    job: Job, *, tree: str, account: Account, host_uid: int, host_gid: int, terminal: str = "", term: str = "xterm"
) -> Spec:
    """The Spec of a job.

    Args:
        tree: the unpacked rootfs on the host.
        account: who runs the command, from the rootfs's own passwd.
        host_uid, host_gid: the caller's ids; they become the account's inside ("single" id map).
        terminal: "pty" for a pseudo-terminal of the container's own, else "".
        term: the value of TERM.
    """
    kinds = ["user", "mount", "pid", "uts", "ipc", "cgroup"] + (["network"] if job.network != "host" else [])
    user: User = {"uid": account.uid, "gid": account.gid}
    if account.groups:
        user["additionalGids"] = list(account.groups)
    env = environment(job, account, terminal=term)
    return {
        "ociVersion": OCI_VERSION,
        "root": {"path": tree, "readonly": job.read_only},
        "hostname": job.hostname,
        "process": {
            "terminal": terminal == "pty",
            "user": user,
            "args": list(job.command) or ["/bin/sh"],
            "env": [f"{key}={value}" for key, value in env.items()],
            "cwd": job.workdir or "/",
            "noNewPrivileges": False,
        },
        "mounts": _all_mounts(job),
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": [{"containerID": account.uid, "hostID": host_uid, "size": 1}],
            "gidMappings": [{"containerID": account.gid, "hostID": host_gid, "size": 1}],
        },
        "annotations": {
            ANNOTATION + "scratch": job.scratch.kind
            + (f":{job.scratch.size_bytes}" if job.scratch.size_bytes is not None else ""),
            ANNOTATION + "init": "true" if job.init else "false",
        },
    }


_REPLACEABLE = ("/dev/shm", "/dev/mqueue")


def _all_mounts(job: Job) -> list[SpecMount]:
    """The kernel's file systems, then the user's, a folder before what lies in it, as docker and podman have it."""
    own = sorted(job.mounts, key=lambda mount: normal_path(mount.target).count("/"))
    replaced = {normal_path(mount.target) for mount in own} & set(_REPLACEABLE)
    defaults = [mount for mount in default_mounts(job.network) if mount["destination"] not in replaced]
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
