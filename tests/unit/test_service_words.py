"""What of services can be said without a kernel: plans, and what is shown of their logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guntainer import planner, spec
from guntainer.init import AS_JOINED, SUPERVISOR_DIED, descriptions
from guntainer.jobs.model import Job, Limits, Service, Source
from guntainer.kernel import abi
from guntainer.services.readiness import tail
from guntainer.services.running import settled


def plan(job: Job, **more: Any) -> planner.Plan:
    ids = ((0, 1000, 1),)
    made = spec.for_job(job, tree="/tree", account=spec.Account(), uids=ids, gids=ids)
    return planner.plan(made, planner.Root(lowers=("/tree",), upper="/u", work="/w", mount_point="/m"), **more)


def job(**more: Any) -> Job:
    return Job(id="a", rootfs=Source(location="/x"), command=("true",), **{"network": "none", **more})


def names(a_plan: planner.Plan) -> list[str]:
    return [operation[0] for operation in a_plan[1]]


def test_who_is_joined_makes_no_network() -> None:
    alone, joined = plan(job()), plan(job(), joined=True)
    assert alone[0] & abi.CLONE_NEWNET and "loopback_up" in names(alone)
    assert not joined[0] & abi.CLONE_NEWNET and "loopback_up" not in names(joined)
    assert joined[0] == alone[0] & ~abi.CLONE_NEWNET


@pytest.mark.parametrize(
    ("more", "mapped", "shown"),
    [({}, False, True), ({}, True, False), ({"cap_add": ("CAP_SYS_ADMIN",)}, False, False)],
)
def test_where_sysfs_is_refused_the_host_s_is_shown(more: dict[str, Any], mapped: bool, shown: bool) -> None:
    """Not to who could look below what is hidden of it."""
    found = plan(job(**more), joined=True, mapped=mapped)[1]
    assert (("host_view", "/sys", "/sys", False) in found) is shown
    assert any(operation[:3] == ("mount", "sysfs", "/sys") for operation in found) is not shown


def test_a_command_inside_has_the_rights_of_the_container() -> None:
    own = plan(job(no_new_privileges=True, env=(("A", "1"),)), mapped=True, seccomp=b"12345678", joined=True)
    flags, operations, argv, environment, init = planner.inside(
        own, ("ready",), planner.Stdio(stdin=0, stdout=1, stderr=2), target=3
    )
    assert (flags, argv, environment["A"], init) == (0, ("ready",), "1", AS_JOINED)
    found = [operation[0] for operation in operations]
    assert found[:4] == ["death_signal", "new_session", "stdio", "join"]
    assert operations[3] == ("join", 5, own[0])
    rights = [name for name in names(own) if name in found[4:]]
    assert found[4:] == rights and rights[-1] == "seccomp" and "credentials" in rights and "seal" in rights
    assert all(descriptions.describe(operation) for operation in operations)


def test_a_command_inside_ends_at_once_with_its_supervisor() -> None:
    own = plan(job(), isolation=planner.NO_PID)
    inside = planner.inside(own, ("ready",), planner.Stdio(stdin=0, stdout=1, stderr=2), target=3)
    assert ("death_signal", SUPERVISOR_DIED) in own[1] and ("death_signal",) in inside[1]
    assert not inside[1][3][2] & abi.CLONE_NEWPID


def test_a_command_inside_is_in_the_container_s_group() -> None:
    own = plan(job(limits=Limits(pids=5)), cgroup=3)
    inside = planner.inside(own, ("ready",), planner.Stdio(stdin=0, stdout=1, stderr=2), target=2, cgroup=3)
    assert inside[1][0][:2] == ("into_cgroup", 5)
    join = next(operation for operation in inside[1] if operation[0] == "join")
    assert join[2] & abi.CLONE_NEWCGROUP


def test_names_of_services() -> None:
    service = Service(name="db", job=Job(id="db", rootfs=Source(location="/x"), add_hosts=(("up", "192.0.2.1"),)))
    found = settled(job(services=(service,), add_hosts=(("own", "192.0.2.2"),), dns=("192.0.2.3",)), print)
    assert found.add_hosts == (("db", "127.0.0.1"), ("own", "192.0.2.2"))
    inner = found.services[0].job
    assert inner.add_hosts == (*found.add_hosts, ("up", "192.0.2.1"))
    assert (inner.network, inner.dns) == ("none", ("192.0.2.3",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b"one\n", "one"),
        (b"1\n2\n\n \n3\n4\n", "2; 3; 4"),
        (b"\x1b[2J::error::x\r\n\xff\n", "?[2J::error::x; \ufffd"),
        (b"x" * 10_000, "x" * 300),
    ],
)
def test_the_tail_of_a_log(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "log").write_bytes(content)
    assert tail(str(tmp_path / "log"), 3) == expected


def test_the_tail_of_what_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to("secret")
    assert [tail(str(tmp_path / name), 3) for name in ("link", "missing", "")] == ["", "", ""]
