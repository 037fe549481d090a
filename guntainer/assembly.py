"""From a Job and an unpacked rootfs to something that can be launched: account, layers, Spec, Plan.

The one place where a job meets the host: it looks at files and makes the writable layer's folders, so that `planner` can
be pure.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors, planner, rootfs, runfolder, spec
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.jobs.model import Job
    from guntainer.runfolder import RunFolder
    from guntainer.spec import Spec

INITS = ("catatonit", "tini-static", "docker-init", "tini")
_INIT_FOLDERS = ("/usr/bin", "/usr/libexec/podman", "/usr/lib/podman", "/usr/local/bin", "/bin", "/usr/libexec/docker")


class Ground(Value):
    """What all containers of one supervisor share."""

    shared: str
    """A folder of ours for the skeleton layers and the mount point."""
    run: Any
    """() -> RunFolder: opened when the first writable layer on disk is needed."""
    limits: tuple[tuple[int, int, int], ...] = ()


class Assembly(Value):
    """A container ready to be launched."""

    spec: Spec
    plan: planner.Plan
    layer: str = ""
    """The folder of its writable layer; "" where that is in memory."""
    scratch: str = ""


def assemble(
    job: Job,
    tree: str,
    ground: Ground,
    stdio: planner.Stdio,
    *,
    terminal: bool = False,
    term: str = "xterm",
    init: str = "",
    isolation: str = planner.FULL,
    copy: bool = False,
) -> Assembly:
    """Everything for one launch of `job` on the rootfs at `tree`.

    Args:
        init: as `planner.plan` takes it.
        copy: run on a private copy of the tree: where overlayfs is refused.

    Raises:
        UsageError: a mount or a user that makes no sense.
        HostError: no room for the writable layer.
    """
    spec.check_mounts(job)
    account = rootfs.account(tree, job.user)
    config = spec.for_job(
        job,
        tree=tree,
        account=account,
        host_uid=os.geteuid(),
        host_gid=os.getegid(),
        terminal="pty" if terminal else "",
        term=term,
    )
    etc = _is_folder(f"{tree}/etc")
    skeleton = runfolder.skeleton(
        ground.shared + "/skeleton", hostname=job.hostname, network=job.network, with_etc=etc is not False
    )
    if copy:
        root, layer, scratch = _copied(tree, skeleton, ground.run())
    else:
        root, layer, scratch = _layered(job, (skeleton, tree), ground)
    plan = planner.plan(
        config,
        root,
        stdio,
        init=init,
        folders=frozenset(m.source for m in job.mounts if m.kind == "bind" and os.path.isdir(m.source)),
        limits=ground.limits,
        isolation=isolation,
    )
    return Assembly(spec=config, plan=plan, layer=layer, scratch=scratch)


def _is_folder(path: str) -> bool | None:
    """Whether a path is a folder itself, not a link to one; None where there is nothing."""
    try:
        return os.lstat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return None


def _layered(job: Job, lowers: tuple[str, ...], ground: Ground) -> tuple[planner.Root, str, str]:
    point = f"{ground.shared}/mount"
    try:
        os.mkdir(point, 0o700)
    except FileExistsError:
        pass
    if job.scratch.kind == "memory":
        size = "" if job.scratch.size_bytes is None else str(job.scratch.size_bytes)
        return planner.Root(lowers=lowers, mount_point=point, memory_size=size), "", "overlay on memory"
    upper, work = ground.run().layer()
    root = planner.Root(lowers=lowers, upper=upper, work=work, mount_point=point)
    return root, os.path.dirname(upper), "overlay on disk"


def _copied(tree: str, skeleton: str, run: RunFolder) -> tuple[planner.Root, str, str]:
    """A private copy of tree and skeleton, by cp(1): reflinks where the file system has them."""
    import subprocess

    upper, _ = run.layer()
    subprocess.run(["cp", "-a", "--reflink=auto", f"{tree}/.", upper], check=True, capture_output=True)
    for name in os.listdir(skeleton):
        if _is_folder(f"{upper}/{name}") is False:
            os.unlink(f"{upper}/{name}")
    etc = f"{upper}/etc"
    for name in os.listdir(f"{skeleton}/etc") if os.path.isdir(f"{skeleton}/etc") else ():
        if os.path.lexists(f"{etc}/{name}"):
            os.unlink(f"{etc}/{name}")  # a link there would be followed
    subprocess.run(["cp", "-r", f"{skeleton}/.", upper], check=True, capture_output=True)
    return planner.Root(folder=upper), os.path.dirname(upper), "copy"


def check_sources(job: Job) -> None:
    """A bind mount's source must be there: nothing is made on the host, as podman does it.

    Raises:
        UsageError: naming the missing path.
    """
    for mount in job.mounts:
        if mount.kind == "bind" and not os.path.exists(mount.source):
            raise errors.UsageError(f"volume {mount.source}:{mount.target}: {mount.source} does not exist on the host")


def next_rung(error: errors.SetupError, isolation: str, *, copy: bool) -> tuple[str, bool, str] | None:
    """What to try after a refused step: (isolation, copy, note), or None where there is nothing lower."""
    refused = error.errno in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)
    if error.step == "mount" and error.subject == "/proc" and isolation == planner.FULL and refused:
        return (
            planner.HOST_PROC,
            copy,
            "isolation: host-proc (a new /proc is refused here; the host's is shown, read-only)",
        )
    if error.step == "overlay" and not copy and refused:
        return isolation, True, f"overlayfs is refused here ({os.strerror(error.errno)}): running on a copy"
    return None


def find_init(which: Callable[[str], bool] = os.path.exists) -> str | None:
    """The host's small init: a static program, because the rootfs may have no loader for another."""
    for name in INITS:
        for folder in _INIT_FOLDERS:
            path = f"{folder}/{name}"
            if which(path) and _is_static(path):
                return path
    return None


def _is_static(path: str) -> bool:
    """Whether a 64-bit ELF file names no program loader: no PT_INTERP among its program headers, elf(5)."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if head[:5] != b"\x7fELF\x02":
        return False
    start, size, count = (int.from_bytes(head[at : at + width], "little") for at, width in ((32, 8), (54, 2), (56, 2)))
    kinds = [int.from_bytes(head[start + size * n : start + size * n + 4], "little") for n in range(count)]
    return 3 not in kinds
