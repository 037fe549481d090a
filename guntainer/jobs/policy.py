"""Which jobs wait for which, whether one runs then, and what its failure means: the keys for it, and how they make a graph. Pure.

    setup jobs  →  ordinary jobs, each after those that it needs  →  teardown jobs

A job's `needs` names jobs of the file, and becomes ids once all of them are known. Jobs with the same needs share one tuple, and
what goes through all jobs goes through each of these tuples once: 10,000 jobs that need 10,000 others are no 10^8 steps.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs import conditions
from guntainer.jobs.matrix import scalar_text
from guntainer.jobs.model import RETRY_ON, STAGES, Retry
from guntainer.jobs.parse import is_text, meaning
from guntainer.jobs.problems import Given
from guntainer.jobs.reading import Context, flag, items, kind_of, number_or_text, open_table, text
from guntainer.jobs.values import near, parse_duration, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeVar

    from guntainer.jobs.matrix import Cell
    from guntainer.jobs.model import Job
    from guntainer.jobs.problems import Path, Problems

    _T = TypeVar("_T")
    Names = tuple[tuple[Path, str], ...]
    """What a key names, and where each of it stands."""

SETUP, TEARDOWN = STAGES[1:]
ALWAYS = conditions.ALWAYS
MOST_ATTEMPTS = 100
MOST_PRIORITY = 1000
_MOST_HINTS = 20  # looking for what somebody may have meant takes long where there are many jobs
_SHOWN = 10  # jobs of a circle
_ON = {"failure": "exit", "failed": "exit", "error": "setup", "pids-limit": "exit", "memory": "oom", "killed": "signal"}
"""How jobs end, in other words than those of `retry.on`."""


# -- the keys


def names(example: str) -> Callable[[Given, Context], Names]:
    """A reader of one name, or a list of them.

    Args:
        example: of a name, for messages.
    """

    def read(given: Given, context: Context) -> Names:
        if is_text(given.value):
            return ((given.path, text(given)),)
        expected = f' such as ["{example}"], or a text'
        return tuple((path, str(name)) for path, name in items(given, context, expected, text))

    return read


def condition(given: Given, _context: Context) -> conditions.Condition:
    """`if`; the values of the matrix are still to be put in."""
    written = given.value
    if isinstance(meaning(written), bool):
        written = scalar_text(written)
    if not is_text(written) or not str(written).strip():
        raise errors.UsageError(f'expected a condition such as "{ALWAYS}", got {kind_of(given.value)}')
    return conditions.parse(str(written), references=True)


def filled(found: conditions.Condition, cell: Cell, known: tuple[str, ...] | None) -> str:
    """The condition of a cell's job, in its normal form.

    Args:
        known: every name of the job's matrix; None: the job has no matrix.

    Raises:
        UsageError: the matrix has no such name.
    """
    return str(found.filled(dict(cell.pairs), known))


def stage(given: Given, _context: Context) -> str:
    found = text(given)
    if found not in (SETUP, TEARDOWN):
        raise errors.UsageError(
            f'expected "{SETUP}" or "{TEARDOWN}", got {quoted(found)}{near(found, (SETUP, TEARDOWN))}'
        )
    return found


def allow_failure(given: Given, _context: Context) -> bool:
    """A cell that has no value for an expression here is "": its failure counts, as on GitHub."""
    return False if given.value == "" else flag(given)


def priority(given: Given, _context: Context) -> int:
    return _whole(given, -MOST_PRIORITY, MOST_PRIORITY)


def _whole(given: Given, least: int, most: int) -> int:
    value = meaning(given.value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise errors.UsageError(f"expected a whole number from {least} to {most}, got {kind_of(value)}")
    return value


def retry(given: Given, context: Context) -> Retry:
    """A number: how many further attempts there are. Or {attempts, backoff, on}: how many in all, and when."""
    if not isinstance(given.value, dict):
        return Retry(attempts=_whole(given, 0, MOST_ATTEMPTS - 1) + 1)
    keys = open_table(given, ("attempts", "backoff", "on"), context.problems)
    if "attempts" not in keys:
        raise errors.UsageError("attempts is missing: expected how often to try in all, such as 3")

    def read(key: str, how: Callable[[Given], _T], default: _T) -> _T:
        try:
            return how(keys[key]) if key in keys else default
        except errors.UsageError as error:
            context.problems.add(keys[key].path, error.message)
            return default

    return Retry(
        attempts=read("attempts", lambda each: _whole(each, 1, MOST_ATTEMPTS), 1),
        backoff_s=read("backoff", lambda each: parse_duration(number_or_text(each)), 0.0),
        on=read("on", lambda each: _retry_on(each, context), RETRY_ON),
    )


def _retry_on(given: Given, context: Context) -> tuple[str, ...]:
    def read(item: Given) -> str:
        word = text(item)
        if word not in RETRY_ON:
            meant = f' (did you mean "{_ON[word]}"?)' if word in _ON else near(word, RETRY_ON)
            raise errors.UsageError(f"expected {', '.join(RETRY_ON[:-1])} or {RETRY_ON[-1]}, got {quoted(word)}{meant}")
        return word

    if is_text(given.value):
        return (read(given),)
    if given.value == []:
        raise errors.UsageError(f"the list is empty: expected at least one of {', '.join(RETRY_ON)}")
    return tuple(dict.fromkeys(str(word) for _, word in items(given, context, ' such as ["timeout"]', read)))


# -- the graph


class Node:
    """A job to be, with what it asks for."""

    __slots__ = ("cell", "id", "key", "stage", "wanted")

    def __init__(self, *, id: str, key: str, cell: str, stage: str, wanted: Names) -> None:  # noqa: A002
        self.id = id
        self.key = key
        self.cell = cell
        """The id without what `repeat` adds."""
        self.stage = stage
        self.wanted = wanted
        """Of `needs`."""


class Graph:
    """The needs of all jobs of a file.

    Args:
        nodes: in the order of the file.
        keys: of every job in the file: templates, and those that made no node because something is wrong with them, as well.
        problems: takes what is wrong with the needs.
    """

    def __init__(self, nodes: Sequence[Node], keys: Iterable[str], problems: Problems) -> None:
        self._nodes = {node.id: node for node in nodes}
        self._problems = problems
        self._named: dict[str, list[str]] = {}
        for node in nodes:
            for name in {node.key, node.cell, node.id}:
                self._named.setdefault(name, []).append(node.id)
        self._broken = frozenset(keys).difference(self._named)
        self._hints = 0
        self._unknown: dict[str, str] = {}
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._resolved: dict[tuple[bool, tuple[str, ...]], tuple[str, ...]] = {}
        self._setup = self._one(tuple(node.id for node in nodes if node.stage == SETUP))
        self._before_teardown = self._one(tuple(node.id for node in nodes if node.stage != TEARDOWN))

    def needs(self) -> dict[str, tuple[str, ...]]:
        """The ids that each job needs, by its own id; what makes no sense is told and left out."""
        found = {id_: self._of(node) for id_, node in self._nodes.items()}
        _Circles(self._nodes, found, self._problems).tell()
        return found

    def _of(self, node: Node) -> tuple[str, ...]:
        wanted = tuple(name for path, name in node.wanted if self._fits(node, path, name))
        if node.stage == TEARDOWN:
            return self._before_teardown
        key = (node.stage == SETUP, wanted)
        found = self._resolved.get(key)
        if found is None:
            ids = tuple(dict.fromkeys(id_ for name in wanted for id_ in self._named[name]))
            found = self._resolved[key] = self._one(ids if node.stage == SETUP else self._after_setup(ids))
        return found

    def _one(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        """The one tuple for all that need the same."""
        return self._shared.setdefault(ids, ids)

    def _after_setup(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        """What an ordinary job needs: every setup job, unless it waits for another ordinary job, which does."""
        return ids if any(self._nodes[id_].stage != SETUP for id_ in ids) else self._setup

    def _fits(self, node: Node, path: Path, name: str) -> bool:
        """Whether a job can need what is called `name`; why not is told."""
        there = self._nodes[self._named[name][0]].stage if name in self._named else None
        why = ""
        if there is None:
            why = self._why_unknown(name)
        elif name in (node.key, node.cell, node.id):
            why = "a job can not need itself"
        elif there == TEARDOWN:
            why = f"{quoted(name)} is a teardown job: it runs after all others, so that none can need it"
        elif there != SETUP and node.stage == SETUP:
            why = f"{quoted(name)} is no setup job: it runs after all of those, so that none of them can need it"
        if why:
            self._problems.add(path, why)
        return not why and there is not None

    def _why_unknown(self, name: str) -> str:
        if name in self._broken and name.startswith("."):
            return f"{quoted(name)} is a template: it is never run"
        if name.partition(" ")[0] in self._broken:
            return ""  # it is there, and what is wrong with it is told
        if name not in self._unknown:
            self._hints += 1
            hint = near(name, self._named) if self._hints <= _MOST_HINTS else ""
            self._unknown[name] = f"there is no job {quoted(name)}{hint}"
        return self._unknown[name]


class _Circles:
    """Jobs that need each other: depth first, jobs and the tuples of what they need in turns, each of them entered once."""

    def __init__(self, nodes: Mapping[str, Node], needs: Mapping[str, tuple[str, ...]], problems: Problems) -> None:
        self._nodes = nodes
        self._needs = needs
        self._problems = problems
        self._order = {id_: number for number, id_ in enumerate(nodes)}
        self._done: set[str] = set()
        self._entered: set[int] = set()
        """Each tuple, by its identity."""
        self._told: set[int] = set()
        """Tuples of circles that have been told of."""

    def tell(self) -> None:
        """Tell of the circles; of those that have a tuple in common, of one at least."""
        for start in self._nodes:
            self._walk(start)

    def _walk(self, start: str) -> None:
        way: list[str] = []
        ahead: list[Iterator[str]] = [iter((start,))]
        place: dict[str, int] = {}
        opened: dict[int, int] = {}  # a tuple on the way → the place of the job that came to it first
        while ahead:
            id_ = next(ahead[-1], None)
            if id_ is None:
                ahead.pop()
                if way:
                    last = way.pop()
                    del place[last], opened[id(self._needs[last])]
                    self._done.add(last)
            elif id_ in place:
                if id(self._needs[way[-1]]) not in self._told:
                    self._found(way[place[id_] :])
            elif id_ not in self._done:
                mark = id(self._needs[id_])
                if mark not in self._entered:
                    self._entered.add(mark)
                    place[id_] = opened[mark] = len(way)
                    way.append(id_)
                    ahead.append(iter(self._needs[id_]))
                    continue
                self._done.add(id_)
                if mark in opened:
                    self._found([*way[opened[mark] + 1 :], id_])

    def _found(self, circle: list[str]) -> None:
        marks = {id(self._needs[id_]) for id_ in circle}
        if self._told.isdisjoint(marks):
            self._tell_one(circle)
        self._told |= marks

    def _tell_one(self, circle: list[str]) -> None:
        """Tell it at the job of it that comes first in the file."""
        first = min(range(len(circle)), key=lambda index: self._order[circle[index]])
        circle = circle[first:] + circle[:first]
        shown = [*circle, circle[0]]
        if len(shown) > _SHOWN:
            shown[_SHOWN - 2 : -1] = [f"… ({len(shown) - _SHOWN + 1} more)"]
        node, after = self._nodes[circle[0]], self._nodes[circle[1]]  # itself is told of before
        path = next(path for path, name in node.wanted if name in (after.id, after.cell, after.key))
        self._problems.add(path, f"jobs that need each other: {' needs '.join(shown)}")


# -- part of a graph


def closure(jobs: Sequence[Job], ids: Iterable[str]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
    """The jobs with these ids and all that has to run with them; the ids of what was added.

    What a job needs comes with it, and what that needs, setup jobs among it. Teardown jobs come with any other job; what they
    need is cut to what is there, so that one of them can also run alone.
    """
    by_id = {job.id: job for job in jobs}
    chosen = dict.fromkeys(id_ for id_ in ids if id_ in by_id)
    kept = {id_: None for id_ in chosen if by_id[id_].stage != TEARDOWN}
    waiting = list(kept)
    done: set[int] = set()
    while waiting:
        needs = by_id[waiting.pop()].needs
        if id(needs) in done:
            continue
        done.add(id(needs))
        new = [id_ for id_ in needs if id_ in by_id and id_ not in kept]
        kept.update(dict.fromkeys(new))
        waiting += new
    torn = {job.id for job in jobs if job.stage == TEARDOWN and (kept or job.id in chosen)}
    found = without(jobs, kept.keys() | torn)
    return found, tuple(job.id for job in found if job.id not in chosen)


def without(jobs: Sequence[Job], ids: Iterable[str]) -> tuple[Job, ...]:
    """The jobs with these ids alone: what they need of the others counts as done."""
    chosen = frozenset(ids)
    cut: dict[int, tuple[str, ...]] = {}
    found: list[Job] = []
    for job in jobs:
        if job.id not in chosen:
            continue
        needs = cut.get(id(job.needs))
        if needs is None:
            left = tuple(id_ for id_ in job.needs if id_ in chosen)
            needs = cut[id(job.needs)] = job.needs if len(left) == len(job.needs) else left
        found.append(job if needs is job.needs else job.replace(needs=needs))
    return tuple(found)
