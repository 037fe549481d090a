"""A job's matrix: its axes, excludes and includes become cells; `${{ matrix.NAME }}` becomes a cell's value.

The meaning is GitHub's (docs: "Running variations of jobs in a workflow"): the product in written order, then `exclude`
by partial match, then `include`, which extends each cell whose original values it does not overwrite, else adds a cell.
Otherwise than there, a typo is an error, not an empty text. Pure.
"""

from __future__ import annotations

import itertools
import math
import re
from binascii import crc32

from guntainer import errors
from guntainer.jobs.parse import Plain, resolve
from guntainer.jobs.problems import Given, Problems
from guntainer.jobs.values import near, quoted
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from guntainer.jobs.problems import Path

MAX_CELLS = 1024
_TRIED_PER_CELL = 64  # how much larger than the cap a product may be before `exclude` has cut it down
_LONGEST_TEXT = 1 << 20  # characters after the values are put in; the kernel takes less
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_REFERENCE = re.compile(r"\s*matrix\.([A-Za-z_][A-Za-z0-9_-]*)\s*")


class Entry(Value):
    """One table of `include` or `exclude`."""

    pairs: dict[str, str]
    path: Path


class Matrix(Value):
    """A matrix as it was written; all values are texts."""

    axes: dict[str, tuple[str, ...]]
    include: tuple[Entry, ...]
    exclude: tuple[Entry, ...]
    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that an expression may use."""
        found = dict.fromkeys(self.axes)
        for entry in self.include:
            found.update(dict.fromkeys(entry.pairs))
        return tuple(found)


class Cell(Value):
    """One combination of a matrix."""

    pairs: tuple[tuple[str, str], ...] = ()
    label: str = ""
    """What stands behind the job's key: ` (a, 1)`; empty without a matrix."""
    path: Path = ()
    """The include that made it, or the matrix."""


class _Draft:
    """A cell that includes may still extend."""

    def __init__(self, original: dict[str, str], path: Path) -> None:
        self.original = original
        self.values = dict(original)
        self.path = path


def scalar_text(value: object) -> str | None:
    """The text that a scalar was written with; None for lists, tables and nothing."""
    if isinstance(value, Plain) and value.value is None:
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    # a TOML date is a text that needs no quotes; a time of day has more than one way to be written
    return str(value) if type(value).__name__ == "date" else None


def read_matrix(given: Given, problems: Problems) -> Matrix | None:
    """The matrix of a job, or None and what is wrong with it."""
    value, path = given.value, given.path
    if not isinstance(value, dict) or not value:
        problems.add(path, 'expected a table of axes such as {distro = ["a", "b"]}')
        return None
    fine = True
    axes: dict[str, tuple[str, ...]] = {}
    for name, items in value.items():
        if name not in ("include", "exclude"):
            axis = _read_axis(name, items, (*path, name), problems)
            axes[name] = axis or ()
            fine = fine and axis is not None
    include = _read_entries(value, "include", path, problems)
    exclude = _read_entries(value, "exclude", path, problems)
    if not fine or include is None or exclude is None:
        return None
    for entry in exclude:
        for name in entry.pairs:
            if name not in axes:
                problems.add((*entry.path, name), f"{quoted(name)} is not an axis of this matrix{near(name, axes)}")
                fine = False
    return Matrix(axes=axes, include=include, exclude=exclude, path=path) if fine else None


def _read_axis(name: str, items: object, path: Path, problems: Problems) -> tuple[str, ...] | None:
    if _NAME.fullmatch(name) is None:
        problems.add(path, f"{quoted(name)} can not name an axis: expected letters, digits, _ and -")
        return None
    if not isinstance(items, list):
        problems.add(path, f"expected a list of values{near(name, ('include', 'exclude'))}")
        return None
    if not items:
        problems.add(path, "the axis is empty: expected at least one value")
        return None
    texts: dict[str, None] = {}
    for index, item in enumerate(items):
        text = _read_value(item, (*path, index), problems)
        if text is not None and text in texts:
            problems.add((*path, index), f"{quoted(text)} is in this axis twice")
        elif text is not None:
            texts[text] = None
    return tuple(texts) if len(texts) == len(items) else None


def _read_value(value: object, path: Path, problems: Problems) -> str | None:
    text = scalar_text(value)
    if text is None:
        problems.add(path, "expected a text, a number, true or false")
    elif "${{" in text:
        problems.add(path, "a value of the matrix can not refer to the matrix")
        return None
    return text


def _read_entries(value: dict[str, object], key: str, path: Path, problems: Problems) -> tuple[Entry, ...] | None:
    items = value.get(key, [])
    if not isinstance(items, list):
        problems.add((*path, key), 'expected a list of tables such as [{distro = "a"}]')
        return None
    entries: list[Entry] = []
    fine = True
    for index, item in enumerate(items):
        here = (*path, key, index)
        if not isinstance(item, dict) or not item:
            problems.add(here, 'expected a table such as {distro = "a"}')
            fine = False
            continue
        pairs: dict[str, str] = {}
        for name, each in item.items():
            if _NAME.fullmatch(name) is None:
                problems.add((*here, name), f"{quoted(name)} can not be a name: expected letters, digits, _ and -")
                fine = False
                continue
            text = _read_value(each, (*here, name), problems)
            fine = fine and text is not None
            pairs[name] = text or ""
        entries.append(Entry(pairs=pairs, path=here))
    return tuple(entries) if fine else None


def expand(matrix: Matrix, problems: Problems, max_cells: int = MAX_CELLS) -> tuple[Cell, ...]:
    """The cells of a matrix, in written order; none where a problem was found."""
    product = math.prod(len(values) for values in matrix.axes.values()) if matrix.axes else 0
    if product > max_cells * _TRIED_PER_CELL:
        problems.add(matrix.path, f"the matrix has {product} cells, more than {max_cells}")
        return ()
    drafts = _kept(matrix, problems)
    drafts += _included(matrix, drafts)
    if not drafts:
        problems.add((*matrix.path, "exclude") if matrix.exclude else matrix.path, "no cell of the matrix is left")
    if len(drafts) > max_cells:
        problems.add(matrix.path, f"the matrix has {len(drafts)} cells, more than {max_cells}")
        return ()
    return tuple(_cell(draft) for draft in drafts)


def _kept(matrix: Matrix, problems: Problems) -> list[_Draft]:
    used: set[int] = set()
    drafts: list[_Draft] = []
    for values in itertools.product(*matrix.axes.values()) if matrix.axes else ():
        cell = dict(zip(matrix.axes, values, strict=True))
        hits = [n for n, entry in enumerate(matrix.exclude) if entry.pairs.items() <= cell.items()]
        used.update(hits)
        if not hits:
            drafts.append(_Draft(cell, matrix.path))
    for n, entry in enumerate(matrix.exclude):
        if n not in used:
            problems.warn(entry.path, "this exclude matches no cell")
    return drafts


def _included(matrix: Matrix, drafts: list[_Draft]) -> list[_Draft]:
    """Extends `drafts` by the includes that fit; returns the cells of those that fit nowhere."""
    added: list[_Draft] = []
    for entry in matrix.include:
        fitting = [d for d in drafts if all(d.original.get(k, v) == v for k, v in entry.pairs.items())]
        for draft in fitting:
            draft.values.update(entry.pairs)
        if not fitting:
            added.append(_Draft(dict(entry.pairs), entry.path))
    return added


def _shortened(text: str) -> str:
    """A value in a job's name: a long one by its beginning and its checksum, since the name is repeated for each job."""
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}~{crc32(text.encode('utf-8', 'surrogatepass')):08x}"


_SHOWN = 100


def _cell(draft: _Draft) -> Cell:
    shown = (_shortened(" ".join(value.split())) for value in draft.original.values())
    return Cell(pairs=tuple(draft.values.items()), label=f" ({', '.join(shown)})", path=draft.path)


def has_expression(value: object) -> bool:
    """Whether a value, or anything in it, depends on the matrix."""
    if isinstance(value, str):
        return "${{" in value
    if isinstance(value, list):
        return any(has_expression(item) for item in value)
    return isinstance(value, dict) and any(has_expression(item) for item in value.values())


def fill(value: object, cell: Cell, names: tuple[str, ...] | None, path: Path, problems: Problems) -> object:
    """`value` with the cell's values put in; what is wrong goes to `problems`.

    Args:
        names: every name of the job's matrix; None: the job has no matrix.
    """
    if isinstance(value, list):
        return [fill(item, cell, names, (*path, n), problems) for n, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: fill(item, cell, names, (*path, key), problems) for key, item in value.items()}
    if not isinstance(value, str) or "${{" not in value:
        return value
    try:
        text = "".join(_filled(value, dict(cell.pairs), names))
    except errors.UsageError as error:
        problems.add(path, error.message)
        return BROKEN
    if _EXPRESSION.fullmatch(value) is None:
        return text
    # `repeat = "${{ matrix.n }}"` is a number where one is wanted; "null" has no such second meaning
    resolved = resolve(text)
    return text if isinstance(resolved, Plain) and resolved.value is None else resolved


class _Broken:
    """Stands for a text whose problem has been told, so that it is not told twice."""


BROKEN = _Broken()


def is_broken(value: object) -> bool:
    if isinstance(value, list):
        return any(is_broken(item) for item in value)
    return value is BROKEN or (isinstance(value, dict) and any(is_broken(item) for item in value.values()))


def _filled(text: str, values: dict[str, str], names: tuple[str, ...] | None) -> Iterator[str]:
    """The parts of `text`; an expression that a cell has no value for is empty, as on GitHub."""
    end, length = 0, 0
    for found in _EXPRESSION.finditer(text):
        before = text[end : found.start()]
        end = found.end()
        value = values.get(_name(found[1], names), "")
        length += len(before) + len(value)
        if length > _LONGEST_TEXT:
            raise errors.UsageError("the text grows too long when the values of the matrix are put in")
        yield before
        yield value
    if "${{" in text[end:]:
        raise errors.UsageError('"${{" without its "}}": expected "${{ matrix.NAME }}"')
    yield text[end:]


def _name(expression: str, names: tuple[str, ...] | None) -> str:
    found = _REFERENCE.fullmatch(expression)
    shown = quoted("${{" + expression + "}}")
    if found is None:
        raise errors.UsageError(f'{shown} is not an expression: expected "${{{{ matrix.NAME }}}}"')
    check_name(found[1], names, shown)
    return found[1]


def check_name(name: str, names: tuple[str, ...] | None, shown: str) -> None:
    """Raise UsageError where a job's matrix has no such name.

    Args:
        names: every name of the matrix; None: the job has none.
        shown: what refers to it, for the message.
    """
    if names is None:
        raise errors.UsageError(f"{shown}: this job has no matrix")
    if name not in names:
        known = ", ".join(names)
        raise errors.UsageError(f"{shown}: the matrix has no {quoted(name)}, only {known}{near(name, names)}")
