"""From a Job and an unpacked rootfs to something that can be launched: account, layers, Spec, Plan.

The one place where a job meets the host: it looks at files and makes the writable layer's folders, so that `planner` can
be pure.
"""

from __future__ import annotations

import marshal
import os

from guntainer import capabilities, descriptors, errors, exeseal, hostids, idmap, planner, skeleton, spec
from guntainer import rootfs as rootfs_
from guntainer.jobs.model import NO_LIMITS
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.belongings import Shared
    from guntainer.cgroups.cgroup import Cgroup
    from guntainer.cgroups.limiter import Granted, Limiter
    from guntainer.jobs.model import Job, Limits
    from guntainer.rootfs import Rootfs
    from guntainer.runfolder import RunFolder
    from guntainer.spec import Spec

_APT_FOLDERS = ("etc", "etc/apt", "etc/apt/apt.conf.d")
INITS = ("catatonit", "tini-static", "docker-init", "tini")
_INIT_FOLDERS = ("/usr/bin", "/usr/libexec/podman", "/usr/lib/podman", "/usr/local/bin", "/bin", "/usr/libexec/docker")


class Ground:
    """What all containers of one supervisor share, and what need not be worked out again for each.

    Args:
        shared: a folder of ours for the skeleton layers, the mount point and compiled filters.
        run: gives the run folder, which is opened when the first writable layer on disk is needed.
        ids: the ids that a container has.
    """

    def __init__(self, shared: str, run: Callable[[], RunFolder], ids: idmap.Ids = idmap.Ids()) -> None:
        self.shared = shared
        self.run = run
        self.ids = ids
        self.assemblies: dict[Any, Assembly] = {}
        self._skeletons: dict[tuple[Any, ...], str] = {}
        self._distributions: dict[tuple[str, ...], bool] = {}
        self._filters: dict[tuple[str, frozenset[str], bool], bytes] = {}
        self.limiter: Limiter | None = None
        """Set before the first container that has limits."""
        self.belongings: Shared | None = None
        """Set before the first container that has any of those."""
        self._cgroups: bool | None = None
        self._accounts: dict[tuple[tuple[str, ...], str | None], spec.Account] = {}
        self._empty: dict[str, str] = {}

    def skeleton(self, job: Job, rootfs: Rootfs) -> str:
        """The skeleton layer for a job on a rootfs."""
        with_apt = self.emulates_root(job, rootfs)
        folders = rootfs.folders
        key = (job.hostname, job.network, job.dns, job.add_hosts, folders, with_apt)
        if key not in self._skeletons:
            with_etc = rootfs_.is_folder(folders, "etc") is not False
            self._skeletons[key] = skeleton.layer(
                self.shared + "/skeleton",
                hostname=job.hostname,
                network=job.network,
                dns=job.dns,
                add_hosts=job.add_hosts,
                with_etc=with_etc,
                with_apt=with_apt and all(rootfs_.is_folder(folders, path) for path in _APT_FOLDERS),
            )
        return self._skeletons[key]

    def account(self, rootfs: Rootfs, user: str | None) -> spec.Account:
        """Who `user` is in a rootfs."""
        key = ((rootfs.accounts,) if rootfs.accounts else rootfs.folders, user)
        if key not in self._accounts:
            self._accounts[key] = rootfs_.account(*key)
        return self._accounts[key]

    def emulates_root(self, job: Job, rootfs: Rootfs) -> bool:
        """Whether what only a root with many ids can do is to succeed without doing anything."""
        if job.root_emulation != "auto":
            return job.root_emulation == "on"
        if self.ids.kind != idmap.SINGLE:
            return False
        folders = rootfs.folders
        if folders not in self._distributions:
            self._distributions[folders] = rootfs_.has_package_manager(folders)
        return self._distributions[folders]

    def filter(self, job: Job, *, emulate_root: bool) -> bytes:
        """The seccomp filter of a job; empty where it has none."""
        key = (spec.seccomp_of(job), spec.capabilities_of(job), emulate_root)
        if key[0] == "unconfined" and not emulate_root:
            return b""
        if key not in self._filters:
            from guntainer.seccomp import cache

            self._filters[key] = cache.program(
                self.shared, profile=key[0], capabilities=key[1], emulate_root=emulate_root
            )
        return self._filters[key]

    def granted(self, limits: Limits) -> Granted:
        """What of a job's limits is in force; all, where nothing is to be started."""
        if self.limiter is not None:
            return self.limiter.grant(limits)
        from guntainer.cgroups import host
        from guntainer.cgroups.limiter import Granted

        return Granted(limits=limits, devices=tuple((path, host.device_of(path)) for _, path, _ in limits.io_max))

    def new_cgroup(self, limits: Limits) -> Cgroup | None:
        """A control group for one container with these limits; None where it needs none.

        Raises:
            Exhausted: no more groups are allowed.
        """
        return self.limiter.new(limits) if self.limiter is not None and limits.wanted else None

    def cgroups(self) -> bool:
        """Whether the host has cgroup v2 in the usual place, and nothing else there: cgroups(7)."""
        if self._cgroups is None:
            self._cgroups = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        return self._cgroups

    def empty_folder(self, name: str) -> str:
        """An empty folder of ours: `mount`, on which every container mounts its root in a mount namespace of its own, or
        `empty`, which stays so."""
        if name not in self._empty:
            path = os.path.realpath(f"{self.shared}/{name}")  # it is looked up where links lead elsewhere
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass
            self._empty[name] = path
        return self._empty[name]


def compile_early(job: Job, shared: str, ids: idmap.Ids) -> None:
    """The job's seccomp filter, while an unpacker works: where it is not kept yet, it takes as long as a small rootfs does.

    What is wrong with it is told when it is needed.
    """
    place = Ground(shared, _no_folder, ids)
    # of a distribution, most likely: whether it is one can be seen afterwards
    emulate_root = job.root_emulation == "on" or (job.root_emulation == "auto" and ids.kind == idmap.SINGLE)
    try:
        place.filter(job, emulate_root=emulate_root)
    except errors.GuntainerError:
        pass


def _no_folder() -> RunFolder:
    raise AssertionError("nothing is written yet")


class Copied(Value):
    """A private copy of a rootfs, where overlayfs is refused: see `copying`."""

    layer: str
    """The folder of a writable layer; the copy is its `upper`."""
    scratch: str
    """How it was copied, as the result has it."""


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
    rootfs: Rootfs,
    ground: Ground,
    stdio: planner.Stdio,
    *,
    terminal: bool = False,
    term: str = "xterm",
    init: str = "",
    isolation: str = planner.FULL,
    copied: Copied | None = None,
    network: int = -1,
    cgroup: int = -1,
    joined: bool = False,
    kept: tuple[int, str] = (-1, ""),
) -> Assembly:
    """Everything for one launch of `job` on `rootfs`.

    Args:
        init, network, cgroup, joined: as `planner.plan` takes them.
        kept: its `kept` and `kept_mount`.
        copied: what it runs on instead of an overlay.

    Raises:
        UsageError: a mount or a user that makes no sense.
        HostError: no room for the writable layer.
    """
    layer = copied.layer if copied else ("" if job.scratch.kind == "memory" else ground.run().layer())
    # Copies of one job differ in nothing that a plan holds. Bind mounts are looked at each time: their sources may change.
    ways = (stdio, terminal, term, init, isolation, network, cgroup, joined, kept)
    key = (*(getattr(job, name) for name in _PLANNED), rootfs.base, rootfs.lowers, layer, *ways)
    known = None if job.mounts or copied else ground.assemblies.get(key)
    if known is not None:
        return known
    try:
        made = _assemble(
            job, rootfs, ground, stdio, layer, terminal, term, init, isolation, copied, network, cgroup, joined, kept
        )
    except BaseException:
        if layer and not copied:
            ground.run().give_back(layer)
        raise
    if not (job.mounts or copied):
        if len(ground.assemblies) >= _REMEMBERED:
            ground.assemblies.clear()
        ground.assemblies[key] = made
    return made


_PLANNED = (
    *("command", "env", "workdir", "make_workdir", "user", "hostname", "network", "init", "read_only", "scratch"),
    *("dns", "add_hosts", "limits"),
    *("cap_add", "cap_drop", "no_new_privileges", "seccomp", "unmask", "privileged", "root_emulation"),
)
_REMEMBERED = 256


def _assemble(
    job: Job,
    rootfs: Rootfs,
    ground: Ground,
    stdio: planner.Stdio,
    layer: str,
    terminal: bool,
    term: str,
    init: str,
    isolation: str,
    copied: Copied | None,
    network: int,
    cgroup: int,
    joined: bool,
    kept: tuple[int, str],
) -> Assembly:
    granted = ground.granted(job.limits) if job.limits != NO_LIMITS else None
    if granted is not None:
        job = job.replace(limits=granted.limits)
    if rootfs.accounts:
        from guntainer import hosttree

        job = hosttree.with_names(job, rootfs, ground.skeleton(job, rootfs))
    spec.check_mounts(job)
    _check_privileges(job)
    account = ground.account(rootfs, job.user)
    if ground.ids.kind == idmap.SINGLE:
        account = account.replace(groups=())  # setgroups(2) is denied where one id is mapped
    uids, gids = _maps(account, ground.ids, joined=joined)
    config = spec.for_job(
        job,
        tree=rootfs.folders[0],
        account=account,
        uids=uids,
        gids=gids,
        cgroups=ground.cgroups(),
        devices=dict(granted.devices) if granted is not None else spec.NO_DEVICES,
        terminal="pty" if terminal else "",
        term=term,
    )
    if copied:
        root, scratch = planner.Root(folder=f"{copied.layer}/upper"), copied.scratch
    else:
        lowers = (ground.skeleton(job, rootfs), *rootfs.lowers)
        root, scratch = _layered(job, lowers, ground.empty_folder("mount"), layer)
        root = root.replace(base=rootfs.base)
    root = root.replace(empty=ground.empty_folder("empty"))
    if any(mount.kind == "overlay" for mount in job.mounts):
        root = root.replace(workspace=ground.empty_folder("workspace"))
    plan = planner.plan(
        config,
        root,
        stdio,
        init=init,
        folders=frozenset(m.source for m in job.mounts if m.kind == "bind" and os.path.isdir(m.source)),
        limits=descriptors.for_commands() + (granted.rlimits if granted is not None else ()),
        isolation=isolation,
        mapped=ground.ids.kind == idmap.RANGE,
        nested=not spec.capabilities_of(job) <= capabilities.DEFAULT,
        seccomp=ground.filter(job, emulate_root=ground.emulates_root(job, rootfs)),
        network=network,
        cgroup=cgroup,
        joined=joined,
        kept=kept[0],
        kept_mount=kept[1],
    )
    return Assembly(spec=config, plan=plan, data=marshal.dumps(plan), layer=layer, scratch=scratch)


_REACHING = frozenset(("CAP_SYS_ADMIN", "CAP_SYS_PTRACE"))


def _check_privileges(job: Job) -> None:
    """Some capabilities reach all that is the caller's own.

    Raises:
        HostError: real root's namespace has the host's own ids, and with them what is root's in /proc/sys and /dev.
    """
    reaching = _REACHING & spec.capabilities_of(job)
    if not reaching:
        return
    names = " and ".join(name.removeprefix("CAP_") for name in sorted(reaching))
    if idmap.is_real_root():
        raise errors.HostError(
            f"{names} in a container of the host's root would reach what is root's on the host",
            hint="run it as another user, or leave out --privileged and --cap-add",
        )


def _maps(
    account: spec.Account, ids: idmap.Ids, *, joined: bool = False
) -> tuple[tuple[idmap.Extent, ...], tuple[idmap.Extent, ...]]:
    """The id maps of a container.

    Args:
        joined: a single id is that of the network's own user namespace, where it is 0.

    Raises:
        UsageError: the account is none of the ids.
    """
    if ids.kind == idmap.SINGLE:
        uid, gid = (0, 0) if joined else (hostids.UID, hostids.GID)
        return ((account.uid, uid, 1),), ((account.gid, gid, 1),)
    for kind, number in (("user", account.uid), *(("group", one) for one in (account.gid, *account.groups))):
        if number >= idmap.COUNT:
            raise errors.UsageError(
                f"{kind} {number}: only 0 to {idmap.COUNT - 1} are mapped", hint="or --userns single"
            )
    return ids.uids, ids.gids


def _layered(job: Job, lowers: tuple[str, ...], point: str, layer: str) -> tuple[planner.Root, str]:
    if not layer:
        size = "" if job.scratch.size_bytes is None else str(job.scratch.size_bytes)
        return planner.Root(lowers=lowers, mount_point=point, memory_size=size), "overlay on memory"
    root = planner.Root(lowers=lowers, upper=f"{layer}/upper", work=f"{layer}/work", mount_point=point)
    return root, "overlay on disk"


def find_init(which: Callable[[str], bool] = os.path.exists) -> str | None:
    """The host's small init: a static program, because the rootfs may have no loader for another."""
    for name in INITS:
        for folder in _INIT_FOLDERS:
            path = f"{folder}/{name}"
            if which(path) and _is_static(path) and not exeseal.is_exposed(path):
                return path
    return None


def _is_static(path: str) -> bool:
    try:
        return not exeseal.elf_loader(path)
    except (OSError, ValueError):
        return False
