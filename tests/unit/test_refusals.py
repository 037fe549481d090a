"""What a refusal comes from: a host's files as they are where one bar or another holds; the ladder's steps."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from guntainer import errors, ladder, planner
from guntainer.refusals import Host, of_clone, of_setup, probe_of

PLAIN = {
    "/proc/self/status": "Name:\tpython3\nSeccomp:\t0\nSeccomp_filters:\t0\n",
    "/proc/self/mountinfo": "22 1 0:21 / / rw,relatime - ext4 /dev/vda rw\n",
    "/proc/self/uid_map": "         0          0 4294967295\n",
    "/proc/self/gid_map": "         0          0 4294967295\n",
    "/proc/self/ns/user": "",
    "/proc/sys/user/max_user_namespaces": "1000\n",
    "/proc/sys/user/max_pid_namespaces": "1000\n",
    "/proc/sys/user/max_mnt_namespaces": "1000\n",
}


def host(tmp_path: Path, **changes: str | None) -> Host:
    """A host with these files; a name is a part of the path that is changed, or a new path with its slashes as __."""
    files: dict[str, str | None] = dict(PLAIN)
    for name, text in changes.items():
        files["/" + name.replace("__", "/")] = text
    for path, content in files.items():
        if content is not None:
            place = tmp_path / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
    return Host(str(tmp_path))


REFUSED = errors.NamespaceRefused
FILTERED = "Name:\tpython3\nSeccomp:\t2\nSeccomp_filters:\t1\n"


@pytest.mark.parametrize(
    ("changes", "number", "kind", "error", "probe", "said"),
    [
        ({"proc__sys__user__max_user_namespaces": "0"}, errno.ENOSPC, "user", REFUSED, "namespace-limits", "is 0"),
        ({}, errno.ENOSPC, "user", errors.Exhausted, "namespace-limits", "no more user namespaces"),
        ({}, errno.ENOSPC, "", errors.Exhausted, "namespace-limits", "no more namespaces"),
        ({"proc__sys__user__max_pid_namespaces": "0"}, errno.ENOSPC, "pid", REFUSED, "namespace-limits", "max_pid"),
        ({"proc__sys__user__max_mnt_namespaces": "0"}, errno.ENOSPC, "mount", REFUSED, "namespace-limits", "max_mnt"),
        ({"proc__sys__kernel__unprivileged_userns_clone": "0\n"}, errno.EPERM, "user", REFUSED, "sysctl-userns-clone", "is 0"),
        ({"proc__sys__kernel__unprivileged_userns_clone": "1\n"}, errno.EPERM, "user", REFUSED, "user-namespace", "EPERM"),
        (
            {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1\n"},
            errno.EACCES, "user", REFUSED, "apparmor", "AppArmor",
        ),
        ({"proc__self__attr__current": "docker-default (enforce)\n"}, errno.EPERM, "user", REFUSED, "apparmor", "docker-default"),
        ({"proc__self__attr__current": "unconfined\n"}, errno.EPERM, "user", REFUSED, "user-namespace", "EPERM"),
        ({"proc__self__status": FILTERED}, errno.EPERM, "user", REFUSED, "seccomp-outer", "seccomp"),
        ({"proc__self__status": FILTERED}, errno.ENOSYS, "user", errors.HostError, "seccomp-outer", "ENOSYS"),
        ({}, errno.ENOSYS, "user", errors.HostError, "kernel", "too old"),
        ({"proc__self__ns__user": None}, errno.EINVAL, "user", REFUSED, "kernel", "has none"),
        ({"proc__self__mountinfo": "1 2 0:1 / /proc rw - proc proc rw\n"}, errno.EPERM, "user", REFUSED, "user-namespace", "chroot"),
        ({"proc__self__uid_map": ""}, errno.EPERM, "user", REFUSED, "user-namespace", "not mapped"),
        ({}, errno.EUSERS, "user", REFUSED, "user-namespace", "inside each other"),
        ({}, errno.EPERM, "pid", REFUSED, "pid-namespace", "refuses pid"),
        ({}, errno.EPERM, "network", REFUSED, "network-namespace", "refuses network"),
        ({}, errno.EPERM, "uts", REFUSED, "namespaces", "refuses uts"),
        ({}, errno.EAGAIN, "", errors.Exhausted, "nproc", "processes"),
        ({}, errno.EMFILE, "", errors.Exhausted, "nofile", "descriptors"),
        ({}, errno.ENFILE, "", errors.Exhausted, "nofile", "descriptors"),
        ({}, errno.ENOMEM, "", errors.Exhausted, "", "memory"),
        ({}, errno.EIO, "", errors.HostError, "", "clone3"),
    ],
)  # fmt: skip
def test_why_clone3_was_refused(
    tmp_path: Path, changes: dict[str, str | None], number: int, kind: str, error: type, probe: str, said: str
) -> None:
    found = of_clone(number, kind, host(tmp_path, **changes))
    assert type(found) is error and found.probe == probe and said in found.message
    assert "\n" not in str(found)
    assert str(found).endswith(f"(guntainer doctor {probe})") is bool(probe)
    if isinstance(found, errors.NamespaceRefused):
        assert found.kind == kind


@pytest.mark.parametrize(
    ("changes", "step", "subject", "number", "probe"),
    [
        ({}, "id_map", "0 1000 1", errno.EPERM, "user-namespace"),
        (
            {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1"},
            "id_map",
            "0 1000 1",
            errno.EPERM,
            "apparmor",
        ),
        (
            {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1"},
            "private_mounts",
            "",
            errno.EACCES,
            "apparmor",
        ),
        (
            {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1"},
            "mount",
            "/proc",
            errno.EPERM,
            "proc-mount",
        ),
        ({"proc__self__status": FILTERED}, "mount", "/dev", errno.EPERM, "seccomp-outer"),
        ({"proc__self__status": FILTERED}, "place", "/data", errno.ENOSYS, "seccomp-outer"),
        ({}, "place", "/data", errno.ENOSYS, "kernel"),
        ({}, "overlay", "/store/mount", errno.EINVAL, "overlay-disk"),
        ({}, "overlay", "/store/mount/merged", errno.EINVAL, "overlay-memory"),
        ({}, "overlay", "/store/mount", errno.ELOOP, ""),
        ({}, "overlay", "/store/mount", errno.EOVERFLOW, ""),
        ({}, "mount", "/proc", errno.EPERM, "proc-mount"),
        ({}, "host_view", "/proc", errno.EPERM, "proc-mount"),
        ({}, "mount", "/dev/mqueue", errno.ENODEV, "mqueue"),
        ({}, "mount", "/dev/pts", errno.ENODEV, "devpts"),
        ({}, "loopback_up", "", errno.EPERM, "network-namespace"),
        ({}, "workdir", "/nowhere", errno.ENOENT, ""),
        ({}, "place", "/data", errno.ENOTDIR, ""),
    ],
)
def test_what_a_step_failed_for(
    tmp_path: Path, changes: dict[str, str | None], step: str, subject: str, number: int, probe: str
) -> None:
    assert of_setup(step, subject, number, host(tmp_path, **changes))[1] == probe


def test_every_probe_that_is_named_is_there() -> None:
    """In errors of every room, by the ids that stand in its source."""
    import ast

    import guntainer
    from guntainer.doctor.probes import PROBES

    named = {probe_of(number) for number in errno.errorcode} - {""}
    from guntainer import refusals

    named |= {*refusals._STEPS.values(), *refusals._MOUNTS.values(), *refusals._PROBES.values()}
    for path in Path(guntainer.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.keyword)
                and node.arg in ("probe", "because")
                and isinstance(node.value, ast.Constant)
            ):
                named.add(node.value.value)
    assert named - {""} <= set(PROBES)


def refused(kind: str) -> errors.NamespaceRefused:
    return errors.NamespaceRefused("no", kind=kind, probe="namespace-limits")


@pytest.mark.parametrize(
    ("error", "isolation", "copy", "expected"),
    [
        (errors.SetupError("mount", "/proc", errno.EPERM), planner.FULL, False, (planner.HOST_PROC, False)),
        (errors.SetupError("mount", "/proc", errno.EPERM), planner.FULL, True, (planner.HOST_PROC, True)),
        (errors.SetupError("host_view", "/proc", errno.EPERM), planner.HOST_PROC, False, (planner.NO_PID, False)),
        (errors.SetupError("host_view", "/proc", errno.EPERM), planner.NO_PID, False, None),
        (refused("pid"), planner.FULL, True, (planner.NO_PID, True)),
        (refused("pid"), planner.HOST_PROC, False, (planner.NO_PID, False)),
        (refused("pid"), planner.NO_PID, False, None),
        (refused("user"), planner.FULL, False, None),
        (refused("mount"), planner.FULL, False, None),
        (errors.SetupError("overlay", "/m", errno.EINVAL), planner.FULL, False, (planner.FULL, True)),
        (errors.SetupError("overlay", "/m", errno.EINVAL), planner.NO_PID, False, (planner.NO_PID, True)),
        (errors.SetupError("overlay", "/m", errno.EINVAL), planner.FULL, True, None),
        (errors.SetupError("overlay", "/m", errno.ELOOP), planner.FULL, False, None),
        (errors.SetupError("mount", "/dev", errno.EPERM), planner.FULL, False, None),
        (errors.Exhausted("no more pid namespaces"), planner.FULL, False, None),
        (errors.CommandNotFound("no such command"), planner.FULL, False, None),
    ],
)
def test_the_next_rung(
    error: errors.GuntainerError, isolation: str, copy: bool, expected: tuple[str, bool] | None
) -> None:
    rung = ladder.next_rung(error, isolation, copy=copy)
    assert (rung and (rung.isolation, rung.copy)) == expected
    if rung is not None:
        assert rung.note and rung.note.startswith("isolation: ") is (rung.isolation != isolation)


def test_a_lower_rung_is_refused_on_demand() -> None:
    rung = ladder.next_rung(refused("pid"), planner.FULL, copy=False)
    assert rung is not None
    with pytest.raises(errors.HostError, match="full isolation was demanded") as raised:
        ladder.refuse(rung)
    assert raised.value.probe == "namespace-limits"
    copied = ladder.next_rung(errors.SetupError("overlay", "/m", errno.EINVAL), planner.FULL, copy=False)
    assert copied is not None
    ladder.refuse(copied)  # a copy isolates as well as a layer


def test_without_a_pid_namespace_the_plan_has_an_init_of_ours() -> None:
    from guntainer import spec
    from guntainer.init import AS_SUBREAPER, SUPERVISOR_DIED
    from guntainer.jobs.model import Job, Source
    from guntainer.kernel import abi

    job = Job(id="a", rootfs=Source(location="/r"), command=("true",), init=False)
    config = spec.for_job(job, tree="/r", account=spec.Account(), uids=((0, 1000, 1),), gids=((0, 1000, 1),))
    root = planner.Root(lowers=("/s", "/r"), upper="/u", work="/w", mount_point="/m")
    flags, operations, _, _, init = planner.plan(config, root, isolation=planner.NO_PID)
    assert not flags & abi.CLONE_NEWPID and init == AS_SUBREAPER
    assert ("death_signal", SUPERVISOR_DIED) in operations
    assert ("host_view", "/proc", "/proc", False) in operations
    assert "guntainer's own" in planner.describe(planner.plan(config, root, isolation=planner.NO_PID))
