"""Values of a job file that come from the command line: `--set KEY=VALUE`. Pure.

    env.NAME=TEXT            in [defaults], and over what a job has of its own
    matrix.AXIS=A,B          this axis, in every job that has it
    defaults.KEY=VALUE       and jobs.NAME.KEY, rootfs.NAME.KEY, …: what stands at this place of the file

A value is read as in YAML's flow of words: a number, true or false is one; a list, a table or a quoted text is TOML's; anything
else is a text. What a value has to be is said by whoever reads the file; how it gets there is in `placing`.
"""

from __future__ import annotations

import re

from guntainer import errors
from guntainer.jobs.parse import DEEPEST, Written, resolve
from guntainer.jobs.values import check_text, near, quoted
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from guntainer.jobs.problems import Path

    Table = dict[str, object]

_PART = re.compile(r"""([A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')(?:\.|$)""")
_NAMED = ("jobs", "rootfs", "secrets", "services")
_TOP = ("name", "description", "max-parallel", "fail-fast", "timeout")
_ROOTS = ("env", "matrix", "defaults", *_NAMED, *_TOP)
_EXAMPLES = "env.NAME=TEXT, matrix.AXIS=A,B, defaults.KEY=VALUE or jobs.NAME.KEY=VALUE"
_ENV, _MATRIX = "env", "matrix"
_RESERVED = ("include", "exclude")


class Setting(Value):
    """One --set."""

    shown: str
    """As it was given."""
    key: str
    """What is to the left of the equals sign."""
    value: str

    def wrong(self, why: str) -> NoReturn:
        raise errors.UsageError(f"--set {self.told}: {why}")

    @property
    def told(self) -> str:
        """As it stands in a message."""
        return quoted(self.shown)[1:-1]


def parse(text: str) -> Setting:
    """`KEY=VALUE`.

    Raises:
        UsageError: it is something else.
    """
    key, equals, value = text.partition("=")
    setting = Setting(shown=text, key=key.strip(), value=value)
    if not equals or not setting.key:
        setting.wrong(f"expected {_EXAMPLES}")
    try:
        check_text(text)
    except errors.UsageError as error:
        setting.wrong(error.message)
    root = re.split(r"[.]", setting.key, maxsplit=1)[0].replace("_", "-")
    if root not in _ROOTS:
        setting.wrong(f"{quoted(root)} can not be set{near(root, _ROOTS)}: expected {_EXAMPLES}")
    if (root in _TOP) == ("." in setting.key):
        setting.wrong(f"expected {root}=VALUE" if root in _TOP else f"expected {_EXAMPLES}")
    return setting


def changes(root: Table, setting: Setting) -> list[tuple[Path, object]]:
    """What a setting puts into a document, and where.

    Raises:
        UsageError: it does not fit to it.
    """
    first, dot, rest = setting.key.partition(".")
    first = first.replace("_", "-")
    if first == _ENV:
        return _variable(root, setting, rest)
    if first == _MATRIX:
        return _axis(root, setting, rest)
    if not dot:
        return [((spelled(root, first),), _value(setting))]
    path: list[str] = [first]
    if first in _NAMED:
        name, rest = _name(root, first, setting, rest)
        path.append(name)
    path += _parts(setting, rest)
    if "extends" in path:
        setting.wrong("what a job or a file extends can not be set")
    return [(_known(root, path), _at(path, setting))]


def _at(path: list[str], setting: Setting) -> object:
    """What the value means at this place."""
    named = path[0] in _NAMED and len(path) == 3
    above = "" if named else path[-2]
    if above == _ENV:
        return setting.value
    return _values(setting) if above == _MATRIX and path[-1] not in _RESERVED else _value(setting)


def _parts(setting: Setting, text: str) -> list[str]:
    """`a."b.c".d`, a key as TOML has it, in its parts."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            break
        parts.append(found[1].strip("\"'") if found[1][0] in "\"'" else found[1])
        at = found.end()
    if at < len(text) or not parts or text.endswith("."):
        setting.wrong(f"{quoted(text)} is no key: expected {_EXAMPLES}")
    return parts


def _name(root: Table, first: str, setting: Setting, rest: str) -> tuple[str, str]:
    """The name in [jobs.NAME] that `rest` begins with, and what comes after it; a name may have dots of its own."""
    table = root.get(first)
    names = [str(name) for name in table] if isinstance(table, dict) else []
    for name in sorted(names, key=len, reverse=True):
        for form in (name, f'"{name}"'):
            if rest.startswith(f"{form}.") and len(rest) > len(form) + 1:
                return name, rest[len(form) + 1 :]
    shown = _parts(setting, rest)[0]
    if shown in names:
        setting.wrong(f"expected {first}.{shown}.KEY=VALUE")
    setting.wrong(f"there is no {quoted(shown)} in [{first}]{near(shown, names)}")


def spelled(table: object, key: str) -> str:
    """`key` as the table has it: some write it with underscores."""
    if not isinstance(table, dict) or key in table:
        return key
    return next((each for each in table if each.replace("_", "-") == key.replace("_", "-")), key)


def _known(root: Table, path: list[str]) -> Path:
    """`path` as the file spells it."""
    found: list[str] = []
    here: object = root
    for part in path:
        named = found[-1:] in ([_ENV], [_MATRIX]) or (len(found) == 1 and found[0] in _NAMED)
        found.append(part if named else spelled(here, part))
        here = here.get(found[-1]) if isinstance(here, dict) else None
    return tuple(found)


def _variable(root: Table, setting: Setting, name: str) -> list[tuple[Path, object]]:
    changes: list[tuple[Path, object]] = []
    defaults = root.get("defaults", {})
    if isinstance(defaults, dict) and isinstance(defaults.get(_ENV, {}), dict):
        changes.append((("defaults", _ENV, name), setting.value))
    for key, job in _jobs(root):
        env = job.get(_ENV)
        if isinstance(env, dict) and name in env:
            changes.append((("jobs", key, _ENV, name), setting.value))
    return changes


def _axis(root: Table, setting: Setting, axis: str) -> list[tuple[Path, object]]:
    values = _values(setting)
    axes: dict[str, None] = {}
    changes: list[tuple[Path, object]] = []
    for key, job in _jobs(root):
        matrix = job.get(_MATRIX)
        if isinstance(matrix, dict):
            axes.update(dict.fromkeys(each for each in matrix if each not in _RESERVED))
            if axis in matrix and axis not in _RESERVED:
                changes.append((("jobs", key, _MATRIX, axis), values))
    if not changes and isinstance(root.get("jobs"), dict):
        setting.wrong(f"no job has an axis {quoted(axis)} in its matrix{near(axis, axes)}")
    return changes


def _jobs(root: Table) -> list[tuple[str, Table]]:
    jobs = root.get("jobs")
    return [(key, job) for key, job in jobs.items() if isinstance(job, dict)] if isinstance(jobs, dict) else []


def _values(setting: Setting) -> list[object]:
    """`a,b`, or a list as TOML has it, where a value has a comma of its own."""
    if setting.value.lstrip().startswith("["):
        found = _value(setting)
        if isinstance(found, list):
            return found or setting.wrong("the axis is empty: expected at least one value")
    values: list[object] = [each.strip() for each in setting.value.split(",")]
    if not all(values):
        setting.wrong("expected values with commas between them, such as matrix.python=3.11,3.12")
    return values


def _value(setting: Setting) -> object:
    text = setting.value
    if not text.strip() or text.strip() == "null":
        return text
    if text.lstrip()[:1] in ("[", "{", '"', "'"):
        found = _toml(text)
        if found is not None:
            return found
    return resolve(text)


def _toml(text: str) -> object:
    """What TOML makes of a value; None where it is none."""
    import tomllib

    try:
        table = tomllib.loads(f"value = {text}", parse_float=lambda number: Written(number, float(number)))
    except (ValueError, RecursionError):
        return None
    return table["value"] if len(table) == 1 and _depth(table) < DEEPEST else None


def _depth(value: object) -> int:
    inside = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return 1 + max(map(_depth, inside), default=0)
