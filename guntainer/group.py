"""The jobs of one call of a supervisor: what bounds them together, and what takes one with another."""

from __future__ import annotations

import anyio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.jobs.model import Job


class Group:
    """The jobs of one call of `run` or `stream`, and what has become of them together."""

    def __init__(self, jobs: tuple[Job, ...]) -> None:
        self.jobs = jobs
        self.scope = anyio.CancelScope()
        self._limiters = {_key(job): anyio.CapacityLimiter(job.max_parallel) for job in jobs if job.max_parallel}
        self._scopes: dict[str, dict[str, anyio.CancelScope]] = {}
        self._why: dict[str, str] = {}

    def limiter(self, job: Job) -> anyio.CapacityLimiter | None:
        """`max-parallel` of the job's matrix."""
        return self._limiters.get(_key(job))

    def scope_of(self, job: Job) -> anyio.CancelScope:
        """The scope to run a job in: fail-fast of its matrix cancels it."""
        scope = anyio.CancelScope()
        self._scopes.setdefault(_key(job), {})[job.id] = scope
        return scope

    def leave(self, job: Job) -> None:
        """The job has ended by itself."""
        del self._scopes[_key(job)][job.id]

    def why(self, job: Job) -> str:
        """Why a job is not to run any more; "" where it is."""
        return self._why.get(_key(job)) or self._why.get("", "")

    def failed(self, job: Job, *, everything: bool) -> None:
        """fail-fast: a failure takes the others of its matrix, or all, with it."""
        group = "" if everything else _key(job)
        if group in self._why or not (everything or job.fail_fast):
            return
        self._why[group] = f"cancelled: {job.id} failed (fail-fast)"
        if everything:
            self.scope.cancel()
        for scope in self._scopes.get(group, {}).values():
            scope.cancel()


def _key(job: Job) -> str:
    return job.key or job.id
