"""Limits by cgroup v2, in a kernel that has it: they hold, they are told of, and nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces
from scopes import Scope, delegated, other_scope, scope

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


def batch(scope: Scope, home: Path, archive: Path, text: str, *words: str) -> dict[str, dict[str, object]]:
    (home / "work" / "jobs.toml").write_text(text.replace("ARCHIVE", str(archive)))
    done = scope.run("batch", "--json", home / "work" / "out", *words)
    lines = (home / "work" / "out").read_text().splitlines()
    return {one["id"]: {**one, "stderr": done.stderr} for one in map(json.loads, lines)}


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


# -- how it ends


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


# -- where it can not be


def test_a_group_with_others_in_it(scope: Scope, small_archive: Path) -> None:
    """The user's shell is not disturbed: nothing is changed, and the reason is told."""
    words = f"{sys.executable} -m guntainer run -m 64m {small_archive} true; cat /proc/self/cgroup"
    process = scope.start_program("sh", "-c", words)
    out, err = process.communicate(timeout=60)
    assert out.strip().endswith(scope.path.name)
    assert "no limit of memory: the cgroup controller memory can not be used: other processes (sh) are in" in err
    assert "exec guntainer" in err
    assert "guntainer doctor cgroup" in err


def test_best_effort_goes_on_and_says_so(scope: Scope, small_archive: Path) -> None:
    words = "--userns single -m 64m --pids-limit 7 --limits best-effort"
    line = f"{sys.executable} -m guntainer run {words} {small_archive} grep processes /proc/self/limits; true"
    out, err = scope.start_program("sh", "-c", line).communicate(timeout=60)
    assert out.split()[2:4] == ["7", "7"], err
    assert "no limit of memory, pids-limit (RLIMIT_NPROC stands in): " in err


def test_a_group_that_is_not_ours(scope: Scope, small_archive: Path) -> None:
    scope.path.chmod(0o555)
    try:
        done = scope.run("run", "--userns", "single", "--cpus", "1", small_archive, "true")
    finally:
        scope.path.chmod(0o755)
    assert done.returncode == 125
    assert (
        f"no limit of cpus: the cgroup controller cpu can not be used: {scope.path} is not delegated to you"
        in done.stderr
    )


def test_control_groups_mounted_read_only(scope: Scope, small_archive: Path) -> None:
    line = (
        f"mount -o remount,bind,ro /sys/fs/cgroup && exec {sys.executable} -m guntainer run -m 64m {small_archive} true"
    )
    process = scope.start_program("unshare", "-Urm", "sh", "-c", line)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 125
    assert "/sys/fs/cgroup is mounted read-only" in err


def test_a_controller_that_is_not_given(delegated: Path, scope: Scope, small_archive: Path) -> None:
    """As on a desktop, where systemd gives a user memory and pids."""
    control = delegated / "cgroup.subtree_control"
    control.write_text("-cpu")
    try:
        done = scope.run("run", "--cpus", "1", small_archive, "true")
        also = scope.run(
            "run",
            "--cpus",
            "1",
            "-m",
            "64m",
            "--limits",
            "best-effort",
            small_archive,
            "cat",
            "/sys/fs/cgroup/memory.max",
        )
    finally:
        control.write_text("+cpu")
    assert done.returncode == 125
    assert (
        "no limit of cpus: the cgroup controller cpu is not delegated to you (delegated: io, memory, pids)"
        in done.stderr
    )
    assert "Delegate=cpu" in done.stderr
    assert also.stdout == f"{64 << 20}\n"
    assert "no limit of cpus: the cgroup controller cpu is not delegated" in also.stderr


def test_jobs_wait_where_there_may_be_no_more_groups(
    scope: Scope, home: Path, small_archive: Path, traces: Traces
) -> None:
    most = scope.path / "cgroup.max.descendants"
    most.write_text("4")  # one for supervisors, one for this batch, two for containers
    text = '[jobs.a]\nrootfs = "ARCHIVE"\ncommand = ["sleep", "0.2"]\npids-limit = 9\nrepeat = 5\n'
    found = batch(scope, home, small_archive, text, "-j5")
    assert [one["outcome"] for one in found.values()] == ["ok"] * 5
    assert "no more control groups are allowed" in str(found["a #1"]["stderr"])
    traces.check()


# -- who would like to be rid of them


@pytest.mark.root
@pytest.mark.parametrize("userns", ["single", "range"])
@pytest.mark.parametrize("words", [(), ("--network", "none", "--privileged")])
def test_limits_can_not_be_changed_from_inside(
    scope: Scope, small_archive: Path, userns: str, words: tuple[str, ...]
) -> None:
    script = """
        echo max > /sys/fs/cgroup/pids.max
        echo 1 > /sys/fs/cgroup/../cgroup.procs
        for path in /proc/1/root/sys/fs/cgroup /sys/fs/cgroup/..; do echo max > $path/pids.max; done
        mkdir /tmp/new && mount -t cgroup2 none /tmp/new && echo max > /tmp/new/pids.max
        cat /sys/fs/cgroup/pids.max /proc/self/cgroup
    """
    done = scope.run("run", "--userns", userns, *words, "--pids-limit", "9", small_archive, "sh", "-c", script)
    if words and os.geteuid() == 0:
        assert done.returncode == 125 and "host's root" in done.stderr
        return
    assert done.stdout.splitlines() == ["9", "0::/"], done.stderr


def test_a_privileged_container_has_groups_of_its_own(scope: Scope, small_archive: Path) -> None:
    """It may divide what it was given; what it makes goes with it."""
    script = "mkdir /sys/fs/cgroup/a && echo 1 > /sys/fs/cgroup/a/cgroup.procs && cat /proc/self/cgroup"
    line = ["run", "--network", "none", "--privileged", "--pids-limit", "9"]
    done = scope.run(*line, small_archive, "sh", "-c", script)
    assert (done.stdout, done.returncode) == ("0::/a\n", 0), done.stderr


def test_a_privileged_container_without_limits_has_none(scope: Scope, small_archive: Path) -> None:
    """The group that it is in is its caller's as well."""
    line = ["run", "--network", "none", "--privileged"]
    done = scope.run(*line, small_archive, "sh", "-c", "echo 1 > /sys/fs/cgroup/cgroup.kill; echo alive")
    assert done.stdout == "alive\n"
    assert "Read-only" in done.stderr
