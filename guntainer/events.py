"""What happens in a batch, as values: what `open_batch` yields, and what `--json` writes as lines (`json_lines`). Pure.

    BatchStarted
        JobWaiting → JobPreparing → JobStarted → JobOutput … → JobRetrying → JobPreparing → …   of each job
        JobFinished                                                                             of each job, once, whatever came of it
        Progress, Note                                                                          at any time
    BatchFinished

BatchStarted is the first one and BatchFinished the last one. A job that never ran has no JobStarted.
"""

from __future__ import annotations

from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.report import Exit, Report, Result


class Event(Value):
    """Anything that happens."""

    at_ns: int = 0
    """When, by a monotonic clock: nanoseconds since the batch began. Never less than that of the event before it."""


class BatchStarted(Event):
    jobs: tuple[str, ...]
    """The ids of all jobs, in the order of the file."""
    started_at: float
    """Seconds since the epoch."""
    parallel: int
    """How many containers may run at once."""
    facts: tuple[tuple[str, str], ...] = ()
    """What it runs on: (`kernel`, `6.18.5`), …"""


class JobWaiting(Event):
    """The job waits for others that it needs; only where it does."""

    id: str


class JobPreparing(Event):
    """The job waits for its rootfs, and then for a slot: once for each of its attempts."""

    id: str


class JobStarted(Event):
    """The job's container is being launched: once for each of its attempts."""

    id: str


class JobOutput(Event):
    """Bytes that the job printed, as they came: a line may come in several pieces."""

    id: str
    stream: str
    """"stdout" or "stderr"."""
    data: bytes


class JobRetrying(Event):
    """An attempt has failed, and is not the last one."""

    id: str
    attempt: int
    """Which one has failed, from 1."""
    exit: Exit
    wait_s: float
    """How long until the next one."""


class JobFinished(Event):
    """The job has ended: run, skipped, cancelled or never begun."""

    result: Result


class Progress(Event):
    """Of a rootfs being unpacked."""

    name: str
    done_bytes: int
    """Of the archive, read."""
    total_bytes: int
    """The archive's size."""


class Note(Event):
    """Something went otherwise than asked for; each text comes once."""

    text: str


class BatchFinished(Event):
    """All jobs have ended."""

    report: Report
