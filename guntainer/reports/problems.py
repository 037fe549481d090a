"""What is wrong with what is read: a sentence each, the first hundred, each once."""

from __future__ import annotations

_MOST = 100
_LONGEST = 300  # characters


class Problems:
    """A collection of sentences that does not grow without end."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}
        self._more = 0

    def __repr__(self) -> str:
        return f"Problems({len(self._told)}, more={self._more})"

    def add(self, text: str) -> None:
        if len(text) > _LONGEST:
            text = text[:_LONGEST] + " …"
        if text in self._told:
            return
        if len(self._told) < _MOST:
            self._told[text] = None
        else:
            self._more += 1

    def told(self) -> tuple[str, ...]:
        return (*self._told, f"and {self._more} more") if self._more else tuple(self._told)
