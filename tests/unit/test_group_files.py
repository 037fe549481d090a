"""What is written into the files of one control group, played by a folder, and what is said where that is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from guntainer import errors
from guntainer.cgroups.cgroup import Cgroup


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Cgroup]:
    """A group that has each of the files that are asked for, below one that is given two processors."""
    (tmp_path / "cpuset.cpus.effective").write_text("0-1\n")
    made = Cgroup(str(tmp_path / "1"), fenced=True)
    for name in ("cpuset.cpus", "io.weight", "io.bfq.weight"):
        (tmp_path / "1" / name).touch()
    yield made
    made.close()


@pytest.mark.parametrize("there", [("io.weight",), ("io.bfq.weight",), ("io.weight", "io.bfq.weight")])
def test_a_weight_is_for_whatever_the_disk_goes_by(group: Cgroup, there: tuple[str, ...]) -> None:
    texts = {"io.weight": "default 910", "io.bfq.weight": "100"}
    for name in texts.keys() - set(there):
        os.unlink(f"{group.path}/{name}")
    group.limit({"blockIO": {"weight": 100}})
    assert group.limits == {name: texts[name] for name in there}
    assert {name: Path(group.path, name).read_text() for name in there} == group.limits


@pytest.mark.parametrize(
    ("asked", "absent"), [("7", "processor 7"), ("0,2-3,65536", "processors 2-3,65536"), ("1-2", "processor 2")]
)
def test_processors_that_can_not_be_had_are_named(group: Cgroup, asked: str, absent: str) -> None:
    why = re.escape(f"no limit of cpuset-cpus: {absent} can not be had here (can be had: 0-1)")
    with pytest.raises(errors.HostError, match=why):
        group.limit({"cpu": {"cpus": asked}})
    group.limit({"cpu": {"cpus": "1"}})
    assert group.limits == {"cpuset.cpus": "1"}


@pytest.mark.parametrize(
    ("asked", "why"),
    [("7", "processor 7 can not be had here"), ("1", "the kernel refuses '1' for cpuset.cpus: No space")],
)
def test_what_the_kernel_refuses_is_told_of(group: Cgroup, asked: str, why: str) -> None:
    os.unlink(f"{group.path}/cpuset.cpus")
    os.symlink("/dev/full", f"{group.path}/cpuset.cpus")
    with pytest.raises(errors.HostError, match=why):
        group.limit({"cpu": {"cpus": asked}})
    group.limit({"cpu": {"cpus": asked}}, best_effort=True)
    assert group.limits == {} and why in group.notes[0]
