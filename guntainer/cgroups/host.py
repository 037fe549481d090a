"""Where we are in the host's tree of control groups, and what we are given there: cgroups(7), proc(5)."""

from __future__ import annotations

import os

from guntainer import errors, hostids
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_HINT_V1 = "boot with systemd.unified_cgroup_hierarchy=1, or go on without the limits: --limits best-effort"
HINT = "run it as `systemd-run --user --scope -p Delegate=yes guntainer …`, or use --limits best-effort"
PROBE = "cgroup"
_ALONE = "start guntainer alone in a control group that is delegated to you (`exec guntainer …`), or use --limits best-effort"
_LOG_IN = "log in as yourself, which starts one, or have it started at boot: `loginctl enable-linger`; or else "


class Place(Value):
    """Our own control group."""

    folder: str
    root: str
    """Where the tree that we see begins."""
    fenced: bool = False
    """Mounted with nsdelegate: from inside a cgroup namespace, the limits at its root can not be changed."""
    read_only: bool = False


def here() -> Place:
    """Our own control group now.

    Raises:
        HostError: there is no cgroup v2, or we are outside of what is mounted of it.
    """
    own = next((line[3:].rstrip("\n") for line in _lines("/proc/self/cgroup") if line.startswith("0::")), None)
    mounts = [one for one in map(_Mount, _lines("/proc/self/mountinfo")) if one.kind == "cgroup2"]
    if own is None or not mounts:
        raise errors.HostError("cgroup v2 is not mounted here", hint=_HINT_V1, probe=PROBE)
    for mount in mounts:
        below = own if mount.root == "/" else own.removeprefix(mount.root)
        inside = (mount.root == "/" or own == mount.root or own.startswith(mount.root + "/")) and ".." not in own.split(
            "/"
        )
        if inside:
            return Place(
                folder=(mount.target + below).rstrip("/"),
                root=mount.target,
                fenced="nsdelegate" in mount.options,
                read_only=mount.read_only,
            )
    raise errors.HostError("our own control group is outside of what is mounted here", hint=HINT, probe=PROBE)


class _Mount:
    """A line of /proc/PID/mountinfo: proc(5)."""

    def __init__(self, line: str) -> None:
        first, _, second = line.partition(" - ")
        fields, rest = first.split(" "), [*second.split(), "", "", ""]
        self.root, self.target = _plain(fields[3]), _plain(fields[4])
        self.kind = rest[0]
        self.options = rest[2].split(",")
        self.read_only = "ro" in fields[5].split(",") or "ro" in self.options


def hint_without_manager() -> str:
    """What to do where systemd can not be asked for a scope; root's manager is there or it is not."""
    return _LOG_IN + _ALONE if hostids.UID else _ALONE


def _plain(text: str) -> str:
    """Blanks, tabs, line feeds and backslashes are octal there."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _lines(path: str) -> Iterable[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()
    except OSError:
        return []


def words(path: str) -> frozenset[str]:
    """The words in a file of a control group; none where it can not be read."""
    return frozenset(" ".join(_lines(path)).split())


def offered(folder: str) -> frozenset[str]:
    """The controllers that a control group can give to those below it."""
    return words(f"{folder}/cgroup.controllers")


def is_root(folder: str) -> bool:
    """Whether it is the root of the whole tree, which alone may hold processes and give controllers: it has no type."""
    return not os.path.exists(f"{folder}/cgroup.type")


def is_ours(folder: str) -> bool:
    """Whether we may make groups there and move processes between them."""
    return os.access(folder, os.W_OK) and os.access(f"{folder}/cgroup.procs", os.W_OK)


def unit_of(place: Place) -> tuple[str, str]:
    """(unit, slice) of the manager that has made our group, as systemd names its groups after them; "" where there is none.

    That is the user's own manager, below its user@UID.service, and for root the system's. What root has delegated to a
    user is nobody else's any more.
    """
    parts = place.folder.removeprefix(place.root).strip("/").split("/")
    if hostids.UID:
        manager = f"user@{hostids.UID}.service"
        if manager not in parts:
            return "", ""
        parts = parts[parts.index(manager) + 1 :]
    above = ""
    for part in parts:
        if part.endswith((".scope", ".service")):
            return part, above
        above = part if part.endswith(".slice") else above
    return "", above


def missing(controller: str, place: Place | None) -> errors.HostError:
    """Why a controller can not be had; the place is needed where it is not for cgroup v1."""
    message, probe = f"the cgroup controller {controller} is ", f"{PROBE}-{controller}"
    if place is None or in_version_1(controller):
        return errors.HostError(message + "in cgroup v1 on this host", hint=_HINT_V1, probe=probe)
    there, given = (", ".join(sorted(offered(one))) or "none" for one in (place.root, place.folder))
    if controller not in offered(place.root):
        hint = "leave that limit out, or use --limits best-effort"
        return errors.HostError(message + f"not there (there are: {there})", hint=hint, probe=probe)
    hint = f"the administrator can delegate it: Delegate={controller} for user@.service; or use --limits best-effort"
    return errors.HostError(message + f"not delegated to you (delegated: {given})", hint=hint, probe=probe)


def in_version_1(controller: str) -> bool:
    """Whether a controller is bound to cgroup v1, where an ordinary user is given none."""
    name = "blkio" if controller == "io" else controller
    return any(
        mount.kind == "cgroup" and name in mount.options for mount in map(_Mount, _lines("/proc/self/mountinfo"))
    )


def device_of(path: str, option: str = "device rate") -> tuple[int, int]:
    """(major, minor) of the disk that a path is, or lies on: io.max knows whole disks alone.

    Args:
        option: what names the path, for a message.

    Raises:
        UsageError: there is no such path.
        HostError: there is no disk behind it.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise errors.UsageError(f"{option}: {errors.describe_oserror(error)}") from None
    device = status.st_rdev if status.st_mode & 0o170000 == 0o060000 else status.st_dev
    major, minor = os.major(device), os.minor(device)
    known = f"/sys/dev/block/{major}:{minor}"
    if not os.path.exists(known):
        raise errors.HostError(
            f"{path} is on no disk of its own (device {major}:{minor})", hint="name the disk: /dev/…"
        )
    if os.path.exists(f"{known}/partition"):
        whole = next(iter(_lines(f"{os.path.dirname(os.path.realpath(known))}/dev")), f"{major}:{minor}")
        major, minor = (int(number) for number in whole.strip().split(":"))
    return major, minor
