"""argparse with this program's manners: one clear line, did-you-mean, the right exit code, no abbreviations."""

from __future__ import annotations

import argparse
import os

from guntainer import errors
from guntainer.cli import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from guntainer.cli.options import Option, Options


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

    def print_help(self, file: Any = None) -> None:
        show(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise errors.UsageError(f"{self.prog.removeprefix('guntainer ')}: {message}", hint=f"see {self.prog} --help")

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Parse; an unknown option is named, with the nearest known one."""
        if self._subparsers is None:
            self._check(words)
        args, rest = self.parse_known_args(words)
        if rest:
            self.error(self._unknown(rest[0]))
        return args

    def _check(self, words: list[str]) -> None:
        """Two mistakes that argparse has no good words for: a flag with a value, and an unknown one among flags run together."""
        table = self._option_string_actions
        at = 0
        while at < len(words) and words[at] != "--":
            word = words[at]
            at += _width(table, word)
            name, equals, value = word.partition("=")
            if word.startswith("--"):
                action = table.get(name)
                if equals and action is not None and action.nargs == 0:
                    self.error(f"{name} takes no value, got {value!r}")
            elif word.startswith("-") and "-" + word[1:2] in table:
                letter = next(_unknown_letters(table, word), "")
                if letter:
                    self.error(f"{word}: {self._unknown(f'-{letter}')}")

    def _unknown(self, word: str) -> str:
        name = word.partition("=")[0]
        if not word.startswith("-"):
            return f"unknown argument {name!r}"
        from guntainer.cli import habits, run_options

        told = f"unknown option {name!r}"
        ours = [one for option in run_options.OPTIONS for one in option.names]
        # -net for --net, and flags run together, of which the first is unknown
        for meant in (name,) if name.startswith("--") or len(name) == 2 else (f"-{name}", name[:2]):
            habit = habits.instead(self.prog, meant, ours)
            if habit:
                return f"{told}: {habit}"
        import difflib

        known = [one for one in self._option_string_actions if len(one) > 2]
        near = difflib.get_close_matches(name if name.startswith("--") else f"-{name}", known, n=1, cutoff=0.7)
        return told + (f", did you mean {near[0]}?" if near else "")


def _unknown_letters(table: dict[str, argparse.Action], word: str) -> Iterator[str]:
    """The letters of `-itd` that are no flags, up to the first that takes what follows as its value."""
    for letter in word[1:]:
        action = table.get(f"-{letter}")
        if action is None:
            yield letter
        elif action.nargs != 0:
            return


def build(table: tuple[Option, ...], **settings: Any) -> Parser:
    """The parser of an option table."""
    parser = Parser(**settings)
    for option in table:
        how: dict[str, Any] = {"help": option.help.format(default=option.default)}
        if option.kind == "flag":
            how["action"] = "store_true"
        else:
            how["default"] = [] if option.kind == "list" else option.default
            how["metavar"] = option.metavar or None
            if option.kind == "list":
                how["action"] = "append"
            if option.kind == "number":
                how["type"] = int
            if option.choices:
                how["choices"] = option.choices
        parser.add_argument(*option.names, **how)
    return parser


def read_slowly(parser: Parser, words: list[str], *, positional: str) -> tuple[Options, list[str]] | None:
    """As `options.read`, by argparse; None where help was asked for, and given.

    Raises:
        UsageError: a mistake, or no first positional, which `positional` names.
    """
    words, rest = split_at_positional(parser, words)
    if "--help" in words:
        parser.print_help()
        return None
    args: Any = parser.parse(words)
    if not rest:
        parser.error(f"{positional} is missing")
    return args, rest


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
