"""From a Job and an unpacked rootfs to something that can be launched: account, layers, Spec, Plan.

The one place where a job meets the host: it looks at files and makes the writable layer's folders, so that `planner` can
be pure.
"""

from __future__ import annotations

import errno
import marshal
import os

from guntainer import descriptors, errors, planner, rootfs, runfolder, spec
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


class Ground:
    """What all containers of one supervisor share, and what need not be worked out again for each.

    Args:
        shared: a folder of ours for the skeleton layers and the mount point.
        run: gives the run folder, which is opened when the first writable layer on disk is needed.
    """

    def __init__(self, shared: str, run: Callable[[], RunFolder]) -> None:
        self.shared = shared
        self.run = run
        self.assemblies: dict[Any, Assembly] = {}
        self._skeletons: dict[tuple[str, str, str], str] = {}
        self._accounts: dict[tuple[str, str | None], spec.Account] = {}
        self._point = ""

    def skeleton(self, job: Job, tree: str) -> str:
        """The skeleton layer for a job on a tree."""
        key = (job.hostname, job.network, tree)
        if key not in self._skeletons:
            with_etc = _is_folder(f"{tree}/etc") is not False
            self._skeletons[key] = runfolder.skeleton(
                self.shared + "/skeleton", hostname=job.hostname, network=job.network, with_etc=with_etc
            )
        return self._skeletons[key]

    def account(self, tree: str, user: str | None) -> spec.Account:
        """Who `user` is in a tree."""
        key = (tree, user)
        if key not in self._accounts:
            self._accounts[key] = rootfs.account(tree, user)
        return self._accounts[key]

    def mount_point(self) -> str:
        """An empty folder on which every container mounts its root, in a mount namespace of its own."""
        if not self._point:
            point = f"{self.shared}/mount"
            try:
                os.mkdir(point, 0o700)
            except FileExistsError:
                pass
            self._point = point
        return self._point


class Assembly(Value):
    """A container ready to be launched."""

    spec: Spec
    plan: planner.Plan
    data: bytes = b""
    """The plan as it is sent."""
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
    copied: str = "",
) -> Assembly:
    """Everything for one launch of `job` on the rootfs at `tree`.

    Args:
        init: as `planner.plan` takes it.
        copied: a layer with a private copy of the tree, where overlayfs is refused: see `copying`.

    Raises:
        UsageError: a mount or a user that makes no sense.
        HostError: no room for the writable layer.
    """
    layer = copied or ("" if job.scratch.kind == "memory" else ground.run().layer())
    # Copies of one job differ in nothing that a plan holds. Bind mounts are looked at each time: their sources may change.
    key = (*(getattr(job, name) for name in _PLANNED), tree, layer, stdio, terminal, term, init, isolation)
    known = None if job.mounts or copied else ground.assemblies.get(key)
    if known is not None:
        return known
    try:
        made = _assemble(job, tree, ground, stdio, layer, terminal, term, init, isolation, copied)
    except BaseException:
        if layer and not copied:
            ground.run().give_back(layer)
        raise
    if not (job.mounts or copied):
        if len(ground.assemblies) >= _REMEMBERED:
            ground.assemblies.clear()
        ground.assemblies[key] = made
    return made


_PLANNED = ("command", "env", "workdir", "user", "hostname", "network", "init", "read_only", "scratch")
_REMEMBERED = 256


def _assemble(
    job: Job,
    tree: str,
    ground: Ground,
    stdio: planner.Stdio,
    layer: str,
    terminal: bool,
    term: str,
    init: str,
    isolation: str,
    copied: str,
) -> Assembly:
    spec.check_mounts(job)
    config = spec.for_job(
        job,
        tree=tree,
        account=ground.account(tree, job.user),
        host_uid=os.geteuid(),
        host_gid=os.getegid(),
        terminal="pty" if terminal else "",
        term=term,
    )
    if copied:
        root, scratch = planner.Root(folder=f"{copied}/upper"), "copy"
    else:
        root, scratch = _layered(job, (ground.skeleton(job, tree), tree), ground.mount_point(), layer)
    plan = planner.plan(
        config,
        root,
        stdio,
        init=init,
        folders=frozenset(m.source for m in job.mounts if m.kind == "bind" and os.path.isdir(m.source)),
        limits=descriptors.for_commands(),
        isolation=isolation,
    )
    return Assembly(spec=config, plan=plan, data=marshal.dumps(plan), layer=layer, scratch=scratch)


def _is_folder(path: str) -> bool | None:
    """Whether a path is a folder itself, not a link to one; None where there is nothing."""
    try:
        return os.lstat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return None


def _layered(job: Job, lowers: tuple[str, ...], point: str, layer: str) -> tuple[planner.Root, str]:
    if not layer:
        size = "" if job.scratch.size_bytes is None else str(job.scratch.size_bytes)
        return planner.Root(lowers=lowers, mount_point=point, memory_size=size), "overlay on memory"
    root = planner.Root(lowers=lowers, upper=f"{layer}/upper", work=f"{layer}/work", mount_point=point)
    return root, "overlay on disk"


def refuse(isolation: str) -> None:
    """For who demands full isolation.

    Raises:
        HostError: a lower rung is all there is.
    """
    if isolation != planner.FULL:
        raise errors.HostError(
            f"full isolation was demanded, but only {isolation} is possible here", hint="nothing was run"
        )


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
