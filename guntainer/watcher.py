"""Who is told what happens in a batch: the interface of a supervisor to whatever shows it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.jobs.model import Job
    from guntainer.report import Exit, Result


class Watcher:
    """What a supervisor tells while it works; the base does nothing. Override what you want to know."""

    live = False
    """True: output is shown while it comes, so it takes a pipe and a pump; False: the log is the container's own stdout."""

    def waiting(self, job: Job) -> None:
        """The job waits for others that it needs."""

    def preparing(self, job: Job) -> None:
        """The job waits for its rootfs, and then for a slot."""

    def started(self, job: Job) -> None:
        """The job's container is being launched."""

    def retrying(self, job: Job, attempt: int, exit_: Exit, wait_s: float) -> None:
        """An attempt, counted from 1, has failed; the next one comes after a while."""

    async def output(self, job: Job, stream: str, data: bytes) -> None:
        """Bytes of the job's "stdout" or "stderr", as they came."""

    async def finished(self, result: Result) -> None:
        """The job has ended; its logs are still there."""

    def progress(self, name: str, done: int, total: int) -> None:
        """Of a rootfs being unpacked: bytes of the archive read, and its size."""

    def note(self, text: str) -> None:
        """Something went otherwise than asked for; said once."""
