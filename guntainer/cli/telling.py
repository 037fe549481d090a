"""What a batch tells its user while it runs: the supervisor's events on the screen, our own messages on stderr."""

from __future__ import annotations

import os

from guntainer import space
from guntainer.cli import write
from guntainer.report_text import table, visible, width_of
from guntainer.shown.taming import read_tail, switched_off
from guntainer.watcher import Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from guntainer.cli.options import Options
    from guntainer.jobs.model import Job
    from guntainer.output import Output
    from guntainer.report import Exit, Report, Result
    from guntainer.screen import Screen
    from guntainer.shown.course import Course
    from guntainer.shown.heartbeat import Heartbeat
    from guntainer.shown.live_table import LiveTable
    from guntainer.shown.unpacking import Unpacking

# what a job is run again with, as it was run now
_KEPT = ("store", "userns", "require_isolation", "max_cells")


class Log:
    """Our own messages; structlog is loaded when there is the first one, since most batches have none."""

    def __init__(self, args: Options) -> None:
        self._level = args.log_level or ("warning" if args.quiet else "debug" if args.verbose else "info")
        self._format = args.log_format
        self._logger: Any = None
        self.screen: Screen | None = None
        """Where messages go while there is an event loop, which must not wait for whoever reads stderr."""

    def warning(self, text: str) -> None:
        self._load().warning(text)

    def info(self, text: str) -> None:
        if self._format == "json":
            self._load().info(text)
        elif self._level in ("debug", "info"):
            self.write(f"guntainer: {visible(text)}\n")  # what many runs say is not worth the import

    def debug(self, text: str) -> None:
        if self._level == "debug":
            self._load().debug(text)

    def _load(self) -> Any:
        if self._logger is None:
            from guntainer import log

            self._logger = log.configure(level=self._level, format=self._format, file=self)
        return self._logger

    def write(self, text: str) -> None:
        if self.screen is not None:
            self.screen.put(switched_off(text.encode("utf-8", "surrogateescape")))
        else:
            write(text)

    def flush(self) -> None:
        """Nothing is kept here."""


class Telling:
    """All that a batch shows from its first job to its table; `close` takes away what does not stay.

    Args:
        out, err: standard output and standard error; the same where these are one terminal or file.
        parallel: how many jobs run at once.
        file: the job file, as the user called it.
        ids: of all jobs in it, of which `jobs` were chosen.
        expected: how long jobs took before, in ns, by id.
        places: by a job's key, the file and line where it is written.
        env: tells of the terminal, and of the CI system.
    """

    def __init__(
        self,
        args: Options,
        log: Log,
        out: Screen,
        err: Screen,
        jobs: Sequence[Job],
        *,
        parallel: int,
        file: str,
        ids: Collection[str] | None = None,
        expected: Mapping[str, int] | None = None,
        places: Mapping[str, tuple[str, int]] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        from guntainer.shown.course import Course

        self._log = log
        self._env = os.environ if env is None else env
        self._fd = 2 if args.json == "-" else 1
        self.course = Course([job.id for job in jobs], parallel=parallel, expected=expected)
        self._table: LiveTable | None = None
        self._unpacking: Unpacking | None = None
        self._heartbeat: Heartbeat | None = None
        self._again = Again(args, file, {job.id for job in jobs} if ids is None else ids)
        # a report on standard output stands there alone
        self._begin(args, err if self._fd == 2 else out, err, jobs, places)
        self.watcher: Watcher = Shown(self.output, log, self.course, self._table, self._unpacking)

    def _begin(
        self,
        args: Options,
        screen: Screen,
        err: Screen,
        jobs: Sequence[Job],
        places: Mapping[str, tuple[str, int]] | None,
    ) -> None:
        from guntainer import output

        env = self._env
        terminal = os.isatty(self._fd)
        mode = args.output or ("live" if terminal and not env.get("CI") else "group")
        dumb = env.get("TERM", "dumb") in ("dumb", "")
        moves = not dumb and not env.get("CI") and not args.quiet
        colour = ((terminal and not dumb) or env.get("GITLAB_CI") == "true") and not env.get("NO_COLOR")
        draws = mode == "live" and terminal and moves
        common: dict[str, Any] = {
            "colour": colour, "terminal": terminal, "env": env, "places": places, "again": self._again,
        }  # fmt: skip
        self.output: Output
        if mode == "live":
            width = max((width_of(visible(job.id)) for job in jobs), default=0)
            self.output = output.Live(screen, width=width, whole=draws, **common)
        else:
            self.output = (output.Group if mode == "group" else output.Output)(screen, **common)
        if draws:
            from guntainer.shown.live_table import LiveTable

            self._table = LiveTable(
                screen, self.course, fd=self._fd, colour=colour, env=env, ascii_only=not _has_unicode()
            )
            return
        if moves and os.isatty(2):
            from guntainer.shown.unpacking import Unpacking

            self._unpacking = Unpacking(err, os.get_terminal_size(2).columns)
        if mode != "quiet":
            from guntainer.shown.heartbeat import Heartbeat

            self._heartbeat = Heartbeat(screen, self.course, self.output.aside)

    def pause(self) -> None:
        """Take away what does not stay until `resume`."""
        if self._table is not None:
            self._table.pause()

    def resume(self) -> None:
        if self._table is not None:
            self._table.resume()

    def close(self) -> None:
        """Once more does nothing."""
        for one in (self._table, self._unpacking, self._heartbeat):
            if one is not None:
                one.close()
        self._table = self._unpacking = self._heartbeat = None

    async def closing(self, report: Report) -> None:
        """The first failure and the table, and the summary where a CI system wants one."""
        self.close()
        self.output.closing(report)
        self.output.say("\n" + table(report, colour=self.output.colour, told=self.output.told))
        path = self._env.get("GITHUB_STEP_SUMMARY")
        if path:
            await self._summarize(path, report)

    async def _summarize(self, path: str, report: Report) -> None:
        from guntainer.shown import summary

        result = report.first_failure
        paths = (result.stdout, result.stderr) if result is not None else ()
        tail = b"".join(read_tail(log) for log in paths if log)
        again = self._again(result) if result is not None else ""
        text = summary.markdown(report, tail=tail, again=again, limit=summary.room_in(path))
        if not text:
            self._log.warning(f"GITHUB_STEP_SUMMARY {path}: no room for the summary of this batch")
            return
        problem = await summary.append(path, text)
        if problem:
            self._log.warning(problem)


class Shown(Watcher):
    """What the supervisor tells, on the screen."""

    def __init__(
        self, shown: Output, log: Log, course: Course, drawn: LiveTable | None, unpacking: Unpacking | None
    ) -> None:
        self.live = shown.live
        self._shown = shown
        self._log = log
        self._course = course
        self._drawn = drawn
        self._unpacking = unpacking
        self._full = False

    def _changed(self) -> None:
        if self._drawn is not None:
            self._drawn.changed()

    def waiting(self, job: Job) -> None:
        self._course.waiting(job)
        self._changed()

    def preparing(self, job: Job) -> None:
        self._course.preparing(job)
        self._changed()

    def started(self, job: Job) -> None:
        self._course.started(job)
        self._changed()
        if self._unpacking is not None:
            self._unpacking.over(job.rootfs.name or job.rootfs.location)

    def retrying(self, job: Job, attempt: int, exit_: Exit, wait_s: float) -> None:
        self._course.retrying(job, attempt, wait_s)
        self._changed()
        self._shown.retrying(job.id, attempt, exit_, wait_s)

    async def output(self, job: Job, stream: str, data: bytes) -> None:
        if self._drawn is not None:
            self._course.said(job.id, stream, data)
            self._drawn.changed()
        await self._shown.output(job.id, stream, data)

    async def finished(self, result: Result) -> None:
        self._course.finished(result)
        self._changed()
        if self._unpacking is not None:
            self._unpacking.over(result.rootfs)
        told = any(text.startswith("no space left") for text in result.notes)
        if not result.ok and result.stdout and not self._full and not told:
            self._look_for_room(result.stdout)
        await self._shown.finished(result)

    def _look_for_room(self, path: str) -> None:
        """A job whose log is its own stdout was told ENOSPC; the user is told here, once."""
        place = space.full(path)
        if place:
            self._full = True
            self._log.warning(f"{place}: no space left on this file system; logs of jobs that failed may be cut")

    def progress(self, name: str, done: int, total: int) -> None:
        self._course.progress(name, done, total)
        self._changed()
        if self._unpacking is not None:
            self._unpacking.told(name, done, total)

    def note(self, text: str) -> None:
        self._log.warning(text)


class Again:
    """The command that runs just one job of a batch again, for a shell.

    Args:
        ids: of all jobs.
    """

    def __init__(self, args: Options, file: str, ids: Collection[str]) -> None:
        self._words = ["guntainer", "batch", "-" if file == "<stdin>" else file if file[:1] != "-" else f"./{file}"]
        for name in _KEPT:
            value = getattr(args, name, None)
            if value is not None and (name, value) not in (("userns", "auto"), ("max_cells", 1024)):
                self._words += [f"--{name.replace('_', '-')}", str(value)]
        for text in getattr(args, "set", None) or ():
            self._words += ["--set", text]
        self._ids = ids

    def __call__(self, result: Result) -> str:
        from guntainer.jobs.names import pattern

        return " ".join(map(_quoted, [*self._words, "--only", pattern(result.id, self._ids)]))


def _quoted(word: str) -> str:
    """For a shell; what can not be printed in the notation that sh(1) has since POSIX.1-2024: $'…'."""
    import shlex

    if word.isprintable():
        return shlex.quote(word)
    escaped = (f"\\x{byte:02x}" if byte < 32 or byte > 126 else chr(byte) for byte in _escapable(word))
    return f"$'{''.join(escaped)}'"


def _escapable(word: str) -> bytes:
    return word.replace("\\", "\\\\").replace("'", "\\'").encode("utf-8", "surrogateescape")


def _has_unicode() -> bool:
    import sys

    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
