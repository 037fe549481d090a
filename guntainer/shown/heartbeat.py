"""A sign of life where nothing is drawn: a line when a batch has been silent for a while, so that no CI system gives it up."""

from __future__ import annotations

import asyncio
import time

from guntainer.report_text import rounded, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.screen import Screen
    from guntainer.shown.course import Course

INTERVAL_S = 30.0
_NAMES = 5


class Heartbeat:
    """Says something when the screen has shown nothing for `interval_s`; `close` ends it.

    Args:
        say: told the line; it may keep it to itself.
    """

    def __init__(
        self, screen: Screen, course: Course, say: Callable[[str], None], interval_s: float = INTERVAL_S
    ) -> None:
        self._screen = screen
        self._course = course
        self._say = say
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None
        self._wait(interval_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        silent = time.monotonic() - self._screen.put_at
        if silent < self._interval_s:
            self._wait(self._interval_s - silent)
            return
        self._say(words(self._course) + "\n")
        self._wait(self._interval_s)


def words(course: Course) -> str:
    """`… 3 jobs running for 2 min 10 s: a, b, c; 12/48 done`: those that run longest first."""
    running = sorted((one for one in course.running.values() if not one.again_at), key=lambda one: one.begun)
    if running:
        names = ", ".join(visible(one.id) for one in running[:_NAMES])
        more = f" and {len(running) - _NAMES} more" if len(running) > _NAMES else ""
        jobs = "1 job" if len(running) == 1 else f"{len(running)} jobs"
        what = f"{jobs} running for {rounded(course.clock() - running[0].begun)}: {names}{more}"
    elif course.bars:
        what = "unpacking " + ", ".join(f"{visible(bar.name)} {bar.percent} %" for bar in course.bars.values())
    else:
        what = ", ".join(course.states()) or "nothing is left to run"
    return "; ".join([f"… {what}", *course.words()[:1]])
