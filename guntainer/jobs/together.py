"""What of a job goes together, when each of its keys has been read: its mounts, its secrets, its network, its limits. Pure.

Each takes what was read, by key, and where the keys stand; what does not fit is told at its key.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs import limits, network, things
from guntainer.jobs.model import Job, Limits, Mount
from guntainer.spec import RESERVED_TARGETS, normal_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from typing import Any

    from guntainer.jobs.problems import Path, Problems


def mounts(read: Mapping[str, Any], paths: Mapping[str, Path], problems: Problems) -> tuple[Mount, ...]:
    """Volumes and tmpfs together; what would hide the kernel's file systems, or be hidden by another thing, is told."""
    found: list[Mount] = []
    targets: set[str] = set()
    for key in ("volumes", "tmpfs"):
        items = read.get(key, [])
        assert isinstance(items, list)
        for path, mount in items:
            target = normal_path(mount.target)
            if target in RESERVED_TARGETS or target.startswith(("/proc/", "/sys/")):
                problems.add(path, f"can not mount on {target}")
            elif target in targets:
                problems.add(path, f"{target} is mounted twice")
            targets.add(target)
            found.append(mount)
    for path, target in things.targets(read, paths):
        if target in targets:
            problems.add(path, f"{target} is mounted twice")
        targets.add(target)
    return tuple(found)


def check_secrets(
    read: Mapping[str, Any], paths: Mapping[str, Path], variables: Container[str], problems: Problems
) -> None:
    """A variable is a secret or it is not."""
    for secret in read.get("secrets", ()):
        if secret.name in variables:
            problems.add(paths["secrets"], f"{secret.name} is in env as well: expected one of them")


def check_network(read: Mapping[str, Any], paths: Mapping[str, Path], problems: Problems) -> None:
    """Ports and names go with the job's network."""
    if "network" in paths and "network" not in read:
        return  # what is wrong with it is told
    kind = read.get("network", Job.network)
    checks: dict[str, Callable[[Any, str], object]] = {
        "ports": network.check_ports,
        "publish-all": network.check_publish_all,
        "add-hosts": network.check_hosts,
    }
    for key, check in checks.items():
        if key in read:
            try:
                check(read[key], kind)
            except errors.UsageError as error:
                problems.add(paths[key], error.message)


def limits_of(read: dict[str, Any], paths: Mapping[str, Path], problems: Problems) -> Limits:
    """Its limits; none where they contradict each other."""
    try:
        return limits.of_keys(read)
    except errors.UsageError as error:
        problems.add(paths["memory-swap"], error.message)
        return Limits()
