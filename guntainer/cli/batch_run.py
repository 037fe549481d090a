"""One batch from its jobs to its exit code: what is shown, what is written, the signals that end it."""

from __future__ import annotations

import _signal
import errno
import os

from guntainer import errors
from guntainer.cli import complain, results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.cli.options import Options
    from guntainer.idmap import Ids
    from guntainer.jobs.load import JobFile
    from guntainer.jobs.model import Job
    from guntainer.launcher.spawn import Zygote
    from guntainer.output import Output, Unpacking
    from guntainer.report import Report
    from guntainer.screen import Screen
    from guntainer.store.headstart import HeadStart
    from guntainer.supervisor import Supervisor


class Batch:
    """One batch: what is shown, what is written, what it ends with."""

    def __init__(
        self, args: Options, jobs: tuple[Job, ...], file: JobFile, parallel: int, ids: Ids, zygote: Zygote | None
    ) -> None:
        from guntainer.cli import telling

        self._args = args
        self._jobs = jobs
        self._file = file
        self._parallel = parallel
        self._ids = ids
        self._zygote = zygote
        self._head_start: HeadStart | None = None
        self._results = results.absolute(args.results, f"--results {args.results}") if args.results else None
        self._lock = -1
        self._log = telling.Log(args)
        self._screens: list[Screen] = []
        self._stopped: int | None = None
        """The signal that we were stopped by; SIGPIPE where nobody reads any more."""
        self._unwritten = ""
        """Why standard output could not be written to the end."""

    def run(self) -> int:
        try:
            self._begin_unpacking()
            return self._run()
        finally:
            if self._head_start is not None:
                self._head_start.close()

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
        if self._ids.why:
            self._log.info(f"one id: {self._ids.why}")
        if self._results:
            self._lock = results.open_folder(self._results, self._jobs)
        if self._args.json and self._args.json != "-":
            # before any job starts: a report that can not be written is not found out after an hour
            results.try_to_write(self._args.json)
        report = anyio.run(self._supervise)
        if self._lock >= 0:
            os.close(self._lock)
        if self._unwritten:
            complain(f"standard output: {self._unwritten}; what came after that is not shown")
        return int(report.exit_code) or (errors.OWN_FAILURE if self._unwritten else 0)

    def _output(self, screen: Screen) -> Output:
        from guntainer import output

        terminal = os.isatty(2 if self._args.json == "-" else 1)
        in_ci = bool(os.environ.get("CI"))
        mode = self._args.output or ("live" if terminal and not in_ci else "group")
        colour = (terminal or os.environ.get("GITLAB_CI") == "true") and not os.environ.get("NO_COLOR")
        common: dict[str, Any] = {"colour": colour, "terminal": terminal, "env": os.environ}
        if mode == "live":
            return output.Live(screen, width=max((len(job.id) for job in self._jobs), default=0), **common)
        return (output.Group if mode == "group" else output.Output)(screen, **common)

    def _unpacking(self, screen: Screen) -> Unpacking | None:
        if self._args.quiet or not os.isatty(2) or os.environ.get("TERM") == "dumb":
            return None
        from guntainer import output

        return output.Unpacking(screen, os.get_terminal_size(2).columns)

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
        from guntainer.report_text import table
        from guntainer.supervisor import Supervisor

        out, err = self._open_screens()
        # a report on standard output stands there alone
        output = self._output(err if self._args.json == "-" else out)
        unpacking = self._unpacking(err)
        supervisor = Supervisor(
            parallel=self._parallel,
            store=self._args.store,
            results=self._results,
            watcher=telling.watcher(output, self._log, unpacking),
            fail_fast=self._args.fail_fast or self._file.fail_fast,
            require_full=self._args.require_isolation == "full",
            ids=self._ids,
            zygote=self._zygote,
            head_start=self._head_start,
        )
        out.lost = lambda error: self._lost(supervisor, error)
        self._receive_signals(supervisor)
        try:
            async with supervisor:
                report = await supervisor.run(self._jobs)
                if unpacking is not None:
                    unpacking.close()
                output.closing(report)
                output.say("\n" + table(report, colour=output.colour, told=output.told))
            try:
                if self._args.json == "-":
                    from guntainer.report_text import json_lines

                    out.put(json_lines(report).encode())
                elif self._args.json:
                    await results.write_report(self._args.json, report)
            finally:
                # last of all: it waits for whoever reads us
                for screen in self._screens:
                    await screen.flush()
        finally:
            self._log.screen = None
            for screen in self._screens:
                screen.close()
        return report if self._stopped is None else report.replace(interrupted=self._stopped)

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
        for screen in self._screens:
            screen.hurry()

    def _lost(self, supervisor: Supervisor, error: OSError) -> None:
        """Standard output takes nothing any more. Where its reader has left, that ends us, as SIGPIPE would."""
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            self._unwritten = error.strerror or str(error)
        elif self._stopped is None:
            self._stopped = _signal.SIGPIPE
            supervisor.stop(_signal.SIGPIPE)
