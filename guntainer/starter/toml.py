"""Text of a TOML file: keys, values, comments. Whatever is put in, what comes out is valid TOML 1.0. Pure."""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WIDEST = 110
_ESCAPED = re.compile(r'[\x00-\x08\x0b-\x1f\x7f"\\\ud800-\udfff]')


class Raw(str):
    """A value that is TOML already."""


def key(text: str) -> str:
    """`text` as a key: bare, or quoted where it must be."""
    return text if _BARE.fullmatch(text) else basic(text)


def basic(text: str) -> str:
    """`text` between double quotes, on one line."""
    return '"' + _ESCAPED.sub(_escape, text).replace("\n", "\\n").replace("\t", "\\t") + '"'


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if "\ud800" <= character <= "\udfff":
        return "�"  # TOML has no half of a pair
    return f"\\{character}" if character in '"\\' else f"\\u{ord(character):04x}"


def script(text: str) -> str:
    """Several lines as they stand, where TOML can have them so; else escaped."""
    if "\n" not in text.rstrip("\n"):
        return line(text.rstrip("\n"))
    if not text.endswith("\n"):
        text += "\n"
    if "'''" not in text and _plain(text):
        return f"'''\n{text}'''"
    escaped = _ESCAPED.sub(lambda found: found[0] if found[0] == '"' else _escape(found), text)
    return '"""\n' + escaped.replace('""', '\\"\\"') + '"""'


def line(text: str) -> str:
    """One line: literal where that saves escapes."""
    if ('"' in text or "\\" in text) and "'" not in text and _plain(text):
        return f"'{text}'"
    return basic(text)


def _plain(text: str) -> bool:
    return all(c in "\t\n" or (c.isprintable() and not "\ud800" <= c <= "\udfff") for c in text)


def value(found: object) -> str:
    """A text, a number, true or false, a list or a table, on one line where that is not too long."""
    if isinstance(found, Raw):
        return str(found)
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, (int, float)):
        return json.dumps(found)
    if isinstance(found, dict):
        inside = ", ".join(f"{key(str(name))} = {value(item)}" for name, item in found.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(found, (list, tuple)):
        items = [value(item) for item in found]
        short = f"[{', '.join(items)}]"
        return (
            short
            if len(short) <= _WIDEST or len(items) < 2
            else "[\n" + "".join(f"  {item},\n" for item in items) + "]"
        )
    text = str(found)
    if "\n" not in text:
        return line(text)
    # a script would get, or lose, line feeds at its end
    return script(text) if text.endswith("\n") and "\n" in text.rstrip("\n") else basic(text)


def entry(name: str, found: object) -> str:
    """`name = value`."""
    return f"{key(name)} = {value(found)}"


def comment(text: str) -> str:
    """`text` as comments, one for each of its lines."""
    lines = text.split("\n")
    return "\n".join(("# " + "".join(c if c.isprintable() else "?" for c in each)).rstrip() for each in lines)


def commented(lines: Iterable[str]) -> list[str]:
    """Lines of TOML that are switched off."""
    return [comment(each) for each in lines]
