"""The jobs of one call of a supervisor: what bounds them together, which wait for which, what takes one with another."""

from __future__ import annotations

import math
import time
from collections import Counter

import anyio

from guntainer import report
from guntainer.slots import Slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from guntainer.jobs.conditions import Condition
    from guntainer.jobs.model import Job
    from guntainer.slots import Rank

_PLAIN = "success()"
_FEW_CELLS = 20
_MOST_NAMED = 100


class _Needed:
    """A job that others wait for."""

    __slots__ = ("blamed", "failed", "good")

    def __init__(self, id_: str) -> None:
        self.good = False
        """It was successful, or may fail; and so was all that it needed, as on GitHub."""
        self.blamed = id_
        """Whose fault it is where it is not good."""
        self.failed = False
        """It has failed, or one that it needed has, however far above."""


class _Gate:
    """What jobs with the same needs wait for: thousands of jobs after thousands of others are no millions of steps."""

    __slots__ = ("bad", "ended", "failed", "left", "named", "needs", "settled")

    def __init__(self, needs: tuple[str, ...]) -> None:
        self.needs = needs
        self.left = len(set(needs))
        self.ended = anyio.Event()
        self.failed = False
        """One of them has failed."""
        self.settled = False
        self.bad: str | None = None
        """Whose fault it is that not all of them are good."""
        self.named: tuple[str, ...] = ()
        """They in few words, once somebody asks."""


class Group:
    """The jobs of one call of `run` or `stream`, and what has become of them together.

    Args:
        expected: how long jobs took before, in ns, by id: those that take long are run first.

    Raises:
        ValueError: two jobs have one id, one needs what is not there, or they need each other.
        UsageError: a condition has no meaning.
    """

    def __init__(self, jobs: tuple[Job, ...], expected: Mapping[str, int] | None = None) -> None:
        self.jobs = jobs
        self.scope = anyio.CancelScope()
        """Of everything, teardown and all."""
        self.started_ns = time.monotonic_ns()
        self._expected = expected or {}
        self._order = {job.id: number for number, job in enumerate(jobs)}
        if len(self._order) < len(jobs):
            raise ValueError("two jobs have the same id")
        self._needed = {id_: _Needed(id_) for id_ in dict.fromkeys(id_ for job in jobs for id_ in job.needs)}
        self._gates = {id(job.needs): _Gate(job.needs) for job in jobs if job.needs}
        self._users: dict[str, list[_Gate]] = {id_: [] for id_ in self._needed}
        self._check_needs()
        for gate in self._gates.values():
            for id_ in set(gate.needs):
                self._users[id_].append(gate)
        self._limiters = {_key(job): Slots(job.max_parallel) for job in jobs if job.max_parallel}
        self._scopes: dict[str, tuple[Job, anyio.CancelScope]] = {}
        self._why: dict[str, str] = {}
        self._conditions: dict[str, Condition] = {}
        self._running_keys: set[str] | None = None
        """Keys of jobs of which not all cells are left out, once somebody asks."""
        for job in jobs:
            if job.condition != _PLAIN:
                self._condition(job)

    def _check_needs(self) -> None:
        """Kahn's algorithm: what is left when those without needs are taken away again and again, needs itself."""
        if not self._needed:
            return
        unknown = next((id_ for id_ in self._needed if id_ not in self._order), None)
        if unknown is not None:
            raise ValueError(f"a job needs {unknown!r}, which is not among the jobs")
        # jobs with the same needs share one tuple: thousands of jobs after thousands of others are no millions of steps
        sharing: dict[int, list[str]] = {}
        for job in self.jobs:
            sharing.setdefault(id(job.needs), []).append(job.id)
        shared = {id(job.needs): frozenset(job.needs) for job in self.jobs}
        left = {key: len(needs) for key, needs in shared.items()}
        users: dict[str, list[int]] = {id_: [] for id_ in self._needed}
        for key, needs in shared.items():
            for id_ in needs:
                users[id_].append(key)
        free = [id_ for key, count in left.items() if not count for id_ in sharing[key]]
        for id_ in free:
            for key in users.get(id_, ()):
                left[key] -= 1
                if not left[key]:
                    free += sharing[key]
        if len(free) < len(self.jobs):
            stuck = next(sharing[key][0] for key, count in left.items() if count)
            raise ValueError(f"the job {stuck!r} needs itself, by way of others")

    def ranked(self) -> list[Job]:
        """The jobs in the order in which they want to run."""
        return sorted(self.jobs, key=self.rank)

    def rank(self, job: Job) -> Rank:
        """What a job waits for slots with: the priority, then how long it takes; what nobody knows may take for ever."""
        takes = self._expected.get(job.id, math.inf) if self._expected else 0.0
        return (-job.priority, -takes, self._order[job.id])

    def limiter(self, job: Job) -> Slots | None:
        """`max-parallel` of the job's matrix."""
        return self._limiters.get(_key(job))

    def scope_of(self, job: Job) -> anyio.CancelScope:
        """The scope to run a job in: whatever takes this job alone cancels it."""
        scope = anyio.CancelScope()
        self._scopes[job.id] = job, scope
        return scope

    def leave(self, job: Job) -> None:
        """The job has ended by itself."""
        self._scopes.pop(job.id, None)

    def why(self, job: Job) -> str:
        """Why a job is not to run any more; "" where it is."""
        if self.is_spared(job):
            return ""
        return self._why.get(_key(job)) or self._why.get("", "")

    def failed(self, job: Job, *, everything: bool) -> None:
        """fail-fast: a failure takes the others of its matrix, or all, with it."""
        if everything or job.fail_fast:
            self.cancel(f"cancelled: {job.id} failed (fail-fast)", "" if everything else _key(job))

    def cancel(self, why: str, key: str = "") -> None:
        """Cancel the jobs with a key, or all; those whose condition says that they run nevertheless, go on."""
        if key in self._why:
            return
        self._why[key] = why
        for job, scope in tuple(self._scopes.values()):
            if (not key or key == _key(job)) and not self.is_spared(job):
                scope.cancel()

    def is_spared(self, job: Job) -> bool:
        """Whether a job runs even where the batch is being ended: `always()`, `cancelled()`."""
        if job.condition == _PLAIN:
            return False
        return self._condition(job).survives

    def _condition(self, job: Job) -> Condition:
        found = self._conditions.get(job.condition)
        if found is None:
            from guntainer.jobs import conditions

            found = self._conditions[job.condition] = conditions.parse(job.condition)
        return found

    def waits(self, job: Job) -> bool:
        """Whether a job that this one needs has not ended."""
        return bool(job.needs) and not self._gates[id(job.needs)].ended.is_set()

    def named(self, job: Job) -> tuple[str, ...]:
        """The jobs that this one needs, as results name them: by id; many cells of one job, of which none is missing, by its key.

        No more than a hundred: it stands in the result of each of them.
        """
        if len(job.needs) <= _FEW_CELLS:
            return job.needs
        gate = self._gates[id(job.needs)]
        if not gate.named:
            key_of = {one.id: _key(one) for one in self.jobs}
            all_of, of = Counter(key_of.values()), Counter(key_of[id_] for id_ in set(job.needs))
            whole = {key for key, count in of.items() if count > _FEW_CELLS and count == all_of[key]}
            words = (key_of[id_] if key_of[id_] in whole else id_ for id_ in job.needs)
            gate.named = tuple(dict.fromkeys(words))[:_MOST_NAMED]
        return gate.named

    async def wait(self, job: Job) -> str:
        """Wait for the jobs that this one needs; returns why it is skipped, or "" where it runs."""
        bad, failed = None, False
        if job.needs:
            gate = self._gates[id(job.needs)]
            if not gate.ended.is_set():
                await gate.ended.wait()
            if not gate.settled:
                gate.bad = next((self._needed[id_].blamed for id_ in job.needs if not self._needed[id_].good), None)
                gate.settled = True
            bad, failed = gate.bad, gate.failed
        if job.condition == _PLAIN:
            return "" if bad is None else f"skipped: {bad} {self._fate(bad)}"
        holds = self._condition(job).holds(
            success=bad is None,
            failure=failed,
            cancelled=bool(self._why.get(_key(job)) or self._why.get("")),
        )
        return "" if holds else f"skipped: {job.condition} does not hold"

    def _fate(self, id_: str) -> str:
        return "failed" if self._needed[id_].failed else "did not run"

    def ended(self, job: Job, result: report.Result) -> None:
        """Whoever waits for a job may go on."""
        needed = self._needed.get(job.id)
        if needed is None:
            return
        own = result.ok or result.allowed or self._is_left_out(job, result)
        above = self._gates[id(job.needs)] if job.needs else None
        needed.good = own and (above is None or above.bad is None)
        if own and above is not None and above.bad is not None:
            needed.blamed = above.bad
        needed.failed = (result.bad and result.exit.reason != report.CANCELLED) or (above is not None and above.failed)
        for gate in self._users[job.id]:
            gate.failed |= needed.failed
            gate.left -= 1
            if not gate.left:
                gate.ended.set()

    def _is_left_out(self, job: Job, result: report.Result) -> bool:
        """Whether its own condition takes one cell out of a matrix that has others: that takes nobody with it."""
        if result.exit.reason != report.SKIPPED or not self._is_never(job):
            return False
        if self._running_keys is None:
            self._running_keys = {_key(one) for one in self.jobs if not self._is_never(one)}
        return _key(job) in self._running_keys

    def _is_never(self, job: Job) -> bool:
        return job.condition != _PLAIN and self._condition(job).never


def _key(job: Job) -> str:
    return job.key or job.id
