"""`batch --interactive-on-failure`: the terminal goes to a shell in what a failed job has left, then back to the batch.

One at a time; other jobs go on meanwhile, and what they say is kept until the shell has ended: a job that says a lot waits.
"""

from __future__ import annotations

import os

import anyio

from guntainer import errors, report
from guntainer.jobs.model import Scratch
from guntainer.report_text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from guntainer.cli.options import Options
    from guntainer.cli.telling import Telling
    from guntainer.container import Left
    from guntainer.jobs.model import Job
    from guntainer.screen import Screen

OPTION = "--interactive-on-failure"


def check(args: Options) -> None:
    """Whether there is a terminal for the shell.

    Raises:
        UsageError: there is none, or something else has it.
    """
    if not (os.isatty(0) and os.isatty(1)):
        raise errors.UsageError(
            f"{OPTION}: standard input and output are not a terminal", hint="leave it out where nobody looks"
        )
    if args.json == "-":
        raise errors.UsageError(f"{OPTION}: --json - has standard output", hint="name a file")


def on_disk(jobs: Sequence[Job]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
    """The jobs with layers that outlive their containers, and what is to be said of that."""
    if not any(job.scratch.kind == "memory" for job in jobs):
        return tuple(jobs), ()
    found = tuple(job.replace(scratch=Scratch()) if job.scratch.kind == "memory" else job for job in jobs)
    return found, (f"{OPTION}: what is in memory goes with the container: scratch is on disk for all jobs",)


class Interactive:
    """Gives the terminal to a shell when a job has failed, see `Supervisor`.

    Args:
        screens: what is shown on the terminal meanwhile waits.
    """

    def __init__(self, told: Telling, screens: Iterable[Screen]) -> None:
        self._told = told
        self._screens = tuple(screens)
        self._turn = anyio.Lock()

    async def __call__(self, job: Job, left: Left, logs: tuple[str, str]) -> None:
        """Show the shell of one job, and come back when it has ended."""
        async with self._turn:
            self._told.pause()
            try:
                self._introduce(job, left, logs)
                for screen in self._screens:
                    await screen.flush()
                    screen.pause()
                said = await self._shell(job, left)
            finally:
                for screen in self._screens:
                    screen.resume()
                self._told.resume()
            self._say(said)

    def _introduce(self, job: Job, left: Left, logs: tuple[str, str]) -> None:
        if not self._told.output.live:
            # elsewhere its output was shown as it came
            from guntainer.shown.taming import read_tail

            for path in dict.fromkeys(path for path in logs if path):
                self._screens[0].put(b"".join(self._told.output.shielded(iter((read_tail(path),)))))
        self._say(f"{job.id} failed: {left.exit.describe()}: this is a shell in its container")
        self._say("exit ends the shell and goes on")

    async def _shell(self, job: Job, left: Left) -> str:
        """Run it; returns what is to be said afterwards."""
        from guntainer import aftermath

        notes: list[str] = []
        try:
            outcome = await aftermath.shell(left, notes.append)
        except errors.GuntainerError as error:
            return f"{job.id}: no shell: {error}"
        except OSError as error:
            return f"{job.id}: no shell: {errors.describe_oserror(error)}"
        if outcome.exit.reason == report.SETUP:
            return f"{job.id}: no shell: {outcome.exit.describe()}"
        return f"{job.id}: the shell has ended; going on"

    def _say(self, text: str) -> None:
        """Also under --quiet: whoever has the terminal must know why."""
        self._screens[0].put(f"guntainer: {visible(text)}\r\n".encode("utf-8", "surrogateescape"))
