"""How far a batch is: which jobs run, what they said last, how many have ended, how long it may still take. Draws nothing."""

from __future__ import annotations

import time

from guntainer.report_text import rounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from guntainer.jobs.model import Job
    from guntainer.report import Result

_TAIL_BYTES = 1024  # of a job's output: more than a line of a terminal

WAITING = "waiting"
"""For jobs that it needs."""
QUEUED = "queued"
"""For its rootfs, or a slot."""
RUNNING = "running"
AGAIN = "again"
"""For its next attempt."""


class Running:
    """A job that runs, or will again."""

    __slots__ = ("again_at", "attempt", "begun", "id", "stream", "tail")

    def __init__(self, id_: str, begun: float) -> None:
        self.id = id_
        self.begun = begun
        self.attempt = 1
        self.again_at = 0.0
        """When its next attempt begins; 0: it runs."""
        self.stream = ""
        self.tail = b""
        """The end of what it has written so far."""


class Bar:
    """A rootfs that is being unpacked, or fetched and unpacked."""

    __slots__ = ("done", "name", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = 0
        self.total = 1

    @property
    def percent(self) -> int:
        return min(100, self.done * 100 // max(1, self.total))


class Course:
    """What has been told of a batch.

    Args:
        ids: of all jobs.
        parallel: how many run at once.
        expected: how long jobs took before, in ns, by id; without any there is no estimate.
        clock: seconds.
    """

    def __init__(
        self,
        ids: Collection[str],
        *,
        parallel: int = 1,
        expected: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.running: dict[str, Running] = {}
        """In the order in which they began."""
        self.bars: dict[str, Bar] = {}
        self.done = 0
        self.counts: dict[str, int] = {}
        """How many came to which verdict."""
        self.clock = clock
        self._parallel = max(1, parallel)
        self._expected = expected or {}
        known = [self._expected[id_] for id_ in ids if id_ in self._expected]
        self.total = len(ids)
        self._mean_ns = sum(known) // max(1, len(known))
        self._known = len(known) * 2 >= self.total > 0
        self._unbegun = {id_: self._took_s(id_) for id_ in ids} if self._known else {}
        self._states: dict[str, str] = {}
        self._fetched: set[str] = set()

    def waiting(self, job: Job) -> None:
        self._states[job.id] = WAITING

    def preparing(self, job: Job) -> None:
        if self._states.get(job.id) != AGAIN:
            self._states[job.id] = QUEUED
        if job.rootfs.remote:
            self._fetched.add(job.rootfs.name)

    def started(self, job: Job) -> None:
        self.bars.pop(job.rootfs.name or job.rootfs.location, None)
        self._states[job.id] = RUNNING
        self._unbegun.pop(job.id, None)
        before = self.running.pop(job.id, None)
        now = self.running[job.id] = Running(job.id, self.clock())
        if before is not None:
            now.attempt = before.attempt

    def retrying(self, job: Job, attempt: int, wait_s: float) -> None:
        self._states[job.id] = AGAIN
        one = self.running.setdefault(job.id, Running(job.id, self.clock()))
        one.attempt = attempt + 1
        one.again_at = self.clock() + wait_s

    def words(self) -> list[str]:
        """`12/48 done, 1 failed, 2 flaky`, `ETA 1 min 20 s`, `8 running, 20 queued`: what matters most comes first."""
        ended = ", ".join(f"{count} {word}" for word, count in sorted(self.counts.items()) if word != "ok")
        words = [f"{self.done}/{self.total} done{', ' if ended else ''}{ended}"]
        states = ", ".join(self.states())
        left = self.left_s()
        if left is not None and self.done < self.total:
            words.append(f"ETA {rounded(left)}")
        return [*words, states] if states else words

    def said(self, job_id: str, stream: str, data: bytes) -> None:
        """A job has written something."""
        one = self.running.get(job_id)
        if one is None:
            return
        whole = len(data) >= _TAIL_BYTES or stream != one.stream
        one.tail = data[-_TAIL_BYTES:] if whole else (one.tail + data)[-_TAIL_BYTES:]
        one.stream = stream

    def finished(self, result: Result) -> None:
        self.bars.pop(result.rootfs, None)
        self.running.pop(result.id, None)
        self._states.pop(result.id, None)
        self._unbegun.pop(result.id, None)
        self.done += 1
        self.counts[result.verdict] = self.counts.get(result.verdict, 0) + 1

    def progress(self, name: str, done: int, total: int) -> None:
        if done >= total:
            self.bars.pop(name, None)
            return
        bar = self.bars.setdefault(name, Bar(name))
        bar.done, bar.total = done, total

    def fetched(self, name: str) -> bool:
        """Whether that rootfs comes from elsewhere."""
        return name in self._fetched

    def left_s(self) -> float | None:
        """Seconds until the end, by how long jobs took before; None where that is not known of half of them."""
        if not self._known:
            return None
        now = self.clock()
        running = [max(0.0, self._took_s(one.id) - (now - one.begun)) for one in self.running.values()]
        later = self._unbegun.values()
        together = (sum(running) + sum(later)) / self._parallel
        return max([together, *running, *later])

    def _took_s(self, id_: str) -> float:
        return self._expected.get(id_, self._mean_ns) / 1e9

    def states(self) -> list[str]:
        """`8 running`, `1 again`, `20 queued`, `4 waiting`: those that have not ended."""
        counts = dict.fromkeys((RUNNING, AGAIN, QUEUED, WAITING), 0)
        for state in self._states.values():
            counts[state] += 1
        counts[QUEUED] += max(0, self.total - self.done - len(self._states))
        return [f"{count} {word}" for word, count in counts.items() if count]
