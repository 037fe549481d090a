"""Probes of control groups: is a part of the tree ours, and which controllers does it give. cgroups(7).

They are tried as a run does it, by this process itself, which may be moved to a group below its own or to a scope of
systemd's meanwhile.
"""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.doctor.finding import Finding, missing, ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.doctor.examine import Circumstances

CONTROLLERS = ("memory", "cpu", "pids", "io", "cpuset")
_GROUP = "cgroup"
_DROP_IN = "/etc/systemd/system/user@.service.d"
_VERSION_2 = (
    "# cgroup v1 has it on this host: boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
)
_SYSTEMD = "/run/systemd/system"


def tree(around: Circumstances) -> Finding:
    return _tried(around, frozenset())


def controller(name: str) -> Callable[[Circumstances], Finding]:
    """The probe of one controller."""
    return lambda around: _tried(around, frozenset({name}))


def _tried(around: Circumstances, wanted: frozenset[str]) -> Finding:
    from guntainer.cgroups import host
    from guntainer.cgroups.subtree import Subtree

    own = "-".join((_GROUP, *wanted))
    subtree = Subtree()
    try:
        able = subtree.give(wanted)
        assert subtree.place is not None
        for name in wanted - able:
            raise host.missing(name, subtree.place)
        made = subtree.new()
        found = f"{', '.join(wanted)} in {subtree.place.folder}" if wanted else f"cgroup v2, {subtree.place.folder}"
        made.remove()
    except (errors.HostError, OSError) as error:
        said = error.message if isinstance(error, errors.HostError) else errors.describe_oserror(error)
        probe = (error.probe if isinstance(error, errors.HostError) else "") or own
        if probe != own:
            return missing(said, because=probe)
        if any(host.in_version_1(name) for name in wanted or CONTROLLERS):
            return missing(said, _VERSION_2)
        return missing(said, *_remedy(around, wanted))
    finally:
        subtree.close()
    return ok(found)


def _remedy(around: Circumstances, wanted: frozenset[str]) -> list[str]:
    sudo = around.system.sudo
    if not around.host.exists(_SYSTEMD):
        what = f"the controller {', '.join(wanted)}" if wanted else "a group of cgroup v2"
        return [f"# whoever manages control groups here, a container around for example, has to give you {what}"]
    if not wanted:
        return [
            "systemd-run --user --scope -p Delegate=yes guntainer …",
            "# where there is no manager of yours: log in as yourself, or",
            sudo(f"loginctl enable-linger {os.environ.get('USER') or '$USER'}"),
        ]
    return [
        sudo(f"mkdir -p {_DROP_IN}"),
        "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | " + sudo(f"tee {_DROP_IN}/90-guntainer.conf"),
        sudo("systemctl daemon-reload") + "  # then log in again",
    ]
