"""The probe of a range of ids: subuid(5), newuidmap(1)."""

from __future__ import annotations

import os

from guntainer import errors, hostids, idmap
from guntainer.doctor.finding import Finding, degraded, ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.doctor.examine import Circumstances

_FILES = ("/etc/subuid", "/etc/subgid")
_HELPERS = ("newuidmap", "newgidmap")
_FIRST = 100_000
_TEXT_LIMIT = 1 << 20


def subid(around: Circumstances) -> Finding:
    """Maps a range for real, by the helpers."""
    try:
        ids = idmap.open_ids(idmap.RANGE)
    except errors.HostError as error:
        return degraded(f"{error.message}; one id is mapped instead", *_remedy(around))
    return ok(ids.describe())


def _remedy(around: Circumstances) -> list[str]:
    if hostids.UID == 0:
        return [f"# root here has fewer than {idmap.COUNT} ids: start the container around with more"]
    system = around.system
    lines = []
    paths = []
    for name in _HELPERS:
        try:
            paths.append(idmap.helper(name))
        except errors.HostError as error:
            if "not installed" in error.message:
                lines = [system.install("uidmap")]
            else:
                lines.append(system.sudo(f"chmod u+s {path_of(name)}"))
    user = hostids.login()
    first = next_free(*(_text(path) for path in _FILES))
    last = first + idmap.COUNT - 1
    for option, path in zip(("uids", "gids"), _FILES, strict=True):
        if sum(count for _, count in idmap.ranges_of(path, user, hostids.UID)) < idmap.COUNT:
            lines.append(system.sudo(f"usermod --add-sub{option} {first}-{last} {user}"))
    return lines or ["# the helpers are there, and so are the ranges: is this a container that was given fewer ids?"]


def path_of(name: str) -> str:
    folders = (*os.environ.get("PATH", "").split(":"), "/usr/bin", "/bin")
    return next((f"{folder}/{name}" for folder in folders if folder and os.path.exists(f"{folder}/{name}")), name)


def next_free(*texts: str) -> int:
    """The first id above all ranges of subuid(5) files."""
    ends = [_FIRST]
    for line in "\n".join(texts).splitlines():
        first, _, count = line.partition(":")[2].partition(":")
        if first.isdecimal() and count.strip().isdecimal():
            ends.append(int(first) + int(count))
    return max(ends)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_TEXT_LIMIT)
    except OSError:
        return ""
