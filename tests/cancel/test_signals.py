"""Every signal in every phase of `run` and `batch`: the exit code, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, Traces, ended_jobs

pytestmark = pytest.mark.usefixtures("user_namespaces")

# Starts the program with one of its functions slowed down, so that a signal can be sent in the middle of it.
DRIVER = """
import sys, time
phase, marker, *words = sys.argv[1:]

def slow(owner, name, seconds):
    function = getattr(owner, name)
    def slowed(*a, **k):
        open(marker, "w").close()
        time.sleep(seconds)
        return function(*a, **k)
    setattr(owner, name, slowed)

if phase == "start":
    from guntainer.launcher import client, spawn
    slow(spawn, "FaultPipe", 30)
elif phase == "short unpack":
    from guntainer.archive import worker
    slow(worker, "_into_tree", 1)
elif phase == "unpack":
    from guntainer.archive import worker
    slow(worker, "_into_tree", 30)
elif phase == "launch":
    from guntainer import assembly
    slow(assembly, "assemble", 1)
elif phase == "clean-up":
    from guntainer.runfolder import RunFolder
    slow(RunFolder, "remove", 1)
sys.argv = ["guntainer", *words]
from guntainer.cli import entry
entry()
"""
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "KILL": signal.SIGKILL}


def drive(home: Path, phase: str, *words: object) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-c", DRIVER, phase, str(home / "marker"), *map(str, words)]
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until_there(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_in(phase: str, process: subprocess.Popen[bytes], home: Path, *, containers: int) -> None:
    """Wait until so many containers have written their file, or, in the other phases, until the driver says so."""
    if phase != "run":
        return until_there(home / "marker", process)
    deadline = time.monotonic() + 20
    while len(list((home / "tmp").rglob("upper/x"))) < containers:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return None


def send(process: subprocess.Popen[bytes], name: str) -> int:
    number = SIGNALS[name.split()[0]]
    process.send_signal(number)
    if "twice" in name:
        time.sleep(0.1)
        process.send_signal(number)
    return number


def everything(home: Path) -> list[str]:
    """What an unpack under way has in the store, locks included."""
    place = home / "store" / "incoming"
    return sorted(os.listdir(place)) if place.is_dir() else []


def settle(traces: Traces) -> None:
    deadline = time.monotonic() + 5
    while traces.processes() and time.monotonic() < deadline:
        time.sleep(0.02)


def check(home: Path, name: str, archive: Path, other: Path, guntainer: Run, traces: Traces) -> None:
    """Nothing is left; after SIGKILL once somebody else has started."""
    settle(traces)
    assert traces.processes() == []
    if name == "KILL":
        assert guntainer("run", other, "true").returncode == 0
    assert everything(home) == []
    traces.check()
    assert guntainer("run", archive, "true").returncode == 0


@pytest.fixture
def other(home: Path, small_archive: Path) -> Path:
    """Another archive, so that a next start has nothing to do with what was interrupted."""
    path = home / "other.tar.gz"
    path.write_bytes(small_archive.read_bytes() + b"\0" * 8)
    return path


def signals_of(phase: str) -> list[str]:
    return ["INT", "INT twice", "TERM", "HUP", "KILL"] if phase != "clean-up" else ["INT twice", "TERM", "KILL"]


RUN_PHASES = [(phase, name) for phase in ("unpack", "launch", "run", "clean-up") for name in signals_of(phase)]


@pytest.mark.parametrize(("phase", "name"), RUN_PHASES)
def test_run(
    home: Path, small_archive: Path, other: Path, guntainer: Run, traces: Traces, phase: str, name: str
) -> None:
    if phase != "unpack":
        assert guntainer("run", small_archive, "true").returncode == 0
    command = ["sh", "-c", "echo x > /x"] if phase == "clean-up" else ["sh", "-c", "echo x > /x; exec sleep 50"]
    process = drive(home, phase, "run", small_archive, *command)
    until_in(phase, process, home, containers=1)
    number = send(process, name)
    _, err = process.communicate(timeout=20)
    wanted = -9 if name == "KILL" else 0 if phase == "clean-up" else 128 + number
    assert (process.returncode, err) == (wanted, b"")
    check(home, name, small_archive, other, guntainer, traces)


BATCH_PHASES = [
    (phase, name) for phase in ("start", "unpack", "launch", "run", "clean-up") for name in signals_of(phase)
]


@pytest.mark.parametrize(("phase", "name"), BATCH_PHASES)
def test_batch(
    home: Path, small_archive: Path, other: Path, guntainer: Run, traces: Traces, phase: str, name: str
) -> None:
    if phase != "unpack":
        assert guntainer("run", small_archive, "true").returncode == 0
    command = "echo x > /x" if phase == "clean-up" else "echo x > /x; exec sleep 50"
    jobs = {"a": {"rootfs": str(small_archive), "run": command, "repeat": 3}}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    process = drive(home, phase, "batch", "-j2", "--json", home / "report", home / "jobs.json")
    until_in(phase, process, home, containers=2)
    number = send(process, name)
    _, err = process.communicate(timeout=30)
    assert b"Traceback" not in err
    wanted = -9 if name == "KILL" else 128 + number
    # in clean-up all jobs have ended: the batch is what they came to, or ended by the signal
    assert process.returncode in ((0, wanted) if phase == "clean-up" else (wanted,)), err
    report = home / "report"
    lines = report.read_text() if report.exists() else ""
    # unpackers begin before the batch does: without its first line there was none yet
    if phase not in ("start", "clean-up") and name != "KILL" and (phase != "unpack" or lines):
        assert [one["outcome"] for one in ended_jobs(lines)] == ["cancelled"] * 3
    check(home, name, small_archive, other, guntainer, traces)


def test_a_signal_between_two_unpacks(home: Path, small_archive: Path, other: Path, traces: Traces) -> None:
    """It comes while the first of several unpacks is being begun, and is delivered when that has its owner."""
    third = home / "third.tar.gz"
    third.write_bytes(other.read_bytes() + b"\0")
    code = (
        "import os, signal, sys\nfrom guntainer.store import headstart\nbegin = headstart._begin\n"
        "def begun(*a):\n    found = begin(*a)\n    os.kill(os.getpid(), signal.SIGTERM)\n    return found\n"
        "headstart._begin = begun\nfrom guntainer.cli import entry\nentry()\n"
    )
    jobs = {str(n): {"rootfs": str(path), "run": "true"} for n, path in enumerate((small_archive, other, third))}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    line = [sys.executable, "-c", code, "batch", str(home / "jobs.json")]
    assert subprocess.run(line, check=False, timeout=30).returncode == 143
    settle(traces)
    assert everything(home) == []
    traces.check()


def test_what_is_ignored_stays_ignored(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """A shell without job control starts what is in the background so."""
    assert guntainer("run", small_archive, "true").returncode == 0
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "run": "sleep 2"}}}))
    for words in (["run", small_archive, "sleep", "2"], ["batch", home / "jobs.json"]):
        line = " ".join([sys.executable, "-m", "guntainer", *map(str, words)])
        script = f"{line} & sleep 1; kill -INT $!; wait $!"
        done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
    traces.check()


@pytest.mark.parametrize("phase", ["short unpack", "launch", "run", "clean-up"])
def test_the_helper_is_killed(home: Path, small_archive: Path, guntainer: Run, traces: Traces, phase: str) -> None:
    """kill -9 of the fork helper in each phase: only a launch that is under way fails, and nothing is left."""
    if phase != "short unpack":
        assert guntainer("run", small_archive, "true").returncode == 0
    jobs = {"a": {"rootfs": str(small_archive), "run": "echo x > /x; sleep 1", "repeat": 4}}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    process = drive(home, phase, "batch", "-j2", "--json", home / "report", home / "jobs.json")
    until_in(phase, process, home, containers=2)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == "guntainer-fork":
            os.kill(int(child), signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert b"Traceback" not in err
    results = ended_jobs((home / "report").read_text())
    lost = [one for one in results if one["outcome"] != "ok"]
    assert len(results) == 4 and all("fork helper died" in one["message"] for one in lost)
    assert len(lost) <= 2 and process.returncode == (1 if lost else 0)
    settle(traces)
    assert everything(home) == []
    traces.check()
