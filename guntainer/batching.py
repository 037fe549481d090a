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
from collections.abc import Iterable, Mapping

import anyio

from guntainer import errors, events
from guntainer.event_stream import EventStream, has_loop
from guntainer.jobs.load import JobFile, load
from guntainer.jobs.model import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.report import Report, Result

    Source = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Job]


def batch(
    source: Source,
    *,
    parallel: int | None = None,
    only: str | Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    userns: str = "auto",
    fail_fast: bool = False,
    settings: str | Iterable[str] = (),
    on_event: Callable[[events.Event], object] | None = None,
) -> Report:
    """Run a batch, and return what came of it when all of its jobs have ended.

    A job that fails is no exception: look at the report's `exit_code`, `first_failure` and `results`.

    Args:
        source: the path of a job file; a mapping with the keys of one, whose relative paths are seen from the working
            directory; or Jobs.
        parallel: containers at once; None: one per core. A job file's max-parallel is not exceeded.
        only: patterns of the jobs to run, as --only has them, or one of them; what they need runs as well.
        results: a folder in which each job's stdout, stderr and result.json are kept, see `guntainer report`. None: the
            results in the report have no logs: their `stdout` and `stderr` are None.
        store: where unpacked archives are kept; None: GUNTAINER_STORE or the cache folder.
        userns: "range", "single" or "auto", as --userns.
        fail_fast: the first failure cancels the rest.
        settings: `KEY=VALUE` texts, as --set, or one of them; not for Jobs.
        on_event: is called with each event, in this thread, between two steps of the batch: what takes long there holds
            the batch up. What it raises ends the batch, and is raised here.

    Raises:
        JobFileError: the source is no valid job file; its `problems` has a line for each mistake.
        UsageError: an argument makes no sense; the results folder can not be written.
        GuntainerError: guntainer can not run here at all.
        ValueError: two Jobs have the same id, or need each other.
        RuntimeError: this thread has a running event loop.
    """
    if has_loop():
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
    only: str | Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    userns: str = "auto",
    fail_fast: bool = False,
    settings: str | Iterable[str] = (),
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
    if parallel is not None and (type(parallel) is not int or parallel < 1):
        raise errors.UsageError(f"parallel {parallel!r}: expected a number from 1")
    if userns not in ("auto", "range", "single"):
        raise errors.UsageError(f"userns {userns!r}: expected auto, range or single")
    patterns = _texts(only, "only")
    kept, known_store = _folder(results, "results"), _folder(store, "store")
    file = _load(source, _texts(settings, "settings"))
    return EventStream(
        file.replace(jobs=_chosen(file.jobs, patterns), fail_fast=fail_fast or file.fail_fast),
        known=tuple(job.id for job in file.jobs),
        parallel=_bounded(parallel or len(os.sched_getaffinity(0)), file.max_parallel),
        results=None if kept is None else os.path.abspath(kept),
        store=known_store,
        userns=userns,
        output=output,
    )


def _texts(given: object, what: str) -> tuple[str, ...]:
    """Several texts; one alone is meant as it stands, and not letter by letter.

    Raises:
        UsageError: they are something else.
    """
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise errors.UsageError(f"{what}: expected texts, got {given!r}")
    found = tuple(given)
    for one in found:
        if not isinstance(one, str):
            raise errors.UsageError(f"{what}: expected texts, got {one!r} among them")
    return found


def _folder(given: object, what: str) -> str | None:
    """The path of a folder; "" is none: it would be the working directory.

    Raises:
        UsageError: it is something else.
    """
    if given is None:
        return None
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str):
        raise errors.UsageError(f"{what}: expected the path of a folder, got {given!r}")
    if not path:
        raise errors.UsageError(f"{what}: expected the path of a folder, got an empty one")
    return path


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
    if not isinstance(source, Iterable):
        raise TypeError(f"expected a path, a mapping or Jobs, got {type(source).__name__}")
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


def _without_logs(report: Report) -> Report:
    """A report whose logs are gone."""

    def bare(result: Result) -> Result:
        attempts = tuple(one.replace(stdout=None, stderr=None) for one in result.attempts)
        return result.replace(stdout=None, stderr=None, attempts=attempts)

    return report.replace(results=tuple(map(bare, report.results)))
