"""A batch as Markdown, for the summary page of a CI step (GITHUB_STEP_SUMMARY): a table, and the end of the first failure.

Nothing in it is Markdown or HTML but what stands here: names and reasons are written as character references, a log in a
block whose fence it does not contain.
"""

from __future__ import annotations

import os
import re
import stat

from guntainer import report
from guntainer.report_text import duration, shortened, summary, visible
from guntainer.shown.taming import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.report import Report, Result

LIMIT = 900 << 10
"""Bytes of the whole file: GitHub takes 1 MiB of a step, and nothing of what is more."""
_NAME = "GITHUB_STEP_SUMMARY"
_LOG_MOST = 64 << 10
_WHY_MOST = 4 << 10  # characters
_SYMBOLS = {"ok": "✅", "flaky": "⚠️", "cancelled": "⏹️", "skipped": "⏭️"}
_BAD = "❌"


def markdown(a_report: Report, *, tail: bytes = b"", again: str = "", limit: int = LIMIT) -> str:
    """The summary of a batch: in `limit` bytes at most, those that failed first where there is no room for all.

    Args:
        tail: the end of what the first failure said.
        again: the command that runs it again.
    """
    failure = a_report.first_failure
    name = a_report.name or a_report.file
    head = f"### {_BAD if failure else _SYMBOLS['ok']} guntainer batch{f' {_code(name)}' if name else ''}\n\n"
    head += f"{_entities(summary(a_report))}\n\n"
    end = ""
    if failure is not None:
        end = _failure(failure, tail, again)
        if _size(head + end) > limit:
            end = _failure(failure, b"", again)
    room = limit - _size(head + end)
    return head + _table(a_report.results, room) + end if room >= 0 else ""


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _table(results: tuple[Result, ...], room: int) -> str:
    head = "| | Job | Outcome | Code | Time | |\n| --- | --- | --- | ---: | ---: | --- |\n"
    room -= len(head) + 100  # for what says that there are more
    rows = {result.id: _row(result) for result in results}
    sizes = {id_: _size(row) for id_, row in rows.items()}
    left = 0
    if sum(sizes.values()) > room:
        shown = set()
        for result in sorted(results, key=lambda one: (one.ok, not one.bad)):
            if sizes[result.id] > room:
                break
            room -= sizes[result.id]
            shown.add(result.id)
        left = len(rows) - len(shown)
        rows = {id_: row for id_, row in rows.items() if id_ in shown}
    more = f"\n… and {left} more jobs\n" if left else ""
    return (head + "".join(rows.values()) if rows else "") + more


def _row(result: Result) -> str:
    exit_ = result.exit
    symbol = "⚠️" if result.allowed else _SYMBOLS.get(result.outcome, _BAD)
    code = str(exit_.code) if exit_.reason not in (report.SETUP, report.CANCELLED, report.SKIPPED) else "-"
    why = "" if exit_.reason == report.EXIT and not exit_.message else shortened(exit_.describe())
    cells = (symbol, _code(result.id), _entities(result.verdict), code, duration(result.wall_ns), _code(why))
    return f"| {' | '.join(cells)} |\n"


def _failure(result: Result, tail: bytes, again: str) -> str:
    why = result.exit.describe()
    why = why if len(why) <= _WHY_MOST else f"{why[:_WHY_MOST]} …"
    text = f"\nFirst failure: {_code(result.id)}: {_code(why)}\n"
    said = plain(tail)[-_LOG_MOST:].rstrip()
    if said:
        text += f"\n{_fenced(said)}"
    if again:
        text += f"\nRun it again:\n\n{_fenced(visible(again))}"
    return text


def _fenced(text: str) -> str:
    """A block that shows `text` as it is: CommonMark, fenced code blocks."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}\n"


def _code(text: str) -> str:
    return f"<code>{_entities(text)}</code>" if text else ""


def _entities(text: str) -> str:
    """Everything that could mean anything to Markdown or HTML as a character reference, which never does: CommonMark §2.5."""
    return "".join(c if c.isalnum() or c == " " or ord(c) > 127 else f"&#{ord(c)};" for c in visible(text))


async def append(path: str, text: str) -> str:
    """Add to the summary's file, which a CI system may keep on a slow disk; returns what went wrong, or ""."""
    import aiofiles

    try:
        async with aiofiles.open(path, "ab", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return f"{_NAME} {path}: not a file; no summary is written"
            await file.write(text.encode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        return f"{_NAME} {path}: {getattr(error, 'strerror', None) or error}; no summary is written"
    return ""


def _open(path: str, _flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)


def room_in(path: str) -> int:
    """Bytes that may be added to it."""
    try:
        return max(0, LIMIT - os.stat(path).st_size)
    except (OSError, ValueError):
        return LIMIT
