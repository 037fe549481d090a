"""What a batch tells its user while it runs: the supervisor's events on the screen, our own messages on stderr."""

from __future__ import annotations

from guntainer import space
from guntainer.cli import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.cli.options import Options
    from guntainer.jobs.model import Job
    from guntainer.output import Output, Unpacking
    from guntainer.report import Result
    from guntainer.screen import Screen
    from guntainer.watcher import Watcher


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
            self.write(f"guntainer: {text}\n")  # what many runs say is not worth the import

    def _load(self) -> Any:
        if self._logger is None:
            from guntainer import log

            self._logger = log.configure(level=self._level, format=self._format, file=self)
        return self._logger

    def write(self, text: str) -> None:
        if self.screen is not None:
            self.screen.put(text.encode("utf-8", "surrogateescape"))
        else:
            write(text)

    def flush(self) -> None:
        """Nothing is kept here."""


def watcher(shown: Output, log: Log, unpacking: Unpacking | None) -> Watcher:
    from guntainer.watcher import Watcher

    class Shown(Watcher):
        """What the supervisor tells, on the screen."""

        live = shown.live
        _full = False

        def started(self, job: Job) -> None:
            if unpacking is not None:
                unpacking.over(job.rootfs.name or job.rootfs.location)

        async def output(self, job: Job, stream: str, data: bytes) -> None:
            await shown.output(job.id, stream, data)

        async def finished(self, result: Result) -> None:
            if unpacking is not None:
                unpacking.over(result.rootfs)
            told = any(text.startswith("no space left") for text in result.notes)
            if not result.ok and result.stdout and not self._full and not told:
                self._look_for_room(result.stdout)
            await shown.finished(result)

        def _look_for_room(self, path: str) -> None:
            """A job whose log is its own stdout was told ENOSPC; the user is told here, once."""
            place = space.full(path)
            if place:
                self._full = True
                log.warning(f"{place}: no space left on this file system; logs of jobs that failed may be cut")

        def progress(self, name: str, done: int, total: int) -> None:
            if unpacking is not None:
                unpacking.told(name, done, total)

        def note(self, text: str) -> None:
            log.warning(text)

    return Shown()
