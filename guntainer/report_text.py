"""A report as text: the closing table, JSON objects. Pure: opens no file, prints nothing."""

from __future__ import annotations

import unicodedata

from guntainer import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_BAD = dict.fromkeys(("failed", "error", "timeout", "oom", "pids-limit"), "31")
_COLOURS = {"ok": "32", "flaky": "33", **_BAD, "cancelled": "33", "skipped": "33"}
_WITH_CODE = (report.EXIT, report.SIGNAL, report.TIMEOUT, report.OOM, report.PIDS)
JSON_VERSION = 1
_SHORT = 72  # characters
_WIDEST = 100  # columns: one long name does not widen all lines


def visible(text: str) -> str:
    """`text` with everything that would move a cursor or change a terminal shown instead of sent."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def width_of(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two; marks, and the later parts of a Hangul syllable, none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(c: str) -> int:
    if unicodedata.category(c) in ("Mn", "Me", "Cf") or "\u1160" <= c <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def padded(text: str, width: int) -> str:
    """`text` with blanks behind it, so that it takes `width` columns; longer ones stay as they are."""
    return text + " " * (width - width_of(text))


def duration(ns: int) -> str:
    """A duration for people: 0.4 ms, 12 ms, 3.21 s, 2 min 5 s."""
    ms = ns / 1e6
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def rounded(seconds: float) -> str:
    """A duration in whole seconds, for what changes while one looks: 0 s, 59 s, 2 min 5 s, 3 h 0 min."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def shortened(text: str) -> str:
    """A sentence that was told before: without its hint where it is long, and on a line of a terminal."""
    if len(text) <= _SHORT:
        return text
    first = text.partition("; ")[0]
    return (first if len(first) <= _SHORT else first[:_SHORT].rpartition(" ")[0] or first[:_SHORT]).rstrip(" :,") + " …"


def table(a_report: report.Report, *, colour: bool, told: Iterable[str] = ()) -> str:
    """The closing table and its summary line.

    Args:
        told: reasons that the reader has seen in full; these are shortened, and every other one that comes again.
    """
    rows = [("JOB", "OUTCOME", "CODE", "TIME", "")]
    seen = set(told)
    for result in a_report.results:
        code = str(result.exit.code) if result.exit.reason in _WITH_CODE else "-"
        own = result.exit.reason == report.EXIT and not result.exit.message
        why = "" if own else result.exit.describe()
        said = visible(shortened(why) if why in seen else why)
        seen.add(why)
        if result.attempts:
            said = f"attempt {len(result.attempts) + 1}{f': {said}' if said else ''}"
        if report.EARLIER in result.notes:
            said = f"{said}; {report.EARLIER}" if said else report.EARLIER
        rows.append((visible(result.id), result.verdict, code, duration(result.wall_ns), said))
    widths = [min(max(width_of(row[column]) for row in rows), _WIDEST) for column in range(4)]
    lines = []
    for number, row in enumerate(rows):
        cells = list(map(padded, row[:2], widths[:2]))
        cells += [" " * (width - width_of(cell)) + cell for cell, width in zip(row[2:4], widths[2:], strict=True)]
        if colour and number:
            cells[1] = f"\x1b[{_colour(row[1])}m{cells[1]}\x1b[0m"
        lines.append("  ".join([*cells, row[4]]).rstrip())
    return "\n".join([*lines, summary(a_report)]) + "\n"


def _colour(verdict: str) -> str:
    """What may fail is not red."""
    word, _, allowed = verdict.partition(" ")
    return "33" if allowed else _COLOURS.get(word, "0")


def summary(a_report: report.Report) -> str:
    """`9 jobs: 7 ok, 1 failed, 1 timeout in 3.2 s`"""
    counts: dict[str, int] = {}
    for result in a_report.results:
        counts[result.verdict] = counts.get(result.verdict, 0) + 1
    words = [word for name in _COLOURS for word in (name, f"{name} (allowed)")]
    parts = ", ".join(f"{counts[word]} {word}" for word in words if word in counts)
    total = len(a_report.results)
    return f"{total} job{'' if total == 1 else 's'}: {parts or 'nothing to do'} in {duration(a_report.wall_ns)}"


def json_object(result: report.Result) -> dict[str, Any]:
    """One result as it stands in result.json and in the lines of `--json`; keys are only ever added."""
    exit_ = result.exit
    return {
        "version": JSON_VERSION,
        "id": result.id,
        "job": result.key,
        "matrix": dict(result.matrix),
        "rootfs": result.rootfs,
        "outcome": result.outcome,
        "reason": exit_.reason,
        "code": exit_.code,
        "signal": exit_.signal,
        "core_dumped": exit_.core_dumped,
        "message": exit_.message,
        "probe": exit_.error.probe if exit_.error else "",
        "started_at": result.started_at,
        "begin_ns": result.begin_ns,
        "wait_ns": result.wait_ns,
        "prepare_ns": result.prepare_ns,
        "queue_ns": result.queue_ns,
        "wall_ns": result.wall_ns,
        "launch_ns": result.launch_ns,
        "slot": result.slot,
        "cpu_user_ns": result.cpu_user_ns,
        "cpu_system_ns": result.cpu_system_ns,
        "max_rss_bytes": result.max_rss_bytes,
        "memory_peak_bytes": result.memory_peak_bytes,
        "cpu_throttled_ns": result.cpu_throttled_ns,
        "oom_kills": result.oom_kills,
        "pids_refused": result.pids_refused,
        "limits": dict(result.limits),
        "isolation": result.isolation,
        "userns": result.userns,
        "scratch": result.scratch,
        "notes": list(result.notes),
        "needs": list(result.needs),
        "allow_failure": result.allow_failure,
        "attempts": [_attempt(one) for one in result.attempts],
        "artifacts": [{"path": one.path, "size_bytes": one.size_bytes} for one in result.artifacts],
    }


_last: tuple[report.Result, str] | None = None


def json_text(result: report.Result) -> str:
    """`json_object` as JSON, in ASCII; of the last result it is known: a file and a line are written of each."""
    global _last
    if _last is None or _last[0] is not result:
        import json

        _last = result, json.dumps(json_object(result))
    return _last[1]


def _attempt(attempt: report.Attempt) -> dict[str, Any]:
    exit_ = attempt.exit
    return {
        "reason": exit_.reason,
        "code": exit_.code,
        "signal": exit_.signal,
        "message": exit_.message,
        "started_at": attempt.started_at,
        "wall_ns": attempt.wall_ns,
    }
