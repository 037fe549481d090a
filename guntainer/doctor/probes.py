"""The probes, in the order in which they are tried and shown. Their ids stand in error messages and scripts: none ever changes."""

from __future__ import annotations

from guntainer.doctor import cgroups, ids, kernel, limits, namespaces, network, programs, storage
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.doctor.examine import Circumstances
    from guntainer.doctor.finding import Finding


class Probe(Value):
    """Something to try."""

    id: str
    what: str
    """For people, a few words."""
    attempt: Callable[[Circumstances], Finding]
    needed: bool = False
    """Nothing can be run where it is missing."""
    needs: tuple[str, ...] = ()
    """Probes without which this one can not be tried."""
    after: tuple[str, ...] = ()
    """Probes whose findings it looks at."""
    in_place: bool = False
    """Tried by the examining process itself, which bounds its time and undoes it: it is about that process's own place."""


_USER = ("user-namespace",)
_NETWORK = ("user-namespace", "network-namespace")
_TOOLS = ("tun", *network.BEHIND)
_INSIDE = ("user-namespace", "namespaces")

PROBES: dict[str, Probe] = {
    probe.id: probe
    for probe in (
        Probe(id="python", what="the interpreter", attempt=programs.python, needed=True),
        Probe(id="kernel", what="its version and the calls that are needed", attempt=kernel.version, needed=True),
        Probe(id="seccomp-outer", what="a filter of a container around us", attempt=kernel.outer_filter, needed=True),
        Probe(id="sysctl-userns-clone", what="Debian's bar", attempt=kernel.debian_bar, needed=True),
        Probe(id="apparmor", what="Ubuntu's bar", attempt=kernel.apparmor, needed=True),
        Probe(id="namespace-limits", what="how many there may be", attempt=namespaces.limits, needed=True),
        Probe(id="user-namespace", what="to be root in one's own", attempt=namespaces.user, needed=True),
        Probe(id="subid", what="a range of ids", attempt=ids.subid, needs=_USER),
        Probe(id="namespaces", what="mount, uts, ipc, cgroup", attempt=namespaces.others, needed=True, needs=_USER),
        Probe(id="pid-namespace", what="to end a container as a whole", attempt=namespaces.pid, needs=_INSIDE),
        Probe(id="proc-mount", what="a new /proc", attempt=namespaces.proc, needs=_INSIDE),
        Probe(id="devpts", what="terminals", attempt=namespaces.devpts, needed=True, needs=_INSIDE),
        Probe(id="mqueue", what="message queues", attempt=namespaces.mqueue, needed=True, needs=_INSIDE),
        Probe(id="network-namespace", what="a network of its own", attempt=namespaces.network, needs=_USER),
        Probe(id="nofile", what="open files", attempt=limits.nofile, needed=True),
        Probe(id="nproc", what="processes", attempt=limits.nproc, needed=True),
        Probe(id="tmpdir", what="the folder for run folders", attempt=storage.tmpdir, needed=True),
        Probe(id="store", what="the folder for unpacked archives", attempt=storage.store, needed=True),
        Probe(
            id="overlay-disk",
            what="a writable layer there",
            attempt=storage.overlay_disk,
            needs=(*_INSIDE, "tmpdir", "store"),
        ),
        Probe(
            id="overlay-memory",
            what="a writable layer in memory",
            attempt=storage.overlay_memory,
            needs=(*_INSIDE, "store"),
        ),
        Probe(id="libarchive", what="unpacks archives", attempt=programs.libarchive, needed=True),
        Probe(id="seccomp", what="libseccomp, and a filter", attempt=programs.seccomp, needed=True, needs=_USER),
        Probe(id="tun", what="the device of private networks", attempt=network.tun, needs=_NETWORK),
        Probe(
            id="pasta",
            what="the better way to a private network",
            attempt=network.pasta,
            needs=_NETWORK,
            after=_TOOLS,
        ),
        Probe(id="slirp4netns", what="the other one", attempt=network.slirp4netns, needs=_NETWORK, after=_TOOLS),
        Probe(id="network-tool", what="one of the two", attempt=network.either, after=("pasta", "slirp4netns")),
        Probe(id="init", what="a small init for --init", attempt=programs.init),
        Probe(
            id="cgroup",
            what="a part of the tree of control groups",
            attempt=cgroups.tree,
            needs=("tmpdir",),
            in_place=True,
        ),
        *(
            Probe(
                id=f"cgroup-{name}",
                what=f"limits of the controller {name}",
                attempt=cgroups.controller(name),
                needs=("cgroup",),
                in_place=True,
            )
            for name in cgroups.CONTROLLERS
        ),
    )
}
