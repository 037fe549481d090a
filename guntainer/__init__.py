"""guntainer: rootless Linux containers, many at a time, from plain rootfs archives.

The public names are loaded when they are first used, so that importing this package, which every child interpreter of
ours does, costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.batching import batch as batch
    from guntainer.batching import open_batch as open_batch
    from guntainer.errors import GuntainerError as GuntainerError
    from guntainer.errors import JobFileError as JobFileError
    from guntainer.event_stream import EventStream as EventStream
    from guntainer.events import BatchFinished as BatchFinished
    from guntainer.events import BatchStarted as BatchStarted
    from guntainer.events import Event as Event
    from guntainer.events import JobFinished as JobFinished
    from guntainer.events import JobOutput as JobOutput
    from guntainer.events import JobPreparing as JobPreparing
    from guntainer.events import JobRetrying as JobRetrying
    from guntainer.events import JobStarted as JobStarted
    from guntainer.events import JobWaiting as JobWaiting
    from guntainer.events import Note as Note
    from guntainer.events import Progress as Progress
    from guntainer.jobs.model import Job as Job
    from guntainer.jobs.model import Limits as Limits
    from guntainer.jobs.model import Mount as Mount
    from guntainer.jobs.model import Port as Port
    from guntainer.jobs.model import Scratch as Scratch
    from guntainer.jobs.model import Source as Source
    from guntainer.report import Artifact as Artifact
    from guntainer.report import Attempt as Attempt
    from guntainer.report import Exit as Exit
    from guntainer.report import Report as Report
    from guntainer.report import Result as Result
    from guntainer.supervisor import Supervisor as Supervisor
    from guntainer.watcher import Watcher as Watcher

_HOMES = {
    "EventStream": "guntainer.event_stream",
    "batch": "guntainer.batching",
    "open_batch": "guntainer.batching",
    "GuntainerError": "guntainer.errors",
    "JobFileError": "guntainer.errors",
    "BatchFinished": "guntainer.events",
    "BatchStarted": "guntainer.events",
    "Event": "guntainer.events",
    "JobFinished": "guntainer.events",
    "JobOutput": "guntainer.events",
    "JobPreparing": "guntainer.events",
    "JobRetrying": "guntainer.events",
    "JobStarted": "guntainer.events",
    "JobWaiting": "guntainer.events",
    "Note": "guntainer.events",
    "Progress": "guntainer.events",
    "Job": "guntainer.jobs.model",
    "Limits": "guntainer.jobs.model",
    "Mount": "guntainer.jobs.model",
    "Port": "guntainer.jobs.model",
    "Scratch": "guntainer.jobs.model",
    "Source": "guntainer.jobs.model",
    "Artifact": "guntainer.report",
    "Attempt": "guntainer.report",
    "Exit": "guntainer.report",
    "Report": "guntainer.report",
    "Result": "guntainer.report",
    "Supervisor": "guntainer.supervisor",
    "Watcher": "guntainer.watcher",
}

__all__ = [
    "Artifact",
    "Attempt",
    "BatchFinished",
    "BatchStarted",
    "Event",
    "EventStream",
    "Exit",
    "GuntainerError",
    "Job",
    "JobFileError",
    "JobFinished",
    "JobOutput",
    "JobPreparing",
    "JobRetrying",
    "JobStarted",
    "JobWaiting",
    "Limits",
    "Mount",
    "Note",
    "Port",
    "Progress",
    "Report",
    "Result",
    "Scratch",
    "Source",
    "Supervisor",
    "Watcher",
    "batch",
    "open_batch",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'guntainer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
