"""JSON of a results folder as values: what has the wrong type is named, and left out; nothing raises.

Such a file was written by this program, or by anybody: a folder of results is sent around, kept for years, cut by a full disk.
"""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.reports.problems import Problems

MOST_NUMBER = 1 << 62
MOST_TEXT = 64 << 10
"""Characters: of a command line's message, a note, a path."""
MOST_LIST = 100_000
_KINDS = {dict: "a table", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def kind(value: object) -> str:
    """What a value is, for a message."""
    return "null" if value is None else _KINDS.get(type(value), "something else")


def clean(text: str) -> str:
    """`text` as it can be encoded: halves of surrogate pairs, which JSON can hold, are no characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " …"


class Fields:
    """A table, key by key.

    Args:
        where: the file, and the place in it: what a message begins with.
        problems: told of what is wrong.
    """

    def __init__(self, values: dict[str, Any], where: str, problems: Problems) -> None:
        self._values = values
        self.where = where
        self._problems = problems

    def _wrong(self, key: str, expected: str) -> None:
        self._problems.add(f"{self.where}: {key}: expected {expected}, got {kind(self._values[key])}")

    def _get(self, key: str, cls: type, expected: str) -> Any:
        value = self._values.get(key)
        if value is None or type(value) is cls:
            return value
        self._wrong(key, expected)
        return None

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def text(self, key: str) -> str:
        found = self._get(key, str, "a text")
        return clean(found) if found else ""

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def maybe_number(self, key: str, *, least: int = 0) -> int | None:
        """A whole number; None where there is none."""
        found: int | None = self._get(key, int, "a whole number")
        if found is not None and not least <= found <= MOST_NUMBER:
            self._problems.add(f"{self.where}: {key}: expected a number from {least} to 2^62")
            return None
        return found

    def number(self, key: str, *, least: int = 0) -> int:
        found = self.maybe_number(key, least=least)
        return least if found is None else found

    def seconds(self, key: str) -> float:
        """Seconds since the epoch; 0.0 where there are none."""
        found = self._values.get(key)
        if found is None:
            return 0.0
        if type(found) not in (int, float) or not 0 <= found < 1e11 or not math.isfinite(found):
            self._wrong(key, "seconds since 1970")
            return 0.0
        return float(found)

    def _list(self, key: str) -> list[Any]:
        found: list[Any] = self._get(key, list, "a list") or []
        if len(found) > MOST_LIST:
            self._problems.add(f"{self.where}: {key}: the first {MOST_LIST} of {len(found)} are read")
            return found[:MOST_LIST]
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._list(key)
        good = tuple(clean(one) for one in found if isinstance(one, str))
        if len(good) != len(found):
            self._problems.add(f"{self.where}: {key}: expected a list of texts")
        return good

    def tables(self, key: str) -> list[Fields]:
        found = self._list(key)
        good = [one for one in found if isinstance(one, dict)]
        if len(good) != len(found):
            self._problems.add(f"{self.where}: {key}: expected a list of tables")
        return [Fields(one, f"{self.where}: {key}[{place}]", self._problems) for place, one in enumerate(good)]

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A table of texts, in its order."""
        found: dict[str, Any] = self._get(key, dict, "a table") or {}
        good = tuple((clean(name), clean(value)) for name, value in found.items() if isinstance(value, str))
        if len(good) != len(found):
            self._problems.add(f"{self.where}: {key}: expected a table of texts")
        return good
