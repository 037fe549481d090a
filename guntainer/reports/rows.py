"""What the report page is told of the jobs: tables with short keys, of which the page makes text. Opens no file.

Times are milliseconds, slots are counted from 1, with 0 for none. A key that is missing means 0, "", [], false or null.
"""

from __future__ import annotations

from guntainer import report
from guntainer.report_text import summary as _summary
from guntainer.reports.compare import words
from guntainer.reports.fields import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from guntainer.report import Attempt, Report, Result
    from guntainer.reports.compare import Change, Comparison
    from guntainer.reports.logs import Logs
    from guntainer.reports.page import History

_WITH_CODE = (report.EXIT, report.SIGNAL, report.TIMEOUT, report.OOM, report.PIDS)
_MOST_TEXT = 8 << 10  # characters
_MOST_LIST = 1000
_MOST_RUNS = 20
OUTCOMES = ("ok", "flaky", "failed", "timeout", "oom", "pids-limit", "error", "cancelled", "skipped")


def shown(text: str) -> str:
    """`text` as it can be encoded, and not longer than a page can use."""
    text = clean(text)
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + " …"


def summary(a_report: Report) -> str:
    return _summary(a_report)


def table(a_report: Report, *, links: str | None, problems: tuple[str, ...]) -> dict[str, Any]:
    """What is known of the batch as a whole.

    Args:
        links: the results folder as seen from the page; None: nothing there can be linked to.
    """
    return {
        "name": shown(a_report.name),
        "file": shown(a_report.file),
        "started": a_report.started_at,
        "wall": _ms(a_report.wall_ns),
        "parallel": a_report.parallel,
        "signal": report.signal_name(a_report.interrupted) if a_report.interrupted is not None else "",
        "code": a_report.exit_code,
        "facts": [[shown(name), shown(value)] for name, value in a_report.facts],
        "links": links,
        "problems": [shown(text) for text in problems],
    }


def jobs(
    a_report: Report,
    logs: Logs,
    places: Sequence[Sequence[tuple[Any, ...]]],
    *,
    links: str | None,
    history: History,
) -> Iterator[dict[str, Any]]:
    """A table for each job.

    Args:
        places: of each, where its logs stand.
    """
    for result, where in zip(a_report.results, places, strict=True):
        yield _row(result, logs, where, links, history.get(result.id, ()))


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)


def _row(
    result: Result,
    logs: Logs,
    places: Sequence[tuple[Any, ...]],
    links: str | None,
    runs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    exit_ = result.exit
    row = {
        "id": shown(result.id),
        "key": shown(result.key),
        "outcome": result.outcome,
        "allowed": result.allowed,
        "why": "" if exit_.ok else shown(exit_.describe()),
        "code": exit_.code if exit_.reason in _WITH_CODE else None,
        "matrix": [[shown(axis), shown(value)] for axis, value in result.matrix],
        "rootfs": shown(result.rootfs),
        "started": result.started_at,
        "begin": _ms(result.begin_ns),
        "wait": _ms(result.wait_ns),
        "prepare": _ms(result.prepare_ns),
        "queue": _ms(result.queue_ns),
        "launch": _ms(result.launch_ns),
        "wall": _ms(result.wall_ns),
        "slot": result.slot + 1,
        "cpu": _ms(result.cpu_user_ns + result.cpu_system_ns),
        "rss": result.memory_peak_bytes or result.max_rss_bytes,
        "throttled": _ms(result.cpu_throttled_ns),
        "oomKills": result.oom_kills,
        "pidsRefused": result.pids_refused,
        "limits": [[shown(name), shown(value)] for name, value in result.limits],
        "isolation": result.isolation,
        "userns": result.userns,
        "scratch": result.scratch,
        "earlier": report.EARLIER in result.notes,
        "notes": [shown(text) for text in result.notes[:_MOST_LIST]],
        "needs": [shown(text) for text in result.needs[:_MOST_LIST]],
        "attempts": [_attempt(one) for one in result.attempts[:_MOST_LIST]],
        "artifacts": [[shown(one.path), one.size_bytes] for one in result.artifacts[:_MOST_LIST]],
        "folder": logs.folder_of(result.id) if links is not None and (result.artifacts or places) else "",
        "logs": [list(place) for place in places],
        "runs": [_run(one) for one in list(runs)[-_MOST_RUNS:]],
    }
    return {key: value for key, value in row.items() if value not in ("", None, 0, [], False)}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {"why": shown(attempt.exit.describe()), "started": attempt.started_at, "wall": _ms(attempt.wall_ns)}


def _run(run: Mapping[str, Any]) -> list[Any]:
    """An earlier run: from a file of the user's, so that nothing is taken for granted."""
    wall_ns, outcome = run.get("wall_ns"), run.get("outcome")
    good = isinstance(wall_ns, int) and 0 <= wall_ns < 1 << 62
    return [_ms(wall_ns) if good and wall_ns is not None else 0, outcome if outcome in OUTCOMES else "ok"]


def _became(change: Change) -> str:
    """In words, with the minus sign that the page has elsewhere."""
    said = words(change)
    both_good = change.before is not None and change.after is not None and change.before.ok and change.after.ok
    return said.replace("(-", "(−") if both_good else shown(said)


def of_comparison(comparison: Comparison) -> dict[str, Any]:
    """Each part that has jobs, and what became of these."""
    return {
        "before": shown(comparison.before_name),
        "walls": [_ms(comparison.before_wall_ns), _ms(comparison.after_wall_ns)],
        "parts": [
            [name, [[shown(change.id), _became(change), change.after is not None] for change in changes]]
            for name, changes in comparison.parts()
            if changes
        ],
    }
