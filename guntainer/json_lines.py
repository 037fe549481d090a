"""The lines of `--json`: one object of JSON for each thing that happens in a batch, written when it happens. Pure.

Every line has

    event       what happened, see below; lines with others may come in later versions: skip what you do not know
    at_ns       when, by a monotonic clock: nanoseconds since the batch began; never less than in the line before

and by its event

    batch-started    the first line
        version     of this format: 1. Keys are only ever added
        jobs        the ids of all jobs, in the order of the file
        started_at  seconds since the epoch
        parallel    how many containers may run at once
        facts       what it runs on, texts by name: "kernel", "processors", …
    job-started      a container is being launched; once for each attempt
        id          of the job
    job-retrying     an attempt has failed, and another one follows
        id          of the job
        attempt     which one has failed, from 1
        reason      how: as in job-finished
        code, signal, message
        wait_s      seconds until the next one
    job-finished     a job has ended: once for each job, in the order of their ends, also where it never ran
        …           the keys of its result.json: `report_text.json_object`
    note             something went otherwise than asked for
        text        one sentence
    batch-finished   the last line
        exit_code   what `guntainer batch` ends with
        interrupted the signal that ended it early, or null
        wall_ns     how long it took
        jobs        how many there are
        outcomes    how many came to what: {"ok": 7, "failed": 1}; the outcomes of job-finished, without those of 0
        allowed     how many of them failed and may

Lines end with a line feed, are ASCII, and are written whole. A file without a batch-finished is not whole: the batch still runs,
or was killed, or the disk is full.
"""

from __future__ import annotations

import json
import re

from guntainer import events
from guntainer.report_text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from guntainer.report import Report

VERSION = 1


def line(event: events.Event, *, exit_code: int | None = None) -> bytes:
    """The line of an event; b"" where it has none.

    Args:
        exit_code: of a BatchFinished, where it is not what follows from its report alone.
    """
    if isinstance(event, events.JobFinished):
        text = f'{{"event": "job-finished", "at_ns": {event.at_ns}, {json_text(event.result)[1:]}'
    else:
        found = _values(event)
        if found is None:
            return b""
        name, values = found
        if exit_code is not None and "exit_code" in values:
            values["exit_code"] = exit_code
        text = json.dumps({"event": name, "at_ns": event.at_ns, **values})
    if "\\ud" in text:  # perhaps half of a pair, as names that are not UTF-8 have: many readers take none
        text = json.dumps(_whole(json.loads(text)))
    # written so that no CI system sees a command in it: the same text for whoever reads JSON
    return re.sub("#(?=#)", r"\\u0023", text).encode() + b"\n"


def _whole(value: Any) -> Any:
    """A value with nothing in its texts that can not be encoded."""
    match value:
        case str():
            return re.sub("[\ud800-\udfff]", "\ufffd", value)
        case dict():
            return {_whole(key): _whole(one) for key, one in value.items()}
        case list():
            return [_whole(one) for one in value]
    return value


def _values(event: events.Event) -> tuple[str, dict[str, Any]] | None:
    match event:
        case events.JobStarted():
            return "job-started", {"id": event.id}
        case events.JobRetrying():
            return "job-retrying", _retrying(event)
        case events.Note():
            return "note", {"text": event.text}
        case events.BatchStarted():
            return "batch-started", _started(event)
        case events.BatchFinished():
            return "batch-finished", _finished(event.report)
    return None


def _started(event: events.BatchStarted) -> dict[str, Any]:
    return {
        "version": VERSION,
        "jobs": list(event.jobs),
        "started_at": event.started_at,
        "parallel": event.parallel,
        "facts": dict(event.facts),
    }


def _retrying(event: events.JobRetrying) -> dict[str, Any]:
    return {
        "id": event.id,
        "attempt": event.attempt,
        "reason": event.exit.reason,
        "code": event.exit.code,
        "signal": event.exit.signal,
        "message": event.exit.message,
        "wait_s": event.wait_s,
    }


def _finished(report: Report) -> dict[str, Any]:
    outcomes: dict[str, int] = {}
    for result in report.results:
        outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
    return {
        "exit_code": int(report.exit_code),
        "interrupted": report.interrupted,
        "wall_ns": report.wall_ns,
        "jobs": len(report.results),
        "outcomes": outcomes,
        "allowed": sum(result.allowed for result in report.results),
    }


def of_report(report: Report) -> Iterator[bytes]:
    """The lines that are still known of a batch that has ended: job-finished of each job, and batch-finished."""

    def ended_ns(one: Any) -> int:
        return int(one.begin_ns + one.wait_ns + one.prepare_ns + one.queue_ns + one.wall_ns)

    last_ns = 0
    for result in sorted(report.results, key=ended_ns):
        last_ns = ended_ns(result)
        yield line(events.JobFinished(at_ns=last_ns, result=result))
    yield line(events.BatchFinished(at_ns=max(last_ns, report.wall_ns), report=report))
