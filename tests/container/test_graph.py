"""Which job runs when: needs, conditions, attempts, slots by rank, the time for all of them."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import Traces

import guntainer as api
from guntainer.jobs.model import Retry

pytestmark = pytest.mark.usefixtures("user_namespaces")


class Seen(api.Watcher):
    """What was told, in its order."""

    def __init__(self) -> None:
        self.started_ids: list[str] = []
        self.retried: list[tuple[str, int, float]] = []
        self.waited: list[str] = []

    def waiting(self, job: api.Job) -> None:
        self.waited.append(job.id)

    def started(self, job: api.Job) -> None:
        self.started_ids.append(job.id)

    def retrying(self, job: api.Job, attempt: int, exit_: api.Exit, wait_s: float) -> None:
        self.retried.append((job.id, attempt, wait_s))


class Graph:
    """Makes jobs and runs them."""

    def __init__(self, archive: Path) -> None:
        self._source = api.Source(location=str(archive), name="small")
        self.seen = Seen()
        self.report = api.Report(results=())

    def job(self, id_: str, script: str = "true", **more: Any) -> api.Job:
        return api.Job(id=id_, rootfs=self._source, command=("sh", "-c", script), **more)

    def run(self, *jobs: api.Job, timeout_s: float | None = None, **settings: Any) -> dict[str, str]:
        async def main() -> api.Report:
            async with api.Supervisor(watcher=self.seen, **settings) as supervisor:
                return await supervisor.run(jobs, timeout_s=timeout_s)

        self.report = anyio.run(main)
        return {result.id: result.outcome for result in self.report.results}

    def result(self, id_: str) -> api.Result:
        return next(result for result in self.report.results if result.id == id_)


@pytest.fixture
def graph(small_archive: Path, traces: Traces) -> Graph:
    return Graph(small_archive)


@pytest.mark.root
def test_a_job_waits_for_those_it_needs(graph: Graph, traces: Traces) -> None:
    jobs = [
        graph.job("last", needs=("left", "right")),
        graph.job("left", "sleep 0.2", needs=("first",)),
        graph.job("right", needs=("first",)),
        graph.job("first", "sleep 0.1"),
    ]
    assert graph.run(*jobs, parallel=4) == dict.fromkeys(("last", "left", "right", "first"), "ok")
    assert graph.seen.started_ids[0] == "first" and graph.seen.started_ids[-1] == "last"
    assert set(graph.seen.waited) == {"last", "left", "right"}
    last, left = graph.result("last"), graph.result("left")
    assert last.needs == ("left", "right")
    assert last.wait_ns >= left.wait_ns + 200_000_000
    assert graph.result("first").wait_ns < 100_000_000
    traces.check()


def test_what_needs_a_failure_is_skipped_and_says_whose(graph: Graph, traces: Traces) -> None:
    jobs = [graph.job("bad", "exit 3"), graph.job("a", needs=("bad",)), graph.job("b", needs=("a",)), graph.job("c")]
    assert graph.run(*jobs) == {"bad": "failed", "a": "skipped", "b": "skipped", "c": "ok"}
    assert graph.result("a").exit.message == "skipped: bad failed"
    assert graph.result("b").exit.message == "skipped: a failed"  # by way of another one
    assert graph.report.exit_code == 1
    assert graph.report.first_failure == graph.result("bad")
    traces.check()


def test_conditions(graph: Graph, traces: Traces) -> None:
    jobs = [
        graph.job("bad", "exit 1"),
        graph.job("report", needs=("bad",), condition="failure()"),
        graph.job("deploy", needs=("bad",), condition="success()"),
        graph.job("clean", needs=("bad", "deploy"), condition="always()"),
        graph.job("never", condition="failure()"),
    ]
    assert graph.run(*jobs) == {
        "bad": "failed", "report": "ok", "deploy": "skipped", "clean": "ok", "never": "skipped",
    }  # fmt: skip
    assert graph.result("never").exit.message == "skipped: failure() does not hold"
    traces.check()


def test_a_cell_that_is_left_out_takes_nobody_with_it(graph: Graph, traces: Traces) -> None:
    """But a job that is left out as a whole does, as on GitHub; and so does a cell where something above it has failed."""
    jobs = [
        graph.job("m (1)", key="m", matrix=(("n", "1"),)),
        graph.job("m (2)", key="m", matrix=(("n", "2"),), condition="false"),
        graph.job("after m", needs=("m (1)", "m (2)")),
        graph.job("all (1)", key="all", matrix=(("n", "1"),), condition="false"),
        graph.job("after all", needs=("all (1)",)),
        graph.job("alone", condition="false"),
        graph.job("after alone", needs=("m (1)", "alone")),
    ]
    assert graph.run(*jobs) == {
        "m (1)": "ok", "m (2)": "skipped", "after m": "ok", "all (1)": "skipped", "after all": "skipped",
        "alone": "skipped", "after alone": "skipped",
    }  # fmt: skip
    assert graph.result("after alone").exit.message == "skipped: alone did not run"
    assert graph.report.exit_code == 0
    traces.check()


def test_success_and_failure_are_of_all_that_is_above(graph: Graph, traces: Traces) -> None:
    """GitHub: a job that runs after a failure, by always(), does not make those good that need it."""
    jobs = [
        graph.job("bad", "exit 3"),
        graph.job("nevertheless", needs=("bad",), condition="always()"),
        graph.job("by success", needs=("nevertheless",)),
        graph.job("by failure", needs=("nevertheless",), condition="failure()"),
        graph.job("cell (1)", key="cell", needs=("bad",)),
        graph.job("cell (2)", key="cell", needs=("bad",), condition="false"),
        graph.job("after the cell", needs=("cell (2)",)),
        graph.job("shaky", "exit 1", allow_failure=True),
        graph.job("after shaky", needs=("shaky",)),
    ]
    assert graph.run(*jobs) == {
        "bad": "failed", "nevertheless": "ok", "by success": "skipped", "by failure": "ok", "cell (1)": "skipped",
        "cell (2)": "skipped", "after the cell": "skipped", "shaky": "failed", "after shaky": "ok",
    }  # fmt: skip
    assert graph.result("by success").exit.message == "skipped: bad failed"
    traces.check()


def test_an_allowed_failure_stops_nobody(graph: Graph, traces: Traces) -> None:
    jobs = [graph.job("shaky", "exit 7", allow_failure=True), graph.job("next", needs=("shaky",))]
    assert graph.run(*jobs, fail_fast=True) == {"shaky": "failed", "next": "ok"}
    assert graph.result("shaky").verdict == "failed (allowed)"
    assert graph.report.exit_code == 0 and graph.report.first_failure is None
    traces.check()


@pytest.mark.root
def test_a_second_attempt_is_flaky(graph: Graph, home: Path, traces: Traces) -> None:
    shared = home / "shared"
    shared.mkdir()
    script = "echo try; echo $((`cat /s/n` + 1)) > /s/n; test `cat /s/n` -ge 3"
    (shared / "n").write_text("0\n")
    mount = api.Mount(source=str(shared), target="/s")
    job = graph.job("t", script, mounts=(mount,), retry=Retry(attempts=5, backoff_s=0.05))
    assert graph.run(job, results=str(home / "out")) == {"t": "flaky"}
    result = graph.result("t")
    assert [attempt.exit.code for attempt in result.attempts] == [1, 1]
    assert graph.seen.retried == [("t", 1, 0.05), ("t", 2, 0.1)]
    assert graph.report.exit_code == 0
    out = home / "out" / "t"
    assert [(out / name / "stdout").read_text() for name in ("attempt-1", "attempt-2", ".")] == ["try\n"] * 3
    assert result.attempts[0].stdout == str(out / "attempt-1" / "stdout")
    traces.check()


def test_attempts_end_at_their_number_and_only_what_was_named_is_tried_again(graph: Graph, traces: Traces) -> None:
    jobs = [
        graph.job("bad", "exit 2", retry=Retry(attempts=3)),
        graph.job("late", "sleep 60", timeout_s=0.3, retry=Retry(attempts=2, on=("exit", "signal"))),
        graph.job("none", retry=Retry(attempts=2, on=("setup",))).replace(command=("nosuch",)),
    ]
    assert graph.run(*jobs) == {"bad": "failed", "late": "timeout", "none": "error"}
    assert [len(graph.result(job.id).attempts) for job in jobs] == [2, 0, 1]
    traces.check()


def test_a_rootfs_that_could_not_be_had_is_tried_again(
    graph: Graph, small_archive: Path, home: Path, traces: Traces
) -> None:
    late = home / "late.tar.gz"

    class Putting(Seen):
        def retrying(self, job: api.Job, attempt: int, exit_: api.Exit, wait_s: float) -> None:
            super().retrying(job, attempt, exit_, wait_s)
            late.write_bytes(small_archive.read_bytes())

    graph.seen = Putting()
    job = graph.job("t", retry=Retry(attempts=2)).replace(rootfs=api.Source(location=str(late), name="late"))
    assert graph.run(job) == {"t": "flaky"}
    traces.check()


def test_the_highest_rank_runs_first(graph: Graph, traces: Traces) -> None:
    jobs = [
        graph.job("a"),
        graph.job("short"),
        graph.job("long"),
        graph.job("urgent", priority=5),
        graph.job("new"),
        graph.job("idle", priority=-1),
    ]
    graph.run(*jobs, parallel=1, expected={"a": 5, "short": 1, "long": 100, "idle": 1000, "urgent": 1})
    assert graph.seen.started_ids == ["urgent", "new", "long", "a", "short", "idle"]
    assert {result.slot for result in graph.report.results} == {0}
    traces.check()


def test_slots_have_numbers(graph: Graph, traces: Traces) -> None:
    graph.run(*(graph.job(f"j{n}", "sleep 0.2") for n in range(6)), parallel=3)
    assert sorted(result.slot for result in graph.report.results) == [0, 0, 1, 1, 2, 2]
    assert graph.report.parallel == 3
    traces.check()


@pytest.mark.root
def test_the_whole_batch_has_its_time(graph: Graph, traces: Traces) -> None:
    jobs = [
        graph.job("quick"),
        graph.job("slow", "sleep 60", stop_timeout_s=0.2),
        graph.job("behind", needs=("slow",)),
        graph.job("clean", needs=("quick", "slow", "behind"), condition="always()"),
    ]
    begun = time.monotonic()
    outcomes = graph.run(*jobs, timeout_s=1.0)
    assert time.monotonic() - begun < 20
    assert outcomes == {"quick": "ok", "slow": "cancelled", "behind": "cancelled", "clean": "ok"}
    assert graph.result("slow").exit.message == "cancelled: the whole batch may take 1 s"
    assert graph.report.exit_code == 1
    traces.check()


class _Stopping(Seen):
    """Stops the batch when a job has been started."""

    def __init__(self, at: str, times: int = 1) -> None:
        super().__init__()
        self._at = at
        self._times = times
        self.supervisor: api.Supervisor | None = None

    def started(self, job: api.Job) -> None:
        super().started(job)
        if job.id == self._at and self.supervisor is not None:
            for _ in range(self._times):
                self.supervisor.stop(signal.SIGINT)


@pytest.mark.root
@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_spares_what_always_runs_and_the_second_one_nothing(graph: Graph, traces: Traces, times: int) -> None:
    jobs = [
        graph.job("slow", "sleep 60", stop_timeout_s=0.2),
        graph.job("waits", needs=("slow",)),
        graph.job("clean", needs=("slow", "waits"), condition="always()"),
    ]
    seen = _Stopping("slow", times)

    async def main() -> api.Report:
        async with api.Supervisor(watcher=seen) as supervisor:
            seen.supervisor = supervisor
            return await supervisor.run(jobs)

    report = anyio.run(main)
    outcomes = {result.id: result.outcome for result in report.results}
    assert outcomes == {"slow": "cancelled", "waits": "cancelled", "clean": "ok" if times == 1 else "cancelled"}
    assert report.interrupted == signal.SIGINT and report.exit_code == 130
    traces.check()


def test_fail_fast_spares_what_always_runs(graph: Graph, traces: Traces) -> None:
    jobs = [
        graph.job("bad", "exit 1"),
        graph.job("slow", "sleep 60", stop_timeout_s=0.2),
        graph.job("clean", needs=("bad", "slow"), condition="always()"),
    ]
    assert graph.run(*jobs, fail_fast=True) == {"bad": "failed", "slow": "cancelled", "clean": "ok"}
    traces.check()


def test_a_batch_that_is_in_time_does_not_wait_for_it(graph: Graph, traces: Traces) -> None:
    begun = time.monotonic()
    assert graph.run(graph.job("quick"), timeout_s=600) == {"quick": "ok"}
    assert time.monotonic() - begun < 60
    traces.check()


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"a": ("b",), "b": ("c",), "c": ("a",)}, "needs itself, by way of others"),
        ({"a": ("a",)}, "needs itself"),
        ({"a": ("nobody",)}, "needs 'nobody', which is not among the jobs"),
    ],
)
def test_what_can_never_run_is_refused(graph: Graph, needs: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises((ValueError, ExceptionGroup)) as caught:
        graph.run(*(graph.job(id_, needs=those) for id_, those in needs.items()))
    error = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]  # type: ignore[assignment]
    assert said in str(error)


def test_a_pause_that_is_cut_short_is_no_negative_time(graph: Graph, traces: Traces) -> None:
    job = graph.job("t", "exit 1", retry=Retry(attempts=3, backoff_s=60))
    assert graph.run(job, timeout_s=0.5) == {"t": "cancelled"}
    result = graph.result("t")
    assert result.wait_ns >= 0 and len(result.attempts) == 1
    traces.check()


def test_a_watcher_with_a_mistake_costs_nobody_a_result(graph: Graph, traces: Traces) -> None:
    class Broken(Seen):
        async def finished(self, result: api.Result) -> None:
            raise RuntimeError("a mistake")

    graph.seen = Broken()
    assert graph.run(graph.job("a"), graph.job("b", needs=("a",))) == {"a": "ok", "b": "ok"}
    traces.check()


def test_many_jobs_after_many_others(graph: Graph, traces: Traces) -> None:
    needs = tuple(f"first-{n}" for n in range(30))
    jobs = [graph.job(id_) for id_ in needs] + [graph.job(f"then-{n}", needs=needs) for n in range(30)]
    assert set(graph.run(*jobs).values()) == {"ok"}
    assert set(graph.seen.started_ids[:30]) == set(needs)
    traces.check()
