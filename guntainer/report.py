"""What came of it: Exit (how one command ended), Result (one job), Report (all of them) and the exit code that follows.

Pure: opens no file. Texts are made in `report_text`, JSON by the door.
"""

from __future__ import annotations

import _signal

from guntainer import errors
from guntainer.jobs.values import signal_names
from guntainer.value import Value

# The closed set of reasons. Plain strings: an enum costs `guntainer run` two milliseconds of imports.
EXIT = "exit"
SIGNAL = "signal"
TIMEOUT = "timeout"
OOM = "oom"
PIDS = "pids-limit"
SETUP = "setup"
CANCELLED = "cancelled"
SKIPPED = "skipped"
REASONS = (EXIT, SIGNAL, TIMEOUT, OOM, PIDS, SETUP, CANCELLED, SKIPPED)

EARLIER = "from the earlier run"
"""The note of a result that another batch has brought, and this one has taken over."""


class Exit(Value):
    """How a container ended."""

    reason: str
    code: int
    """What `guntainer run` ends with: the command's own 0..255, 124, 125..127, 128+N."""
    signal: int | None = None
    core_dumped: bool = False
    message: str = ""
    """One sentence, for setup, timeout, oom, pids-limit, cancelled and skipped; for exit where that is not the command's own."""
    error: errors.GuntainerError | None = None
    """For setup: what was raised."""

    @property
    def ok(self) -> bool:
        return self.reason == EXIT and self.code == 0

    def describe(self) -> str:
        """`exit 3`, `signal 9 (SIGKILL)`, `timeout after 5 s`: for people."""
        if self.reason == EXIT:
            return self.message or f"exit {self.code}"
        if self.reason == SIGNAL and self.signal is not None:
            core = ", core dumped" if self.core_dumped else ""
            return f"signal {self.signal} ({signal_name(self.signal)}{core})"
        return self.message or self.reason


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; real-time signals count from SIGRTMIN."""
    name = signal_names().get(number)
    if name is not None:
        return name
    return f"SIGRTMIN+{number - _signal.SIGRTMIN}" if number > _signal.SIGRTMIN else f"signal {number}"


def exited(code: int) -> Exit:
    return Exit(reason=EXIT, code=code)


def signalled(number: int, *, core_dumped: bool = False) -> Exit:
    return Exit(reason=SIGNAL, code=errors.SIGNAL_BASE + number, signal=number, core_dumped=core_dumped)


def timed_out(timeout_s: float) -> Exit:
    return Exit(reason=TIMEOUT, code=errors.TIMEOUT, message=f"timeout after {timeout_s:g} s")


def setup_failed(error: errors.GuntainerError) -> Exit:
    return Exit(reason=SETUP, code=error.exit_code, message=str(error), error=error)


def cancelled(message: str) -> Exit:
    return Exit(reason=CANCELLED, code=errors.INTERRUPTED, message=message)


def skipped(message: str) -> Exit:
    return Exit(reason=SKIPPED, code=0, message=message)


class Attempt(Value):
    """One try of a job that was run again after it."""

    exit: Exit
    started_at: float = 0.0
    """Seconds since the epoch."""
    wall_ns: int = 0
    stdout: str | None = None
    """As those of a Result."""
    stderr: str | None = None


class Artifact(Value):
    """A file that was taken out of a container."""

    path: str
    """Relative to the job's folder of artifacts."""
    size_bytes: int


class Result(Value):
    """What came of one job. Times are durations of a monotonic clock, in nanoseconds."""

    id: str
    key: str
    exit: Exit
    rootfs: str = ""
    matrix: tuple[tuple[str, str], ...] = ()
    started_at: float = 0.0
    """Seconds since the epoch, for people and reports; durations never come from it."""
    begin_ns: int = 0
    """When its turn came, since the batch began; then come waiting, preparing, the queue and the run, one after the other."""
    wait_ns: int = 0
    """Until the jobs that it needs had ended."""
    prepare_ns: int = 0
    """Waiting for the rootfs: unpacking, or another one's unpacking."""
    queue_ns: int = 0
    """Ready, and waiting for a slot."""
    wall_ns: int = 0
    """From the launch until the container was gone."""
    launch_ns: int = 0
    """The first part of that: until its command was executed."""
    slot: int = -1
    """Which of the slots it ran in, from 0; -1: it did not run."""
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    max_rss_bytes: int = 0
    """Of the largest process; less than all of them had together."""
    memory_peak_bytes: int | None = None
    """The most that the container had; None where its memory was not limited, or the kernel does not tell."""
    cpu_throttled_ns: int = 0
    """For how long it could have run, and was kept from it by its limit."""
    oom_kills: int = 0
    pids_refused: int = 0
    """How often its limit kept it from starting a process."""
    limits: tuple[tuple[str, str], ...] = ()
    """What was written to its control group: (file, text)."""
    isolation: str = ""
    """The rung of the ladder that was reached: "full", …"""
    userns: str = ""
    """Which ids were mapped: "single" or "range"."""
    scratch: str = ""
    """Where the writable layer lay: "overlay on disk", "overlay on memory", "copy", "reflink copy"."""
    stdout: str | None = None
    """Absolute path of the whole log, while it exists; of both streams, in order, where stderr is None."""
    stderr: str | None = None
    notes: tuple[str, ...] = ()
    """What went otherwise than asked for, one sentence each."""
    needs: tuple[str, ...] = ()
    """The jobs that had to end first: ids, and keys of jobs all of whose cells had to; of very many the first ones."""
    allow_failure: bool = False
    attempts: tuple[Attempt, ...] = ()
    """The earlier ones, which failed."""
    artifacts: tuple[Artifact, ...] = ()

    @property
    def ok(self) -> bool:
        return self.exit.ok

    @property
    def allowed(self) -> bool:
        """It failed, and may."""
        return self.allow_failure and not self.ok and self.exit.reason not in (CANCELLED, SKIPPED)

    @property
    def bad(self) -> bool:
        """It counts against the batch: neither good nor allowed to fail, nor skipped, for which something else is the reason."""
        return not self.ok and not self.allowed and self.exit.reason != SKIPPED

    @property
    def outcome(self) -> str:
        """ok, flaky, failed, timeout, oom, pids-limit, error, cancelled or skipped: the word in the table."""
        if self.exit.ok:
            return "flaky" if self.attempts else "ok"
        return {EXIT: "failed", SIGNAL: "failed", SETUP: "error"}.get(self.exit.reason, self.exit.reason)

    @property
    def verdict(self) -> str:
        """The outcome for people: `failed (allowed)` where that is so."""
        return f"{self.outcome} (allowed)" if self.allowed else self.outcome

    def earlier(self) -> Result:
        """As the result of an earlier batch stands among those of a later one: in none of its slots, at none of its times."""
        notes = self.notes if EARLIER in self.notes else (*self.notes, EARLIER)
        return self.replace(begin_ns=0, slot=-1, notes=notes)


class Report(Value):
    """All results of one batch, in the order of the jobs."""

    results: tuple[Result, ...]
    wall_ns: int = 0
    interrupted: int | None = None
    """The signal that ended the batch early, if one did."""
    name: str = ""
    """The job file's `name`."""
    file: str = ""
    """The job file, as the user called it."""
    started_at: float = 0.0
    """Seconds since the epoch."""
    parallel: int = 0
    """How many slots there were."""
    facts: tuple[tuple[str, str], ...] = ()
    """What it ran on: (`kernel`, `6.18.5`), …"""

    @property
    def first_failure(self) -> Result | None:
        """The first job that failed by itself; one that was merely cancelled only where there is neither another nor a signal."""
        bad = [r for r in self.results if r.bad]
        own = [r for r in bad if r.exit.reason != CANCELLED]
        if self.interrupted is not None:
            bad = own  # whoever has ended it knows why
        return (own or bad or [None])[0]  # type: ignore[list-item]

    @property
    def exit_code(self) -> int:
        """0 all good, 1 a job failed, 125 no job could be run, 128+N ended by signal N."""
        if self.interrupted is not None:
            return errors.SIGNAL_BASE + self.interrupted
        if not any(r.bad for r in self.results):
            return 0
        tried = [r.exit for r in self.results if r.exit.reason != SKIPPED]
        if all(exit_.reason == SETUP and exit_.code == errors.OWN_FAILURE for exit_ in tried):
            return errors.OWN_FAILURE
        return errors.FAILED
