"""The rows of the live table as bytes for a terminal. The one place that imports rich, and it is imported when there is
something to draw for the first time."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from guntainer.report_text import rounded, visible
from guntainer.shown.taming import last_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.shown.course import Bar, Course, Running

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER = "|/-\\"
_FRAMES_PER_S = 8
_NAME_MOST = 40
_NAME_LEAST = 11
_PHASE = 7  # columns of `running`
_ELAPSED = 4  # columns of `59 s`; more where it takes more
_LAST_LEAST = 12
_BAR = 20

Piece = tuple[str, str]
"""A text and its style."""


class Drawing:
    """Draws a batch.

    Args:
        colour: with colours, and dim text.
        rich_glyphs: the terminal has more than ASCII.
    """

    def __init__(self, *, colour: bool, rich_glyphs: bool = True) -> None:
        self._spinner = _SPINNER if rich_glyphs else _PLAIN_SPINNER
        self._full, self._empty = ("━", "─") if rich_glyphs else ("#", ".")
        self._more, self._between = ("…", " · ") if rich_glyphs else ("...", "; ")
        self._console = Console(
            color_system="standard" if colour else None,
            no_color=not colour,
            force_terminal=True,
            force_interactive=False,
            legacy_windows=False,
        )

    def rows(self, course: Course, columns: int, most: int) -> list[bytes]:
        """What is to be seen now: at most so many rows, none of them as wide as the terminal.

        Args:
            columns: the terminal's width.
            most: at least 1; the last row tells how far the batch is.
        """
        room = max(1, columns - 1)
        frame = self._spinner[int(course.clock() * _FRAMES_PER_S) % len(self._spinner)]
        bars, jobs = _fitting(list(course.bars.values()), list(course.running.values()), most - 1)
        lines = self._bars(course, bars, frame, room) + self._jobs(course, jobs, frame, room)
        left = _left(len(course.bars) - len(bars), len(course.running) - len(jobs))
        if left and most > 2:
            lines.append([(f" {self._more} and {left}", "dim")])
        lines.append(self._summary(course, room))
        return [self._bytes(line, room) for line in lines]

    def _bars(self, course: Course, bars: list[Bar], frame: str, room: int) -> list[list[Piece]]:
        names = [visible(bar.name.rpartition("/")[2] or bar.name) for bar in bars]
        wide = min(max(map(cell_len, names), default=0), _NAME_MOST, max(8, room // 3))
        lines = []
        for name, bar in zip(names, bars, strict=True):
            line = [(f" {frame} ", "cyan"), (_fit(name, wide, self._more), ""), (f" {bar.percent:>3} % ", "")]
            width = min(_BAR, room - 11 - wide)
            if width >= 4:
                full = width * bar.percent // 100
                line += [(self._full * full, "green"), (self._empty * (width - full), "dim")]
            line.append((" fetching" if course.fetched(bar.name) else " unpacking", "dim"))
            lines.append(line)
        return lines

    def _jobs(self, course: Course, jobs: list[Running], frame: str, room: int) -> list[list[Piece]]:
        names = [visible(job.id) for job in jobs]
        now = course.clock()
        times = ["" if job.again_at else rounded(now - job.begun) for job in jobs]
        phases = [_phase(job, now) for job in jobs]
        wide, elapsed, phase, last = _widths(
            room - 3,
            max(map(cell_len, names), default=0),
            max([_ELAPSED, *map(len, times)]),
            max([_PHASE, *map(len, phases)]),
        )
        lines = []
        for name, time, what, job in zip(names, times, phases, jobs, strict=True):
            line = [(f" {frame if not job.again_at else ' '} ", "cyan"), (_fit(name, wide, self._more), "bold")]
            if elapsed:
                line.append((f" {time:>{elapsed}}", ""))
            if phase:
                line.append((f" {what:<{phase}}", "yellow" if job.attempt > 1 else "dim"))
            if last:
                line.append((f" {last_line(job.tail)}", "dim"))
            lines.append(line)
        return lines

    def _summary(self, course: Course, room: int) -> list[Piece]:
        text = ""
        for word in course.words():
            more = f"{text}{self._between if text else ' '}{word}"
            if text and cell_len(more) > room:
                break
            text = more
        bad = any(verdict in _BAD for verdict in course.counts)  # not `failed (allowed)`
        return [(text, "bold red" if bad else "bold")]

    def _bytes(self, line: Iterable[Piece], room: int) -> bytes:
        text = Text.assemble(*line, no_wrap=True, end="")
        if text.cell_len > room:
            text = Text.assemble(*_cut(line, room), no_wrap=True, end="")
        with self._console.capture() as captured:
            self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False, end="")
        return captured.get().encode("utf-8", "replace")


def _widths(room: int, name: int, elapsed: int, phase: int) -> tuple[int, int, int, int]:
    """Columns for a job's name, its time, its phase and its last line; 0 for what has no room."""
    wide = min(name, _NAME_MOST, max(_NAME_LEAST, room // 3))
    rest = room - wide - elapsed - 1
    if rest < 0:
        return min(name, room), 0, 0, 0
    phase = phase if rest > phase else 0
    rest -= phase + 1 if phase else 0
    if rest < _LAST_LEAST:
        return min(name, wide + rest), elapsed, phase, 0
    return wide, elapsed, phase, rest


_BAD = ("failed", "error", "timeout", "oom", "pids-limit")


def _fitting(bars: list[Bar], jobs: list[Running], room: int) -> tuple[list[Bar], list[Running]]:
    """As many as there are rows for, and one less where it is to be said that there are more."""
    if len(bars) + len(jobs) > room > 1:
        room -= 1
    most = max(room - len(jobs), (room + 1) // 3 or room)
    bars = bars[: max(0, min(most, room))]
    return bars, jobs[: max(0, room - len(bars))]


def _left(bars: int, jobs: int) -> str:
    parts = [f"{count} more {word}" for count, word in ((bars, "unpacking"), (jobs, "running")) if count]
    return ", ".join(parts)


def _phase(job: Running, now: float) -> str:
    if job.again_at:
        left = round(job.again_at - now)
        return f"again in {left} s" if left > 0 else "queued"
    return f"attempt {job.attempt}" if job.attempt > 1 else "running"


def _fit(text: str, width: int, more: str) -> str:
    """`text` in exactly so many columns."""
    if cell_len(text) > width:
        text = set_cell_size(text, max(0, width - len(more))) + more
    return set_cell_size(text, width)


def _cut(line: Iterable[Piece], room: int) -> list[Piece]:
    """The pieces of a line up to a width."""
    pieces = []
    for text, style in line:
        wide = cell_len(text)
        pieces.append((text if wide <= room else set_cell_size(text, room), style))
        room -= wide
        if room <= 0:
            break
    return pieces
