"""A scope from systemd's user manager, which is started here as a login starts it, as an ordinary user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Traces
from scopes import delegated, own_group

MANAGER = "/lib/systemd/systemd"
pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("manager")]


@pytest.fixture(scope="module")
def manager(delegated: Path) -> Iterator[None]:
    if not os.path.exists(MANAGER):
        pytest.skip("systemd is not installed")
    own = delegated.parent / "init.scope"
    own.mkdir(exist_ok=True)
    process = subprocess.Popen([MANAGER, "--user"], preexec_fn=lambda: (own / "cgroup.procs").write_text("0") and None)
    door = Path(os.environ["XDG_RUNTIME_DIR"]) / "systemd" / "private"
    deadline = time.monotonic() + 30
    while not door.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    yield
    process.terminate()  # as a logout does: systemd(1)
    process.wait(30)
    for group in (delegated.parent, delegated):  # it gives fewer controllers by itself
        wanted = (group / "cgroup.controllers").read_text().split()
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))


def guntainer(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "guntainer", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def scopes(delegated: Path) -> list[str]:
    return [path.name for path in delegated.iterdir() if path.name.startswith(("guntainer", "run-"))]


def until_it_runs(delegated: Path) -> None:
    """Until the container's command is there."""
    deadline = time.monotonic() + 30
    while not any(name_of(int(pid)) == "sleep" for path in delegated.glob("*/guntainer-*/1/cgroup.procs")
                  for pid in path.read_text().split()):  # fmt: skip
        assert time.monotonic() < deadline, scopes(delegated)
        time.sleep(0.02)


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def until_gone(delegated: Path) -> None:
    deadline = time.monotonic() + 10
    while scopes(delegated):
        assert time.monotonic() < deadline, scopes(delegated)
        time.sleep(0.02)


@pytest.mark.parametrize("userns", ["single", "range"])
def test_a_scope_of_our_own(delegated: Path, home: Path, small_archive: Path, traces: Traces, userns: str) -> None:
    """pytest and others are in the group that we are started in: systemd moves us out of it, and them not."""
    before = own_group()
    words = ("--userns", userns, "-m", "64m", "--cpus", "0.5", "--device-read-bps", "/dev/ubda:1m")
    script = "cat /proc/self/cgroup /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
    done = guntainer("run", *words, small_archive, "sh", "-c", script)
    assert done.stdout.splitlines() == ["0::/", str(64 << 20), "50000 100000"], done.stderr
    assert done.stderr == ""
    assert own_group() == before
    until_gone(delegated)
    traces.check()


def test_a_batch_takes_its_helpers_with_it(delegated: Path, home: Path, small_archive: Path, traces: Traces) -> None:
    text = f'[jobs.a]\nrootfs = "{small_archive}"\ncommand = ["cat", "/sys/fs/cgroup/pids.max"]\npids-limit = 9\nrepeat = 3\n'
    (home / "work" / "jobs.toml").write_text(text)
    done = guntainer("batch", "--output", "group")
    assert done.stdout.count("9\n") == 3, done.stderr
    until_gone(delegated)
    traces.check()


def test_a_scope_that_is_ours_already(delegated: Path, home: Path, small_archive: Path) -> None:
    """What the hint says: systemd-run --user --scope -p Delegate=yes. No other scope is asked for."""
    line = ["systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes", sys.executable, "-m", "guntainer"]
    process = subprocess.Popen([*line, "run", "-m", "64m", str(small_archive), "sleep", "100"])
    until_it_runs(delegated)
    assert [name.split("-")[0] for name in scopes(delegated)] == ["run"]
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    until_gone(delegated)


def test_killed_in_a_scope(delegated: Path, home: Path, small_archive: Path, traces: Traces) -> None:
    line = [sys.executable, "-m", "guntainer", "run", "-m", "64m", str(small_archive), "sleep", "100"]
    process = subprocess.Popen(line)
    until_it_runs(delegated)
    process.kill()
    process.wait()
    until_gone(delegated)
    assert guntainer("run", small_archive, "true").returncode == 0
    traces.check()


def test_a_manager_that_hangs(
    delegated: Path, home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given some seconds, then the reason is told: the kernel's group, and systemd's silence."""
    import socket

    runtime = home / "runtime"
    (runtime / "systemd").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(runtime / "systemd" / "private"))
        silent.listen()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        done = guntainer("run", "-m", "64m", small_archive, "true")
    assert done.returncode == 125
    assert "other processes" in done.stderr
    assert "systemd can not be asked for a scope" in done.stderr
    assert "timed out" in done.stderr
