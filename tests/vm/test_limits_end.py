"""How containers with limits end: nothing of their control groups is left, whatever ended them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces
from scopes import Scope, delegated, other_scope, scope

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("user_namespaces")]


@pytest.mark.root
@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
@pytest.mark.parametrize("command", ["run", "batch"])
def test_nothing_is_left_after_a_signal(
    scope: Scope, home: Path, small_archive: Path, traces: Traces, command: str, name: str
) -> None:
    process = sleeping(scope, home, small_archive, command)
    process.send_signal(getattr(signal, f"SIG{name}"))
    process.communicate(timeout=30)
    assert process.returncode == 128 + getattr(signal, f"SIG{name}")
    assert scope.is_as_found()
    traces.check()


def sleeping(scope: Scope, home: Path, archive: Path, command: str) -> subprocess.Popen[str]:
    if command == "run":
        process = scope.start("run", "-m", "64m", archive, "sleep", "100")
    else:
        text = f'[jobs.a]\nrootfs = "{archive}"\ncommand = ["sleep", "100"]\nmemory = "64m"\nrepeat = 2\n'
        (home / "work" / "jobs.toml").write_text(text)
        process = scope.start("batch", "-j2")
    wanted = 1 if command == "run" else 2
    scope.wait_for(lambda: len([name for name in scope.groups if name.endswith(("/1", "/2"))]) == wanted)
    scope.wait_for(lambda: all(name_of(pid) == "sleep" for pid in inside(scope)) and inside(scope))
    return process


def inside(scope: Scope) -> list[int]:
    """The processes of its containers."""
    groups = [name for name in scope.groups if name.endswith(("/1", "/2"))]
    return [int(word) for name in groups for word in (scope.path / name / "cgroup.procs").read_text().split()]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.root
@pytest.mark.parametrize("command", ["run", "batch"])
def test_who_starts_next_removes_what_a_killed_one_has_left(
    scope: Scope, other_scope: Scope, home: Path, small_archive: Path, guntainer: Run, traces: Traces, command: str
) -> None:
    process = sleeping(scope, home, small_archive, command)
    process.kill()
    process.communicate()
    scope.wait_for(lambda: not inside(scope))
    assert not scope.is_as_found(), "there is something to be removed"
    assert other_scope.run("run", "-m", "64m", small_archive, "true").returncode == 0
    assert scope.is_as_found()
    traces.check()


def test_one_in_another(scope: Scope, small_archive: Path, traces: Traces) -> None:
    """A program that uses the library starts the command line: both have their part, and both leave it."""
    code = f"""
import anyio, guntainer, subprocess, sys
from guntainer.jobs.model import Limits

async def main():
    source = guntainer.Source(location={str(small_archive)!r})
    job = guntainer.Job(id="a", rootfs=source, command=("true",), limits=Limits(pids=9))
    async with guntainer.Supervisor() as supervisor, guntainer.Supervisor() as another:
        await supervisor.run([job])
        await another.run([job])
        words = [sys.executable, "-m", "guntainer", "run", "--cpus", "1", {str(small_archive)!r}, "cat", "/sys/fs/cgroup/cpu.max"]
        print((await anyio.to_thread.run_sync(lambda: subprocess.run(words, capture_output=True, text=True))).stdout)
        await supervisor.run([job])

anyio.run(main)
"""
    process = scope.start_program(sys.executable, "-c", code)
    out, err = process.communicate(timeout=90)
    assert out == "100000 100000\n\n", err
    traces.check()


def test_by_hand_a_start_after_a_kill_works_at_once(scope: Scope, small_archive: Path, traces: Traces) -> None:
    """README's recipe without systemd: where the kernel lets nobody into the group itself, it does into the supervisors'."""
    supervisors = Scope(scope.path / "guntainer-supervisors")
    supervisors.path.mkdir()
    process = supervisors.start("run", "-m", "64m", small_archive, "sh", "-c", "echo up; exec sleep 60")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.kill()
    process.communicate()
    with pytest.raises(OSError, match="busy"):
        (scope.path / "cgroup.procs").write_text("0")
    done = supervisors.run("run", "-m", "64m", small_archive, "cat", "/sys/fs/cgroup/memory.max")
    assert (done.stdout, done.returncode) == (f"{64 << 20}\n", 0), done.stderr
    scope.wait_for(scope.is_as_found)
    traces.check()


def test_a_dry_run_asks_and_leaves_nothing(scope: Scope, small_archive: Path, traces: Traces) -> None:
    done = scope.run("run", "--dry-run", "-m", "64m", small_archive, "true")
    assert (done.stderr.count("warning"), done.returncode) == (0, 0), done.stderr
    assert f"memory.max {64 << 20}" in done.stdout
    traces.check()
