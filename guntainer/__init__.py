"""guntainer: rootless Linux containers, many at a time, from plain rootfs archives.

The public names are loaded when they are first used, so that importing this package, which every child interpreter of
ours does, costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.errors import GuntainerError as GuntainerError
    from guntainer.jobs.model import Job as Job
    from guntainer.jobs.model import Limits as Limits
    from guntainer.jobs.model import Mount as Mount
    from guntainer.jobs.model import Port as Port
    from guntainer.jobs.model import Scratch as Scratch
    from guntainer.jobs.model import Source as Source
    from guntainer.report import Exit as Exit
    from guntainer.report import Report as Report
    from guntainer.report import Result as Result
    from guntainer.supervisor import Supervisor as Supervisor
    from guntainer.watcher import Watcher as Watcher

_HOMES = {
    "GuntainerError": "guntainer.errors",
    "Job": "guntainer.jobs.model",
    "Limits": "guntainer.jobs.model",
    "Mount": "guntainer.jobs.model",
    "Port": "guntainer.jobs.model",
    "Scratch": "guntainer.jobs.model",
    "Source": "guntainer.jobs.model",
    "Exit": "guntainer.report",
    "Report": "guntainer.report",
    "Result": "guntainer.report",
    "Supervisor": "guntainer.supervisor",
    "Watcher": "guntainer.watcher",
}

__all__ = [
    "Exit",
    "GuntainerError",
    "Job",
    "Limits",
    "Mount",
    "Port",
    "Report",
    "Result",
    "Scratch",
    "Source",
    "Supervisor",
    "Watcher",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'guntainer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
