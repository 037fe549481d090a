"""The control group of one container: freeze, kill, what is counted, and its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scopes import delegated

from guntainer import errors, resources
from guntainer.cgroups.cgroup import Cgroup, remove
from guntainer.jobs.model import Limits

pytestmark = pytest.mark.vm


@pytest.fixture
def group(delegated: Path) -> Iterator[Cgroup]:
    made = Cgroup(str(delegated / "trial"), fenced=True)
    yield made
    made.remove()
    assert not os.path.exists(made.path)


def inside(group: Cgroup, *words: str) -> subprocess.Popen[bytes]:
    path = f"{group.path}/cgroup.procs"
    return subprocess.Popen(words, preexec_fn=lambda: Path(path).write_text("0") and None)


def state(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_freeze_and_thaw(group: Cgroup) -> None:
    process = inside(group, "sh", "-c", "while :; do :; done")
    assert group.freeze()
    before = group.usage().cpu_user_ns + group.usage().cpu_system_ns
    assert "frozen 1" in Path(f"{group.path}/cgroup.events").read_text()
    assert group.usage().cpu_user_ns + group.usage().cpu_system_ns == before
    group.thaw()
    assert group._wait_for("frozen 0", 5)
    group.kill()
    assert process.wait(10) == -9


@pytest.mark.parametrize("way", ["kill", "kill_frozen"])
def test_a_fork_bomb_is_killed_with_all_its_parts(group: Cgroup, way: str) -> None:
    group.limit(resources.of(Limits(pids=30), {}))
    process = inside(group, "sh", "-c", "(b() { b | b & }; while :; do b; done 2>/dev/null) & exec sleep 100")
    while group.usage().pids_refused == 0:
        pass
    getattr(group, way)()
    assert process.wait(10) == -9
    assert group._wait_for("populated 0", 10)
    assert group.pids() == []


def test_a_kernel_without_cgroup_kill(group: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = Cgroup._tell

    def old(self: Cgroup, name: str, text: str) -> None:
        if name == "cgroup.kill":
            raise FileNotFoundError(name)
        tell(self, name, text)

    monkeypatch.setattr(Cgroup, "_tell", old)
    process = inside(group, "sleep", "100")
    group.kill()
    assert process.wait(10) == -9


def test_removal_takes_what_is_below_with_it(group: Cgroup) -> None:
    os.mkdir(f"{group.path}/below")
    process = subprocess.Popen(
        ["sleep", "100"], preexec_fn=lambda: Path(f"{group.path}/below/cgroup.procs").write_text("0") and None
    )
    assert not group.remove_nowait()
    assert remove(group.path)
    assert process.wait(10) == -9
    assert group.remove_nowait()


def test_where_the_fence_is_missing_the_inside_is_a_group_below(delegated: Path) -> None:
    made = Cgroup(str(delegated / "trial"), fenced=False)
    try:
        made.limit(resources.of(Limits(pids=30), {}))
        assert Path(f"{made.path}/pids.max").read_text() == "30\n"
        assert os.path.samestat(os.fstat(made.fd), os.stat(f"{made.path}/inner"))
        assert Path(f"{made.path}/inner/cgroup.controllers").read_text() == "", "no limits of its own"
    finally:
        assert made.remove_nowait()


def test_what_the_kernel_refuses_is_named(group: Cgroup) -> None:
    with pytest.raises(errors.HostError, match=r"device-read-bps: the kernel refuses '4095:0 rbps=1' for io.max"):
        group.limit({"blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 0, "rate": 1}]}})
    group.limit({"blockIO": {"weight": 100}}, best_effort=True)
    assert "no io.weight or io.bfq.weight" in group.notes[0]
