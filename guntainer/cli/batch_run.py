"""One batch from its jobs to its exit code: what is shown, what is written, the signals that end it."""

from __future__ import annotations

import _signal
import errno
import os

from guntainer import errors
from guntainer.cli import complain, results
from guntainer.cli.batch_reports import Reports
from guntainer.report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.cli.json_stream import JsonStream
    from guntainer.cli.options import Options
    from guntainer.cli.selecting import Selection
    from guntainer.cli.telling import Telling
    from guntainer.containers import AfterFailure
    from guntainer.history import History
    from guntainer.idmap import Ids
    from guntainer.jobs.load import JobFile
    from guntainer.launcher.spawn import Zygote
    from guntainer.resultsfolder import ResultsFolder
    from guntainer.screen import Screen
    from guntainer.store.headstart import HeadStart
    from guntainer.supervisor import Supervisor
    from guntainer.watcher import Watcher


class Batch:
    """One batch: what is shown, what is written, what it ends with."""

    def __init__(
        self,
        args: Options,
        selection: Selection,
        file: JobFile,
        parallel: int,
        ids: Ids,
        zygote: Zygote | None,
        history: History,
    ) -> None:
        from guntainer.cli import telling

        self._args = args
        self._jobs, self._told_first = selection.jobs, selection.notes
        if args.interactive_on_failure:
            from guntainer.cli import interactive

            self._jobs, more = interactive.on_disk(self._jobs)
            self._told_first += more
        self._selection = selection
        self._history = history
        self._expected = history.expected()
        self._file = file
        self._parallel = parallel
        self._ids = ids
        self._zygote = zygote
        self._head_start: HeadStart | None = None
        self._results = results.absolute(args.results, f"--results {args.results}") if args.results else None
        self._folder: ResultsFolder | None = None
        self._secrets: dict[str, bytes] = {}
        self._log = telling.Log(args)
        self._screens: list[Screen] = []
        self._json: JsonStream | None = None
        self._facts: tuple[tuple[str, str], ...] = ()
        if args.results or args.html or args.junit or args.json:
            from guntainer.hostfacts import host_facts

            self._facts = host_facts(ids.kind)
        self._reports = Reports(
            self._results,
            html=args.html,
            junit=args.junit,
            ids=selection.ids,
            known=tuple(job.id for job in file.jobs),
            taken=tuple(result.id for result in selection.taken),
            stub=Report(results=(), name=file.name, file=file.path, parallel=parallel, facts=self._facts),
            history=history,
            warn=self._log.warning,
        )
        self._failures: list[errors.GuntainerError] = []
        self._stopped: int | None = None
        """The signal that we were stopped by; SIGPIPE where nobody reads any more."""
        self._unwritten = ""
        """Why standard output could not be written to the end."""

    def run(self) -> int:
        try:
            self._read_secrets()
            self._begin_unpacking()
            return self._run()
        finally:
            self._reports.close()
            if self._head_start is not None:
                self._head_start.close()

    def _read_secrets(self) -> None:
        """Before anything is begun: one that is missing is not found out after an hour.

        Raises:
            JobFileError: with all that can not be had.
        """
        if any(job.secrets or job.services for job in self._jobs):
            from guntainer import secret_values

            self._secrets = secret_values.of_jobs(self._jobs)

    def _begin_unpacking(self) -> None:
        """Unpackers for what is not in the store, before the event loop is imported: both take their time."""
        from guntainer.store.lookup import open_store

        store = open_store(self._args.store, self._ids)
        sources = {(job.rootfs.location, job.rootfs.sha256) for job in self._jobs if job.cache and job.rootfs.plain}
        missing = [source for source in sorted(sources, key=str) if not store.has(source[0])]
        if not missing:
            return
        from guntainer.store.headstart import HeadStart

        self._head_start = HeadStart()  # before the first one begins: a signal may come at once
        # more than there are cores: they start while this process imports, and end one by one
        self._head_start.begin(store, missing, most=2 * len(os.sched_getaffinity(0)))
        from guntainer import assembly

        assembly.compile_early(self._jobs[0], store.path, self._ids)

    def _run(self) -> int:
        import anyio

        for warning in self._file.warnings:
            self._log.warning(warning)
        for text in self._told_first:
            self._log.info(text)
        if self._history.note:
            self._log.warning(self._history.note)
        if self._history.detail:
            self._log.debug(self._history.detail)
        if not self._results and any(job.artifacts for job in self._jobs):
            self._log.warning("artifacts are not kept without --results DIR")
        if self._ids.why:
            self._log.info(f"one id: {self._ids.why}")
        # before any job starts, and before anything of an earlier run goes
        source = () if self._file.path == "<stdin>" else (self._file.path,)
        self._reports.check(self._args.json, (*source, *self._file.extends))
        if self._args.json:
            from guntainer.cli.json_stream import JsonStream

            self._json = JsonStream(self._args.json)
        if self._results:
            self._folder = results.open_folder(self._results, self._jobs)
        self._reports.begin(self._folder)
        report = anyio.run(self._supervise)
        if self._folder is not None:
            self._folder.close()
        if self._unwritten:
            complain(f"standard output: {self._unwritten}; what came after that is not shown")
        for failure in self._failures:
            complain(str(failure))
        return self._exit_code(report)

    def _exit_code(self, report: Report) -> int:
        if self._failures and report.interrupted is None:
            return errors.OWN_FAILURE  # a report that was asked for is not there, whatever the jobs came to
        return int(report.exit_code) or (errors.OWN_FAILURE if self._unwritten else 0)

    def _open_screens(self) -> tuple[Screen, Screen]:
        """Standard output and standard error; one for both where they are the same file, so that nothing is mixed up."""
        from guntainer.screen import Screen

        out = Screen(1)
        err = out if os.path.sameopenfile(1, 2) else Screen(2)
        self._screens = [out] if err is out else [out, err]
        self._log.screen = err
        return out, err

    async def _supervise(self) -> Report:
        from guntainer.cli import telling
        from guntainer.supervisor import Supervisor

        out, err = self._open_screens()
        told = telling.Telling(
            self._args,
            self._log,
            out,
            err,
            self._jobs,
            parallel=self._parallel,
            file=self._file.path,
            ids={job.id for job in self._file.jobs},
            places=self._file.places,
            expected=self._expected,
        )
        supervisor = Supervisor(
            parallel=self._parallel,
            store=self._args.store,
            results=self._results,
            watcher=self._watched(told.watcher),
            fail_fast=self._args.fail_fast or self._file.fail_fast,
            require_full=self._args.require_isolation == "full",
            ids=self._ids,
            zygote=self._zygote,
            head_start=self._head_start,
            secrets=self._secrets,
            expected=self._expected,
            after_failure=self._interactive(told),
        )
        out.lost = lambda error: self._lost(supervisor, error)
        self._receive_signals(supervisor)
        try:
            await self._begin_lines(out, err)
            async with supervisor:
                report = await supervisor.run(self._jobs, timeout_s=self._file.timeout_s)
                report = self._reports.whole(report, self._selection.taken)
                await told.closing(report)
                self._failures = await self._reports.write(report)
                await self._remember(report)
            report = self._ended(report)
            if self._json is not None:
                self._json.end(report, self._exit_code(report))
            # last of all: it waits for whoever reads us
            for reader in self._readers():
                await reader.flush()
            if self._json is not None and self._json.failure is not None:
                self._failures.append(self._json.failure)
        finally:
            told.close()
            self._log.screen = None
            for reader in self._readers():
                reader.close()
        return self._ended(report)

    def _ended(self, report: Report) -> Report:
        return report if self._stopped is None else report.replace(interrupted=self._stopped)

    def _readers(self) -> list[Screen | JsonStream]:
        """All that may have to be waited for at the end."""
        return [*self._screens, *([self._json] if self._json is not None else [])]

    def _watched(self, shown: Watcher) -> Watcher:
        """Who is told what happens: what is shown, and the lines of --json."""
        if self._json is None:
            return shown
        from guntainer.watcher import Both

        return Both(self._json, shown)

    async def _begin_lines(self, out: Screen, err: Screen) -> None:
        """The first lines of --json. From them on every job has one of its end, whatever signal comes."""
        if self._json is None:
            return
        self._json.attach(out, err, self._log.warning)
        self._json.begin(self._selection.ids, parallel=self._parallel, facts=self._facts)
        for warning in self._file.warnings:
            self._json.note(warning)
        for result in self._selection.taken:
            await self._json.finished(result)

    def _interactive(self, told: Telling) -> AfterFailure | None:
        if not self._args.interactive_on_failure:
            return None
        from guntainer.cli.interactive import Interactive

        return Interactive(told, self._screens)

    async def _remember(self, report: Report) -> None:
        """For the next time; a batch does not fail for it."""
        from guntainer.offloading import in_thread

        why = await in_thread(self._history.add, report)
        if why:
            self._log.debug(why)

    def _receive_signals(self, supervisor: Supervisor) -> None:
        """From now on until the event loop is closed, when everything has been cleaned up."""
        import asyncio

        from guntainer.interrupts import SIGNALS

        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if _signal.getsignal(number) is not _signal.SIG_IGN:  # nohup(1)
                loop.add_signal_handler(number, self._signalled, supervisor, number)

    def _signalled(self, supervisor: Supervisor, number: int) -> None:
        from guntainer.report import signal_name

        if self._stopped is None:
            self._stopped = number
        supervisor.stop(number)
        self._log.warning(f"{signal_name(number)}: stopping; once more kills")
        for reader in self._readers():
            reader.hurry()

    def _lost(self, supervisor: Supervisor, error: OSError) -> None:
        """Standard output takes nothing any more. Where its reader has left, that ends us, as SIGPIPE would."""
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            self._unwritten = error.strerror or str(error)
        elif self._stopped is None:
            self._stopped = _signal.SIGPIPE
            supervisor.stop(_signal.SIGPIPE)
