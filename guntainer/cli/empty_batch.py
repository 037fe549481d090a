"""The reports of a batch that has nothing to do: whole, and without a job, so that no earlier ones stay in their places."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.cli import complain, show
from guntainer.report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.cli.options import Options
    from guntainer.history import History
    from guntainer.idmap import Ids
    from guntainer.jobs.load import JobFile


def write_reports(args: Options, file: JobFile, history: History, ids: Ids, *, parallel: int) -> int:
    """Write what --html, --junit and --json ask for; a results folder that has something stays as it is. Returns the exit code.

    Raises:
        UsageError: one of them can not be written.
    """
    import time

    import anyio

    from guntainer.cli import results
    from guntainer.cli.batch_reports import Reports
    from guntainer.hostfacts import host_facts

    now, facts = time.time(), host_facts(ids.kind)
    stub = Report(results=(), name=file.name, file=file.path, started_at=now, parallel=parallel, facts=facts)
    path = results.absolute(args.results, f"--results {args.results}") if args.results else None
    folder = None
    reports = Reports(
        path,
        html=args.html,
        junit=args.junit,
        ids=(),
        known=tuple(job.id for job in file.jobs),
        taken=(),
        stub=stub,
        history=history,
        warn=complain,
    )
    source = () if file.path == "<stdin>" else (file.path,)
    try:
        reports.check(args.json, (*source, *file.extends))
        if path is not None and not os.path.lexists(f"{path}/batch.json"):
            folder = results.open_folder(path, ())
            reports.begin(folder)
        failures = _lines(args.json, stub) if args.json else []
        failures += anyio.run(reports.write, stub)
    finally:
        reports.close()
        if folder is not None:
            folder.close()
    for failure in failures:
        complain(str(failure))
    return errors.OWN_FAILURE if failures else 0


def _lines(path: str, report: Report) -> list[errors.GuntainerError]:
    """Those of --json: the first and the last one.

    Raises:
        OSError: standard output does not take them, as that of any command.
    """
    from guntainer import json_lines
    from guntainer.cli.json_stream import JsonStream
    from guntainer.watcher import Announcer

    if path == "-":
        out = Announcer(lambda event: show(json_lines.line(event, exit_code=0).decode()))
        out.begin((), parallel=report.parallel, facts=report.facts)
        out.end(report)
        return []
    stream = JsonStream(path)
    try:
        stream.begin((), parallel=report.parallel, facts=report.facts)
        stream.end(report, 0)
    finally:
        stream.close()
    return [] if stream.failure is None else [stream.failure]
