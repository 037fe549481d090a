"""The bytes of a job file, in any of its three notations, as plain objects with places.

Plain objects are dict, list, str, int, bool and None; whatever else a notation has becomes one of them or a problem.
A number keeps the text it was written with, so that `3.10` does not become 3.1 where a text is wanted. Opens no file.
"""

from __future__ import annotations

import re

from guntainer import errors
from guntainer.jobs.positions import Lines, json_places, json_twice, nearest, toml_places
from guntainer.jobs.problems import Problems, fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guntainer.jobs.problems import Locate, Path, Place

FORMATS = ("toml", "yaml", "json")
LARGEST_BYTES = 10 * 1000 * 1000
DEEPEST = 100  # levels of lists and tables; a job file has about six
_ENDINGS = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_BOM = "\ufeff"
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


class Written(str):
    """A number as it was written; `value` is what it means."""

    value: object

    def __new__(cls, text: str, value: object) -> Written:
        self = super().__new__(cls, text)
        self.value = value
        return self


class Plain(Written):
    """A word without quotes, which is a text where a text is wanted: YAML, and what a matrix put in."""


def meaning(value: object) -> object:
    """What a value means where no text is wanted."""
    return value.value if isinstance(value, Written) else value


def is_text(value: object) -> bool:
    return (
        isinstance(value, str) and (type(value) is not Written) and not (type(value) is Plain and value.value is None)
    )


def resolve(text: str) -> str:
    """`text` as YAML 1.2's core schema reads it: true, false, null and numbers; `no` and 1:30 are texts."""
    if text in _WORDS:
        return Plain(text, _WORDS[text])
    if text[:1] in "+-.0123456789":
        if _INT.fullmatch(text) and len(text) < 400:
            return Plain(text, int(text, 0 if text[:2] in ("0x", "0o") else 10))
        if _FLOAT.fullmatch(text) and len(text) < 400:
            return Plain(text, float(text))
    return text


class Document:
    """A file that could be read: its objects, and where each of them stands."""

    def __init__(self, root: object, locate: Locate) -> None:
        self.root = root
        self.locate = locate


def parse(text: bytes, *, name: str, notation: str | None, problems: Problems) -> Document:
    """Read a job file.

    Args:
        name: the file's name, for messages, and for its ending where `notation` is not given.
        problems: takes what is wrong but does not stop the reading: a key that is there twice.

    Raises:
        JobFileError: the file can not be read to its end.
    """
    if len(text) > LARGEST_BYTES:
        raise fail(name, (1, 0), f"the file is larger than {LARGEST_BYTES // 1000000} MB, which is no job file")
    source = _decode(text, name)
    if not source.strip():
        raise fail(name, (1, 0), "the file is empty: expected at least one job, [jobs.NAME]")
    kind = notation or _ENDINGS.get(name[name.rfind(".") :].lower()) or _guess(source)
    if kind == "toml":
        return _toml(source, name)
    if kind == "json":
        return _json(source, name, problems)
    if kind == "yaml":
        try:
            from guntainer.jobs.parse_yaml import parse_yaml
        except ImportError as error:
            hint = "install it, or write the file as TOML or JSON"
            raise errors.HostError(f"a YAML job file needs PyYAML with libyaml: {error}", hint=hint) from None
        return parse_yaml(source, name, problems)
    raise errors.UsageError(f"unknown format {kind!r}: expected toml, yaml or json")


def _decode(text: bytes, name: str) -> str:
    for mark in (b"\xff\xfe", b"\xfe\xff"):
        if text.startswith(mark):
            raise fail(name, (1, 1), "the file is UTF-16: save it as UTF-8")
    try:
        source = text.decode("utf-8")
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8")
        place = Lines(before).place(len(before))
        raise fail(name, place, f"byte 0x{text[error.start]:02x} is not UTF-8: save the file as UTF-8") from None
    if source.startswith(_BOM):
        raise fail(name, (1, 1), "the file starts with a byte order mark: save it as UTF-8 without BOM")
    if "\0" in source:
        raise fail(name, Lines(source).place(source.index("\0")), "a NUL byte: this is not a text file")
    return source


def _guess(source: str) -> str:
    """The notation of a file without an ending that tells it, by its first line that says something."""
    for line in source.splitlines():
        first = line.strip()
        if first and not first.startswith("#"):
            if first.startswith("{"):
                return "json"
            return "toml" if re.match(r"\[|[^:\s]+\s*=", first) else "yaml"
    return "toml"


def _locator(source: str, scan: Callable[[str], dict[Path, int]]) -> Locate:
    """Finds places in `source`; the first question scans it."""
    found: list[tuple[Lines, dict[Path, int]]] = []

    def locate(path: Path) -> Place:
        if not found:
            found.append((Lines(source), scan(source)))
        lines, places = found[0]
        return lines.place(nearest(places, path))

    return locate


def _check_depth(root: object, name: str) -> None:
    level: list[object] = [root]
    for _ in range(DEEPEST):
        level = [item for each in level for item in _inside(each)]
        if not level:
            return
    raise fail(name, (1, 0), f"nested more than {DEEPEST} levels deep")


def _inside(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()


def _toml(source: str, name: str) -> Document:
    import tomllib

    source = source.replace("\r\n", "\n")
    try:
        root: object = tomllib.loads(source, parse_float=lambda text: Written(text, float(text)))
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(source, name, str(error)) from None
    except RecursionError:
        raise fail(name, (1, 0), f"nested more than {DEEPEST} levels deep") from None
    except ValueError as error:  # an int of thousands of digits, a date such as 2024-13-01
        raise fail(name, (1, 0), f"not valid TOML: {error}") from None
    _check_depth(root, name)
    return Document(root, _locator(source, toml_places))


def _toml_error(source: str, name: str, message: str) -> errors.JobFileError:
    found = _TOML_PLACE.search(message)
    place = Lines(source).place(len(source.rstrip()))
    if found is not None:
        message = message[: found.start()]
        place = (int(found[1]), int(found[2])) if found[1] else place
    if message.startswith(("Cannot overwrite a value", "Cannot declare", "Cannot redefine", "Duplicate")):
        message = "this key or table is there twice"
    elif message.startswith("Cannot mutate"):
        message = "this table is complete already: it can not be added to"
    else:
        message = f"not valid TOML: {message}"
    return fail(name, place, message)


def _json(source: str, name: str, problems: Problems) -> Document:
    import json

    locate = _locator(source, json_places)
    twice: list[str] = []

    def pairs(entries: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(entries)
        if len(table) < len(entries):
            twice.append("")
        return table

    def constant(word: str) -> object:
        raise ValueError(word)

    try:
        root: object = json.loads(
            source,
            object_pairs_hook=pairs,
            parse_int=lambda text: Written(text, int(text) if len(text) < 400 else float(text)),
            parse_float=lambda text: Written(text, float(text)),
            parse_constant=constant,
        )
    except json.JSONDecodeError as error:
        raise fail(name, (error.lineno, error.colno), f"not valid JSON: {error.msg}") from None
    except RecursionError:
        raise fail(name, (1, 0), f"nested more than {DEEPEST} levels deep") from None
    except ValueError as error:
        raise fail(name, (1, 0), f"not valid JSON: {error} is no number") from None
    _check_depth(root, name)
    if twice:
        for path, offset in json_twice(source):
            problems.add(path, "this key is there twice", Lines(source).place(offset))
    return Document(root, locate)
