"""One batch as a stream of its events: started when the stream is entered, stopped and gone when it is left.

What jobs print is held back while nobody takes events; everything else is little, and waits for nobody.
"""

from __future__ import annotations

import os
from collections import deque

import anyio

from guntainer import errors, events
from guntainer.jobs.load import JobFile
from guntainer.jobs.model import Job
from guntainer.supervisor import Supervisor
from guntainer.watcher import Announcer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from guntainer.idmap import Ids
    from guntainer.report import Report, Result
    from guntainer.reports.batchfile import Listed
    from guntainer.resultsfolder import ResultsFolder

_MOST_OUTPUT_BYTES = 1 << 20
_MOST_PENDING = 1000  # events, before progress, of which the newest is enough, is left out


class EventStream:
    """The events of one batch, made by `open_batch`: enter it once, iterate over it once."""

    def __init__(
        self,
        file: JobFile,
        *,
        known: tuple[str, ...],
        parallel: int,
        results: str | None,
        store: str | None,
        userns: str,
        output: bool,
    ) -> None:
        self._file = file
        self._parallel = parallel
        self._results = results
        self._store = store
        self._userns = userns
        self._output = output
        self._known = known
        self._folder: ResultsFolder | None = None
        self._listed: Listed | None = None
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
        if not has_loop():
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

            self._folder = open_folder(self._results, self._file.jobs, what="results")
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
        if self._folder is not None:
            self._folder.close()
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
        if self._folder is None:
            return False
        import time

        from guntainer import report as reports
        from guntainer.reports import batchfile

        known = report or reports.Report(
            results=(),
            name=self._file.name,
            file=self._file.path,
            started_at=time.time(),
            parallel=self._parallel,
            facts=self._facts,
        )
        try:
            if self._listed is None:
                ids = (job.id for job in self._file.jobs)
                self._listed = batchfile.listed(self._folder.path, ids, self._known)
            batchfile.write(self._folder.fd, known, self._listed, running=report is None)
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
        """The next one.

        Raises:
            RuntimeError: the block of the batch has not been entered, so that none would ever come.
            GuntainerError: guntainer can not run the batch.
        """
        if self._ids is None and not self._left:
            raise RuntimeError(
                "this batch has not begun: enter it first, with `async with guntainer.open_batch(…) as stream`"
            )
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


def has_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
