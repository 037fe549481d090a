"""The matrix of a GitHub workflow's job, as a job file has it: the same semantics, less what no cell can be made of. Pure."""

from __future__ import annotations

from guntainer.jobs.matrix import expand, read_matrix, scalar_text
from guntainer.jobs.problems import Given, Problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.jobs.problems import Path

    Warn = Callable[[Path, str], None]
    Axes = dict[str, object]

OTHER_SYSTEMS = ("windows", "macos")


def is_other_system(runner: str) -> bool:
    """Whether a runner's name is that of one without Linux."""
    return runner.lower().startswith(OTHER_SYSTEMS)


def _text(value: object) -> str | None:
    text = scalar_text(value)
    return None if text is None or "${{" in text else text


def read(matrix: object, path: Path, warn: Warn, runner: str) -> Axes:
    """The axes, `include` and `exclude` that have a meaning here.

    Args:
        runner: the axis that `runs-on` refers to, "" none: its values for other systems are left out.
    """
    if not isinstance(matrix, dict):
        warn(path, "left out: it is made while the workflow runs")
        return {}
    axes: Axes = {}
    for name, values in matrix.items():
        if name in ("include", "exclude"):
            continue
        found = _axis(values, (*path, name), warn, systems=name == runner)
        if found:
            axes[name] = found
    exclude = _entries(matrix.get("exclude"), (*path, "exclude"), warn, "")
    # an exclude of what is not there excludes nothing
    exclude = [one for one in exclude if all(value in axes.get(name, ()) for name, value in one.items())]  # type: ignore[operator]
    include = _entries(matrix.get("include"), (*path, "include"), warn, runner)
    if exclude:
        axes["exclude"] = exclude
    if include:
        axes["include"] = include
    return axes


def _axis(values: object, path: Path, warn: Warn, *, systems: bool) -> list[str]:
    if not isinstance(values, list):
        warn(path, "left out: it is no list of values")
        return []
    found: dict[str, None] = {}
    for number, value in enumerate(values):
        text = _text(value)
        if text is None:
            warn((*path, number), "left out: it is no text or number")
        elif systems and is_other_system(text):
            warn((*path, number), f"left out: {text} is no Linux, and containers here are")
        else:
            found[text] = None
    return list(found)


def _entries(values: object, path: Path, warn: Warn, runner: str) -> list[dict[str, str]]:
    if values is None:
        return []
    if not isinstance(values, list):
        warn(path, "left out: it is made while the workflow runs")
        return []
    found: list[dict[str, str]] = []
    for number, item in enumerate(values):
        entry: dict[str, str] = {}
        for name, value in (item if isinstance(item, dict) else {}).items():
            text = _text(value)
            if text is None:
                warn((*path, number, name), "left out: it is no text or number")
            else:
                entry[name] = text
        if runner and is_other_system(entry.get(runner, "")):
            warn((*path, number), f"left out: {entry[runner]} is no Linux, and containers here are")
        elif entry:
            found.append(entry)
    return found


def names(axes: Axes) -> tuple[str, ...]:
    """Every name that an expression may use."""
    found = dict.fromkeys(name for name in axes if name not in ("include", "exclude"))
    include = axes.get("include")
    for entry in include if isinstance(include, list) else ():
        found.update(dict.fromkeys(entry))
    return tuple(found)


def everywhere(axes: Axes, name: str, value: str) -> Axes:
    """The matrix with `value` for `name` in every cell of the axes, or of `include` alone, that has none."""
    include = axes.get("include")
    entries: list[dict[str, str]] = list(include) if isinstance(include, list) else []
    if all(axis in ("include", "exclude") for axis in axes):
        return {**axes, "include": [entry if name in entry else {**entry, name: value} for entry in entries]}
    # an include of what no axis has extends every cell; those behind it may overwrite it
    return axes if name in axes else {**axes, "include": [{name: value}, *entries]}


def has_everywhere(axes: Axes, name: str) -> bool:
    """Whether every cell has a value for `name`."""
    if name in axes:
        return True
    problems = Problems()
    matrix = read_matrix(Given(value=axes, path=()), problems)
    cells = expand(matrix, problems) if matrix is not None else ()
    return bool(cells) and all(name in dict(cell.pairs) for cell in cells)
