"""Batches from Python: `batch` for scripts, `open_batch` where there is an event loop, each event as it happens.

    import guntainer

    report = guntainer.batch("jobs.toml", parallel=4)
    for result in report.results:
        print(result.id, result.outcome)

    async with guntainer.open_batch("jobs.toml") as stream:
        async for event in stream:
            match event:
                case guntainer.JobOutput(id=job, data=data):
                    print(job, data)
                case guntainer.JobFinished(result=result):
                    print(result.id, result.outcome)

Whatever ends the batch, an exception, Ctrl-C, a cancelled task, a block that is left early: its containers are asked to stop,
waited for and killed, and everything of them is gone when the call has returned or the block is left. A process that is killed
takes its containers with it.

Threads: containers belong to the thread that runs the batch, and are killed when that one ends (PR_SET_PDEATHSIG, prctl(2)). It
can not end before its batch, whether that is `batch` called in it or its event loop, so that any thread will do, and several
batches may run in threads beside each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping

import anyio

from guntainer import errors, events
from guntainer.jobs.load import JobFile, load
from guntainer.jobs.model import Job
from guntainer.supervisor import Supervisor
from guntainer.watcher import Announcer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self

    from guntainer.idmap import Ids
    from guntainer.report import Report, Result

    Source = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Job]

_MOST_OUTPUT_BYTES = 1 << 20
_MOST_PENDING = 1000  # events, before progress, of which the newest is enough, is left out


def batch(
    source: Source,
    *,
    parallel: int | None = None,
    only: Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    userns: str = "auto",
    fail_fast: bool = False,
    settings: Iterable[str] = (),
    on_event: Callable[[events.Event], object] | None = None,
) -> Report:
    """Run a batch, and return what came of it when all of its jobs have ended.

    A job that fails is no exception: look at the report's `exit_code`, `first_failure` and `results`.

    Args:
        source: the path of a job file; a mapping with the keys of one, whose relative paths are seen from the working
            directory; or Jobs.
        parallel: containers at once; None: one per core. A job file's max-parallel is not exceeded.
        only: patterns of the jobs to run, as --only has them; what they need runs as well.
        results: a folder in which each job's stdout, stderr and result.json are kept, see `guntainer report`. None: the
            results in the report have no logs: their `stdout` and `stderr` are None.
        store: where unpacked archives are kept; None: GUNTAINER_STORE or the cache folder.
        userns: "range", "single" or "auto", as --userns.
        fail_fast: the first failure cancels the rest.
        settings: `KEY=VALUE` texts, as --set; not for Jobs.
        on_event: is called with each event, in this thread, between two steps of the batch: what takes long there holds
            the batch up. What it raises ends the batch, and is raised here.

    Raises:
        JobFileError: the source is no valid job file; its `problems` has a line for each mistake.
        UsageError: an argument makes no sense; the results folder can not be written.
        GuntainerError: guntainer can not run here at all.
        ValueError: two Jobs have the same id, or need each other.
        RuntimeError: this thread has a running event loop.
    """
    if _has_loop():
        raise RuntimeError(
            "guntainer.batch() would block the event loop that runs in this thread: "
            "use `async with guntainer.open_batch(…) as stream` there"
        )
    stream = open_batch(
        source,
        parallel=parallel,
        only=only,
        results=results,
        store=store,
        userns=userns,
        fail_fast=fail_fast,
        settings=settings,
        output=on_event is not None,
    )
    return anyio.run(_followed, stream, on_event)


async def _followed(stream: EventStream, on_event: Callable[[events.Event], object] | None) -> Report:
    async with stream:
        async for event in stream:
            if on_event is not None:
                on_event(event)
    return stream.report if stream.kept else _without_logs(stream.report)


def open_batch(
    source: Source,
    *,
    parallel: int | None = None,
    only: Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    userns: str = "auto",
    fail_fast: bool = False,
    settings: Iterable[str] = (),
    output: bool = True,
) -> EventStream:
    """A batch as an asynchronous stream of its events: `async with open_batch(…) as stream: async for event in stream: …`.

    The batch begins when the block is entered. When it is left, also early or by an exception, the jobs that still run are
    stopped, and everything of them is gone. What the jobs print is held back while nobody takes the events: a slow
    reader slows the jobs that print, and costs no memory.

    Args:
        output: False: no JobOutput events, which is cheaper; the logs are as they would be.

    The other arguments are those of `batch`; without `results` the logs of jobs that failed can be read until the block is left.

    Raises:
        JobFileError, UsageError: here, as `batch`; what else it raises is raised by the block or by the iteration.
    """
    if parallel is not None and parallel < 1:
        raise errors.UsageError(f"parallel {parallel}: expected a number from 1")
    if userns not in ("auto", "range", "single"):
        raise errors.UsageError(f"userns {userns!r}: expected auto, range or single")
    file = _load(source, tuple(settings))
    return EventStream(
        file.replace(jobs=_chosen(file.jobs, tuple(only)), fail_fast=fail_fast or file.fail_fast),
        parallel=_bounded(parallel or len(os.sched_getaffinity(0)), file.max_parallel),
        results=None if results is None else os.path.abspath(results),
        store=None if store is None else os.fspath(store),
        userns=userns,
        output=output,
    )


def _bounded(parallel: int, most: int | None) -> int:
    return parallel if most is None else min(parallel, most)


def _load(source: Source, settings: tuple[str, ...]) -> JobFile:
    if isinstance(source, str | os.PathLike | Mapping):
        from guntainer import jobfile
        from guntainer.jobs import setting

        text, path, base = _read(source)
        here = os.getcwd()
        parsed = tuple(map(setting.parse, settings))
        notation = "json" if isinstance(source, Mapping) else None
        return load(text, path=path, base=base, format=notation, read=jobfile.read, settings=parsed, here=here)
    if settings:
        raise errors.UsageError("settings: expected a job file to set them in, got Jobs")
    jobs = tuple(source)
    for job in jobs:
        if not isinstance(job, Job):
            raise TypeError(f"expected a path, a mapping or Jobs, got {type(job).__name__} among them")
    return JobFile(path="", jobs=jobs)


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[bytes, str, str]:
    """The text of a job file, what it is called, and the folder that its paths are seen from."""
    if isinstance(source, Mapping):
        import json

        try:
            return json.dumps(source, default=_plain).encode(), "<mapping>", os.getcwd()
        except (TypeError, ValueError, RecursionError) as error:
            raise errors.JobFileError((f"<mapping>: {error}",)) from None
    from guntainer import jobfile

    path = os.fspath(source)
    try:
        return jobfile.read(path), path, os.path.abspath(os.path.dirname(path) or ".")
    except OSError as error:
        raise errors.JobFileError((f"{path}: {error.strerror}",)) from None


def _plain(value: object) -> object:
    """What JSON has no words for: paths, and mappings of other kinds."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"expected texts, numbers, lists, mappings and paths, got {type(value).__name__}")


def _chosen(jobs: tuple[Job, ...], only: tuple[str, ...]) -> tuple[Job, ...]:
    if not only:
        return jobs
    from guntainer.jobs import policy
    from guntainer.jobs.names import select

    return policy.closure(jobs, [job.id for job in select(jobs, only)])[0]


class EventStream:
    """The events of one batch, made by `open_batch`: enter it once, iterate over it once."""

    def __init__(
        self, file: JobFile, *, parallel: int, results: str | None, store: str | None, userns: str, output: bool
    ) -> None:
        self._file = file
        self._parallel = parallel
        self._results = results
        self._store = store
        self._userns = userns
        self._output = output
        self._lock = -1
        self._ids: Ids | None = None
        self._facts: tuple[tuple[str, str], ...] = ()
        self._pending: deque[events.Event] = deque()
        self._output_bytes = 0
        """Of all that pends."""
        self._more: anyio.Event | None = None
        """Set by the next event, where the reader waits for it."""
        self._less: anyio.Event | None = None
        """Set when events are taken, where output waits for that."""
        self._ended = False
        """No more events come."""
        self._left = False
        """Nobody takes any."""
        self._error: Exception | None = None
        self._report: Report | None = None

    def __repr__(self) -> str:
        return f"EventStream(jobs={len(self._file.jobs)}, pending={len(self._pending)}, ended={self._ended})"

    @property
    def kept(self) -> bool:
        """Whether there is a folder of results, in which the logs stay."""
        return self._results is not None

    @property
    def report(self) -> Report:
        """What came of the batch.

        Raises:
            RuntimeError: its BatchFinished has not been taken yet.
        """
        if self._report is None:
            raise RuntimeError("the batch has not ended: take its events until there are no more")
        return self._report

    async def __aenter__(self) -> Self:
        if not _has_loop():
            raise RuntimeError("guntainer needs asyncio's event loop: run it with asyncio.run or anyio.run")
        if self._left or self._ids is not None:
            raise RuntimeError("this batch has been run before: open another one")
        try:
            await self._begin()
        except BaseException:
            self._close()
            raise
        return self

    async def _begin(self) -> None:
        from guntainer import idmap
        from guntainer.hostfacts import host_facts

        secrets = self._secrets()
        self._ids = idmap.open_ids(self._userns)
        self._facts = host_facts(self._ids.kind)
        if self._results is not None:
            from guntainer.cli.results import open_folder

            self._lock = open_folder(self._results, self._file.jobs, what="results")
        watcher = _Reporter(self, live=self._output)
        watcher.begin(tuple(job.id for job in self._file.jobs), parallel=self._parallel, facts=self._facts)
        for text in self._file.warnings:
            watcher.note(text)
        self._supervisor = Supervisor(
            parallel=self._parallel,
            store=self._store,
            results=self._results,
            watcher=watcher,
            fail_fast=self._file.fail_fast,
            ids=self._ids,
            secrets=secrets,
        )
        await self._supervisor.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._run, watcher, self._written(watcher, None))

    def _secrets(self) -> dict[str, bytes]:
        if not any(job.secrets or job.services for job in self._file.jobs):
            return {}
        from guntainer import secret_values

        return secret_values.of_jobs(self._file.jobs)

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            try:
                await self._supervisor.__aexit__()
            finally:
                self._close()

    def _close(self) -> None:
        self._left = True
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._ids is not None and self._ids.namespace >= 0:
            os.close(self._ids.namespace)
            self._ids = self._ids.replace(namespace=-1)

    async def _run(self, watcher: _Reporter, begun: bool) -> None:
        try:
            report = await self._supervisor.run(self._file.jobs, timeout_s=self._file.timeout_s)
            report = report.replace(name=self._file.name, file=self._file.path, facts=self._facts)
            if begun:
                self._written(watcher, report)
            watcher.end(report)
        except Exception as error:
            self._error = error  # raised by the iteration, as it is
        finally:
            self._ended = True
            self._wake()

    def _written(self, watcher: _Reporter, report: Report | None) -> bool:
        """Write batch.json where there is a folder for it: whether that went well. Without a thread, as result.json: it is small."""
        if self._results is None:
            return False
        import time

        from guntainer import report as reports
        from guntainer.reports.folder import write_batch

        known = report or reports.Report(
            results=(),
            name=self._file.name,
            file=self._file.path,
            started_at=time.time(),
            parallel=self._parallel,
            facts=self._facts,
        )
        try:
            write_batch(self._results, known, (job.id for job in self._file.jobs), running=report is None)
        except OSError as error:
            watcher.note(f"results can not be written: {errors.describe_oserror(error)}")
            return False
        return True

    # -- the side of the supervisor

    def put(self, event: events.Event) -> None:
        """Take an event for the reader."""
        if self._left:
            return
        if isinstance(event, events.Progress) and self._pending:
            last = self._pending[-1]
            if isinstance(last, events.Progress) and last.name == event.name:
                self._pending.pop()
            elif len(self._pending) > _MOST_PENDING:
                return
        elif isinstance(event, events.JobOutput):
            self._output_bytes += len(event.data)
        self._pending.append(event)
        self._wake()

    async def room(self) -> None:
        """Wait until output may be taken: while too much of it pends, and somebody takes it."""
        while self._output_bytes > _MOST_OUTPUT_BYTES and not self._left:
            if self._less is None:
                self._less = anyio.Event()
            await self._less.wait()

    def leave(self) -> None:
        """Nobody takes events any more: what comes is dropped, and held back no longer."""
        self._left = True
        self._pending.clear()
        self._output_bytes = 0
        if self._less is not None:
            self._less.set()
            self._less = None

    def _wake(self) -> None:
        if self._more is not None:
            self._more.set()
            self._more = None

    # -- the side of the reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> events.Event:
        while not self._pending:
            if self._error is not None:
                raise self._error
            if self._ended or self._left:
                raise StopAsyncIteration
            if self._more is None:
                self._more = anyio.Event()
            await self._more.wait()
        event = self._pending.popleft()
        if isinstance(event, events.JobOutput):
            self._output_bytes -= len(event.data)
            if self._less is not None and self._output_bytes <= _MOST_OUTPUT_BYTES:
                self._less.set()
                self._less = None
        elif isinstance(event, events.BatchFinished):
            self._report = event.report
        return event


class _Reporter(Announcer):
    """Puts what the supervisor tells into a stream."""

    def __init__(self, stream: EventStream, *, live: bool) -> None:
        super().__init__(stream.put)
        self.live = live
        self._stream = stream

    async def output(self, job: Job, stream: str, data: bytes) -> None:
        await self._stream.room()
        await super().output(job, stream, data)

    async def finished(self, result: Result) -> None:
        if result.ok and not self._stream.kept:
            result = result.replace(stdout=None, stderr=None)  # the next job writes over it
        await super().finished(result)


def _without_logs(report: Report) -> Report:
    """A report whose logs are gone."""

    def bare(result: Result) -> Result:
        attempts = tuple(one.replace(stdout=None, stderr=None) for one in result.attempts)
        return result.replace(stdout=None, stderr=None, attempts=attempts)

    return report.replace(results=tuple(map(bare, report.results)))


def _has_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
