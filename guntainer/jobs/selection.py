"""Which jobs of a file are meant: by name, by the values of their matrix, by how they ended before, by shard. Pure.

One selection narrows the next: --only, --matrix, --rerun-failed, then --shard, which counts what is left. What a chosen job
needs comes with it at the end: see `jobs.policy.closure`.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs import policy
from guntainer.jobs.names import select
from guntainer.jobs.values import near, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from guntainer.jobs.model import Job

GOOD = ("ok", "flaky")
"""Outcomes that are not run again."""
_SKIPPED = "skipped"
_MOST_SHARDS = 10_000
_SHOWN = 20  # values of an axis in a message


def chosen(jobs: Sequence[Job], only: Iterable[str], matrix: Sequence[str]) -> tuple[Job, ...]:
    """The jobs that --only and --matrix mean: both must hold.

    Raises:
        UsageError: an option matches nothing, or no job matches them together.
    """
    only = tuple(only)
    found = select(jobs, only) if only else tuple(jobs)
    if not matrix:
        return found
    cells = by_matrix(jobs, matrix)
    ids = {job.id for job in cells}
    both = tuple(job for job in found if job.id in ids)
    if not both:
        given = " ".join([*(f"--only {text}" for text in only), *(f"--matrix {text}" for text in matrix)])
        raise errors.UsageError(f"no job matches {given} together", hint="see guntainer batch --list")
    return both


def by_matrix(jobs: Sequence[Job], texts: Iterable[str]) -> tuple[Job, ...]:
    """The jobs whose cell has a value: of one axis, any of those given; of several axes, of each.

    Args:
        texts: `axis:value`; only the first colon parts them.

    Raises:
        UsageError: one of them is no axis or value of any job, or no cell has all of them.
    """
    texts = tuple(texts)
    wanted: dict[str, set[str]] = {}
    values = _axes(jobs)
    for text in texts:
        axis, value = _pair(text, values)
        wanted.setdefault(axis, set()).add(value)
    found = tuple(job for job in jobs if _has(job, wanted))
    if not found:
        raise errors.UsageError(f"no job matches {' '.join(f'--matrix {text}' for text in texts)} together")
    return found


def _axes(jobs: Iterable[Job]) -> dict[str, dict[str, None]]:
    """The values of each axis, in written order."""
    found: dict[str, dict[str, None]] = {}
    for job in jobs:
        for axis, value in job.matrix:
            found.setdefault(axis, {})[value] = None
    return found


def _pair(text: str, values: Mapping[str, Mapping[str, None]]) -> tuple[str, str]:
    axis, colon, value = text.partition(":")
    if not colon:
        raise errors.UsageError(f"--matrix {text}: expected AXIS:VALUE, such as {_example(values)}")
    if not values:
        raise errors.UsageError(f"--matrix {text}: no job has a matrix")
    if axis not in values:
        raise errors.UsageError(
            f"--matrix {text}: no matrix has {quoted(axis)}, only {_listed(values)}{near(axis, values)}"
        )
    known = values[axis]
    if value not in known:
        raise errors.UsageError(
            f"--matrix {text}: {axis} is never {quoted(value)}, only {_listed(known)}{near(value, known)}"
        )
    return axis, value


def _example(values: Mapping[str, Mapping[str, None]]) -> str:
    return next((f"{axis}:{value}" for axis, known in values.items() for value in known), "os:alpine")


def _listed(words: Iterable[str]) -> str:
    shown = [quoted(word)[1:-1] for word in words]
    return ", ".join([*shown[:_SHOWN], *(["…"] if len(shown) > _SHOWN else [])])


def _has(job: Job, wanted: Mapping[str, Collection[str]]) -> bool:
    cell = dict(job.matrix)
    return all(cell.get(axis) in values for axis, values in wanted.items())


def not_good(jobs: Sequence[Job], last: Mapping[str, str]) -> tuple[Job, ...]:
    """The jobs that were not good last time: those of which nothing is known are not meant.

    A job that was skipped is meant where any job failed: alone it says no more than that its condition did not hold.

    Args:
        last: outcomes by id.
    """
    bad = tuple(job for job in jobs if last.get(job.id, "ok") not in GOOD)
    if all(outcome in (*GOOD, _SKIPPED) for outcome in last.values()):
        return ()
    return bad


def shard(jobs: Sequence[Job], text: str) -> tuple[Job, ...]:
    """The I-th of N parts, for `I/N`: every N-th job, from the I-th on.

    Only the position counts, so that machines which know different things agree: the parts have no job in common, and together
    they are all. Setup and teardown jobs are in none of them: they come with those that need them. Where there are no
    others, they are what is parted.

    Raises:
        UsageError: it is no such text.
    """
    first, slash, second = text.partition("/")
    number, count = (
        int(word) if word.isascii() and word.isdecimal() and len(word) < 9 else 0 for word in (first, second)
    )
    if not slash or not 1 <= count <= _MOST_SHARDS or number < 1:
        raise errors.UsageError(f"--shard {text}: expected I/N such as 1/4: the first of four parts")
    if number > count:
        raise errors.UsageError(f"--shard {text}: there are {count} parts: expected a number from 1 to {count}")
    ordinary = [job for job in jobs if not job.stage] or list(jobs)
    return tuple(ordinary[number - 1 :: count])


def whole(jobs: Sequence[Job], ids: Collection[str]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
    """The jobs with these ids and all that runs with them; the ids of what was added."""
    if len(ids) == len(jobs):
        return tuple(jobs), ()
    return policy.closure(jobs, ids)


def again(jobs: Sequence[Job], ids: Collection[str]) -> tuple[Job, ...]:
    """The jobs with these ids, to be run once more: what they need of the others counts as done.

    Setup and teardown jobs come with them, whatever became of them before: what one of them has made, the other has taken away.
    """
    ordinary = {job.id for job in jobs if not job.stage and job.id in ids}
    if not ordinary:
        return policy.without(jobs, ids)
    staged = {job.id for job in jobs if job.stage}
    found = policy.without(jobs, ordinary | staged)
    setup = tuple(job.id for job in found if job.stage == policy.SETUP)
    if not setup:
        return found
    # one that waited for setup by way of a job which is not run again
    return tuple(
        job.replace(needs=setup) if not job.stage and not any(id_ in ordinary for id_ in job.needs) else job
        for job in found
    )
