"""Which jobs of a file this batch runs, and which results of an earlier one it takes over: what the options say of that.

The words are in `jobs.selection`; here they meet what is known of earlier runs: a results folder, or the history.
"""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guntainer.cli.options import Options
    from guntainer.history import History
    from guntainer.jobs.load import JobFile
    from guntainer.jobs.model import Job
    from guntainer.report import Result

_SHOWN = 5


class Selection(Value):
    """What a batch is about."""

    jobs: tuple[Job, ...]
    """To be run."""
    taken: tuple[Result, ...] = ()
    """Results of jobs that are not run again."""
    ids: tuple[str, ...] = ()
    """Of both, in the order of the file."""
    notes: tuple[str, ...] = ()
    nothing: str = ""
    """Why there is nothing to be done."""


def check(args: Options) -> None:
    """Options that do not go together, before the file is read.

    Raises:
        UsageError: naming them.
    """
    if args.rerun_failed and args.resume:
        raise errors.UsageError("--rerun-failed and --resume can not be used together")
    if args.resume and not args.results:
        raise errors.UsageError(
            "--resume needs --results DIR: the results of the jobs that ended well are taken over from there"
        )


def select(args: Options, file: JobFile, history: History) -> Selection:
    """The jobs that the options mean.

    Raises:
        UsageError: an option means no job, or asks for what nobody knows.
    """
    from guntainer.jobs import selection

    jobs = selection.chosen(file.jobs, args.only, args.matrix)
    if args.rerun_failed:
        jobs = selection.not_good(jobs, _last(args, file, history))
        if not jobs:
            return Selection(jobs=(), nothing="nothing failed last time")
    if args.shard:
        jobs = selection.shard(jobs, args.shard)
        if not jobs:
            return Selection(jobs=(), nothing=f"--shard {args.shard}: no job is left for this part")
    ids = {job.id for job in jobs}
    if args.rerun_failed:
        return _of(selection.again(file.jobs, ids))
    whole, added = selection.whole(file.jobs, ids)
    found = _of(whole, _added(added))
    return _resumed(args, found) if args.resume else found


def _of(jobs: tuple[Job, ...], notes: tuple[str, ...] = ()) -> Selection:
    return Selection(jobs=jobs, ids=tuple(job.id for job in jobs), notes=notes)


def _added(ids: tuple[str, ...]) -> tuple[str, ...]:
    if not ids:
        return ()
    shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    return (f"run as well, since the chosen jobs need {'it' if len(ids) == 1 else 'them'}: {shown}",)


def _last(args: Options, file: JobFile, history: History) -> Mapping[str, str]:
    """How the jobs ended last time, by id: of the results folder where something is in it, else of the history.

    Raises:
        UsageError: nothing is known.
    """
    ids = {job.id for job in file.jobs}
    last: Mapping[str, str] = {}
    if args.results:
        results, begun = read_results(args.results, file.jobs)
        # it was to run there, and did not come to its end
        last = {**dict.fromkeys(begun, "cancelled"), **{job_id: result.outcome for job_id, result in results.items()}}
    last = last or history.last()
    known = {job_id: outcome for job_id, outcome in last.items() if job_id in ids}
    if not known:
        where = f"{args.results} has no results, and " if args.results else ""
        why = history.note or (history.detail and f"{history.detail}: name the earlier --results DIR")
        raise errors.UsageError(
            f"--rerun-failed: {where}nothing is known of earlier runs of {file.path}",
            hint=why or "run it once without --rerun-failed",
        )
    return known


def _resumed(args: Options, whole: Selection) -> Selection:
    from guntainer.jobs import selection

    results, begun = read_results(args.results, whole.jobs)
    good = {job_id for job_id, result in results.items() if result.outcome in selection.GOOD}
    if not results and not begun:
        return whole.replace(notes=(*whole.notes, f"--resume: {args.results} has no results yet: all jobs are run"))
    left = {job.id for job in whole.jobs} - good
    jobs = selection.again(whole.jobs, left)
    running = {job.id for job in jobs}
    taken = tuple(_taken_over(args.results, job, results[job.id]) for job in whole.jobs if job.id not in running)
    return whole.replace(jobs=jobs, taken=taken)


def _taken_over(folder: str, job: Job, result: Result) -> Result:
    """A result as it was, in no slot of this batch."""
    from guntainer.jobs.names import folder_name

    logs = {}
    for name in ("stdout", "stderr"):
        path = f"{os.path.abspath(folder)}/{folder_name(job.id)}/{name}"
        logs[name] = path if os.path.isfile(path) and not os.path.islink(path) else None
    return result.earlier().replace(key=job.key or job.id, matrix=job.matrix, allow_failure=job.allow_failure, **logs)


def read_results(path: str, jobs: Sequence[Job]) -> tuple[dict[str, Result], tuple[str, ...]]:
    """What a results folder has of these jobs: their results by id, and those that the last batch was to run there.

    Each job is looked for where its folder is, whatever the last batch was about: it may have run a few of them alone. What can
    not be read is not there.
    """
    from guntainer.jobs.names import folder_name
    from guntainer.reports.fields import Fields
    from guntainer.reports.folder import MOST_RESULT, RESULT, Folder, Unreadable
    from guntainer.reports.problems import Problems
    from guntainer.reports.reading import result_of

    found: dict[str, Result] = {}
    try:
        folder = Folder(path)
    except (OSError, ValueError):
        return found, ()
    try:
        problems = Problems()
        for job in jobs:
            where = f"{folder_name(job.id)}/{RESULT}"
            try:
                values = folder.read_json(where, MOST_RESULT)
            except (FileNotFoundError, Unreadable):
                continue
            if values.get("id") == job.id:
                found[job.id] = result_of(Fields(values, where, problems), problems, job.id).replace(id=job.id)
        return found, folder.listed()
    finally:
        folder.close()
