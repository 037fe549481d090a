"""How far archives are unpacked, where nothing else is drawn: one line of a terminal, gone when it is over."""

from __future__ import annotations

import asyncio
import os

from guntainer.report_text import visible, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.screen import Screen

_INTERVAL_S = 0.1
_STALE_S = 1.0


class Unpacking:
    """How far archives are unpacked: one line of a terminal, gone when it is over.

    Args:
        columns: the terminal's width.
    """

    def __init__(self, screen: Screen, columns: int) -> None:
        self._screen = screen
        self._columns = columns
        self._parts: dict[str, tuple[int, float]] = {}
        """Per name: percent, and when that was told."""
        self._shown_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def told(self, name: str, done: int, total: int) -> None:
        """An unpacker has come so far, in bytes."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._parts[name] = min(100, done * 100 // max(1, total)), now
        if now - self._shown_at >= _INTERVAL_S:
            self._show(now)
        if self._timer is None:
            self._timer = loop.call_later(_STALE_S, self._tidy)

    def over(self, name: str) -> None:
        """It is unpacked, or has failed."""
        if self._parts.pop(name, None) is not None:
            self._show(asyncio.get_running_loop().time())

    def close(self) -> None:
        self._parts.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._screen.footer(())

    def _tidy(self) -> None:
        """Nobody tells us of an end: what was not told of for a while has come to it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._parts = {name: part for name, part in self._parts.items() if now - part[1] < _STALE_S}
        self._timer = loop.call_later(_STALE_S, self._tidy) if self._parts else None
        self._show(now)

    def _show(self, now: float) -> None:
        self._shown_at = now
        parts = [f"{visible(os.path.basename(name))} {percent} %" for name, (percent, _) in self._parts.items()]
        line = f"unpacking {', '.join(parts)}" if parts else ""
        while width_of(line) >= self._columns > 0:
            line = line[:-1]
        self._screen.footer((line.encode("utf-8", "surrogateescape"),) if line else ())
