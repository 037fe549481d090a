"""Limits where they can not be had, and containers that would like to be rid of theirs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from conftest import Traces
from scopes import Scope, batch, delegated, scope

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("user_namespaces")]


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
