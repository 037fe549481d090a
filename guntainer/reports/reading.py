"""A results folder as a Report: of each job what it says, as far as it can be believed; the rest is named as a problem."""

from __future__ import annotations

from guntainer import errors, history, report
from guntainer.jobs.names import folder_name
from guntainer.jobs.values import quoted
from guntainer.reports.fields import Fields, clean
from guntainer.reports.folder import BATCH, MOST_BATCH, MOST_RESULT, RESULT, VERSION, Folder, Unreadable
from guntainer.reports.problems import Problems
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_MOST_JOBS = 100_000
_MOST_ATTEMPTS = 1000
_NUMBERS = (
    *("begin_ns", "wait_ns", "prepare_ns", "queue_ns", "wall_ns", "launch_ns", "cpu_user_ns", "cpu_system_ns"),
    *("max_rss_bytes", "cpu_throttled_ns", "oom_kills", "pids_refused"),
)


class Stored(Value):
    """What a results folder holds."""

    path: str
    report: report.Report
    folders: dict[str, str]
    """The jobs' folders in there, by id."""
    problems: tuple[str, ...] = ()
    """What can not be read, or is not what it should be: one sentence each."""
    runs: Mapping[str, Sequence[Mapping[str, Any]]] = {}
    """Runs of the jobs before that batch, by id, as `page.History`."""
    complete: bool = True
    """The batch has come to its end."""


def read(path: str) -> Stored:
    """Read a results folder, as far as that is possible.

    Raises:
        UsageError: there is none, or nothing in it is a result.
    """
    try:
        folder = Folder(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise errors.UsageError(f"{path}: {why}", hint="name a folder that batch --results has written") from None
    try:
        return _read_all(folder, path)
    finally:
        folder.close()


def _read_all(folder: Folder, path: str) -> Stored:
    problems = Problems()
    batch = _batch(folder, problems)
    if batch is not None and batch.has("jobs"):
        entries = _entries(batch, problems)
        ended = batch.has("wall_ns")
        results = [(_result(folder, one, problems, ended=ended), one.folder) for one in entries.values()]
        runs = {job_id: found for job_id, one in entries.items() if (found := history.parsed(one.runs))}
    else:
        runs = {}
        results = _unnamed(folder, _listed(folder), problems)
        if not results:
            why = "neither a batch.json nor a job's result.json is in there"
            raise errors.UsageError(f"{path}: {why}", hint="name a folder that batch --results has written")
    return _assembled(path, results, batch, problems).replace(runs=runs)


def _assembled(path: str, results: list[tuple[report.Result, str]], batch: Fields | None, problems: Problems) -> Stored:
    ended_ns = max((_end_ns(result) for result, _ in results if report.EARLIER not in result.notes), default=0)
    wall_ns = batch.maybe_number("wall_ns") if batch is not None else None
    if batch is not None and wall_ns is None:
        problems.add(f"{BATCH}: the batch has not ended, or was killed: these are the results until then")
    whole = report.Report(
        results=tuple(result for result, _ in results),
        wall_ns=ended_ns if wall_ns is None else wall_ns,
        interrupted=batch.maybe_number("interrupted", least=1) if batch is not None else None,
        name=batch.text("name") if batch is not None else "",
        file=batch.text("file") if batch is not None else "",
        started_at=batch.seconds("started_at") if batch is not None else 0.0,
        parallel=batch.number("parallel") if batch is not None else 0,
        facts=batch.pairs("facts") if batch is not None else (),
    )
    return Stored(
        path=path,
        report=whole,
        folders={result.id: name for result, name in results},
        problems=problems.told(),
        complete=wall_ns is not None,
    )


def _end_ns(result: report.Result) -> int:
    return result.begin_ns + result.wait_ns + result.prepare_ns + result.queue_ns + result.wall_ns


def _batch(folder: Folder, problems: Problems) -> Fields | None:
    try:
        values = folder.read_json(BATCH, MOST_BATCH)
    except FileNotFoundError:
        problems.add(f"{BATCH} is missing: the jobs are those that have a {RESULT}")
        return None
    except Unreadable as error:
        problems.add(f"{BATCH}: {error}: the jobs are those that have a {RESULT}")
        return None
    version = values.get("version")
    if version != VERSION:
        problems.add(f"{BATCH}: version {version!r:.40} is not known here: it may be read wrongly")
    return Fields(values, BATCH, problems)


class _Entry(Value):
    """What batch.json says of a job."""

    id: str
    folder: str
    earlier: bool
    runs: str


def _entries(batch: Fields, problems: Problems) -> dict[str, _Entry]:
    """By id, in the file's order."""
    found: dict[str, _Entry] = {}
    taken: set[str] = set()
    for one in batch.tables("jobs")[:_MOST_JOBS]:
        job_id, name = one.text("id"), one.text("folder")
        if not job_id:
            problems.add(f"{BATCH}: a job without an id")
            continue
        if job_id in found:
            problems.add(f"{BATCH}: {quoted(job_id)}: is listed twice")
            continue
        if not _is_name(name) or name in taken:
            problems.add(f"{BATCH}: {quoted(job_id)}: {quoted(name)} is no folder of its own")
            name = folder_name(job_id)
        taken.add(name)
        found[job_id] = _Entry(id=job_id, folder=name, earlier=one.flag("earlier"), runs=one.text("runs"))
    return found


def _is_name(name: str) -> bool:
    if not name.isprintable():  # as surrogates are not, which stand for bytes that are no UTF-8
        return False
    return 0 < len(name.encode()) <= 255 and not name.startswith(".") and "/" not in name


def _listed(folder: Folder) -> list[str]:
    """Folders that may be a job's, where no batch.json says which."""
    return [name for name in folder.names()[:_MOST_JOBS] if _is_name(name)]


def _unnamed(folder: Folder, names: list[str], problems: Problems) -> list[tuple[report.Result, str]]:
    found: dict[str, tuple[report.Result, str]] = {}
    for name in names:
        try:
            values = folder.read_json(f"{name}/{RESULT}", MOST_RESULT)
        except (FileNotFoundError, Unreadable) as error:
            if isinstance(error, Unreadable) and str(error) != "what leads there is no folder":
                problems.add(f"{clean(name)}/{RESULT}: {error}")
            continue
        result = result_of(Fields(values, f"{name}/{RESULT}", problems), problems, clean(name))
        if result.id in found:
            problems.add(f"{name}/{RESULT}: {quoted(result.id)} has another folder as well")
        else:
            found[result.id] = (result, name)
    return sorted(found.values(), key=lambda one: (one[0].begin_ns, one[0].id))


def _result(folder: Folder, entry: _Entry, problems: Problems, *, ended: bool) -> report.Result:
    """A job's result; one that says why, where there is none.

    Args:
        ended: the batch has: each of its jobs should have one.
    """
    job_id, where = entry.id, f"{entry.folder}/{RESULT}"
    try:
        values = folder.read_json(where, MOST_RESULT)
    except FileNotFoundError:
        if ended:
            problems.add(f"{where} is missing")
        exit_ = report.cancelled("no result was written")
        return report.Result(id=job_id, key=_key_of(job_id), exit=exit_)
    except Unreadable as error:
        problems.add(f"{where}: {error}")
        exit_ = report.Exit(
            reason=report.SETUP, code=errors.OWN_FAILURE, message=f"its {RESULT} can not be read: {error}"
        )
        return report.Result(id=job_id, key=_key_of(job_id), exit=exit_)
    result = result_of(Fields(values, where, problems), problems, job_id)
    if result.id != job_id:
        problems.add(f"{where}: is of {quoted(result.id)}, not of {quoted(job_id)}")
        result = result.replace(id=job_id)
    return result.earlier() if entry.earlier else result


def _key_of(job_id: str) -> str:
    """The key of a job of which nothing but its id is known."""
    return job_id.partition(" (")[0] or job_id


def result_of(fields: Fields, problems: Problems, otherwise: str) -> report.Result:
    """A result as `report_text.json_object` has written it.

    Args:
        otherwise: its id, where it does not say.
    """
    job_id = fields.text("id") or otherwise
    numbers: Any = {name: fields.number(name) for name in _NUMBERS}
    return report.Result(
        id=job_id,
        key=fields.text("job") or job_id,
        exit=exit_of(fields, problems),
        rootfs=fields.text("rootfs"),
        matrix=fields.pairs("matrix"),
        started_at=fields.seconds("started_at"),
        **numbers,
        slot=fields.number("slot", least=-1),
        memory_peak_bytes=fields.maybe_number("memory_peak_bytes"),
        limits=fields.pairs("limits"),
        isolation=fields.text("isolation"),
        userns=fields.text("userns"),
        scratch=fields.text("scratch"),
        notes=fields.texts("notes"),
        needs=fields.texts("needs"),
        allow_failure=fields.flag("allow_failure"),
        attempts=tuple(
            report.Attempt(
                exit=exit_of(one, problems), started_at=one.seconds("started_at"), wall_ns=one.number("wall_ns")
            )
            for one in fields.tables("attempts")[:_MOST_ATTEMPTS]
        ),
        artifacts=tuple(
            report.Artifact(path=one.text("path"), size_bytes=one.number("size_bytes"))
            for one in fields.tables("artifacts")
        ),
    )


def exit_of(fields: Fields, problems: Problems) -> report.Exit:
    """How it ended; what is not known to end so is an error of its own."""
    reason, message = fields.text("reason"), fields.text("message")
    code = fields.number("code")
    if reason not in report.REASONS:
        problems.add(f"{fields.where}: unknown reason {quoted(reason)}: shown as an error")
        return report.Exit(
            reason=report.SETUP, code=errors.OWN_FAILURE, message=message or "its result can not be read"
        )
    probe = fields.text("probe")
    return report.Exit(
        reason=reason,
        code=code,
        signal=fields.maybe_number("signal", least=1),
        core_dumped=fields.flag("core_dumped"),
        message=message,
        error=errors.GuntainerError(message, probe=probe) if probe else None,
    )
