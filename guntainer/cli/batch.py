"""`guntainer batch [FILE|-]`: the jobs of a job file, many at a time."""

from __future__ import annotations

import os
import sys

from guntainer import errors
from guntainer.cli import complain, options, show
from guntainer.cli.options import FLAG, LIST, NUMBER, Option, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.cli.parsing import Parser
    from guntainer.jobs.load import JobFile
    from guntainer.jobs.model import Job
    from guntainer.launcher.spawn import Zygote
    from guntainer.report import Report, Result
    from guntainer.store.headstart import HeadStart

_FILE_LIMIT = 10 << 20
_LEVELS = ("debug", "info", "warning", "error")
_DEFAULT_FILES = ("jobs.toml", "jobs.yaml", "jobs.yml", "jobs.json")
_EPILOG = """\
FILE is TOML, YAML or JSON (default: jobs.toml, .yaml, .yml or .json in this folder); - reads standard input.

exit codes: 0 all good; 1 a job failed; 2 bad usage or a bad file; 125 guntainer could not run; 130 Ctrl-C; 143 TERM.
"""


OPTIONS = (
    Option("-h", "--help", kind=FLAG, help="show this and exit"),
    Option("-j", "--jobs", default="auto", metavar="N|auto", help="containers at once (default: one per core)"),
    Option("--only", kind=LIST, metavar="GLOB", help="only jobs whose name matches; may be repeated"),
    Option("--check", kind=FLAG, help="check the file, run nothing"),
    Option("--list", kind=FLAG, help="list the jobs, run nothing"),
    Option("-n", "--dry-run", kind=FLAG, help="print what each job would run, run nothing"),
    Option("--fail-fast", kind=FLAG, help="the first failure cancels the rest"),
    Option(
        "--output",
        choices=("live", "group", "quiet"),
        metavar="live|group|quiet",
        help="live lines (on a terminal), blocks per job, or neither",
    ),
    Option("--results", metavar="DIR", help="keep each job's stdout, stderr and result.json there"),
    Option("--json", metavar="FILE", help="write one JSON object per job"),
    Option("--store", metavar="DIR", help="where unpacked archives are kept"),
    Option("--require-isolation", choices=("full",), metavar="full", help="refuse to run with less"),
    Option(
        "--max-cells",
        kind=NUMBER,
        default=1024,
        metavar="N",
        help="the most cells a matrix may have (default: {default})",
    ),
    Option("-q", "--quiet", kind=FLAG, help="no notes of our own"),
    Option("-v", "--verbose", kind=FLAG, help="more of them"),
    Option("--log-level", choices=_LEVELS, metavar="|".join(_LEVELS), help="the least that is shown (default: info)"),
    Option(
        "--log-format",
        choices=("console", "json"),
        default="console",
        metavar="console|json",
        help="how (default: {default})",
    ),
    Option("--debug", kind=FLAG, help="tracebacks"),
)


def parser() -> Parser:
    """Every option, for completion and for what the quick reader leaves to argparse."""
    from guntainer.cli.parsing import build

    p = build(
        OPTIONS, prog="guntainer batch", add_help=False, description="Run the jobs of a job file.", epilog=_EPILOG
    )
    p.add_argument("file", nargs="?", metavar="FILE", help="the job file")
    return p


def _options(words: list[str]) -> Options | None:
    """The options, and `file` among them; None where help was asked for, and given."""
    read = options.read(OPTIONS, words, interleaved=True)
    if read is not None and len(read[1]) <= 1 and not read[0].help:
        args, files = read
        args.__dict__["file"] = files[0] if files else None
        return args
    p = parser()
    if {"-h", "--help"} & set(words):
        p.print_help()
        return None
    found: Any = p.parse(words)
    return found


def main(words: list[str]) -> int:
    args = _options(words)
    if args is None:
        return 0
    zygote: Zygote | None = None
    looking = args.check or args.list or args.dry_run
    if not looking:
        # first of all: it starts while we import
        from guntainer.launcher.spawn import spawn

        zygote = spawn()
    try:
        return _batch(args, zygote, looking=looking)
    except errors.JobFileError as error:
        for problem in error.problems:
            complain(problem)
        return errors.USAGE
    finally:
        if zygote is not None:
            zygote.close()


def _batch(args: Options, zygote: Zygote | None, *, looking: bool) -> int:
    file = _load(args)
    jobs = file.jobs
    if args.only:
        from guntainer.jobs.names import select

        jobs = select(jobs, args.only)
    if looking:
        return _look(args, file, jobs)
    parallel = _parallel(args.jobs)
    if file.max_parallel is not None:
        parallel = min(parallel, file.max_parallel)
    return _Batch(args, jobs, file, parallel, zygote).run()


def _parallel(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0))
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise errors.UsageError(f"-j {text}: expected a number from 1 to 100000, or auto")
    return int(text)


def _load(args: Options) -> JobFile:
    from guntainer.jobs.load import load

    path = args.file or next((name for name in _DEFAULT_FILES if os.path.exists(name)), None)
    if path is None:
        raise errors.UsageError(
            "batch: FILE is missing, and there is no jobs.toml here", hint="see guntainer batch --help"
        )
    try:
        if path == "-":
            text = sys.stdin.buffer.read(_FILE_LIMIT + 1)
        else:
            with open(path, "rb") as file:
                text = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise errors.JobFileError((f"{path}: {error.strerror}",)) from None
    base = os.path.abspath("." if path == "-" else os.path.dirname(path) or ".")
    return load(text, path="<stdin>" if path == "-" else path, base=base, max_cells=args.max_cells)


def _look(args: Options, file: JobFile, jobs: tuple[Job, ...]) -> int:
    for warning in file.warnings:
        complain(warning, "warning")
    if args.list or args.dry_run:
        from guntainer.report_text import visible

        for job in jobs:
            line = visible(job.id)
            if args.dry_run:
                line += f": {job.rootfs.location}: " + " ".join(map(repr, job.command or ("/bin/sh",)))
            show(line + "\n")
    else:
        show(f"{file.path}: {len(jobs)} job{'' if len(jobs) == 1 else 's'}, no mistakes\n")
    return 0


class _Log:
    """Our own messages; structlog is loaded when there is the first one, since most batches have none."""

    def __init__(self, args: Options) -> None:
        self._level = args.log_level or ("warning" if args.quiet else "debug" if args.verbose else "info")
        self._format = args.log_format
        self._logger: Any = None

    def warning(self, text: str) -> None:
        if self._logger is None:
            from guntainer import log

            self._logger = log.configure(level=self._level, format=self._format)
        self._logger.warning(text)


class _Batch:
    """One batch: what is shown, what is written, what it ends with."""

    def __init__(
        self, args: Options, jobs: tuple[Job, ...], file: JobFile, parallel: int, zygote: Zygote | None
    ) -> None:
        self._args = args
        self._jobs = jobs
        self._file = file
        self._parallel = parallel
        self._zygote = zygote
        self._results = os.path.abspath(args.results) if args.results else None
        self._lock = -1
        self._log = _Log(args)

    def run(self) -> int:
        head_start = self._begin_unpacking()
        try:
            return self._run(head_start)
        finally:
            if head_start is not None:
                head_start.close()

    def _begin_unpacking(self) -> HeadStart | None:
        """Unpackers for what is not in the store, before the event loop is imported: both take their time."""
        from guntainer.store.lookup import open_store

        store = open_store(self._args.store)
        sources = {(job.rootfs.location, job.rootfs.sha256) for job in self._jobs if job.cache}
        missing = [source for source in sorted(sources, key=str) if not store.has(source[0])]
        if not missing:
            return None
        from guntainer.store.headstart import HeadStart

        head_start = HeadStart()
        head_start.begin(store, missing, most=len(os.sched_getaffinity(0)))
        return head_start

    def _run(self, head_start: HeadStart | None) -> int:
        import anyio

        for warning in self._file.warnings:
            self._log.warning(warning)
        self._open_results()
        if self._args.json:
            # before any job starts: a report that can not be written is not found out after an hour
            _writable(self._args.json)
        output = self._output()
        report = anyio.run(self._supervise, output, head_start)
        if self._args.json:
            anyio.run(self._write_json, report)
        if self._lock >= 0:
            os.close(self._lock)
        return int(report.exit_code)

    def _open_results(self) -> None:
        """The results folder, locked: two batches must not write into one."""
        if self._results is None:
            return
        import fcntl

        try:
            os.makedirs(self._results, exist_ok=True)
            self._lock = os.open(f"{self._results}/.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise errors.UsageError(f"--results: {errors.describe_oserror(error)}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise errors.UsageError(f"--results {self._results}: another batch is writing there") from None

    def _output(self) -> Any:
        from guntainer import output

        terminal = os.isatty(1)
        in_ci = bool(os.environ.get("CI"))
        mode = self._args.output or ("live" if terminal and not in_ci else "group")
        colour = (terminal or os.environ.get("GITLAB_CI") == "true") and not os.environ.get("NO_COLOR")
        screen = output.Screen(1)
        common: dict[str, Any] = {"colour": colour, "terminal": terminal, "env": os.environ}
        if mode == "live":
            return output.Live(screen, width=max((len(job.id) for job in self._jobs), default=0), **common)
        return (output.Group if mode == "group" else output.Output)(screen, **common)

    async def _supervise(self, output: Any, head_start: HeadStart | None) -> Report:
        import signal

        import anyio

        from guntainer.supervisor import Supervisor

        supervisor = Supervisor(
            parallel=self._parallel,
            store=self._args.store,
            results=self._results,
            watcher=_watcher(output, self._log, terminal=os.isatty(2) and not self._args.quiet),
            fail_fast=self._args.fail_fast or self._file.fail_fast,
            require_full=self._args.require_isolation == "full",
            zygote=self._zygote,
            head_start=head_start,
        )

        async def signals() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as received:
                async for number in received:
                    supervisor.stop(number)
                    self._log.warning(f"{number.name}: stopping; once more kills")

        async with supervisor, anyio.create_task_group() as group:
            group.start_soon(signals)
            report = await supervisor.run(self._jobs)
            group.cancel_scope.cancel()
            output.closing(report)
        from guntainer.report_text import table

        output.say("\n" + table(report, colour=output.colour))
        return report

    async def _write_json(self, report: Report) -> None:
        """Atomic, also after Ctrl-C: a reader sees the whole report or none."""
        import aiofiles

        from guntainer.report_text import json_lines

        path = self._args.json
        try:
            async with aiofiles.open(f"{path}.new", "w", encoding="utf-8") as file:
                await file.write(json_lines(report))
            os.replace(f"{path}.new", path)
        except OSError as error:
            raise errors.GuntainerError(f"--json {errors.describe_oserror(error)}") from None


def _writable(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise errors.UsageError(f"--json {path}: can not be written")


def _watcher(shown: Any, log: Any, *, terminal: bool) -> Any:
    from guntainer.supervisor import Watcher

    class Shown(Watcher):
        """What the supervisor tells, on the screen."""

        live = bool(shown.live)

        async def output(self, job: Job, stream: str, data: bytes) -> None:
            import anyio

            # a screen that is not read holds the job back, never the event loop
            await anyio.to_thread.run_sync(shown.output, job.id, stream, data)

        async def finished(self, result: Result) -> None:
            shown.finished(result)

        def progress(self, name: str, done: int, total: int) -> None:
            if terminal and total:
                end = "\n" if done >= total else "\r"
                os.write(2, f"unpacking {os.path.basename(name)}: {done * 100 // total} %\x1b[K{end}".encode())

        def note(self, text: str) -> None:
            log.warning(text)

    return Shown()
