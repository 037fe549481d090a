"""A command's options as a table, and the quick reader of it.

The table is the one description of the options: `parsing` builds the argparse parser from it, for --help, completion and
every mistake; `read` does what argparse would do with a command line in which there is none, without the import of argparse,
re and gettext, which take longer than a container does. What `read` is not sure of it leaves to argparse.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAG, VALUE, LIST, NUMBER = "flag", "value", "list", "number"


class Option:
    """One option.

    Args:
        names: `-e`, `--env`; the last one names the attribute.
        kind: FLAG, VALUE (the last one given), NUMBER (the same, an int), LIST (all that were given).
        choices: the only values there are.
    """

    __slots__ = ("choices", "default", "help", "kind", "metavar", "name", "names")

    def __init__(
        self,
        *names: str,
        kind: str = VALUE,
        default: object = None,
        metavar: str = "",
        help: str = "",  # noqa: A002
        choices: tuple[str, ...] = (),
    ) -> None:
        self.names = names
        self.name = names[-1].lstrip("-").replace("-", "_")
        self.kind = kind
        self.default = False if kind == FLAG else default
        self.metavar = metavar
        self.help = help
        self.choices = choices


LEVELS = ("debug", "info", "warning", "error")
COMMON = (
    Option("-q", "--quiet", kind=FLAG, help="no notes of our own"),
    Option("--log-level", choices=LEVELS, metavar="|".join(LEVELS), help="the least that is shown (default: info)"),
    Option(
        "--log-format",
        choices=("console", "json"),
        default="console",
        metavar="console|json",
        help="how (default: {default})",
    ),
    Option("--debug", kind=FLAG, help="tracebacks"),
)
"""Of every command that has something to say."""


class Options:
    """What was given, by name, as argparse's Namespace has it."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def read(table: tuple[Option, ...], words: list[str], *, interleaved: bool = False) -> tuple[Options, list[str]] | None:
    """Options up to the first word that is none, and the rest from there on; a `--` between them is dropped.

    Args:
        interleaved: options may come after other words as well; only those words are returned.

    Returns:
        None where a word is unknown, a value is missing or not allowed, or a notation is rare: argparse tells.
    """
    known = {name: option for option in table for name in option.names}
    found = Options()
    values = found.__dict__
    for option in table:
        values[option.name] = [] if option.kind == LIST else option.default
    others: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            if interleaved:
                others.append(word)
                continue
            at -= 1
            break
        name, equals, value = word.partition("=")
        one = known.get(name)
        if one is None or (equals and not name.startswith("--")):
            return None
        if one.kind == FLAG:
            if equals:
                return None
            values[one.name] = True
            continue
        if not equals:
            if at == len(words) or words[at].startswith("-"):
                return None
            value = words[at]
            at += 1
        if not _set(values, one, value):
            return None
    return found, others + words[at:]


def _set(values: dict[str, Any], option: Option, value: str) -> bool:
    if option.choices and value not in option.choices:
        return False
    if option.kind == LIST:
        values[option.name].append(value)
    elif option.kind == NUMBER:
        if not (value.isascii() and value.isdecimal()):
            return False
        values[option.name] = int(value)
    else:
        values[option.name] = value
    return True
