"""argparse with this program's manners: one clear line, did-you-mean, the right exit code, no abbreviations."""

from __future__ import annotations

import argparse
import os

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse makes a formatter for each option that is added, and each asks shutil for the terminal's width, unless it is given."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns())


def _columns() -> int:
    try:
        return min(max(os.get_terminal_size(1).columns - 2, 40), 118)
    except OSError:
        return 98


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of leaving the program."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", _Formatter)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        raise errors.UsageError(f"{self.prog.removeprefix('guntainer ')}: {message}", hint=f"see {self.prog} --help")

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Parse; an unknown option is named, with the nearest known one."""
        args, rest = self.parse_known_args(words)
        if rest:
            self.error(self._unknown(rest[0]))
        return args

    def _unknown(self, word: str) -> str:
        import difflib

        name = word.partition("=")[0]
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        kind = "option" if word.startswith("-") else "argument"
        return f"unknown {kind} {name!r}" + (f", did you mean {near[0]}?" if near else "")


def split_at_positional(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """(options, the rest from the first positional on): argparse by itself would take options, and a `--`, from the rest."""
    table = parser._option_string_actions
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return words[:at], words[at + 1 :]
        if not word.startswith("-") or word == "-":
            break
        at += _width(table, word)
    return words[:at], words[at:]


def _width(table: dict[str, argparse.Action], word: str) -> int:
    """How many words an option takes: itself, and its value where that is the next word."""
    action = table.get(word)
    if action is not None:
        return 1 if action.nargs == 0 else 2
    if word.startswith("--") or len(word) == 2:
        return 1  # --name=value, or unknown
    # -it, -eK=V: flags run together, the last of which may take the next word
    for place, letter in enumerate(word[1:], 2):
        action = table.get("-" + letter)
        if action is None:
            return 1
        if action.nargs != 0:
            return 2 if place == len(word) else 1
    return 1
