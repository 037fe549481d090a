"""`guntainer batch` and the Supervisor on real containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from conftest import Run, Traces, ended_jobs

import guntainer as api

pytestmark = pytest.mark.usefixtures("user_namespaces")


def job_file(home: Path, archive: Path, text: str, name: str = "jobs.toml") -> Path:
    path = home / "work" / name
    path.write_text(f'version = 1\n[rootfs.small]\nsource = "{archive}"\n' + text)
    return path


MATRIX = """
[jobs.t]
rootfs = "small"
run = '''
echo "out ${{ matrix.n }}"
echo "err" >&2
test ${{ matrix.n }} != 2
'''
matrix = { n = [1, 2, 3] }
[jobs.slow]
rootfs = "small"
command = ["sleep", "100"]
timeout = 0.5
[jobs.none]
rootfs = "small"
command = ["nosuch"]
"""


@pytest.mark.root
@pytest.mark.parametrize("mode", ["live", "group", "quiet"])
def test_a_matrix(home: Path, small_archive: Path, guntainer: Run, traces: Traces, mode: str) -> None:
    done = guntainer(
        "batch", "--output", mode, "--results", "out", "--json", "r.json", job_file(home, small_archive, MATRIX)
    )
    assert done.returncode == 1, done.stderr
    objects = ended_jobs(Path("r.json").read_text())
    assert {o["id"]: o["outcome"] for o in objects} == {
        "t (1)": "ok", "t (2)": "failed", "t (3)": "ok", "slow": "timeout", "none": "error",
    }  # fmt: skip
    assert {o["id"]: o["code"] for o in objects} == {"t (1)": 0, "t (2)": 1, "t (3)": 0, "slow": 124, "none": 127}
    assert Path("out/t (1)/stdout").read_text() == "out 1\n"
    assert Path("out/t (1)/stderr").read_text() == "err\n"
    assert json.loads(Path("out/t (2)/result.json").read_text())["code"] == 1
    assert "5 jobs: 2 ok, 1 failed, 1 error, 1 timeout" in done.stdout
    assert "first failure: t (2): exit 1" in done.stdout
    assert ("t (1) | out 1" in done.stdout) == (mode == "live")
    assert ("== t (1): exit 0" in done.stdout) == (mode == "group")
    traces.check()


def test_all_good_is_zero(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    done = guntainer("batch", job_file(home, small_archive, '[jobs.a]\nrootfs = "small"\nrun = "true"\nrepeat = 20\n'))
    assert done.returncode == 0, done.stderr
    assert "20 jobs: 20 ok" in done.stdout
    traces.check()


def test_one_bad_rootfs_does_not_stop_the_others(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    (home / "work" / "bad.tar.gz").write_bytes(small_archive.read_bytes()[:9000])
    text = '[jobs.a]\nrootfs = "small"\nrun = "true"\n[jobs.b]\nrootfs = "./bad.tar.gz"\nrun = "true"\n'
    done = guntainer("batch", job_file(home, small_archive, text))
    assert done.returncode == 1
    assert "truncated" in done.stdout and "1 ok, 1 error" in done.stdout
    traces.check()


def test_mistakes_are_told_all_at_once(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    path = job_file(
        home, small_archive, '[jobs.a]\nrootfz = "small"\nrun = "true"\n[jobs.b]\nrootfs = "small"\ntimeout = "soon"\n'
    )
    done = guntainer("batch", path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) >= 3 and all(line.startswith(f"guntainer: error: {path}:") for line in lines)
    assert "rootfs" in lines[0] and "Traceback" not in done.stderr
    traces.check()


@pytest.mark.parametrize("words", [["--check"], ["--list"], ["-n"]])
def test_looking_starts_nothing(home: Path, small_archive: Path, guntainer: Run, words: list[str]) -> None:
    done = guntainer("batch", *words, job_file(home, small_archive, MATRIX))
    assert done.returncode == 0
    assert not (home / "store" / "VERSION").exists()
    if words == ["--list"]:
        assert done.stdout.split("\n")[:3] == ["t (1)", "t (2)", "t (3)"]


def test_only(home: Path, small_archive: Path, guntainer: Run) -> None:
    done = guntainer("batch", "--only", "t (1)", "--only", "t*3*", job_file(home, small_archive, MATRIX))
    assert (done.returncode, "2 jobs: 2 ok" in done.stdout) == (0, True)
    assert guntainer("batch", "--only", "zzz", job_file(home, small_archive, MATRIX)).returncode == 2


def test_from_standard_input_and_yaml(home: Path, small_archive: Path, guntainer: Run) -> None:
    text = f"jobs:\n  a:\n    rootfs: {small_archive}\n    run: cat\n    stdin: input\n"
    (home / "work" / "input").write_text("given\n")
    (home / "work" / "jobs.yaml").write_text(text)
    done = guntainer("batch")
    assert "given\n" in done.stdout
    done = guntainer("batch", "-", input=json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "run": "echo hi"}}}))
    assert done.returncode == 0 and "hi\n" in done.stdout


@pytest.mark.parametrize(
    "words", [["/nonexistent.toml"], ["-j", "0", "x"], ["--outptu", "x"], ["--results", "/proc/x", "jobs.toml"]]
)
def test_bad_usage_is_one_line_and_2(home: Path, small_archive: Path, guntainer: Run, words: list[str]) -> None:
    job_file(home, small_archive, MATRIX)
    done = guntainer("batch", *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_fail_fast(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    text = '[jobs.a]\nrootfs = "small"\nfail-fast = true\nrun = "sleep ${{ matrix.s }}; exit 1"\nmatrix = { s = [0, 50, 51] }\n'
    text += '[jobs.other]\nrootfs = "small"\nrun = "true"\n'
    started = time.monotonic()
    done = guntainer("batch", "-j4", job_file(home, small_archive, text))
    assert time.monotonic() - started < 20
    assert "1 ok, 1 failed, 2 cancelled" in done.stdout and done.returncode == 1
    done = guntainer("batch", "-j1", "--fail-fast", job_file(home, small_archive, text))
    assert "1 failed, 3 cancelled" in done.stdout
    traces.check()


def test_max_parallel(home: Path, small_archive: Path, guntainer: Run) -> None:
    (home / "shared").mkdir()
    script = "mkdir /s/one || exit 1; sleep 0.05; rm -r /s/one"
    text = (
        f'[jobs.a]\nrootfs = "small"\nmax-parallel = 1\nrepeat = 6\nvolumes = ["{home}/shared:/s"]\nrun = "{script}"\n'
    )
    assert guntainer("batch", "-j6", job_file(home, small_archive, text)).returncode == 0


def test_output_is_byte_exact_and_bounded(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    data = os.urandom(3_000_000) + b"\n" + b"x" * 2_000_000
    (home / "data").write_bytes(data)
    text = f'[jobs.a]\nrootfs = "small"\ncommand = ["cat", "/data"]\nvolumes = ["{home}/data:/data:ro"]\nrepeat = 3\n'
    for mode in ("live", "quiet"):
        done = guntainer("batch", "--output", mode, "--results", mode, job_file(home, small_archive, text), text=False)
        assert done.returncode == 0
        for number in (1, 2, 3):
            assert (home / "work" / mode / f"a #{number}" / "stdout").read_bytes() == data
    traces.check()


def test_workflow_commands_of_a_job_are_shielded(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, '[jobs.a]\nrootfs = "small"\nrun = "echo ::error::fake"\n')
    done = guntainer("batch", "--output", "group", path, env={**os.environ, "GITHUB_ACTIONS": "true"})
    lines = done.stdout.splitlines()
    at = lines.index("::error::fake")
    token = lines[at - 1].removeprefix("::stop-commands::")
    assert len(token) == 32 and lines[at + 1] == f"::{token}::"


def test_two_batches_can_not_share_results(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, '[jobs.a]\nrootfs = "small"\nrun = "echo up; sleep 30"\n')
    line = [sys.executable, "-m", "guntainer", "batch", "--output", "live", "--results", "out", str(path)]
    first = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert first.stdout is not None and b"up" in first.stdout.readline()
    done = guntainer("batch", "--results", "out", path)
    assert (done.returncode, "another batch" in done.stderr) == (2, True)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=20)
    assert first.returncode == 143


LONG = '[jobs.a]\nrootfs = "small"\nrun = "echo up; sleep 100 & sleep 100"\nrepeat = 6\nstop-timeout = 1\n'


def start(path: Path, *words: str) -> subprocess.Popen[bytes]:
    line = [
        sys.executable,
        "-m",
        "guntainer",
        "batch",
        "-j3",
        "--output",
        "live",
        "--json",
        "r.json",
        *words,
        str(path),
    ]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(3):
        assert b"up" in process.stdout.readline()
    return process


@pytest.mark.root
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals(home: Path, small_archive: Path, traces: Traces, number: int, code: int) -> None:
    process = start(job_file(home, small_archive, LONG))
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert b"6 jobs: 6 cancelled" in out and b"Traceback" not in err
    assert len(ended_jobs((home / "work" / "r.json").read_text())) == 6
    traces.check()


def test_the_second_signal_kills(home: Path, small_archive: Path, traces: Traces) -> None:
    text = LONG.replace("echo up; sleep 100 & sleep 100", "trap 'echo no' TERM; echo up; while :; do sleep 0.1; done")
    process = start(job_file(home, small_archive, text.replace("stop-timeout = 1", "stop-timeout = 60")))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while b"| no" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    traces.check()


@pytest.mark.root
def test_kill_nine(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    process = start(job_file(home, small_archive, LONG))
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 5
    while traces.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert traces.processes() == []
    assert traces.folders()
    assert guntainer("run", small_archive, "true").returncode == 0
    traces.check()


def source(archive: Path) -> api.Source:
    return api.Source(location=str(archive), name="small")


def test_the_python_interface(home: Path, small_archive: Path, traces: Traces) -> None:
    jobs = [api.Job(id=f"j{n}", rootfs=source(small_archive), command=("sh", "-c", f"exit {n}")) for n in range(5)]

    async def main() -> dict[str, int]:
        async with api.Supervisor(parallel=3) as supervisor:
            return {result.id: result.exit.code async for result in supervisor.stream(jobs)}

    assert anyio.run(main) == {f"j{n}": n for n in range(5)}
    traces.check()


def test_a_killed_helper_is_replaced(home: Path, small_archive: Path, traces: Traces) -> None:
    """kill -9 of the fork helper while containers live and launches are under way."""
    jobs = [api.Job(id=f"j{n}", rootfs=source(small_archive), command=("sleep", "0.05")) for n in range(40)]

    async def main() -> list[api.Result]:
        results = []
        killed = 0
        async with api.Supervisor(parallel=8) as supervisor:
            async for result in supervisor.stream(jobs):
                results.append(result)
                if len(results) in (5, 15) and supervisor._launcher.pid:
                    os.kill(supervisor._launcher.pid, signal.SIGKILL)
                    killed += 1
        assert killed
        return results

    results = anyio.run(main)
    assert len(results) == 40
    bad = [result for result in results if not result.ok]
    assert all(result.exit.reason == "setup" and "fork helper died" in result.exit.message for result in bad)
    assert len(bad) < 20
    traces.check()


def test_a_launch_under_way_when_the_helper_dies_fails_by_name(home: Path, small_archive: Path, traces: Traces) -> None:
    """The helper is stopped, so that the launch is certainly under way, and then killed."""
    from guntainer.launcher.client import Launcher

    async def main() -> str:
        async with Launcher() as launcher:
            os.kill(launcher.pid, signal.SIGSTOP)
            message = ""

            async def launch() -> None:
                nonlocal message
                try:
                    await launcher.launch((0, (), ("true",), {}, ""), [])
                except api.GuntainerError as error:
                    message = str(error)

            async with anyio.create_task_group() as group:
                group.start_soon(launch)
                await anyio.sleep(0.1)
                os.kill(launcher.pid, signal.SIGKILL)
            child = await launcher.launch((0, (), ("true",), {"PATH": os.environ["PATH"]}, ""), [])
            os.waitpid(child.pid, 0)
            launcher.forget(child)
            return message

    assert "fork helper died" in anyio.run(main)
    traces.check()


def test_one_message_out_and_one_back(home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much a launch says is held here; how long it takes is the bench's business."""
    from guntainer.launcher import client

    sent: list[int] = []
    send = client.Launcher._send

    async def counted(self: client.Launcher, *words: object) -> None:
        sent.append(1)
        await send(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(client.Launcher, "_send", counted)
    jobs = [api.Job(id=f"j{n}", rootfs=source(small_archive), command=("true",)) for n in range(10)]

    async def main() -> dict[str, int]:
        async with api.Supervisor(parallel=2) as supervisor:
            await supervisor.run(jobs)
            return supervisor._launcher.statistics()

    assert anyio.run(main)["launches"] == len(sent) == 10


@pytest.mark.slow
def test_soak(home: Path, small_archive: Path, traces: Traces) -> None:
    """500 containers, a tenth each killed, timed out and not found; nothing is left."""

    def job(n: int) -> api.Job:
        kind = n % 10
        command = {0: ("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 1: ("sleep", "50"), 2: ("nosuch",)}.get(
            kind, ("true",)
        )
        scratch = api.Scratch(kind="memory") if n % 2 else api.Scratch()
        return api.Job(
            id=f"j{n}",
            rootfs=source(small_archive),
            command=command,
            scratch=scratch,
            timeout_s=0.3 if kind == 1 else 30,
        )

    before = len(os.listdir("/proc/self/fd"))

    async def main() -> dict[str, int]:
        outcomes: dict[str, int] = {}
        async with api.Supervisor(parallel=16) as supervisor:
            async for result in supervisor.stream([job(n) for n in range(500)]):
                outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
            fds = len(os.listdir("/proc/self/fd"))
        assert fds < before + 50
        return outcomes

    assert anyio.run(main) == {"ok": 350, "failed": 50, "timeout": 50, "error": 50}
    traces.check()


@pytest.mark.parametrize("at", ["prepare", "launch", "run"])
def test_cancelled_at_every_phase(home: Path, small_archive: Path, traces: Traces, at: str) -> None:
    jobs = [api.Job(id=f"j{n}", rootfs=source(small_archive), command=("sleep", "50")) for n in range(8)]
    delays = {"prepare": [0.0, 0.01, 0.03], "launch": [0.12, 0.15, 0.2], "run": [0.8]}[at]

    async def main(delay: float) -> None:
        async with api.Supervisor(parallel=4) as supervisor:
            with anyio.move_on_after(delay):
                await supervisor.run(jobs)

    for delay in delays:
        anyio.run(main, delay)
        traces.check()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/proc/self/fd/1"])
@pytest.mark.parametrize("mode", ["w", "a"])
def test_a_report_on_standard_output(
    small_archive: Path, home: Path, user_namespaces: None, name: str, mode: str
) -> None:
    """Also into a file: it is written to, never replaced."""
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "command": ["echo", "said"]}}})
    )
    path = home / "all"
    path.write_text("before\n")
    line = [sys.executable, "-m", "guntainer", "batch", "--json", name, str(home / "jobs.json")]
    with path.open(mode) as file:
        done = subprocess.run(line, stdout=file, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = path.read_text().splitlines()
    assert ("before" in lines) == (mode == "a")
    assert [one["id"] for one in ended_jobs(path.read_text())] == ["a"]
    assert json.loads(lines[-1])["event"] == "batch-finished"
    if name == "-":
        assert "said" in done.stderr and len(lines) == 4 + (mode == "a")
    assert Path("/dev/stdout").is_symlink()
