"""Where each key of a TOML or JSON text stands: small scanners, run only when there is an error to place.

They trust that the text has been read by its real parser before, follow the structure alone, and stop quietly where
that trust was misplaced: a place is then the nearest one known.
"""

from __future__ import annotations

import re
from bisect import bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeVar

    from guntainer.jobs.problems import Path, Place

    S = TypeVar("S", "_Toml", "_Json")

_TOML_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_TOML_KEY = re.compile(r'[ \t]*(?:([A-Za-z0-9_-]+)|("(?:[^"\\\n]|\\.)*")|(\'[^\'\n]*\'))[ \t]*')
_TOML_TEXT = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_TOML_BARE = re.compile(r"[^,\]}#\n]*")
_JSON_BLANK = re.compile(r"[ \t\r\n]*")
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_JSON_BARE = re.compile(r"[^,\]}\s]*")


class Lines:
    """Turns an offset in a text into its line and column."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def nearest(places: dict[Path, int], path: Path) -> int:
    """The offset of `path`, or of the innermost thing around it that has one."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path, 0)


class _LostError(Exception):
    """The text does not have the structure that its parser saw."""


class _Scanner:
    """What both scanners share: a text, where they are in it, and what they found."""

    blank = _JSON_BLANK
    text_token = _JSON_TEXT
    bare = _JSON_BARE

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, int] = {}

    def skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise _LostError
        self.at = found.end()
        return found.group()

    def take(self, sign: str) -> bool:
        if not self.text.startswith(sign, self.at):
            return False
        self.at += len(sign)
        return True

    def value(self, path: Path) -> None:
        if self.take("["):
            for index in self._items("]"):
                self.places[*path, index] = self.at
                self.value((*path, index))
        elif self.take("{"):
            for _ in self._items("}"):
                self.entry(path)
        elif self.text[self.at : self.at + 1] in ('"', "'"):
            self.skip(self.text_token)
        else:
            self.skip(self.bare)

    def _items(self, closing: str) -> Iterator[int]:
        """Steps through what stands between brackets, up to and over the closing one."""
        index = 0
        while True:
            self.skip(self.blank)
            if self.take(closing):
                return
            yield index
            index += 1
            self.skip(self.blank)
            if not self.take(",") and not self.text.startswith(closing, self.at):
                raise _LostError

    def entry(self, path: Path) -> None:
        raise NotImplementedError


class _Json(_Scanner):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[tuple[Path, int]] = []

    def document(self) -> None:
        self.skip(self.blank)
        self.value(())

    def entry(self, path: Path) -> None:
        start = self.at
        name = _unquote(self.skip(self.text_token))
        if (*path, name) in self.places:
            self.twice.append(((*path, name), start))
        self.places.setdefault((*path, name), start)
        self.skip(self.blank)
        self.take(":")
        self.skip(self.blank)
        self.value((*path, name))


class _Toml(_Scanner):
    blank = _TOML_BLANK
    text_token = _TOML_TEXT
    bare = _TOML_BARE

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._lists: dict[Path, int] = {}  # how many [[heads]] there have been so far

    def document(self) -> None:
        table: Path = ()
        self.skip(self.blank)
        while self.at < len(self.text):
            start = self.at
            if self.take("[["):
                table = self._head(self._keys(), start, repeated=True)
                self.take("]]")
            elif self.take("["):
                table = self._head(self._keys(), start, repeated=False)
                self.take("]")
            else:
                self.entry(table)
            self.skip(self.blank)
            if self.at == start:
                raise _LostError

    def _head(self, keys: Path, start: int, *, repeated: bool) -> Path:
        path: Path = ()
        for depth, key in enumerate(keys, 1):
            path = (*path, key)
            if repeated and depth == len(keys):
                self._lists[path] = self._lists.get(path, 0) + 1
            self.places.setdefault(path, start)
            if path in self._lists:
                path = (*path, self._lists[path] - 1)
                self.places.setdefault(path, start)
        # a table that was only passed through before has its own head here
        self.places[path] = start
        return path

    def _keys(self) -> Path:
        keys: list[str] = []
        while True:
            found = _TOML_KEY.match(self.text, self.at)
            if found is None:
                raise _LostError
            self.at = found.end()
            bare, double, single = found.groups()
            keys.append(bare if bare is not None else single[1:-1] if single is not None else _unquote(double))
            if not self.take("."):
                return tuple(keys)

    def entry(self, path: Path) -> None:
        start = self.at
        for key in self._keys():
            path = (*path, key)
            self.places.setdefault(path, start)
        self.take("=")
        self.skip(self.blank)
        self.value(path)


def _unquote(token: str) -> str:
    """The text of a JSON string or a TOML basic string; both have nearly the same escapes."""
    if "\\" not in token:
        return token[1:-1]
    import json

    wide = re.sub(r"\\U000(.)(....)", lambda m: chr(int(m[1] + m[2], 16)), token)
    try:
        return str(json.loads(re.sub(r"\\e", r"\\u001b", wide), strict=False))
    except ValueError:
        return token[1:-1]


def toml_places(text: str) -> dict[Path, int]:
    """The offset of each key, table head and list item of a TOML text."""
    return _scanned(_Toml(text)).places


def json_places(text: str) -> dict[Path, int]:
    """The offset of each key and list item of a JSON text."""
    return _scanned(_Json(text)).places


def json_twice(text: str) -> list[tuple[Path, int]]:
    """The keys of a JSON text that their object has already, with the offset of the later one."""
    return _scanned(_Json(text)).twice


def _scanned(scanner: S) -> S:
    try:
        scanner.document()
    except (_LostError, RecursionError):
        pass
    return scanner
