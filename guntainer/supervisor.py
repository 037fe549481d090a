"""Many Jobs → Report. Owns the limiters, the leases, the one task group of jobs, and the order of ending.

    async with Supervisor(parallel=4) as supervisor:
        report = await supervisor.run(jobs)

A job waits for its rootfs (unpacked once for all that name it), then for a slot, then runs. It can be stopped at any of
these points; whatever happens, it ends as a Result.
"""

from __future__ import annotations

import os
import time

import anyio

from guntainer import assembly, descriptors, errors, idmap, opening, planner, report
from guntainer.container import Container, Outcome
from guntainer.group import Group
from guntainer.jobs.model import NO_LIMITS
from guntainer.launcher.client import Launcher
from guntainer.offloading import in_thread
from guntainer.preparation import Preparation
from guntainer.results import Results
from guntainer.runfolder import RunFolder, remove_stale
from guntainer.stdio import Stdio
from guntainer.store.lookup import open_store
from guntainer.timing import AlreadyCancelled, Timing
from guntainer.watcher import Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import Self

    from anyio.streams.memory import MemoryObjectSendStream

    from guntainer.idmap import Ids
    from guntainer.jobs.model import Job, Limits
    from guntainer.launcher.spawn import Zygote
    from guntainer.rootfs import Rootfs
    from guntainer.store.headstart import HeadStart

_FDS_PER_JOB = 8  # pidfd, two pipes, two logs, stdin, and what a launch needs meanwhile
_FDS_OWN = 64
_TAKEN_BACK_S = 1.0  # the kernel counts a namespace for a while after its last process has ended
_LOOK_AGAIN_S = 0.01


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
        userns: "range": archives keep their owners, by the caller's sub-ids; "single": the caller's own id alone; "auto":
            a range where the host has one.
        ids: what has come of that, where it was opened before; whoever gives it closes it.
        zygote: a fork helper that was started before, with these ids.
        head_start: unpacks that were started before.
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
        userns: str = "auto",
        ids: Ids | None = None,
        zygote: Zygote | None = None,
        head_start: HeadStart | None = None,
    ) -> None:
        self._parallel = parallel or len(os.sched_getaffinity(0))
        self._watcher = watcher or Watcher()
        self._fail_fast = fail_fast
        self._require_full = require_full
        self._own_ids = ids is None
        self._ids = idmap.open_ids(userns) if ids is None else ids
        self._store = open_store(store, self._ids)
        self._launcher = Launcher(zygote, namespace=self._ids.namespace)
        self._folder: RunFolder | None = None
        self._preparation = Preparation(self._store, self._run_folder, self._watcher.progress, head_start, self._note)
        self._ground = assembly.Ground(self._store.path, self._run_folder, self._ids)
        self._granting = anyio.Lock()
        self._live: set[Container] = set()
        self._ended: anyio.Event | None = None
        """Set when the next container ends, where a job waits for that."""
        self._ended_at = 0.0
        self._groups: set[Group] = set()
        self._stopped_by: int | None = None
        self._isolation = planner.FULL
        self._copied: set[str] = set()
        """Kinds of scratch on which overlayfs is refused."""
        self._told: set[str] = set()
        self._results = Results(results, self._run_folder, self._note)

    def __repr__(self) -> str:
        return f"Supervisor(parallel={self._parallel}, alive={len(self._live)}, {self._launcher.statistics()})"

    async def __aenter__(self) -> Self:
        remove_stale()
        self._store.tidy()
        self._slots = anyio.CapacityLimiter(self._affordable())
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
        able = max(1, (descriptors.allow(self._parallel * _FDS_PER_JOB + _FDS_OWN) - _FDS_OWN) // _FDS_PER_JOB)
        if able < self._parallel:
            self._watcher.note(
                f"{able} jobs at once instead of {self._parallel}: too few open files allowed (ulimit -n)"
            )
        return able

    async def run(self, jobs: Iterable[Job]) -> report.Report:
        """Run all jobs and return their results in the jobs' order.

        Raises:
            ValueError: two jobs have the same id.
        """
        started_ns = time.monotonic_ns()
        jobs = tuple(jobs)
        results = {result.id: result async for result in self.stream(jobs)}
        return report.Report(
            results=tuple(results[job.id] for job in jobs if job.id in results),
            wall_ns=time.monotonic_ns() - started_ns,
            interrupted=self._stopped_by,
        )

    async def stream(self, jobs: Iterable[Job]) -> AsyncIterator[report.Result]:
        """Run all jobs and yield each Result as its job ends; one that is left early stops the rest.

        Raises:
            ValueError: two jobs have the same id.
        """
        group = Group(tuple(jobs))
        if len({job.id for job in group.jobs}) < len(group.jobs):
            raise ValueError("two jobs have the same id")
        send, receive = anyio.create_memory_object_stream[report.Result](len(group.jobs) + 1)
        self._tasks.start_soon(self._run_group, group, send)
        try:
            async with receive:
                async for result in receive:
                    yield result
        finally:
            group.scope.cancel()

    async def _run_group(self, group: Group, send: MemoryObjectSendStream[report.Result]) -> None:
        self._groups.add(group)
        try:
            async with send:
                with group.scope:
                    if self._stopped_by is not None:
                        group.scope.cancel()
                    async with anyio.create_task_group() as tasks:
                        for job in group.jobs:
                            tasks.start_soon(self._job, job, group, send)
        finally:
            self._groups.discard(group)

    def stop(self, signal: int) -> None:
        """No new jobs; running ones are asked, waited for and killed, in that order. The second time: killed at once."""
        if self._stopped_by is None:
            self._stopped_by = signal
            for group in self._groups:
                group.scope.cancel()
        else:
            for container in self._live:
                container.kill()

    async def _job(self, job: Job, group: Group, send: MemoryObjectSendStream[report.Result]) -> None:
        timing = Timing()
        with group.scope_of(job):
            try:
                outcome = await self._stages(job, group, timing)
            except anyio.get_cancelled_exc_class():
                outcome = Outcome(exit=report.cancelled(self._reason(job, group)))
                with anyio.CancelScope(shield=True):
                    await self._finished(job, outcome, timing, send)
                raise
            except errors.GuntainerError as error:
                outcome = Outcome(exit=report.setup_failed(error))
            except OSError as error:
                failure = errors.HostError(errors.describe_oserror(error))
                outcome = Outcome(exit=report.setup_failed(failure))
            except Exception as error:
                # a mistake of ours or of a watcher's: it costs this job, not the others
                failure = errors.HostError(f"internal error: {type(error).__name__}: {error}")
                outcome = Outcome(exit=report.setup_failed(failure))
            group.leave(job)
            with anyio.CancelScope(shield=True):
                await self._finished(job, outcome, timing, send)
            if not outcome.exit.ok:
                group.failed(job, everything=self._fail_fast)

    def _reason(self, job: Job, group: Group) -> str:
        if self._stopped_by is not None:
            return f"cancelled by {report.signal_name(self._stopped_by)}"
        return group.why(job) or "cancelled"

    async def _stages(self, job: Job, group: Group, timing: Timing) -> Outcome:
        if group.why(job):
            raise AlreadyCancelled(group.why(job))
        opening.check_sources(job)
        if job.network == "private" or job.ports:
            from guntainer.network import tools

            tools.check(job)
        if job.limits != NO_LIMITS:
            await self._grant(job.limits)
        rootfs = await self._preparation.rootfs(job)
        timing.prepared_ns = time.monotonic_ns()
        limiter = group.limiter(job)
        if limiter is None:
            async with self._slots:
                return await self._run(job, rootfs, timing)
        async with limiter, self._slots:
            return await self._run(job, rootfs, timing)

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

    async def _run(self, job: Job, rootfs: Rootfs, timing: Timing) -> Outcome:
        timing.started_at = time.time()
        timing.launched_ns = time.monotonic_ns()
        timing.stdout, timing.stderr = self._results.logs(job.id)
        self._watcher.started(job)
        while True:
            container = Container(
                rootfs.job(job),
                rootfs,
                self._ground,
                self._launcher,
                lambda: self._stdio(job, timing),
                lambda text: self._note(f"{job.id}: {text}"),
            )
            try:
                outcome = await self._lived(job, container)
            except errors.Exhausted as error:
                await self._room(error)
                continue
            finally:
                timing.ended_ns = time.monotonic_ns()
            self._note_rung(job, outcome)
            return outcome

    async def _lived(self, job: Job, container: Container) -> Outcome:
        self._live.add(container)
        try:
            copy = job.scratch.kind in self._copied
            outcome = await container.run(self._isolation, copy=copy, require_full=self._require_full)
            self._ended_at = time.monotonic()
            return outcome
        finally:
            self._live.discard(container)
            if self._ended is not None:
                self._ended.set()
                self._ended = None

    async def _room(self, error: errors.Exhausted) -> None:
        """Wait until one of the other containers has ended, which makes room for one more.

        Raises:
            Exhausted: there is no other one.
        """
        if not self._live:
            if time.monotonic() - self._ended_at > _TAKEN_BACK_S:
                raise error
            await anyio.sleep(_LOOK_AGAIN_S)
            return
        self._note(f"{error.message}: jobs wait until others have ended; {error.hint}")
        if self._ended is None:
            self._ended = anyio.Event()
        await self._ended.wait()

    def _stdio(self, job: Job, timing: Timing) -> Stdio:
        watcher = self._watcher

        async def sink(stream: str, data: bytes) -> None:
            await watcher.output(job, stream, data)

        return Stdio(job.stdin, timing.stdout, timing.stderr, sink if watcher.live else None)

    def _note(self, text: str) -> None:
        """What goes otherwise than asked for is said once, however many jobs it happens to."""
        if text not in self._told:
            self._told.add(text)
            self._watcher.note(text)

    def _note_rung(self, job: Job, outcome: Outcome) -> None:
        """What one job found the host to refuse holds for all: it is not tried again."""
        if not outcome.exit.error:
            for note in outcome.notes:
                self._note(note)
        if outcome.scratch:
            self._isolation = outcome.isolation
        if outcome.scratch.endswith("copy"):
            self._copied.add(job.scratch.kind)

    async def _finished(
        self, job: Job, outcome: Outcome, timing: Timing, send: MemoryObjectSendStream[report.Result]
    ) -> None:
        result = timing.result(job, outcome)
        self._results.write(result)
        await self._watcher.finished(result)
        try:
            send.send_nowait(self._results.shown(result))
        except anyio.BrokenResourceError:
            pass  # nobody listens any more
