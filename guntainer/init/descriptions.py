"""A plan's operations in words: what `--dry-run` prints, and what the error of one that failed names. See `ops`."""

from __future__ import annotations

from guntainer.init import mounts
from guntainer.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _id_maps(uid_map: str, gid_map: str) -> str:
    return f"uid {uid_map.strip()!r}, gid {gid_map.strip()!r} (inside, outside, count)"


def _capability_names(numbers: tuple[int, ...]) -> str:
    from guntainer import capabilities as names

    return ", ".join(names.KNOWN[number].removeprefix("CAP_").lower() for number in numbers)


def _flags(flags: int) -> str:
    names = ((abi.MS_NOSUID, "nosuid"), (abi.MS_NODEV, "nodev"), (abi.MS_NOEXEC, "noexec"), (abi.MS_RDONLY, "ro"))
    return ",".join(name for bit, name in names if flags & bit) or "-"


DESCRIPTIONS: dict[str, Callable[..., str]] = {
    "id_map": lambda u, g: f"map ids: {_id_maps(u, g)}",
    "map_ids": lambda u, g: f"have ids mapped: {_id_maps(u, g)}",
    "into_cgroup": lambda *a: f"begin in a control group of its own: {a[2]}",
    "cgroup_namespace": lambda: "see that control group alone",
    "death_signal": lambda signal=9: "die when the supervisor dies",
    "new_session": lambda: "start a session of its own",
    "join": lambda _, flags: f"enter the {', '.join(n for n, f in abi.NAMESPACES.items() if flags & f)} namespaces",
    "hostname": lambda name: f"set the host name {name}",
    "loopback_up": lambda: "bring lo up",
    "offer_network": lambda *_: "make the device eth0, hand out the network namespace",
    "await_network": lambda *_: "wait until the network is there; keep loopback addresses inside",
    "stdio": lambda *_: "take over stdin, stdout and stderr",
    "terminal": lambda *_: "open a pseudo-terminal and /dev/console",
    "private_mounts": lambda: "keep mounts private",
    "scratch_memory": lambda b, s: f"mount a tmpfs for the writable layer at {b} {s}".rstrip(),
    "overlay": lambda lowers, base, upper, work, target: (
        f"mount an overlay at {target}: {upper} over {' over '.join(lowers)}{f' in {base}' if base else ''}"
    ),
    "workspace": lambda lowers, _base, upper, _work, target: (
        f"mount the workspace's overlay at {target}: {upper} over {lowers[0]}"
    ),
    "bind_root": lambda source: f"make {source} a mount point",
    "hold": lambda slot, path: f"take hold of {path} as #{slot}",
    "pivot": lambda root: f"pivot_root to {root}",
    "leave_host": lambda: "unmount the host's root",
    "read_only_root": lambda: "make the root read-only",
    "offer_root": lambda *_: "hand out the root, for artifacts",
    "mount": lambda k, t, f, o, r: f"mount {k} at {t} ({_flags(f)}) {o}".rstrip() + ("" if r else ", where allowed"),
    "cgroup_view": lambda t, f: f"mount cgroup2 at {t} ({_flags(f)}), where allowed",
    "host_view": lambda s, t, r: f"show the host's {s} at {t}, read-only" + ("" if r else " where allowed"),
    "devices": lambda: f"bind /dev/{{{','.join(mounts.DEVICES)}}}, link fd, stdin, stdout, stderr, ptmx",
    "folder": lambda p, m: f"make the folder {p} ({m:04o})",
    "mask": lambda paths, _: f"hide {', '.join(paths)}",
    "read_only": lambda paths: f"make read-only {', '.join(paths)}",
    "make_folder": lambda path: f"make the folder {path} where it is missing",
    "place": lambda s, t, d, a: f"attach #{s} at {t}" + (", read-only" if a & abi.MOUNT_ATTR_RDONLY else ""),
    "place_tmpfs": lambda t, f, o: f"mount tmpfs at {t} ({_flags(f)}) {o}".rstrip(),
    "limits": lambda values: f"set {len(values)} resource limit(s)",
    "session_keyring": lambda: "join a session keyring of its own",
    "capabilities": lambda dropped: "drop capabilities: " + _capability_names(dropped),
    "credentials": lambda uid, gid, groups: f"become uid {uid}, gid {gid}" + (f", groups {groups}" if groups else ""),
    "no_new_privileges": lambda: "set no_new_privs",
    "seccomp": lambda instructions: f"install a seccomp filter of {len(instructions) // 8} instructions",
    "seal": lambda *_: "close every descriptor above 2 but that of faults",
    "workdir": lambda path: f"change to {path}",
}

_TARGET_AT = {"mount": 2, "place": 2, "host_view": 2, "overlay": 5, "workspace": 5}


def describe(operation: tuple[Any, ...]) -> str:
    """One operation as a line for people."""
    return DESCRIPTIONS[operation[0]](*operation[1:])


def subject(operation: tuple[Any, ...]) -> str:
    """What an operation works on, for an error: its target, else its first text."""
    if operation[0] in _TARGET_AT:
        return str(operation[_TARGET_AT[operation[0]]])
    text = next((part for part in operation[1:] if isinstance(part, str)), "")
    return ", ".join(text.splitlines())
