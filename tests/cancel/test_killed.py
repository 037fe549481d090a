"""SIGKILL of guntainer, and commands that have no parent-death signal any more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, Traces, host_rootfs

pytestmark = [pytest.mark.usefixtures("user_namespaces"), pytest.mark.root]

PYTHON = "/usr/bin/python3"
CLEARED = """
import ctypes, os, time
libc = ctypes.CDLL(None)
assert libc.prctl(1, 0, 0, 0, 0) == 0
answer = ctypes.c_int(-1)
assert libc.prctl(2, ctypes.byref(answer), 0, 0, 0) == 0 and answer.value == 0
if os.fork() == 0:
    os.setsid()
open("/mark/ready", "a").write("x")
time.sleep(60)
"""


@pytest.fixture
def volumes(home: Path) -> list[str]:
    """With which Python runs in home/rootfs; /mark is home/mark."""
    if not os.path.exists(PYTHON):
        pytest.skip("there is no /usr/bin/python3 to run inside")
    (home / "mark").mkdir()
    (home / "mark").chmod(0o777)
    return [*host_rootfs(home / "rootfs", "mark"), f"{home}/mark:/mark"]


def wait_for(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it has not come to be"
        time.sleep(0.01)


def start(*words: object) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "guntainer", *map(str, words)]
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("init", [[], ["--init"]], ids=["pid 1", "under an init"])
@pytest.mark.parametrize("userns", ["auto", "single"])
def test_run(home: Path, volumes: list[str], traces: Traces, guntainer: Run, userns: str, init: list[str]) -> None:
    binds = [word for text in volumes for word in ("-v", text)]
    process = start("run", "--userns", userns, *init, *binds, home / "rootfs", PYTHON, "-c", CLEARED)
    wait_for(lambda: (home / "mark" / "ready").exists() and (home / "mark" / "ready").read_text() == "xx")
    process.kill()
    process.wait()
    wait_for(lambda: traces.processes() == [])
    guntainer("run", "--userns", userns, *binds, home / "rootfs", "/bin/true")  # takes away what was left
    traces.check()


@pytest.mark.parametrize("userns", ["auto", "single"])
def test_batch(home: Path, volumes: list[str], traces: Traces, guntainer: Run, userns: str) -> None:
    common = {"rootfs": str(home / "rootfs"), "volumes": volumes}
    jobs = {"a": {**common, "command": [PYTHON, "-c", CLEARED], "repeat": 3}}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    process = start("batch", "-j3", "--userns", userns, home / "jobs.json")
    wait_for(lambda: (home / "mark" / "ready").exists() and (home / "mark" / "ready").read_text() == "x" * 6)
    process.kill()
    process.wait()
    wait_for(lambda: traces.processes() == [])
    binds = [word for text in volumes for word in ("-v", text)]
    guntainer("run", "--userns", userns, *binds, home / "rootfs", "/bin/true")
    traces.check()


def test_a_helper_whose_socket_somebody_else_has_as_well() -> None:
    """A fork of the supervisor has a copy of it, and lives on: its end never comes."""
    code = (
        "import os, time\nfrom guntainer.launcher import spawn\nhelper = spawn.spawn()\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(60)\n    os._exit(0)\n"
        "print(helper.pid, child, flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    helper, child = map(int, process.stdout.readline().split())
    wait_for(lambda: Path(f"/proc/{helper}/comm").read_text().strip() == "guntainer-fork")
    time.sleep(0.2)  # it has not asked for its signal yet when it has its name
    process.kill()
    process.wait()
    try:
        wait_for(lambda: not os.path.exists(f"/proc/{helper}") or ") Z " in Path(f"/proc/{helper}/stat").read_text())
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_the_helper_may_have_as_many_open_as_the_supervisor(home: Path, small_archive: Path, traces: Traces) -> None:
    """It is started before the soft limit is raised for many jobs; commands have what the caller has."""
    job = {"rootfs": str(small_archive), "run": "ulimit -n >> /mark/limits; echo x >> /mark/ready; exec sleep 50"}
    jobs = {"a": {**job, "volumes": [f"{home}/mark:/mark"], "repeat": 90}}
    (home / "mark").mkdir(mode=0o777)
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    line = " ".join([sys.executable, "-m", "guntainer", "batch", "-j90", "--output", "quiet", str(home / "jobs.json")])
    process = subprocess.Popen(["sh", "-c", f"ulimit -Sn 256; exec {line}"], stdout=subprocess.DEVNULL)
    wait_for(lambda: (home / "mark" / "ready").exists() and (home / "mark" / "ready").read_text().count("x") == 90)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (helper,) = [one for one in children if Path(f"/proc/{one}/comm").read_text().strip() == "guntainer-fork"]
    limits = [
        next(text for text in Path(f"/proc/{one}/limits").read_text().splitlines() if text.startswith("Max open files"))
        for one in (str(process.pid), helper)
    ]
    assert limits[0] == limits[1] and limits[0].split()[3] != "256"
    numbers = [int(name) for name in os.listdir(f"/proc/{helper}/fd")]
    assert len(numbers) >= 90
    assert not [number for number in numbers if 16 <= number < 256], "those are for launches"
    assert set((home / "mark" / "limits").read_text().split()) == {"256"}
    process.kill()
    process.wait()
    wait_for(lambda: traces.processes() == [])
