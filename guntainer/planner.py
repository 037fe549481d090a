"""From an OCI Spec to a Plan: which operations, in which order. Pure: looks at no file, asks no kernel.

The order is the security of it. The overlay and everything taken from the host come first. After pivot_root the host's root
still lies stacked over the new one, where a `..` leads into it: only the kernel's own file systems are mounted then, at
folders of the skeleton. It is let go before any path of the user's or of the rootfs is resolved, and before anything runs.
"""

from __future__ import annotations

from guntainer import capabilities
from guntainer.init import AS_JOINED, AS_SUBREAPER, FIRST, OUR_INITS, SUPERVISOR_DIED
from guntainer.kernel import abi
from guntainer.spec import ANNOTATION
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.spec import Linux, Spec, SpecMount

    Plan = tuple[Any, ...]

FULL = "full"
HOST_PROC = "host-proc"
NO_PID = "no-pid"
"""The rungs of the ladder, see `ladder`: everything; the host's /proc; no pid namespace either."""


class Root(Value):
    """What the root is made of."""

    lowers: tuple[str, ...] = ()
    """Read-only folders, uppermost first: the skeleton, then the rootfs. Empty: `folder` is used as it is."""
    base: str = ""
    """Where those of them are that are relative."""
    upper: str = ""
    work: str = ""
    mount_point: str = ""
    """An empty folder of ours; nothing is seen there outside of the container's mount namespace."""
    memory_size: str | None = None
    """Not None: the writable layer is a tmpfs on the mount point; "" or a size as tmpfs(5) takes it."""
    empty: str = ""
    """A folder in which there is nothing: what folders of the kernel's file systems are hidden behind."""
    workspace: str = ""
    """Another empty folder of ours: a workspace's overlay is mounted there, before it is placed."""
    folder: str = ""
    """A private copy of the rootfs, where overlayfs is refused."""


class Stdio(Value):
    """Indexes into the descriptors that go with the plan, from 0; -1: inherited."""

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    terminal: int = -1
    """The socket on which the pseudo-terminal's master comes back."""
    rows: int = 0
    columns: int = 0


def plan(
    spec: Spec,
    root: Root,
    stdio: Stdio = Stdio(),
    *,
    init: str = "",
    folders: frozenset[str] = frozenset(),
    limits: tuple[tuple[int, int, int], ...] = (),
    isolation: str = FULL,
    mapped: bool = False,
    nested: bool = False,
    seccomp: bytes = b"",
    network: int = -1,
    cgroup: int = -1,
    joined: bool = False,
    kept: int = -1,
    kept_mount: str = "",
) -> Plan:
    """The Plan of a Spec: (clone flags, operations, argv, environment, init), plain values for marshal.

    Args:
        folders: bind sources that are folders; the others are files.
        init: "": the command is pid 1; "reaper": ours; a digit: the index of the descriptor of the host's. Without a pid
            namespace it is always ours.
        limits: (resource, soft, hard) to set before the command.
        mapped: whoever clones is in a user namespace with these maps already, in which the container stays.
        nested: it does not: it gets one below that, with the same ids, so that no capability of its reaches anybody else.
            Always where it sees the host's processes: by /proc/PID/root it would get at the files of whoever is in the same
            user namespace, ptrace(2), and a script's interpreter may be such a path as well.
        seccomp: a filter, as seccomp(2) takes it; empty: none.
        network: the index of the socket through which a private network is asked for; -1: there is none.
        cgroup: the index of the descriptor of the container's own control group; -1: it stays in the caller's.
        joined: whoever clones is in its network already, which it shares with others.
        kept: the index of the socket through which its root is handed out; -1: nobody wants it.
        kept_mount: and what is mounted at this path; "": that alone.
    """
    process = spec["process"]
    flags = 0
    for namespace in spec["linux"]["namespaces"]:
        flags |= abi.NAMESPACES[namespace["type"]]
    if joined:
        flags &= ~abi.CLONE_NEWNET
    death_signal: tuple[Any, ...] = ("death_signal",)
    if isolation == NO_PID:
        flags &= ~abi.CLONE_NEWPID
        init = AS_SUBREAPER
        death_signal = ("death_signal", SUPERVISOR_DIED)
    operations: list[tuple[Any, ...]] = []
    if cgroup >= 0:
        flags &= ~abi.CLONE_NEWCGROUP
        operations.append(_into_cgroup(spec, _index(cgroup)))
    if mapped and (nested or isolation != FULL):
        maps = [_own_map_text(spec["linux"][kind]) for kind in ("uidMappings", "gidMappings")]
        operations.append(("map_ids", *maps))
    elif mapped:
        flags &= ~abi.CLONE_NEWUSER
    else:
        operations.append(("id_map", _map_text(spec["linux"]["uidMappings"]), _map_text(spec["linux"]["gidMappings"])))
    operations += [death_signal, ("new_session",)]
    if cgroup >= 0:
        operations.append(("cgroup_namespace",))
    if network >= 0:
        operations.append(("offer_network", _index(network), _ping_groups(spec["linux"]["gidMappings"])))
    if stdio.terminal < 0:
        operations.append(("stdio", *(_index(place) for place in (stdio.stdin, stdio.stdout, stdio.stderr))))
    operations.append(("private_mounts",))
    operations += _root(root)
    kernels, users = _mounts(spec["mounts"], folders, operations, isolation, root.workspace)
    if joined and flags & abi.CLONE_NEWUSER and "CAP_SYS_ADMIN" not in process["capabilities"]["bounding"]:
        kernels = [_HOST_SYS if one[:3] == ("mount", "sysfs", "/sys") else one for one in kernels]
    operations.append(("pivot", root.folder or _merged(root)))
    operations += kernels
    operations += _fences(spec["linux"], root.empty, {mount["destination"] for mount in spec["mounts"]})
    operations.append(("leave_host",))
    if ANNOTATION + "make-workdir" in spec["annotations"] and process["cwd"] != "/":
        operations.append(("make_folder", process["cwd"]))  # while nothing of the host's is in there
    operations += users
    if kept >= 0:
        slots = tuple(slot for slot, mount in enumerate(spec["mounts"]) if mount["destination"] == kept_mount)
        operations.append(("offer_root", _index(kept), slots))
    if stdio.terminal >= 0:
        operations.append(("terminal", _index(stdio.terminal), stdio.rows, stdio.columns))
    if spec["root"]["readonly"]:
        operations.append(("read_only_root",))
    operations.append(("hostname", spec["hostname"]))
    if flags & abi.CLONE_NEWNET:
        operations.append(("loopback_up",))
    if network >= 0:
        operations.append(("await_network", _index(network)))
    limits = _rlimits(process.get("rlimits", []), limits)
    operations += _privileges(spec, death_signal, limits, mapped=mapped, seccomp=seccomp)
    environment = dict(pair.split("=", 1) for pair in process["env"])
    if init.isdecimal():
        init = str(_index(int(init)))
    return (flags, tuple(operations), tuple(process["args"]), environment, init)


def _fences(linux: Linux, empty: str, mounted: set[str]) -> list[tuple[Any, ...]]:
    """What of the kernel's file systems is hidden or read-only, where these are mounted at all."""
    fences: list[tuple[Any, ...]] = []
    masked = tuple(path for path in linux["maskedPaths"] if not path.startswith("/sys/") or "/sys" in mounted)
    if masked:
        fences.append(("mask", masked, empty))
    if linux["readonlyPaths"]:
        fences.append(("read_only", tuple(linux["readonlyPaths"])))
    return fences


def _privileges(
    spec: Spec,
    death_signal: tuple[Any, ...],
    limits: tuple[tuple[int, int, int], ...],
    *,
    mapped: bool,
    seccomp: bytes,
) -> list[tuple[Any, ...]]:
    """Last of all, in this order: each step takes away what the ones before it need."""
    process = spec["process"]
    operations: list[tuple[Any, ...]] = []
    if spec["annotations"][ANNOTATION + "seccomp"] != "default":
        operations.append(("session_keyring",))  # our own profile keeps the command from every keyring anyway
    kept = process["capabilities"]["bounding"]
    dropped = tuple(number for number, name in enumerate(capabilities.KNOWN) if name not in kept)
    if dropped:
        operations.append(("capabilities", dropped))
    user = process["user"]
    if mapped:
        groups = (user["gid"], *user.get("additionalGids", ()))  # its own among them, as docker has it
        operations.append(("credentials", user["uid"], user["gid"], groups))
        if user["uid"]:
            operations.append(death_signal)  # a change of credentials takes it away: prctl(2)
    operations.append(("seal",))
    if process["cwd"] != "/":
        operations.append(("workdir", process["cwd"]))
    if limits:
        operations.append(("limits", limits))  # until here more descriptors may be needed than the command may have
    if process["noNewPrivileges"]:
        operations.append(("no_new_privileges",))
    if seccomp:
        operations.append(("seccomp", seccomp))
    return operations


_SET_UP_BYTES = 64 << 20
_MOUNT_BYTES = 1 << 20
"""More than a set-up ever takes of the container's memory: 0.4 MiB, the arguments (6 MiB at most), its mounts."""


def _into_cgroup(spec: Spec, index: int) -> tuple[Any, ...]:
    from guntainer.resources import settings

    resources = spec["linux"].get("resources", {})
    shown = ", ".join(f"{one.files[0]} {one.texts[0]}" for one in settings(resources))
    least = _SET_UP_BYTES + _MOUNT_BYTES * len(spec["mounts"])
    own_memory = resources.get("memory", {}).get("limit", least) < least
    return ("into_cgroup", index, own_memory, shown)


def _rlimits(asked: list[dict[str, Any]], limits: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
    """Those that the spec asks for, and of the others those that it does not."""
    if not asked:
        return limits
    from guntainer.jobs.limits import ULIMITS

    chosen = {which: (which, soft, hard) for which, soft, hard in limits}
    for one in asked:
        which = ULIMITS[one["type"].removeprefix("RLIMIT_").lower()]
        chosen[which] = (which, one["soft"], one["hard"])
    return tuple(chosen.values())


def _index(place: int) -> int:
    """A place among the launch's own descriptors as the child counts them."""
    return place + FIRST if place >= 0 else -1


def _map_text(mappings: list[Any]) -> str:
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)


def _ping_groups(mappings: list[Any]) -> tuple[int, int]:
    """Everybody, as docker and podman have it: the first and the last group that there is."""
    return mappings[0]["containerID"], mappings[-1]["containerID"] + mappings[-1]["size"] - 1


def _own_map_text(mappings: list[Any]) -> str:
    """The ids of the namespace that whoever clones is in, each as itself."""
    return "".join(f"{m['containerID']} {m['containerID']} {m['size']}\n" for m in mappings)


def _merged(root: Root) -> str:
    return f"{root.mount_point}/merged" if root.memory_size is not None else root.mount_point


def _root(root: Root) -> list[tuple[Any, ...]]:
    if root.folder:
        return [("bind_root", root.folder)]
    if root.memory_size is None:
        return [("overlay", root.lowers, root.base, root.upper, root.work, root.mount_point)]
    base = root.mount_point
    return [
        ("scratch_memory", base, root.memory_size),
        ("overlay", root.lowers, root.base, f"{base}/upper", f"{base}/work", f"{base}/merged"),
    ]


_OPTION_FLAGS = {"nosuid": abi.MS_NOSUID, "nodev": abi.MS_NODEV, "noexec": abi.MS_NOEXEC, "ro": abi.MS_RDONLY, "rw": 0}


def _mounts(
    mounts: list[SpecMount], folders: frozenset[str], before: list[tuple[Any, ...]], isolation: str, point: str
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The operations inside, for the kernel's file systems and for the user's; what is taken from the host is added to `before`."""
    inside: list[tuple[Any, ...]] = []
    users: list[tuple[Any, ...]] = []
    for slot, mount in enumerate(mounts):
        target, kind = mount["destination"], mount["type"]
        flags = 0
        data: list[str] = []
        for option in mount["options"]:
            if option in _OPTION_FLAGS:
                flags |= _OPTION_FLAGS[option]
            elif option not in ("bind", "rbind"):
                data.append(option)
        if target == "/sys" and kind == "none":
            inside.append(("host_view", "/sys", "/sys", False))
        elif target == "/proc" and isolation != FULL:
            inside.append(("host_view", "/proc", "/proc", isolation == HOST_PROC))
        elif kind == "none":
            before.append(("hold", slot, mount["source"]))
            attributes = abi.MOUNT_ATTR_RDONLY if flags & abi.MS_RDONLY else 0
            users.append(("place", slot, target, mount["source"] in folders, attributes))
        elif kind == "overlay":
            lower, upper, work = (option.partition("=")[2] for option in data)
            before += [("workspace", (lower,), "", upper, work, point), ("hold", slot, point)]
            users.append(("place", slot, target, True, 0))
        elif kind == "cgroup2":
            inside.append(("cgroup_view", target, flags))
        elif mount["source"] in _KERNELS:
            if target.startswith("/dev/"):
                inside.append(("folder", target, 0o755))
            # refused where parts of the outer one are masked; a container can do without
            required = kind != "sysfs"
            inside.append(("mount", kind, target, flags, ",".join(data), required))
            if target == "/dev":
                inside.append(("devices",))
        else:
            users.append(("place_tmpfs", target, flags, ",".join(data)))
    return inside, users


_HOST_SYS = ("host_view", "/sys", "/sys", False)
"""Where the network is not the user namespace's own, a new sysfs is refused: sysfs(5)."""
_KERNELS = ("proc", "devfs", "devpts", "shm", "mqueue", "sysfs")
"""Sources of the spec's own mounts: names for the reader of a mount table, since these file systems have none."""


_OF_THE_COMMAND = (
    *("session_keyring", "capabilities", "credentials", "seal", "workdir", "limits", "no_new_privileges", "seccomp"),
)


def inside(a_plan: Plan, argv: tuple[str, ...], stdio: Stdio, target: int, cgroup: int = -1) -> Plan:
    """The Plan of one more command in a container that runs: in its namespaces, as its user, with its variables and rights.

    Args:
        a_plan: the container's own.
        target, cgroup: the indexes of the descriptors of its init's pidfd and of its control group; -1: it has none.
    """
    flags, operations, _, environment, _ = a_plan
    before: list[tuple[Any, ...]] = []
    for operation in operations:
        if operation[0] == "into_cgroup":
            before.append((operation[0], _index(cgroup), *operation[2:]))
        elif operation[0] == "cgroup_namespace":
            flags |= abi.CLONE_NEWCGROUP
    before += [("death_signal",), ("new_session",)]
    before.append(("stdio", *(_index(place) for place in (stdio.stdin, stdio.stdout, stdio.stderr))))
    before.append(("join", _index(target), flags))
    rights = tuple(operation for operation in operations if operation[0] in _OF_THE_COMMAND)
    return (0, (*before, *rights), argv, environment, AS_JOINED)


def describe(a_plan: Plan) -> str:
    """The plan, step by step, for people: what `--dry-run` prints."""
    from guntainer.init import descriptions

    flags, operations, argv, environment, init = a_plan
    names = [name for name, flag in abi.NAMESPACES.items() if flags & flag]
    lines = [f"clone with new namespaces: {', '.join(names)}"]
    lines += [descriptions.describe(operation) for operation in operations]
    if init:
        lines.append("put an init before the command: " + ("guntainer's own" if init in OUR_INITS else "the host's"))
    lines.append("environment: " + ", ".join(sorted(environment)))
    lines.append("execute " + " ".join(repr(word) if not word or " " in word else word for word in argv))
    width = len(str(len(lines)))
    return "".join(f"{number:>{width}}. {line}\n" for number, line in enumerate(lines, 1))
