"""Processors by number, and the share of a disk: what the emulated computer of `qemu.py` has and User Mode Linux has not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import Traces, ended_jobs
from scopes import Scope, delegated, own_group, scope

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("user_namespaces", "every_controller")]
SHOW = "cat /sys/fs/cgroup/cpuset.cpus /sys/fs/cgroup/cpuset.cpus.effective; nproc; grep Cpus_allowed_list /proc/self/status"


@pytest.fixture(scope="session")
def every_controller() -> None:
    """One fixture, one reason."""
    given = own_group().parent / "cgroup.controllers"
    if not os.environ.get("GUNTAINER_VM") or "cpuset" not in given.read_text().split():
        pytest.skip("no cpuset controller and no io.weight to be had here: see `make test-vm VM=--qemu`")
    assert Path("/sys/devices/system/cpu/online").read_text() == "0-1\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from guntainer.pack import pack

    path = tmp_path_factory.mktemp("archives") / "pinned.tar.gz"
    pack(["sh", "cat", "grep", "nproc", "sleep", "true"], str(path))
    return path


@pytest.mark.parametrize("userns", ["single", "range"])
def test_one_of_two_processors(scope: Scope, archive: Path, traces: Traces, userns: str) -> None:
    done = scope.run("run", "--userns", userns, "--cpuset-cpus", "1", archive, "sh", "-c", SHOW)
    assert done.stdout.split() == ["1", "1", "1", "Cpus_allowed_list:", "1"], done.stderr
    assert (done.returncode, done.stderr) == (0, "")
    traces.check()


def test_both_processors(scope: Scope, archive: Path) -> None:
    done = scope.run("run", "--cpuset-cpus", "1,0", archive, "sh", "-c", SHOW)
    assert done.stdout.split() == ["0-1", "0-1", "2", "Cpus_allowed_list:", "0-1"], done.stderr


@pytest.mark.parametrize(("asked", "absent"), [("7", "processor 7"), ("0,2-3", "processors 2-3")])
def test_a_processor_that_is_not_there(scope: Scope, archive: Path, traces: Traces, asked: str, absent: str) -> None:
    why = f"no limit of cpuset-cpus: {absent} can not be had here (can be had: 0-1)"
    done = scope.run("run", "--cpuset-cpus", asked, archive, "true")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"guntainer: error: {why}")
    assert done.returncode == 125
    done = scope.run("run", "--cpuset-cpus", asked, "--limits", "best-effort", archive, "nproc")
    assert (done.stdout, done.returncode) == ("2\n", 0), "the kernel keeps nothing of what it refuses"
    assert why in done.stderr
    traces.check()


def test_a_processor_that_is_not_given_to_us(scope: Scope, archive: Path) -> None:
    """The kernel takes it, and gives another."""
    (scope.path / "cpuset.cpus").write_text("0")
    done = scope.run("run", "--cpuset-cpus", "1", archive, "true")
    assert "no limit of cpuset-cpus: processor 1 can not be had here (can be had: 0)" in done.stderr
    assert done.returncode == 125
    done = scope.run("run", "--cpuset-cpus", "0", archive, "nproc")
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


@pytest.mark.parametrize(("asked", "scaled"), [(10, 1), (500, 4950), (1000, 10000)], ids=["least", "half", "most"])
def test_the_weight_is_set_for_both_of_the_kernel_s_ways(
    scope: Scope, archive: Path, traces: Traces, asked: int, scaled: int
) -> None:
    """io.weight is the cost model's, io.bfq.weight the scheduler's: a disk may have either."""
    process = scope.start("run", "--blkio-weight", asked, archive, "sleep", "100")
    try:
        scope.wait_for(lambda: any("sleep" in names(group) for group in groups(scope)))
        (group,) = groups(scope)
        assert (group / "io.weight").read_text() == f"default {scaled}\n"
        assert (group / "io.bfq.weight").read_text() == f"default {asked}\n"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    traces.check()


def groups(scope: Scope) -> list[Path]:
    """Those of its containers."""
    return [scope.path / name for name in scope.groups if name.endswith("/1")]


def names(group: Path) -> list[str]:
    pids = (group / "cgroup.procs").read_text().split()
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]


@pytest.mark.parametrize("asked", [9, 1001])
def test_a_weight_out_of_bounds(scope: Scope, archive: Path, asked: int) -> None:
    done = scope.run("run", "--blkio-weight", asked, archive, "true")
    assert done.stderr.startswith(f"guntainer: error: --blkio-weight: expected a weight from 10 to 1000, got {asked}")
    assert done.returncode == 125


def test_jobs_of_a_batch(scope: Scope, home: Path, archive: Path, traces: Traces) -> None:
    (home / "work" / "jobs.toml").write_text(f"""\
        [defaults]
        rootfs = "{archive}"
        run = "nproc"
        [jobs.first]
        cpuset-cpus = "0"
        [jobs.second]
        cpuset-cpus = "1"
        blkio-weight = 100
        [jobs.absent]
        cpuset-cpus = "7"
        [jobs.absent-if-possible]
        cpuset-cpus = "7"
        limits = "best-effort"
        """)
    scope.run("batch", "-j2", "--json", home / "out", "--results", home / "results")
    found = {one["id"]: one for one in ended_jobs((home / "out").read_text())}
    assert {name: one["outcome"] for name, one in found.items()} == {
        "first": "ok",
        "second": "ok",
        "absent": "error",
        "absent-if-possible": "ok",
    }
    assert found["first"]["limits"] == {"cpuset.cpus": "0"}
    assert found["second"]["limits"] == {"cpuset.cpus": "1", "io.weight": "default 910", "io.bfq.weight": "100"}
    for name in ("absent", "absent-if-possible"):
        assert "processor 7 can not be had here" in f"{found[name]['message']} {found[name]['notes']}"
    shown = {path.parent.name: path.read_text() for path in (home / "results").rglob("stdout*")}
    assert shown == {"first": "1\n", "second": "1\n", "absent": "", "absent-if-possible": "2\n"}
    traces.check()
