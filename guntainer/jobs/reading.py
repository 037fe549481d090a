"""How a value of a job file is read, whatever key it stands under. Pure.

A reader takes a value as the file has it and returns it checked, or raises UsageError. Those of lists and tables tell of each
bad item by themselves and return the good ones.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.matrix import scalar_text
from guntainer.jobs.parse import is_text, meaning
from guntainer.jobs.problems import Given, Problems
from guntainer.jobs.values import check_text, near, quoted
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from guntainer.jobs.model import Secret, Source
    from guntainer.jobs.problems import Path

_MEANT = {
    "publish": "ports",
    "add-host": "add-hosts",
    "ulimit": "ulimits",
    "volume": "volumes",
    "mount": "volumes",
    "continue-on-error": "allow-failure",
    "depends-on": "needs",
    "timeout-minutes": "timeout",
    "retries": "retry",
}
"""What others call a key: options of `run` and docker, GitHub, GitLab."""
_OF_THE_BATCH = ("userns",)
"""Options of `run` that hold for a whole batch."""


class Context(Value):
    """What reading a job needs to know besides the job."""

    base: str
    """The job file's folder: absolute."""
    sources: dict[str, Source | None]
    """[rootfs.NAME]; None for one that is there but wrong, which is told elsewhere."""
    problems: Problems
    secrets: Mapping[str, Secret | None] | None = None
    """[secrets.NAME], as `sources`."""
    bases: Callable[[Path], str] | None = None
    """The folder that relative paths of the thing at a path are seen from; None: always `base`."""

    def at(self, path: Path) -> Context:
        """For the thing at `path`, which may have come from a file in another folder."""
        base = self.bases(path) if self.bases is not None else self.base
        return self if base == self.base else self.replace(base=base)


def open_table(given: Given, known: Iterable[str], problems: Problems) -> dict[str, Given]:
    """The entries of a table under their kebab-case names; everything that does not belong there is told."""
    if not isinstance(given.value, dict):
        problems.add(given.path, f"expected a table, got {kind_of(given.value)}")
        return {}
    found: dict[str, Given] = {}
    for key, value in given.value.items():
        name, path = key.replace("_", "-"), (*given.path, key)
        if name not in known:
            problems.add(path, f"unknown key{_instead(name, known)}")
        elif name in found:
            problems.add(path, f"this key is there twice, as {quoted(str(found[name].path[-1]))} too")
        else:
            found[name] = Given(value=value, path=path)
    return found


def _instead(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant by a key that is none, for a message; else an empty text."""
    if "rootfs" in known and name in _OF_THE_BATCH:
        return f": an option of the whole batch: guntainer batch --{name}"
    meant = _MEANT.get(name, "")
    return f" (did you mean {quoted(meant)}?)" if meant in known else near(name, known)


def kind_of(value: object) -> str:
    """What a value is, for a message."""
    value = meaning(value)
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else "a date"


def text(given: Given) -> str:
    """A text that is not empty."""
    if not is_text(given.value):
        hint = ": put it into quotes" if scalar_text(given.value) is not None else ""
        raise errors.UsageError(f"expected a text, got {kind_of(given.value)}{hint}")
    if not given.value:
        raise errors.UsageError("expected a text, got an empty one")
    return check_text(str(given.value))


def number_or_text(given: Given) -> str | int | float:
    value = given.value
    if isinstance(value, str) and scalar_text(value) is not None:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise errors.UsageError(f"expected a number or a text, got {kind_of(value)}")


def flag(given: Given) -> bool:
    value = meaning(given.value)
    if not isinstance(value, bool):
        raise errors.UsageError(f"expected true or false, got {kind_of(value)}")
    return value


def count(given: Given) -> int:
    value = meaning(given.value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise errors.UsageError(f"expected a whole number of at least 1, got {kind_of(value)}")
    return value


def number(given: Given) -> str | int | float:
    """A number, also one with a fraction, or the text of one."""
    value = meaning(given.value)
    return value if isinstance(value, float) else number_or_text(given)


def scalar(given: Given) -> str | int | float:
    """A number, or a text that is not empty."""
    return text(given) if is_text(given.value) else number_or_text(given)


def items(given: Given, context: Context, expected: str, read: Callable[[Given], object]) -> list[tuple[Path, object]]:
    """What `read` makes of each item of a list; a bad item is told and left out."""
    if not isinstance(given.value, list):
        raise errors.UsageError(f"expected a list{expected}, got {kind_of(given.value)}")
    found: list[tuple[Path, object]] = []
    for index, item in enumerate(given.value):
        here = Given(value=item, path=(*given.path, index))
        try:
            found.append((here.path, read(here)))
        except errors.UsageError as error:
            context.problems.add(here.path, error.message)
    return found
