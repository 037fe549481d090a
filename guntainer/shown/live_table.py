"""The live table below the lines of a batch on a terminal: when it is drawn, and when it gives way. `drawing` says how.

It costs one core a twentieth at most: after each drawing it waits for twenty times as long as that took, and draws no more
than eight times a second, only when something has changed or another second has passed. The cursor is never hidden, so
that no end, however sudden, leaves it so.
"""

from __future__ import annotations

import _signal
import asyncio
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from guntainer.screen import Screen
    from guntainer.shown.course import Course
    from guntainer.shown.drawing import Drawing

FIRST_S = 0.3
"""A batch that has ended by then is shown without a table, and pays nothing for it."""
INTERVAL_S = 1 / 8
_TICK_S = 1.0
_SHARE = 20
_DEFAULT_SIZE = (80, 24)


class LiveTable:
    """The table of one batch; `close` takes it away.

    Args:
        screen: a terminal.
        fd: its descriptor.
        first_s: seconds until it is drawn for the first time.
    """

    def __init__(
        self,
        screen: Screen,
        course: Course,
        *,
        fd: int,
        colour: bool,
        env: Mapping[str, str],
        ascii_only: bool = False,
        first_s: float = FIRST_S,
    ) -> None:
        self._screen = screen
        self._course = course
        self._fd = fd
        self._look = {"colour": colour, "rich_glyphs": not ascii_only and env.get("TERM") != "linux"}
        self._drawing: Drawing | None = None
        self._changed = True
        self._resting_until = 0.0
        self._loop = asyncio.get_running_loop()
        self._signals: list[int] = []
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(first_s, self._tick)
        self._first = True
        self._paused = False
        for number, react in (
            (_signal.SIGWINCH, self.changed),
            (_signal.SIGTSTP, self._stop),
            (_signal.SIGCONT, self._go_on),
        ):
            self._receive(number, react)

    def changed(self) -> None:
        """Something is to be drawn, soon."""
        if self._changed or self._first or self._timer is None:
            return
        self._changed = True
        self._wait(max(0.0, self._resting_until - self._loop.time()))

    def pause(self) -> None:
        """Take it away until `resume`: somebody else has the terminal, and is told of its size."""
        self._paused = True
        self._screen.footer(())

    def resume(self) -> None:
        self._paused = False
        if _signal.SIGWINCH in self._signals:
            self._loop.add_signal_handler(_signal.SIGWINCH, self.changed)
        self.changed()

    def close(self) -> None:
        """Take it away; nothing is drawn any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for number in self._signals:
            self._loop.remove_signal_handler(number)
        self._signals.clear()
        self._screen.footer(())

    def _receive(self, number: int, react: Callable[[], None]) -> None:
        if _signal.getsignal(number) is _signal.SIG_IGN:
            return
        try:
            self._loop.add_signal_handler(number, react)
        except (ValueError, RuntimeError):
            return  # not in the main thread: its owner has them
        self._signals.append(number)

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._first = False
        self._changed = False
        began = time.thread_time()
        if self._is_in_front() and not self._paused:
            self._draw()
        cost = time.thread_time() - began
        rest = max(INTERVAL_S, cost * _SHARE)
        self._resting_until = self._loop.time() + rest
        self._wait(max(_TICK_S, rest))

    def _draw(self) -> None:
        columns, lines = self._size()
        self._screen.footer(self._load().rows(self._course, columns, max(1, lines // 2)))

    def _load(self) -> Drawing:
        if self._drawing is None:
            from guntainer.shown.drawing import Drawing

            self._drawing = Drawing(**self._look)
        return self._drawing

    def _size(self) -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(self._fd)
        except OSError:
            return _DEFAULT_SIZE
        return columns or _DEFAULT_SIZE[0], lines or _DEFAULT_SIZE[1]

    def _is_in_front(self) -> bool:
        """Whether the terminal is ours to draw on: not while somebody else works there, and we are in the background."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return True  # not our controlling terminal: nobody has a shell there that would put us behind

    def _stop(self) -> None:
        """Ctrl-Z: give the terminal back as it was, then stop as anybody would."""
        self._screen.footer(())
        self._loop.remove_signal_handler(_signal.SIGTSTP)  # its default action again
        _signal.raise_signal(_signal.SIGTSTP)
        # here we go on
        self._receive_again()
        self._go_on()

    def _receive_again(self) -> None:
        if _signal.SIGTSTP in self._signals:
            self._signals.remove(_signal.SIGTSTP)
            self._receive(_signal.SIGTSTP, self._stop)

    def _go_on(self) -> None:
        self._changed = True
        if not self._first and self._timer is not None:
            self._wait(0)
