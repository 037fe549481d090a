"""Many Jobs → Report. Owns the limiters, the leases, the one task group of jobs, and the order of ending.

    async with Supervisor(parallel=4) as supervisor:
        report = await supervisor.run(jobs)

A job waits for those that it needs, for its rootfs (unpacked once for all that name it), then for a slot, then runs, and
perhaps once more. It can be stopped at any of these points; whatever happens, it ends as a Result.
"""

from __future__ import annotations

import os
import time

import anyio

from guntainer import assembly, descriptors, errors, idmap, opening, report
from guntainer.container import Outcome
from guntainer.containers import Containers
from guntainer.group import Group
from guntainer.jobs.model import NO_LIMITS
from guntainer.launcher.client import Launcher
from guntainer.offloading import in_thread
from guntainer.preparation import Preparation
from guntainer.results import Results
from guntainer.runfolder import RunFolder, remove_stale
from guntainer.slots import Slots
from guntainer.store.lookup import open_store
from guntainer.timing import Timing
from guntainer.watcher import Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from typing import Self

    from anyio.streams.memory import MemoryObjectSendStream

    from guntainer.containers import AfterFailure
    from guntainer.idmap import Ids
    from guntainer.jobs.model import Job, Limits
    from guntainer.launcher.spawn import Zygote
    from guntainer.masking import Patterns
    from guntainer.store.headstart import HeadStart

_FDS_PER_JOB = 8  # pidfd, two pipes, two logs, stdin, and what a launch needs meanwhile
_FDS_PER_JOB_MOST = 64  # with services, artifacts and secrets: as many where the hard limit lets us
_FDS_OWN = 64
_LONGEST_BACKOFF_S = 3600.0


class Supervisor:
    """Runs jobs, many at a time.

    Args:
        parallel: containers at once; None: one per core.
        store: the store's folder; None: GUNTAINER_STORE or the cache folder.
        results: a folder for logs, kept; None: the log of a job that failed lives as long as the supervisor, that of a
            good one until the watcher has been told that it finished.
        watcher: is told what happens.
        fail_fast: the first failure cancels everything else.
        require_full: refuse lower rungs of the isolation ladder.
        expected: how long jobs took before, in ns, by id: those that take long are run first.
        userns: "range": archives keep their owners, by the caller's sub-ids; "single": the caller's own id alone; "auto":
            a range where the host has one.
        ids: what has come of that, where it was opened before; whoever gives it closes it.
        zygote: a fork helper that was started before, with these ids.
        head_start: unpacks that were started before.
        secrets: the values of the jobs' secrets, by name; no output shows them.
        after_failure: called when a job has failed by itself for the last time, while what it has left is still there.
    """

    def __init__(
        self,
        *,
        parallel: int | None = None,
        store: str | None = None,
        results: str | None = None,
        watcher: Watcher | None = None,
        fail_fast: bool = False,
        require_full: bool = False,
        expected: Mapping[str, int] | None = None,
        userns: str = "auto",
        ids: Ids | None = None,
        zygote: Zygote | None = None,
        head_start: HeadStart | None = None,
        secrets: Mapping[str, bytes] | None = None,
        after_failure: AfterFailure | None = None,
    ) -> None:
        self._parallel = parallel or len(os.sched_getaffinity(0))
        self._watcher = watcher or Watcher()
        self._fail_fast = fail_fast
        self._expected = expected
        self._own_ids = ids is None
        self._ids = idmap.open_ids(userns) if ids is None else ids
        self._store = open_store(store, self._ids)
        self._launcher = Launcher(zygote, namespace=self._ids.namespace)
        self._folder: RunFolder | None = None
        self._preparation = Preparation(self._store, self._run_folder, self._watcher.progress, head_start, self._note)
        self._ground = assembly.Ground(self._store.path, self._run_folder, self._ids)
        self._secrets = secrets or {}
        self._secret = _patterns(self._secrets) if secrets else None
        self._granting = anyio.Lock()
        self._writing = anyio.Lock()
        self._groups: set[Group] = set()
        self._stopped_by: int | None = None
        self._told: set[str] = set()
        self._results = Results(results, self._run_folder, self._note)
        self._containers = Containers(
            self._ground,
            self._launcher,
            self._watcher,
            self._results,
            self._note,
            self._preparation.rootfs,
            require_full=require_full,
            after_failure=after_failure,
        )

    def __repr__(self) -> str:
        return f"Supervisor(parallel={self._parallel}, alive={len(self._containers)}, {self._launcher.statistics()})"

    async def __aenter__(self) -> Self:
        remove_stale()
        self._store.tidy()
        self._slots = Slots(self._affordable())
        await self._launcher.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Whoever left early wants no more: jobs that still run are stopped as by a signal.
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._launcher.__aexit__()
            self._preparation.release()
            if self._ground.belongings is not None:
                self._ground.belongings.close()
            self._results.close()
            if self._ground.limiter is not None:
                with anyio.CancelScope(shield=True):
                    await in_thread(self._ground.limiter.close)
            if self._folder is not None:
                folder, self._folder = self._folder, None
                with anyio.CancelScope(shield=True):
                    await in_thread(folder.remove)
            if self._own_ids and self._ids.namespace >= 0:
                os.close(self._ids.namespace)

    def _run_folder(self) -> RunFolder:
        if self._folder is None:
            self._folder = RunFolder().__enter__()
        return self._folder

    def _affordable(self) -> int:
        """How many containers the descriptor limit lets live at once; raises the soft limit to the hard one first."""
        allowed = descriptors.allow(self._parallel * _FDS_PER_JOB_MOST + _FDS_OWN)
        able = min(self._parallel, max(1, (allowed - _FDS_OWN) // _FDS_PER_JOB))
        if able < self._parallel:
            self._watcher.note(
                f"{able} jobs at once instead of {self._parallel}: too few open files allowed (ulimit -n)"
            )
        return able

    async def run(self, jobs: Iterable[Job], *, timeout_s: float | None = None) -> report.Report:
        """Run all jobs and return their results in the jobs' order.

        Args:
            timeout_s: what has not ended by then is cancelled.

        Raises:
            ValueError: two jobs have the same id, or they need each other.
        """
        started_ns, started_at = time.monotonic_ns(), time.time()
        jobs = tuple(jobs)
        results = {result.id: result async for result in self.stream(jobs, timeout_s=timeout_s)}
        return report.Report(
            results=tuple(results[job.id] for job in jobs if job.id in results),
            started_at=started_at,
            wall_ns=time.monotonic_ns() - started_ns,
            interrupted=self._stopped_by,
            parallel=self._slots.total,
        )

    async def stream(self, jobs: Iterable[Job], *, timeout_s: float | None = None) -> AsyncIterator[report.Result]:
        """Run all jobs and yield each Result as its job ends; one that is left early stops the rest.

        Raises:
            ValueError: as `run`.
        """
        group = Group(tuple(jobs), self._expected)
        send, receive = anyio.create_memory_object_stream[report.Result](len(group.jobs) + 1)
        self._tasks.start_soon(self._run_group, group, send, timeout_s)
        try:
            async with receive:
                async for result in receive:
                    yield result
        finally:
            group.scope.cancel()

    async def _run_group(
        self, group: Group, send: MemoryObjectSendStream[report.Result], timeout_s: float | None
    ) -> None:
        self._groups.add(group)
        try:
            async with send:
                with group.scope:
                    if self._stopped_by is not None:
                        group.cancel(self._stopped())
                    async with anyio.create_task_group() as timer:
                        if timeout_s is not None:
                            timer.start_soon(_end_late, group, timeout_s)
                        async with anyio.create_task_group() as tasks:
                            for job in group.ranked():
                                tasks.start_soon(self._job, job, group, send)
                        timer.cancel_scope.cancel()
        finally:
            self._groups.discard(group)

    def stop(self, signal: int) -> None:
        """No new jobs; running ones are asked, waited for and killed, in that order. The second time: killed at once.

        Jobs that run whatever happens (`always()`, teardown) still do; the second time they do not either.
        """
        if self._stopped_by is None:
            self._stopped_by = signal
            for group in self._groups:
                group.cancel(self._stopped())
        else:
            for group in self._groups:
                group.scope.cancel()
            self._containers.kill()

    def _stopped(self) -> str:
        return f"cancelled by {report.signal_name(self._stopped_by or 0)}"

    async def _job(self, job: Job, group: Group, send: MemoryObjectSendStream[report.Result]) -> None:
        timing = Timing(group.started_ns)
        with group.scope_of(job):
            try:
                outcome = await self._tried(job, group, timing)
            except anyio.get_cancelled_exc_class():
                why = group.why(job) or (self._stopped() if self._stopped_by is not None else "cancelled")
                with anyio.CancelScope(shield=True):
                    await self._finished(job, group, Outcome(exit=report.cancelled(why)), timing, send)
                raise
            group.leave(job)
            with anyio.CancelScope(shield=True):
                result = await self._finished(job, group, outcome, timing, send)
            if result.bad and result.exit.reason != report.CANCELLED:
                group.failed(job, everything=self._fail_fast)

    async def _tried(self, job: Job, group: Group, timing: Timing) -> Outcome:
        """All attempts at a job; what the last one came to."""
        if group.waits(job):
            self._watcher.waiting(job)
        why = group.why(job)
        if why:
            return Outcome(exit=report.cancelled(why))
        why = await group.wait(job)
        if why:
            return Outcome(exit=report.skipped(why))
        while True:
            timing.waited()
            outcome = await self._attempt(job, group, timing)
            attempt = len(timing.attempts) + 1
            if not timing.tries_again(job, outcome.exit):
                return outcome
            wait_s = min(job.retry.backoff_s * 2 ** min(attempt - 1, 60), _LONGEST_BACKOFF_S)
            self._watcher.retrying(job, attempt, outcome.exit, wait_s)
            timing.again(outcome.exit, *self._results.put_aside(job.id, attempt, timing.stdout, timing.stderr))
            for one in (job, *(service.job for service in job.services)):
                self._preparation.forget_failure(one)
            await anyio.sleep(wait_s)

    async def _attempt(self, job: Job, group: Group, timing: Timing) -> Outcome:
        """What one attempt came to, as it may be shown."""
        outcome = await self._unmasked(job, group, timing)
        if self._secret is None:
            return outcome
        from guntainer import masking

        notes = tuple(map(self._secret.mask, outcome.notes))
        artifacts = tuple(one.replace(path=self._secret.mask(one.path)) for one in outcome.artifacts)
        return outcome.replace(exit=masking.masked(outcome.exit, self._secret), notes=notes, artifacts=artifacts)

    async def _unmasked(self, job: Job, group: Group, timing: Timing) -> Outcome:
        try:
            return await self._stages(job, group, timing)
        except errors.GuntainerError as error:
            return Outcome(exit=report.setup_failed(error))
        except OSError as error:
            failure = errors.HostError(errors.describe_oserror(error))
            return Outcome(exit=report.setup_failed(failure))
        except Exception as error:
            # a mistake of ours or of a watcher's: it costs this job, not the others
            failure = errors.HostError(f"internal error: {type(error).__name__}: {error}")
            return Outcome(exit=report.setup_failed(failure))

    async def _stages(self, job: Job, group: Group, timing: Timing) -> Outcome:
        self._watcher.preparing(job)
        opening.check_sources(job)
        self._prepare_belongings(job)
        if job.network == "private" or job.ports:
            from guntainer.network import tools

            tools.check(job)
        if job.limits != NO_LIMITS:
            await self._grant(job.limits)
        rootfs = await self._preparation.rootfs(job)
        if job.services:
            await self._prepare_services(job)
        timing.prepared_ns = time.monotonic_ns()
        rank = group.rank(job)
        limiter = group.limiter(job)
        if limiter is None:
            async with self._slots.take(rank) as timing.slot:
                return await self._containers.run(job, rootfs, timing)
        async with limiter.take(rank), self._slots.take(rank) as timing.slot:
            return await self._containers.run(job, rootfs, timing)

    def _prepare_belongings(self, job: Job) -> None:
        """What those of all jobs share, as soon as one has any: most have none."""
        jobs = (job, *(service.job for service in job.services))
        if self._ground.belongings is None and any(one.has_belongings for one in jobs):
            from guntainer.belongings import Shared

            self._ground.belongings = Shared(self._store, self._ground, self._secrets, self._results, self._note)

    async def _prepare_services(self, job: Job) -> None:
        """Whatever can be had before a slot, so that none is held meanwhile.

        Raises:
            HostError: naming the service.
        """
        for service in job.services:
            try:
                opening.check_sources(service.job)
                if service.job.limits != NO_LIMITS:
                    await self._grant(service.job.limits)
                await self._preparation.rootfs(service.job)
            except errors.GuntainerError as error:
                text = f"service {service.name}: {error.message}"
                raise errors.HostError(text, hint=error.hint, probe=error.probe) from None

    async def _grant(self, limits: Limits) -> None:
        """Find out what of a job's limits can be had, before anything of it is begun.

        Raises:
            HostError: not all of them.
        """
        async with self._granting:
            if self._ground.limiter is None:
                from guntainer.cgroups.limiter import Limiter

                self._ground.limiter = Limiter(alone=self._ids.kind == idmap.SINGLE)
            if self._ground.limiter.known(limits) is None:
                await in_thread(self._ground.limiter.grant, limits)

    def _note(self, text: str) -> None:
        """What goes otherwise than asked for is said once, however many jobs it happens to."""
        if self._secret is not None:
            text = self._secret.mask(text)
        if text not in self._told:
            self._told.add(text)
            self._watcher.note(text)

    async def _finished(
        self, job: Job, group: Group, outcome: Outcome, timing: Timing, send: MemoryObjectSendStream[report.Result]
    ) -> report.Result:
        result = timing.result(job, outcome, group.named(job))
        if outcome.exit.reason == report.CANCELLED:
            async with (
                self._writing
            ):  # thousands may be cancelled at once: one after the other, with turns for everybody else
                self._results.write(result)
        else:
            self._results.write(result)
        try:
            await self._watcher.finished(result)
        except Exception as error:
            self._note(f"{job.id}: internal error: {type(error).__name__}: {error}")
        group.ended(job, result)
        try:
            send.send_nowait(self._results.shown(result))
        except anyio.BrokenResourceError:
            pass  # nobody listens any more
        return result


async def _end_late(group: Group, timeout_s: float) -> None:
    """The time for all of them together."""
    await anyio.sleep(timeout_s)
    group.cancel(f"cancelled: the whole batch may take {timeout_s:g} s")


def _patterns(secrets: Mapping[str, bytes]) -> Patterns:
    from guntainer.masking import Patterns

    return Patterns(secrets.values())
