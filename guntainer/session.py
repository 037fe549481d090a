"""A supervisor for callers without an event loop who want one container after another, quickly: `guntainer.pytest_plugin`.

It lives in a thread of its own. What it has started belongs to that thread (PR_SET_PDEATHSIG, prctl(2)), which ends with the
session and not before.
"""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager, suppress
from itertools import count

from anyio.from_thread import start_blocking_portal

from guntainer.jobs.names import folder_name
from guntainer.runfolder import RunFolder
from guntainer.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from guntainer.jobs.model import Job
    from guntainer.report import Result


class Session:
    """Runs jobs one by one; each call of `run` is a batch of its own. May be called from several threads.

    Args:
        store: where unpacked archives are kept; None: GUNTAINER_STORE or the cache folder.
    """

    def __init__(self, store: str | None = None) -> None:
        self._numbers = count(1)
        self._folder = RunFolder().__enter__()  # a later one removes it where we are killed
        self._results = f"{self._folder.path}/results"
        try:
            self._opening = start_blocking_portal()
            self._portal = self._opening.__enter__()
            try:
                self._living = self._portal.wrap_async_context_manager(_supervised(store, self._results))
                self._supervisor = self._living.__enter__()
            except BaseException:
                self._opening.__exit__(None, None, None)
                raise
        except BaseException:
            self._folder.remove()
            raise

    def run(self, job: Job) -> tuple[Result, bytes, bytes]:
        """Run a job to its end; what it wrote to stdout and stderr is whole, and in memory.

        Raises:
            GuntainerError: a job that has another name would fail as well.
        """
        # a name of its own: two threads may run the same test's command
        job = job.replace(id=f"{next(self._numbers)}")
        running = self._portal.start_task_soon(self._supervisor.run, (job,))
        try:
            result = running.result().results[0]
        except BaseException:
            running.cancel()
            raise
        folder = f"{self._results}/{folder_name(job.id)}"
        try:
            return result, _contents(result.stdout), _contents(result.stderr)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Stop what still runs, and leave nothing."""
        try:
            self._living.__exit__(None, None, None)
        finally:
            self._opening.__exit__(None, None, None)
            self._folder.remove()


@asynccontextmanager
async def _supervised(store: str | None, results: str) -> AsyncIterator[Supervisor]:
    async with Supervisor(store=store, results=results) as supervisor:
        yield supervisor


def _contents(path: str | None) -> bytes:
    """b"" of a job that never ran."""
    with suppress(OSError):
        if path and os.path.exists(path):
            with open(path, "rb") as file:
                return file.read()
    return b""
