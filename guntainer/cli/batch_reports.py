"""The files that a batch writes of itself: batch.json in its results folder, and what --html and --junit ask for."""

from __future__ import annotations

import os
import time

from guntainer import errors
from guntainer.jobs.names import folder_name
from guntainer.report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.history import History
    from guntainer.report import Result
    from guntainer.reports.batchfile import Listed
    from guntainer.reports.writing import Target
    from guntainer.resultsfolder import ResultsFolder


class Reports:
    """Those of one batch.

    Args:
        folder: of results; None: there is none.
        html, junit: paths; None: not asked for.
        ids: of the batch's jobs, in the file's order.
        known: those of all jobs of the file.
        taken: of the batch's jobs whose results an earlier one has left in the folder.
        stub: what is known of the batch before it begins.
        history: earlier runs.
        warn: told of what can not be written, and is not worth an exit code.
    """

    def __init__(
        self,
        folder: str | None,
        *,
        html: str | None,
        junit: str | None,
        ids: tuple[str, ...],
        known: tuple[str, ...],
        taken: tuple[str, ...],
        stub: Report,
        history: History,
        warn: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._html = html
        self._junit = junit
        self._ids = ids
        self._known = known
        self._taken = taken
        self._history = history
        self._targets: dict[str, Target] = {}
        self._opened: ResultsFolder | None = None
        self._listed: Listed | None = None
        self._stub = stub.replace(started_at=time.time())
        self._warn = warn

    def check(self, json: str | None, sources: tuple[str, ...]) -> None:
        """Before anything is touched: what can not be written is not found out after an hour.

        Args:
            json: the path of --json, which is written elsewhere.
            sources: the job file, and those that it takes over from.

        Raises:
            UsageError: a file can not be written, or two are the same.
        """
        from guntainer.reports import writing

        if self._folder is not None:
            try:
                os.makedirs(self._folder, exist_ok=True)  # a report may be meant to lie in there
            except OSError:
                pass  # whoever opens it says so
        taken = writing.own_files(self._folder, sources)
        jobs = {folder_name(job_id) for job_id in self._ids} if self._folder is not None else set()
        if json is not None:
            writing.claim(json, "--json", taken, jobs, self._folder)
        for option, path in (("--html", self._html), ("--junit", self._junit)):
            if path is None:
                continue
            if path == "-":
                raise errors.UsageError(f"{option} -: expected a file", hint="`guntainer report DIR` writes to -")
            writing.claim(path, option, taken, jobs, self._folder)
            self._targets[option] = writing.Target(path, option=option)

    def close(self) -> None:
        """Let go of where reports go."""
        for target in self._targets.values():
            target.close()
        self._targets.clear()

    def begin(self, opened: ResultsFolder | None) -> None:
        """The batch has begun: batch.json, where there is a folder for it.

        Args:
            opened: the folder, which stays open until `write` has returned.
        """
        if opened is None:
            return
        from guntainer.reports import batchfile

        listed = batchfile.listed(opened.path, self._ids, self._known, self._taken)
        self._listed = listed.replace(runs=self._history.texts(listed.ids))
        self._opened = opened
        problem = self._write_batch(self._stub, running=True)
        if problem:
            self._warn(problem)

    def whole(self, report: Report, done: tuple[Result, ...]) -> Report:
        """A report with what is known of the batch beside its results, and the results of jobs that were done before."""
        stub = self._stub
        if done:
            found = {result.id: result for result in (*done, *report.results)}
            report = report.replace(results=tuple(found[id_] for id_ in self._ids if id_ in found))
        return report.replace(name=stub.name, file=stub.file, facts=stub.facts)

    async def write(self, report: Report) -> list[errors.GuntainerError]:
        """All of them, at the end, each whole or not there. Returns why some could not be written."""
        if self._folder is None and not self._targets:
            return []
        from guntainer.offloading import in_thread

        failures, problem = await in_thread(self._write, report)
        if problem:
            self._warn(problem)
        return failures

    def _write(self, report: Report) -> tuple[list[errors.GuntainerError], str]:
        from guntainer import reports

        problem = self._write_batch(report, running=False)
        if self._opened is not None and (place := self._opened.moved()):
            # whoever has moved it may have put anything in its place, and nobody asked for reports of that
            why = f"{self._folder} was moved or replaced while the batch ran: its results are in {place}"
            return [errors.GuntainerError(why, hint="keep it out of what jobs may write to")], problem
        failures: list[errors.GuntainerError] = []
        junit, page = self._targets.get("--junit"), self._targets.get("--html")
        if junit is not None:
            failures += _tried(lambda to: reports.write_junit(to, report, self._folder), junit)
        if page is not None:
            runs = self._history.by_job(report)
            failures += _tried(lambda to: reports.write_html(to, report, self._folder, runs), page)
        return failures, problem

    def _write_batch(self, report: Report, *, running: bool) -> str:
        """Write batch.json, where there is a folder for it; returns why it could not be written."""
        if self._opened is None or self._listed is None:
            return ""
        from guntainer.reports import batchfile

        try:
            batchfile.write(self._opened.fd, report, self._listed, running=running)
        except OSError as error:
            return f"results can not be written: {errors.describe_oserror(error)}"
        return ""


def _tried(write: Callable[[Target], object], target: Target) -> list[errors.GuntainerError]:
    try:
        write(target)
    except errors.GuntainerError as error:
        return [error]
    return []
