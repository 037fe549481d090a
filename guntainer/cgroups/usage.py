"""What a container has used of its limits, and whether one of them has ended it."""

from __future__ import annotations

from guntainer import errors, report
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.jobs.model import Limits

_SIGKILL = 9


class Usage(Value):
    """Of one container, with all that it has started."""

    memory_peak_bytes: int | None = None
    """None: the memory controller was not asked for, or the kernel does not tell (before 5.19)."""
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_throttled_ns: int = 0
    oom_kills: int = 0
    """At least 1 where a process was killed for want of memory; the kernel may count more than there were."""
    pids_refused: int = 0
    """How often a process or a thread could not be started because of the limit."""


def verdict(exit_: report.Exit, usage: Usage, limits: Limits) -> report.Exit:
    """The Exit of a container that has ended by itself, in the words of the limit that has ended it.

    oom: the kernel has killed in its control group for want of memory, and its init was killed (all of it is, with
    memory.oom.group; 137 is what a shell makes of that).
    pids-limit: a process could not be started because of the limit, and the command failed. It may have failed for another
    reason after that; who succeeds all the same is not touched by it.
    """
    if exit_.reason not in (report.EXIT, report.SIGNAL):
        return exit_
    if usage.oom_kills and _SIGKILL in (exit_.signal, exit_.code - errors.SIGNAL_BASE):
        most = "" if limits.memory_bytes is None else f" of {_size(limits.memory_bytes)}"
        return exit_.replace(reason=report.OOM, message=f"out of memory: killed at its limit{most}")
    if usage.pids_refused and not exit_.ok:
        why = (
            f"its limit of {limits.pids} processes was reached {usage.pids_refused} time{'s'[: usage.pids_refused > 1]}"
        )
        return exit_.replace(reason=report.PIDS, message=f"{exit_.describe()}: {why}")
    return exit_


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}" if count % size == 0 else f"{count / size:.1f} {unit}"
    return f"{count} bytes"
