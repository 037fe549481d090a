"""Which of a job's limits can be had on this host: asked for once, then for every container."""

from __future__ import annotations

import _thread
import os

from guntainer import errors, hostids, resources
from guntainer.cgroups import host
from guntainer.cgroups.subtree import Subtree
from guntainer.jobs.limits import ULIMITS, UNLIMITED
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.cgroups.cgroup import Cgroup
    from guntainer.jobs.model import Limits

_NPROC = ULIMITS["nproc"]
_LETTERS = dict(zip(ULIMITS, "tfdscmunlvxiqerR", strict=True))  # bash(1), ulimit
_COUNTED_APART = (5, 14)  # Linux: RLIMIT_NPROC counts the processes of a user namespace by themselves


class Granted(Value):
    """What of a job's limits is in force."""

    limits: Limits
    notes: tuple[str, ...] = ()
    """What is not, one sentence each."""
    rlimits: tuple[tuple[int, int, int], ...] = ()
    """(resource, soft, hard) that stand in for a controller."""
    devices: tuple[tuple[str, tuple[int, int]], ...] = ()
    """Disks by the paths that name them, for the spec."""


class Limiter:
    """The limits of the containers of one run or batch.

    Args:
        alone: each container has a user namespace of its own.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._subtree = Subtree()
        self._known: dict[Limits, Granted] = {}
        self._error: errors.HostError | None = None
        self._lock = _thread.allocate_lock()

    def grant(self, limits: Limits) -> Granted:
        """What of these limits can be had; may take some seconds the first time, while systemd is asked.

        Raises:
            HostError: one of them can not be had, and they are not for best effort.
        """
        with self._lock:
            if limits not in self._known:
                self._known[limits] = self._grant(limits)
            return self._known[limits]

    def known(self, limits: Limits) -> Granted | None:
        """The same, where it has been asked for before."""
        return self._known.get(limits)

    def new(self, limits: Limits) -> Cgroup | None:
        """A control group for one container, without limits yet; None where none of them can be had.

        Raises:
            Exhausted: no more groups are allowed.
            HostError: the kernel refuses.
        """
        if not self.grant(limits).limits.wanted:
            return None
        try:
            return self._subtree.new()
        except BlockingIOError as error:
            raise errors.Exhausted(
                f"no more control groups are allowed: {error.strerror}", hint="see cgroup.max.descendants"
            ) from None
        except OSError as error:
            raise errors.HostError(f"no control group can be made: {errors.describe_oserror(error)}") from None

    def close(self) -> None:
        """Remove our part of the tree."""
        self._subtree.close()

    def _grant(self, limits: Limits) -> Granted:
        limits, notes = _within_hard(limits)
        wanted = resources.controllers(limits)
        refusals: dict[str, errors.HostError] = {
            controller: host.missing(controller, None) for controller in sorted(wanted) if host.in_version_1(controller)
        }
        devices = {}
        try:
            devices = {path: host.device_of(path, resources.rate_option(word)) for word, path, _ in limits.io_max}
        except errors.HostError as error:
            refusals.setdefault("io", error)
        rest = wanted - refusals.keys()
        try:
            able = self._give(rest) if rest else rest
        except errors.HostError as error:
            why = f"the cgroup controller{'s'[: len(rest) > 1]} {', '.join(sorted(rest))} can not be used: {error.message}"
            refusals |= dict.fromkeys(sorted(rest), errors.HostError(why, hint=error.hint, probe=error.probe))
        else:
            for controller in sorted(rest - able):
                refusals[controller] = host.missing(controller, self._subtree.place)
        if refusals and not limits.best_effort:
            raise _refusal(limits, refusals)
        granted = self._without(limits, refusals, devices)
        return granted.replace(notes=(*granted.notes, *notes))

    def _give(self, wanted: frozenset[str]) -> frozenset[str]:
        if self._error is not None:
            raise self._error
        try:
            return self._subtree.give(wanted)
        except errors.HostError as error:
            self._error = error  # what the host refuses once, it refuses to all
            raise
        except OSError as error:
            self._error = errors.HostError(f"no control group of ours can be made: {errors.describe_oserror(error)}")
            raise self._error from None

    def _without(
        self, limits: Limits, refusals: dict[str, errors.HostError], devices: dict[str, tuple[int, int]]
    ) -> Granted:
        """Best effort: what is left, and what stands in."""
        notes: dict[str, list[str]] = {}
        rlimits: tuple[tuple[int, int, int], ...] = ()
        most = limits.pids
        for controller, error in refusals.items():
            name = resources.options(limits, controller)
            if controller == "pids" and most is not None and self._counts_apart():
                most = min(most, _most_processes())
                rlimits = ((_NPROC, most, most),)
                name += " (RLIMIT_NPROC stands in)"
            notes.setdefault(error.message, []).append(name)
            limits = resources.without(limits, controller)
        return Granted(
            limits=limits,
            notes=tuple(f"no limit of {', '.join(names)}: {why}" for why, names in notes.items()),
            rlimits=rlimits,
            devices=tuple(devices.items()),
        )

    def _counts_apart(self) -> bool:
        """Whether RLIMIT_NPROC counts a container's processes alone; for the host's root it counts nothing."""
        release = os.uname().release.split(".")
        version = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in release[:2])
        return self._alone and hostids.UID != 0 and version >= _COUNTED_APART


def _refusal(limits: Limits, refusals: dict[str, errors.HostError]) -> errors.HostError:
    """The first reason, with all the limits that it is the reason of."""
    first = next(iter(refusals.values()))
    names = [resources.options(limits, controller) for controller, error in refusals.items() if error is first]
    return errors.HostError(f"no limit of {', '.join(names)}: {first.message}", hint=first.hint, probe=first.probe)


def _most_processes() -> int:
    import resource

    hard = resource.getrlimit(_NPROC)[1]
    return 1 << 22 if hard == resource.RLIM_INFINITY else hard  # PID_MAX_LIMIT


def _within_hard(limits: Limits) -> tuple[Limits, list[str]]:
    """For best effort, the ulimits that can be had, and a note for each that was cut to the hard limit; else as they are.

    setrlimit(2) in the container would refuse the others: nobody but the host's root can raise a hard limit.

    Raises:
        HostError: naming the limit; not for best effort.
    """
    import resource

    within, notes = [], []
    for name, soft, hard in limits.ulimits:
        allowed = resource.getrlimit(ULIMITS[name])[1]
        if allowed == resource.RLIM_INFINITY or UNLIMITED != hard <= allowed:
            within.append((name, soft, hard))
            continue
        shown = "unlimited" if hard == UNLIMITED else hard
        why = f"ulimit {name}={shown}: the hard limit here is {allowed}"
        if not limits.best_effort:
            raise errors.HostError(
                why, hint=f"ask for less, or have it raised: limits.conf(5); `ulimit -H{_LETTERS[name]}` shows it"
            )
        within.append((name, allowed if soft == UNLIMITED else min(soft, allowed), allowed))
        notes.append(f"{why}, which holds instead")
    return limits.replace(ulimits=tuple(within)), notes
