"""Limits by cgroup v2, in a kernel that has it: they hold, they are told of, and nothing of them is left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from conftest import Traces
from scopes import Scope, batch, delegated, scope

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("user_namespaces")]
LOOP = "while :; do :; done"


@pytest.mark.root
@pytest.mark.parametrize("userns", ["single", "range"])
def test_a_container_begins_in_a_group_of_its_own(
    scope: Scope, small_archive: Path, traces: Traces, userns: str
) -> None:
    script = "cat /proc/self/cgroup /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max /sys/fs/cgroup/pids.max"
    words = ("--userns", userns, "-m", "64m", "--memory-swap", "96m", "--pids-limit", "20")
    done = scope.run("run", *words, small_archive, "sh", "-c", f"{script}; ls -d /sys/fs/cgroup/*.scope")
    assert done.stdout.splitlines() == ["0::/", str(64 << 20), str(32 << 20), "20"], done.stderr
    assert done.returncode == 2, "of ls: no other group is to be seen"
    traces.check()


@pytest.mark.parametrize("words", [(), ("--init",), ("--scratch", "memory"), ("--network", "none"), ("-u", "5")])
def test_limits_with_other_options(scope: Scope, small_archive: Path, words: tuple[str, ...]) -> None:
    done = scope.run("run", "-m", "64m", *words, small_archive, "cat", "/sys/fs/cgroup/memory.max")
    assert (done.stdout, done.returncode) == (f"{64 << 20}\n", 0), done.stderr


@pytest.mark.root
def test_too_much_memory(scope: Scope, small_archive: Path, traces: Traces) -> None:
    script = "echo before; dd if=/dev/zero of=/dev/null bs=100M count=1; echo after"
    done = scope.run("run", "-m", "40m", "--memory-swap", "40m", small_archive, "sh", "-c", script)
    assert (done.stdout, done.returncode) == ("before\n", 137), "all of it is killed, not dd alone"
    assert done.stderr == "guntainer: warning: run: out of memory: killed at its limit of 40 MiB\n"
    traces.check()


def test_swap_is_part_of_the_bargain(scope: Scope, small_archive: Path) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=60M count=1; cat /sys/fs/cgroup/memory.swap.max"
    done = scope.run("run", "-m", "40m", small_archive, "sh", "-c", script)
    assert (done.stdout, done.returncode) == (f"{40 << 20}\n", 0), done.stderr
    done = scope.run("run", "-m", "40m", "--memory-swap", "-1", small_archive, "cat", "/sys/fs/cgroup/memory.swap.max")
    assert done.stdout == "max\n"


@pytest.mark.root
def test_too_many_processes(scope: Scope, small_archive: Path, traces: Traces) -> None:
    script = "for n in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait"
    done = scope.run("run", "--pids-limit", "5", small_archive, "sh", "-c", script)
    assert done.returncode == 2
    assert "guntainer: warning: run: exit 2: its limit of 5 processes was reached" in done.stderr
    traces.check()


@pytest.mark.parametrize("userns", ["single", "range"])
def test_a_fork_bomb(scope: Scope, small_archive: Path, traces: Traces, userns: str) -> None:
    bomb = "b() { b | b & }; while :; do b; done 2>/dev/null"
    words = ("--userns", userns, "--pids-limit", "40", "--timeout", "3", "--stop-timeout", "0")
    done = scope.run("run", *words, small_archive, "sh", "-c", bomb)
    assert done.returncode in (124, 2, 254), done.stderr
    traces.check()


def test_who_is_not_hindered_is_not_blamed(scope: Scope, small_archive: Path) -> None:
    script = "sleep 60 & sleep 60 & sleep 60 & (sleep 60 &) || exit 0"
    done = scope.run("run", "--pids-limit", "4", small_archive, "sh", "-c", f"({script}); exit 0")
    assert done.returncode == 0
    assert "limit" not in done.stderr


@pytest.mark.root
def test_a_batch_tells_of_limits(scope: Scope, home: Path, small_archive: Path, traces: Traces) -> None:
    found = batch(
        scope,
        home,
        small_archive,
        f"""\
        [defaults]
        rootfs = "ARCHIVE"
        memory = "40m"
        [jobs.good]
        run = "true"
        [jobs.greedy]
        memory_swap = "40m"
        run = "dd if=/dev/zero of=/dev/null bs=100M count=1"
        [jobs.many]
        pids-limit = 5
        run = "for n in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait"
        [jobs.busy]
        cpus = 0.2
        timeout = 2
        stop-signal = "KILL"
        run = "{LOOP}"
        [jobs.pinned]
        cpuset-cpus = "0"
        run = "true"
        [jobs.weighed]
        blkio-weight = 100
        run = "true"
        [jobs.weighed-if-possible]
        blkio-weight = 100
        limits = "best-effort"
        run = "true"
        """,
        "-j3",
    )
    assert {name: (one["outcome"], one["reason"], one["code"]) for name, one in found.items()} == {
        "good": ("ok", "exit", 0),
        "greedy": ("oom", "oom", 137),
        "many": ("pids-limit", "pids-limit", 2),
        "busy": ("timeout", "timeout", 124),
        "pinned": ("error", "setup", 125),
        "weighed": ("error", "setup", 125),
        "weighed-if-possible": ("ok", "exit", 0),
    }
    assert found["greedy"]["oom_kills"] >= 1  # type: ignore[operator]
    assert 30 << 20 < found["greedy"]["memory_peak_bytes"] <= 40 << 20  # type: ignore[operator]
    assert found["many"]["pids_refused"] >= 1  # type: ignore[operator]
    assert found["busy"]["cpu_throttled_ns"] > 0  # type: ignore[operator]
    assert found["busy"]["cpu_user_ns"] > 0  # type: ignore[operator]
    assert found["good"]["cpu_throttled_ns"] == 0
    assert found["good"]["limits"] == {
        "memory.max": str(40 << 20),
        "memory.oom.group": "1",
        "memory.swap.max": str(40 << 20),
    }
    assert found["busy"]["limits"]["cpu.max"] == "20000 100000"  # type: ignore[index]
    assert "cpuset-cpus: the cgroup controller cpuset is not there" in str(found["pinned"]["message"])
    assert found["pinned"]["probe"] == "cgroup-cpuset"
    assert "blkio-weight: this kernel has no io.weight" in str(found["weighed"]["message"])
    assert "this kernel has no io.weight" in str(found["weighed-if-possible"]["notes"])
    traces.check()


@pytest.mark.parametrize("device", ["/dev/ubda", "."])
def test_rates_of_a_disk(scope: Scope, small_archive: Path, device: str) -> None:
    words = ("--device-write-bps", f"{device}:1m", "--device-read-iops", f"{device}:100")
    done = scope.run("run", *words, small_archive, "cat", "/sys/fs/cgroup/io.max")
    number = os.stat("/dev/ubda").st_rdev
    assert done.stdout == f"{os.major(number)}:{os.minor(number)} rbps=max wbps={1 << 20} riops=100 wiops=max\n", (
        done.stderr
    )


def test_what_is_on_no_disk_has_no_rate(scope: Scope, small_archive: Path) -> None:
    done = scope.run("run", "--device-write-bps", "/dev/shm:1m", small_archive, "true")
    assert done.returncode == 125
    assert "no limit of device-write-bps: /dev/shm is on no disk of its own" in done.stderr


def test_ulimits(scope: Scope, small_archive: Path) -> None:
    script = "ulimit -n; ulimit -Hn; ulimit -c"
    done = scope.run("run", "--ulimit", "nofile=300:400", "--ulimit", "core=0", small_archive, "sh", "-c", script)
    assert done.stdout.split() == ["300", "400", "0"]


@pytest.mark.root
def test_a_limit_of_memory_too_small_for_the_set_up(scope: Scope, small_archive: Path) -> None:
    """The OOM killer takes the child before it has executed, and nobody else: neither us nor the fork helper."""
    code = f"""
import anyio, guntainer
from guntainer.jobs.model import Limits

def job(name, size):
    source = guntainer.Source(location={str(small_archive)!r})
    return guntainer.Job(id=name, rootfs=source, command=("true",), limits=Limits(memory_bytes=size))

async def main():
    async with guntainer.Supervisor(parallel=1) as supervisor:
        first = supervisor._launcher.pid
        report = await supervisor.run([job("tiny", 65536), job("enough", 64 << 20)])
        print(*(result.outcome for result in report.results), supervisor._launcher.pid == first)

anyio.run(main)
"""
    process = scope.start_program(sys.executable, "-c", code)
    out, err = process.communicate(timeout=60)
    assert out == "oom ok True\n", err
