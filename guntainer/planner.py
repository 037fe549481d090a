"""From an OCI Spec to a Plan: which operations, in which order. Pure: looks at no file, asks no kernel.

The order is the security of it. The overlay and everything taken from the host come first. After pivot_root the host's root
still lies stacked over the new one, where a `..` leads into it: only the kernel's own file systems are mounted then, at
folders of the skeleton. It is let go before any path of the user's or of the rootfs is resolved, and before anything runs.
"""

from __future__ import annotations

from guntainer.init import ops
from guntainer.kernel import abi
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.spec import Spec, SpecMount

    Plan = tuple[Any, ...]

FULL = "full"
HOST_PROC = "host-proc"
"""The rungs of the ladder: everything; /proc of the host, read-only, where a new one is refused."""


class Root(Value):
    """What the root is made of."""

    lowers: tuple[str, ...] = ()
    """Read-only folders, uppermost first: the skeleton, then the rootfs. Empty: `folder` is used as it is."""
    upper: str = ""
    work: str = ""
    mount_point: str = ""
    """An empty folder of ours; nothing is seen there outside of the container's mount namespace."""
    memory_size: str | None = None
    """Not None: the writable layer is a tmpfs on the mount point; "" or a size as tmpfs(5) takes it."""
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
) -> Plan:
    """The Plan of a Spec: (clone flags, operations, argv, environment, init), plain values for marshal.

    Args:
        folders: bind sources that are folders; the others are files.
        init: "": the command is pid 1; "reaper": ours; a digit: the index of the descriptor of the host's.
        limits: (resource, soft, hard) to set before the command.
    """
    process = spec["process"]
    flags = 0
    for namespace in spec["linux"]["namespaces"]:
        flags |= abi.NAMESPACES[namespace["type"]]
    operations: list[tuple[Any, ...]] = [
        ("id_map", _map_text(spec["linux"]["uidMappings"]), _map_text(spec["linux"]["gidMappings"])),
        ("death_signal",),
        ("new_session",),
    ]
    if stdio.terminal < 0:
        operations.append(("stdio", *(_index(place) for place in (stdio.stdin, stdio.stdout, stdio.stderr))))
    operations.append(("private_mounts",))
    operations += _root(root)
    kernels, users = _mounts(spec["mounts"], folders, operations, isolation)
    operations.append(("pivot", root.folder or _merged(root)))
    operations += kernels
    operations.append(("leave_host",))
    operations += users
    if stdio.terminal >= 0:
        operations.append(("terminal", _index(stdio.terminal), stdio.rows, stdio.columns))
    if spec["root"]["readonly"]:
        operations.append(("read_only_root",))
    operations.append(("hostname", spec["hostname"]))
    if flags & abi.CLONE_NEWNET:
        operations.append(("loopback_up",))
    if limits:
        operations.append(("limits", limits))
    if process["cwd"] != "/":
        operations.append(("workdir", process["cwd"]))
    if process["noNewPrivileges"]:
        operations.append(("no_new_privileges",))
    environment = dict(pair.split("=", 1) for pair in process["env"])
    if init.isdecimal():
        init = str(_index(int(init)))
    return (flags, tuple(operations), tuple(process["args"]), environment, init)


def _index(place: int) -> int:
    """A place among the launch's own descriptors as the child counts them."""
    return place + ops.FIRST if place >= 0 else -1


def _map_text(mappings: list[Any]) -> str:
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)


def _merged(root: Root) -> str:
    return f"{root.mount_point}/merged" if root.memory_size is not None else root.mount_point


def _root(root: Root) -> list[tuple[Any, ...]]:
    if root.folder:
        return [("bind_root", root.folder)]
    if root.memory_size is None:
        return [("overlay", root.lowers, root.upper, root.work, root.mount_point)]
    base = root.mount_point
    return [
        ("scratch_memory", base, root.memory_size),
        ("overlay", root.lowers, f"{base}/upper", f"{base}/work", f"{base}/merged"),
    ]


_OPTION_FLAGS = {"nosuid": abi.MS_NOSUID, "nodev": abi.MS_NODEV, "noexec": abi.MS_NOEXEC, "ro": abi.MS_RDONLY, "rw": 0}


def _mounts(
    mounts: list[SpecMount], folders: frozenset[str], before: list[tuple[Any, ...]], isolation: str
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
        elif target == "/proc" and isolation == HOST_PROC:
            inside.append(("host_view", "/proc", "/proc", True))
        elif kind == "none":
            before.append(("hold", slot, mount["source"]))
            attributes = abi.MOUNT_ATTR_RDONLY if flags & abi.MS_RDONLY else 0
            users.append(("place", slot, target, mount["source"] in folders, attributes))
        elif mount["source"] in _KERNELS:
            if target.startswith("/dev/"):
                inside.append(("folder", target, 0o755))
            required = kind != "sysfs"  # refused where parts of the outer one are masked; a container can do without
            inside.append(("mount", kind, target, flags, ",".join(data), required))
            if target == "/dev":
                inside.append(("devices",))
        else:
            users.append(("place_tmpfs", target, flags, ",".join(data)))
    return inside, users


_KERNELS = ("proc", "devfs", "devpts", "shm", "mqueue", "sysfs")
"""Sources of the spec's own mounts: names for the reader of a mount table, since these file systems have none."""


def describe(a_plan: Plan) -> str:
    """The plan, step by step, for people: what `--dry-run` prints."""
    flags, operations, argv, environment, init = a_plan
    names = [name for name, flag in abi.NAMESPACES.items() if flags & flag]
    lines = [f"clone with new namespaces: {', '.join(names)}"]
    lines += [ops.describe(operation) for operation in operations]
    if init:
        lines.append("put an init before the command: " + ("guntainer's own" if init == "reaper" else "the host's"))
    lines.append("environment: " + ", ".join(sorted(environment)))
    lines.append("execute " + " ".join(repr(word) if not word or " " in word else word for word in argv))
    width = len(str(len(lines)))
    return "".join(f"{number:>{width}}. {line}\n" for number, line in enumerate(lines, 1))
