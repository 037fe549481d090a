"""When a job reached each of its stages, and the Result that comes of it. Monotonic clocks but for the one that people read."""

from __future__ import annotations

import time

from guntainer import errors, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.container import Outcome
    from guntainer.jobs.model import Job


class AlreadyCancelled(errors.GuntainerError):
    """Its matrix had failed before this job was started."""


class Timing:
    """When a job reached each of its stages."""

    def __init__(self) -> None:
        self.queued_ns = time.monotonic_ns()
        self.prepared_ns = 0
        self.launched_ns = 0
        self.ended_ns = 0
        self.started_at = 0.0
        self.stdout = ""
        self.stderr = ""

    def result(self, job: Job, outcome: Outcome) -> report.Result:
        exit_ = outcome.exit
        if isinstance(exit_.error, AlreadyCancelled):
            exit_ = report.cancelled(exit_.error.message)
        usage, used = outcome.usage, outcome.used
        result = report.Result(
            id=job.id,
            key=job.key or job.id,
            exit=exit_,
            rootfs=job.rootfs.name or job.rootfs.location,
            matrix=job.matrix,
            started_at=self.started_at,
            prepare_ns=max(0, (self.prepared_ns or self.queued_ns) - self.queued_ns),
            queue_ns=max(0, self.launched_ns - self.prepared_ns) if self.launched_ns else 0,
            wall_ns=max(0, self.ended_ns - self.launched_ns) if self.ended_ns else 0,
            cpu_user_ns=int(usage.ru_utime * 1e9) if usage else 0,
            cpu_system_ns=int(usage.ru_stime * 1e9) if usage else 0,
            max_rss_bytes=usage.ru_maxrss * 1024 if usage else 0,
            isolation=outcome.isolation if self.launched_ns else "",
            userns=outcome.userns,
            scratch=outcome.scratch,
            stdout=self.stdout or None,
            stderr=self.stderr if self.stderr != self.stdout else None,
            notes=outcome.notes,
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
