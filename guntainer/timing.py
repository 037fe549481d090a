"""When a job reached each of its stages, and the Result that comes of it. Monotonic clocks but for the one that people read."""

from __future__ import annotations

import time

from guntainer import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.container import Outcome
    from guntainer.jobs.model import Job


class Timing:
    """When a job reached each of its stages, and what its earlier attempts have come to.

    Args:
        batch_ns: when the batch began.
    """

    def __init__(self, batch_ns: int = 0) -> None:
        self._batch_ns = batch_ns
        self.begun_ns = self.queued_ns = time.monotonic_ns()
        self.attempts: list[report.Attempt] = []
        self._clear()

    def _clear(self) -> None:
        self.prepared_ns = 0
        self.launched_ns = 0
        self.running_ns = 0
        self.ended_ns = 0
        self.started_at = 0.0
        self.slot = -1
        self.stdout = ""
        self.stderr = ""

    def waited(self) -> None:
        """What it needs has ended, or the next attempt begins."""
        self.queued_ns = time.monotonic_ns()

    def tries_again(self, job: Job, exit_: report.Exit) -> bool:
        """Whether an attempt that ended so is followed by another one."""
        kind = report.EXIT if exit_.reason == report.PIDS else exit_.reason  # the words of `retry.on`
        return not exit_.ok and len(self.attempts) + 1 < job.retry.attempts and kind in job.retry.on

    def again(self, exit_: report.Exit, stdout: str, stderr: str) -> None:
        """The attempt has failed, and is not the last one: its logs lie elsewhere now."""
        self.attempts.append(
            report.Attempt(
                exit=exit_,
                started_at=self.started_at,
                wall_ns=max(0, self.ended_ns - self.launched_ns) if self.ended_ns else 0,
                stdout=stdout or None,
                stderr=stderr if stderr != stdout else None,
            )
        )
        self._clear()
        self.begun_ns = self.queued_ns = time.monotonic_ns()

    def result(self, job: Job, outcome: Outcome, needs: tuple[str, ...]) -> report.Result:
        usage, used = outcome.usage, outcome.used
        result = report.Result(
            id=job.id,
            key=job.key or job.id,
            exit=outcome.exit,
            rootfs=job.rootfs.name or job.rootfs.location,
            matrix=job.matrix,
            started_at=self.started_at,
            begin_ns=max(0, self.begun_ns - self._batch_ns) if self._batch_ns else 0,
            wait_ns=self.queued_ns - self.begun_ns,
            prepare_ns=max(0, (self.prepared_ns or self.queued_ns) - self.queued_ns),
            queue_ns=max(0, self.launched_ns - self.prepared_ns) if self.launched_ns else 0,
            wall_ns=max(0, self.ended_ns - self.launched_ns) if self.ended_ns else 0,
            launch_ns=max(0, self.running_ns - self.launched_ns) if self.running_ns else 0,
            slot=self.slot,
            cpu_user_ns=int(usage.ru_utime * 1e9) if usage else 0,
            cpu_system_ns=int(usage.ru_stime * 1e9) if usage else 0,
            max_rss_bytes=usage.ru_maxrss * 1024 if usage else 0,
            isolation=outcome.isolation if self.launched_ns else "",
            userns=outcome.userns,
            scratch=outcome.scratch,
            stdout=self.stdout or None,
            stderr=self.stderr if self.stderr != self.stdout else None,
            notes=outcome.notes,
            needs=needs,
            allow_failure=job.allow_failure,
            attempts=tuple(self.attempts),
            artifacts=outcome.artifacts,
        )
        if used is None:
            return result
        return result.replace(
            cpu_user_ns=used.cpu_user_ns,
            cpu_system_ns=used.cpu_system_ns,
            memory_peak_bytes=used.memory_peak_bytes,
            cpu_throttled_ns=used.cpu_throttled_ns,
            oom_kills=used.oom_kills,
            pids_refused=used.pids_refused,
            limits=outcome.limits,
        )
