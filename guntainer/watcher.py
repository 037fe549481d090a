"""Who is told what happens in a batch: the interface of a supervisor to whatever shows it."""

from __future__ import annotations

import time

from guntainer import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.jobs.model import Job
    from guntainer.report import Exit, Report, Result


class Watcher:
    """What a supervisor tells while it works; the base does nothing. Override what you want to know."""

    live = False
    """True: output is shown while it comes, so it takes a pipe and a pump; False: the log is the container's own stdout."""

    def waiting(self, job: Job) -> None:
        """The job waits for others that it needs."""

    def preparing(self, job: Job) -> None:
        """The job waits for its rootfs, and then for a slot."""

    def started(self, job: Job) -> None:
        """The job's container is being launched."""

    def retrying(self, job: Job, attempt: int, exit_: Exit, wait_s: float) -> None:
        """An attempt, counted from 1, has failed; the next one comes after a while."""

    async def output(self, job: Job, stream: str, data: bytes) -> None:
        """Bytes of the job's "stdout" or "stderr", as they came."""

    async def finished(self, result: Result) -> None:
        """The job has ended; its logs are still there."""

    def progress(self, name: str, done: int, total: int) -> None:
        """Of a rootfs being unpacked: bytes of the archive read, and its size."""

    def note(self, text: str) -> None:
        """Something went otherwise than asked for; said once."""


class Announcer(Watcher):
    """Makes an event of each thing that it is told.

    Args:
        tell: takes them, in their order, and never waits.
    """

    def __init__(self, tell: Callable[[events.Event], None]) -> None:
        self._tell = tell
        self._began_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        """Since the batch began."""
        return time.monotonic_ns() - self._began_ns

    def begin(self, jobs: tuple[str, ...], *, parallel: int, facts: tuple[tuple[str, str], ...]) -> None:
        """The batch begins now, with these jobs."""
        self._began_ns = time.monotonic_ns()
        self._tell(events.BatchStarted(jobs=jobs, started_at=time.time(), parallel=parallel, facts=facts))

    def end(self, report: Report) -> None:
        """All of them have ended."""
        self._tell(events.BatchFinished(at_ns=self.now_ns(), report=report))

    def waiting(self, job: Job) -> None:
        self._tell(events.JobWaiting(at_ns=self.now_ns(), id=job.id))

    def preparing(self, job: Job) -> None:
        self._tell(events.JobPreparing(at_ns=self.now_ns(), id=job.id))

    def started(self, job: Job) -> None:
        self._tell(events.JobStarted(at_ns=self.now_ns(), id=job.id))

    def retrying(self, job: Job, attempt: int, exit_: Exit, wait_s: float) -> None:
        self._tell(events.JobRetrying(at_ns=self.now_ns(), id=job.id, attempt=attempt, exit=exit_, wait_s=wait_s))

    async def output(self, job: Job, stream: str, data: bytes) -> None:
        self._tell(events.JobOutput(at_ns=self.now_ns(), id=job.id, stream=stream, data=data))

    async def finished(self, result: Result) -> None:
        self._tell(events.JobFinished(at_ns=self.now_ns(), result=result))

    def progress(self, name: str, done: int, total: int) -> None:
        self._tell(events.Progress(at_ns=self.now_ns(), name=name, done_bytes=done, total_bytes=total))

    def note(self, text: str) -> None:
        self._tell(events.Note(at_ns=self.now_ns(), text=text))


class Both(Watcher):
    """Two of them: each thing is told to the first one, then to the second one."""

    def __init__(self, first: Watcher, second: Watcher) -> None:
        self.live = first.live or second.live
        self._both = (first, second)
        self._live = tuple(one for one in self._both if one.live)

    def waiting(self, job: Job) -> None:
        for one in self._both:
            one.waiting(job)

    def preparing(self, job: Job) -> None:
        for one in self._both:
            one.preparing(job)

    def started(self, job: Job) -> None:
        for one in self._both:
            one.started(job)

    def retrying(self, job: Job, attempt: int, exit_: Exit, wait_s: float) -> None:
        for one in self._both:
            one.retrying(job, attempt, exit_, wait_s)

    async def output(self, job: Job, stream: str, data: bytes) -> None:
        for one in self._live:
            await one.output(job, stream, data)

    async def finished(self, result: Result) -> None:
        for one in self._both:
            await one.finished(result)

    def progress(self, name: str, done: int, total: int) -> None:
        for one in self._both:
            one.progress(name, done, total)

    def note(self, text: str) -> None:
        for one in self._both:
            one.note(text)
