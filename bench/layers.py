"""Layers: what each part of a container's set-up costs a launch, in µs: from the clone until `/bin/true` has been waited for.

One process clones the containers one after the other, as the fork helper does, from the same compiled plans. Each variant is
the default with one layer more or less; they run in turns, so that a drift of the machine meets all of them.
"""

from __future__ import annotations

import marshal
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.measure import Outcome, Samples
from bench.peers import Ground

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.cgroups.subtree import Subtree

PER_TURN = 40
_GROUPED = "with a control group"


class _Launcher:
    def __init__(self) -> None:
        from guntainer import faults
        from guntainer.init import child

        self._faults = faults.FaultPipe()
        self._launches = child.Launches(self._faults.write_fd, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK), parent=False)

    def turn(self, plan: Any, subtree: Subtree | None = None) -> float:
        """µs per launch of one turn; with a sub-tree, each in a control group of its own, looked at and removed afterwards.

        Raises:
            RuntimeError: a launch failed; the time is void.
        """
        data = marshal.dumps(plan)
        started = time.perf_counter()
        for number in range(PER_TURN):
            group = subtree.new() if subtree is not None else None
            pid, pidfd = self._launches.launch(data, [] if group is None else [group.fd], number)[:2]
            status = os.waitpid(pid, 0)[1]
            os.close(pidfd)
            if group is not None:
                group.usage()
                group.remove()
            if status:
                raise RuntimeError(f"layers: a launch ended with {status}")
        return (time.perf_counter() - started) / PER_TURN * 1e6


def _plans(ground: Ground, userns: str) -> dict[str, Any]:
    """The default plan, and it with one layer more or less."""
    from guntainer import assembly, idmap, opening, planner
    from guntainer.jobs.model import Job, Scratch, Source

    ids = idmap.enter(idmap.open_ids(userns))
    source = Source(location=str(ground.archive))
    job = Job(id="layers", rootfs=source, command=("/bin/true",), scratch=Scratch(kind="memory"))

    def unused() -> object:
        raise AssertionError("the writable layer is in memory")

    with opening.open_rootfs(job, None, ids, unused) as (tree, shared):
        place = assembly.Ground(shared, unused, ids)  # type: ignore[arg-type]

        def plan(changed: Job) -> Any:
            return assembly.assemble(changed, tree, place, planner.Stdio()).plan

        base = plan(job)
        return {
            "the default": base,
            "without seccomp": plan(job.replace(seccomp="unconfined")),
            "without dropping capabilities": plan(job.replace(cap_add=("ALL",))),
            "without hidden and read-only paths": plan(job.replace(unmask=("ALL",))),
            "with a network namespace": plan(job.replace(network="none")),
            "none of seccomp, capabilities, hidden paths": plan(job.replace(privileged=True)),
            _GROUPED: assembly.assemble(job, tree, place, planner.Stdio(), cgroup=0).plan,
        }


def _measure(ground: Ground, userns: str, rounds: int, subtree: Subtree | None) -> Samples:
    """In a process of its own: with a range of ids it enters a user namespace."""
    plans = _plans(ground, userns)
    if subtree is None:
        del plans[_GROUPED]
    launcher = _Launcher()
    samples: Samples = {name: [] for name in plans}
    for _ in range(rounds * 5):
        for name, plan in plans.items():
            samples[name].append(launcher.turn(plan, subtree if name == _GROUPED else None))
    return samples


def _in_a_fork(work: Callable[[], Samples]) -> Samples:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with open(write, "wb") as pipe:
                marshal.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        content = pipe.read()
    os.waitpid(pid, 0)
    if not content:
        raise RuntimeError("layers: the measuring process failed")
    samples: Samples = marshal.loads(content)
    return samples


def bench(ground: Ground, rounds: int) -> Outcome:
    from guntainer import errors
    from guntainer.cgroups.subtree import Subtree

    outcome = Outcome(case="layers: one launch of /bin/true after the other, without the supervisor", unit="µs")
    subtree: Subtree | None = Subtree()
    try:
        assert subtree is not None
        subtree.give(frozenset({"memory", "cpu", "pids"}))  # those that there are
    except errors.HostError as error:
        subtree = None
        outcome.notes.append(f"{_GROUPED}: not measured, {error.message}")
    try:
        for userns in ("range", "single"):
            samples = _in_a_fork(lambda userns=userns: _measure(ground, userns, rounds, subtree))  # type: ignore[misc]
            base = statistics.median(samples["the default"])
            for name, values in samples.items():
                outcome.samples[f"{userns}: {name}"] = values
                if name != "the default":
                    outcome.notes.append(f"{userns}: {name}: {statistics.median(values) - base:+.0f} µs")
    finally:
        if subtree is not None:
            subtree.close()
    return outcome
