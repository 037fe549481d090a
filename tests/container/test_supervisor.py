"""The Python interface where something goes wrong in it: one mistake costs one job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from conftest import Traces

from guntainer import Job, Result, Source, Supervisor
from guntainer.watcher import Watcher

pytestmark = pytest.mark.usefixtures("user_namespaces")


def job(archive: Path, id_: str, *command: str, key: str = "", fail_fast: bool = False) -> Job:
    return Job(id=id_, key=key, rootfs=Source(location=str(archive)), command=command or ("true",), fail_fast=fail_fast)


def outcomes(results: tuple[Result, ...]) -> list[str]:
    return [result.outcome for result in results]


def test_a_watcher_that_raises(home: Path, small_archive: Path, traces: Traces) -> None:
    class Broken(Watcher):
        def started(self, job: Job) -> None:
            if job.id == "bad":
                raise ZeroDivisionError("a mistake")

    async def run() -> tuple[Result, ...]:
        async with Supervisor(watcher=Broken()) as supervisor:
            return (await supervisor.run([job(small_archive, name) for name in ("a", "bad", "c")])).results

    results = anyio.run(run)
    assert outcomes(results) == ["ok", "error", "ok"]
    assert "ZeroDivisionError: a mistake" in results[1].exit.message
    traces.check()


def test_a_plan_that_can_not_be_compiled(home: Path, small_archive: Path, traces: Traces) -> None:
    """Half a surrogate pair has no bytes; a clone that is under way meanwhile must not notice."""

    async def run() -> tuple[Result, ...]:
        async with Supervisor(parallel=4) as supervisor:
            jobs = [job(small_archive, "long", "sleep", "0.5"), job(small_archive, "bad", "echo", "\ud800")]
            return (await supervisor.run([*jobs, job(small_archive, "good")])).results

    assert outcomes(anyio.run(run)) == ["ok", "error", "ok"]
    traces.check()


def test_runs_one_after_the_other(home: Path, small_archive: Path, traces: Traces) -> None:
    """What happened in one run says nothing about the next."""

    async def run() -> list[list[str]]:
        found = []
        async with Supervisor(parallel=1, fail_fast=True) as supervisor:
            for _ in range(2):
                bad = job(small_archive, "bad", "false", key="m", fail_fast=True)
                found.append(outcomes((await supervisor.run([bad, job(small_archive, "next", key="m")])).results))
                found.append(outcomes((await supervisor.run([job(small_archive, "fine", key="m")])).results))
        return found

    assert anyio.run(run) == [["failed", "cancelled"], ["ok"]] * 2
    traces.check()


def test_two_runs_at_once_are_both_stopped(home: Path, small_archive: Path, traces: Traces) -> None:
    async def run() -> list[str]:
        found: list[str] = []
        async with Supervisor(parallel=4) as supervisor, anyio.create_task_group() as group:

            async def one(name: str) -> None:
                found.extend(outcomes((await supervisor.run([job(small_archive, name, "sleep", "50")])).results))

            group.start_soon(one, "a")
            group.start_soon(one, "b")
            await anyio.sleep(1)
            supervisor.stop(signal.SIGTERM)
            await one("late")
        return found

    assert anyio.run(run) == ["cancelled"] * 3
    traces.check()


def test_one_id_twice_is_refused(home: Path, small_archive: Path) -> None:
    async def run() -> None:
        async with Supervisor() as supervisor:
            await supervisor.run([job(small_archive, "a"), job(small_archive, "a")])

    with pytest.raises(ValueError, match="same id"):
        anyio.run(run)


def test_a_stream_that_is_left_early(home: Path, small_archive: Path, traces: Traces) -> None:
    async def run() -> int:
        seen = 0
        async with Supervisor(parallel=2) as supervisor:
            stream = supervisor.stream(
                [job(small_archive, "a")] + [job(small_archive, f"{n}", "sleep", "50") for n in range(3)]
            )
            async for _ in stream:
                seen += 1
                break
            await stream.aclose()
            fine = (await supervisor.run([job(small_archive, "after")])).results
            return seen + len([one for one in fine if one.ok])

    assert anyio.run(run) == 2
    traces.check()


def test_two_supervisors_in_one_process(home: Path, small_archive: Path, traces: Traces) -> None:
    """The helper of one is killed in the middle of launches: the containers of the other live on."""

    async def run() -> tuple[list[str], list[str]]:
        ends: dict[str, list[str]] = {}
        async with Supervisor(parallel=8) as one, Supervisor(parallel=8) as two, anyio.create_task_group() as group:

            async def go(name: str, supervisor: Supervisor, jobs: list[Job]) -> None:
                ends[name] = outcomes((await supervisor.run(jobs)).results)

            group.start_soon(go, "one", one, [job(small_archive, f"a{n}", "sleep", "2") for n in range(4)])
            await anyio.sleep(0.8)
            group.start_soon(go, "two", two, [job(small_archive, f"b{n}") for n in range(200)])
            for _ in range(3):
                await anyio.sleep(0.05)
                pid = two._launcher.pid
                if pid:
                    os.kill(pid, signal.SIGKILL)
        return ends["one"], ends["two"]

    one, two = anyio.run(run)
    assert one == ["ok"] * 4
    assert set(two) <= {"ok", "error"} and two.count("ok") > 100
    traces.check()


def test_processes_run_out(home: Path, small_archive: Path, traces: Traces) -> None:
    """RLIMIT_NPROC: jobs wait for each other's end instead of failing, and that is said once."""
    if os.geteuid() == 0:
        pytest.skip("root is not bound by RLIMIT_NPROC")
    mine = sum(entry.stat().st_uid == os.geteuid() for entry in Path("/proc").iterdir() if entry.name.isdigit())
    (home / "jobs.toml").write_text(
        f'[jobs.a]\nrootfs = "{small_archive}"\ncommand = ["sleep", "0.3"]\nrepeat = 60\nscratch = "memory"\n'
    )
    assert guntainer_warm(small_archive) == 0
    line = f"ulimit -u {mine + 30}; exec {sys.executable} -m guntainer batch -j60 --output quiet {home}/jobs.toml"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 ok" in done.stdout
    assert done.stderr.count("jobs wait until others have ended") == 1, done.stderr
    traces.check()


def guntainer_warm(archive: Path) -> int:
    line = [sys.executable, "-m", "guntainer", "run", str(archive), "true"]
    return subprocess.run(line, check=False).returncode


@pytest.mark.parametrize("words", [["run", "{archive}", "echo", "fine"], ["batch", "--output", "group", "{jobs}"]])
def test_open_files_run_out(home: Path, small_archive: Path, traces: Traces, words: list[str]) -> None:
    assert guntainer_warm(small_archive) == 0
    (home / "jobs.toml").write_text(f'[jobs.a]\nrootfs = "{small_archive}"\nrun = "echo fine; ulimit -n"\n')
    command = " ".join(words).format(archive=small_archive, jobs=home / "jobs.toml")
    python = f"{sys.executable} -m guntainer {command}"

    def under(limit: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", f"{limit}; exec {python}"], capture_output=True, text=True, check=False)

    low = under("ulimit -Sn 40")
    assert low.returncode == 0 and "fine" in low.stdout, low.stderr
    if words[0] == "batch":
        assert "\n40\n" in low.stdout  # the command gets what the caller had
    hard = under("ulimit -n 100")
    assert hard.returncode == 125
    assert len(hard.stderr.splitlines()) == 1 and "ulimit -n" in hard.stderr
    traces.check()
