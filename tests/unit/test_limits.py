"""Limits: docker's notations, what goes together, the words of the OCI spec, and the files that come of them."""

from __future__ import annotations

import resource
import textwrap
from typing import Any

import pytest

from guntainer import errors, planner, report, resources
from guntainer.cgroups import limiter
from guntainer.cgroups.usage import Usage, verdict
from guntainer.cli import options, run_job, run_options
from guntainer.jobs import limits
from guntainer.jobs.load import load
from guntainer.jobs.model import Job, Limits, Source
from guntainer.spec import Account, for_job

MIB = 1 << 20


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (limits.memory, "512m", 512 * MIB),
        (limits.memory, 6 * MIB, 6 * MIB),
        (limits.memory_swap, "1g", 1 << 30),
        (limits.memory_swap, "-1", -1),
        (limits.memory_swap, -1, -1),
        (limits.cpus, "0.5", 0.5),
        (limits.cpus, 2, 2.0),
        (limits.cpus, 0.01, 0.01),
        (limits.cpuset, "3,0-1, 2", "0-3"),
        (limits.cpuset, "7", "7"),
        (limits.pids, "100", 100),
        (limits.pids, -1, None),
        (limits.pids, 0, None),
        (limits.weight, "10", 10),
        (limits.weight, 1000, 1000),
        (limits.ulimit, "nofile=1024:2048", ("nofile", 1024, 2048)),
        (limits.ulimit, "core=0", ("core", 0, 0)),
        (limits.ulimit, "memlock=-1", ("memlock", -1, -1)),
        (limits.ulimit, "stack=8192:unlimited", ("stack", 8192, -1)),
    ],
)
def test_notations(read: Any, text: object, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "say"),
    [
        (limits.memory, "1m", "at least 6m"),
        (limits.memory, "lots", "expected a size"),
        (limits.memory_swap, "-2", "expected a size"),
        (limits.cpus, "0", "from 0.01"),
        (limits.cpus, "0.001", "from 0.01"),
        (limits.cpus, "-1", "from 0.01"),
        (limits.cpus, "1e3", "from 0.01"),
        (limits.cpus, "", "from 0.01"),
        (limits.cpus, "٣", "from 0.01"),
        (limits.cpuset, "3-1", "no range"),
        (limits.cpuset, "0-99999999", "expected processors"),
        (limits.cpuset, "a", "expected processors"),
        (limits.cpuset, "0,,1", "expected processors"),
        (limits.pids, "-5", "expected a number of processes"),
        (limits.pids, "many", "expected a number of processes"),
        (limits.pids, "9" * 30, "expected a number of processes"),
        (limits.weight, "9", "from 10 to 1000"),
        (limits.weight, 1001, "from 10 to 1000"),
        (limits.pids, (1 << 22) + 1, "at most 4194304"),
        (limits.ulimit, "nofiles=1", 'did you mean "nofile"'),
        (limits.ulimit, "RLIMIT_NOFILE=1", 'did you mean "nofile"'),
        (limits.ulimit, "foo=1", 'unknown limit "foo": one of as, core, '),
        (limits.ulimit, "nofile", "NAME=SOFT"),
        (limits.ulimit, "nofile=", "is no limit"),
        (limits.ulimit, "nofile=5:4", "above the hard one"),
        (limits.ulimit, "nofile=-1:4", "above the hard one"),
        (limits.mode, "besteffort", 'did you mean "best-effort"'),
    ],
)
def test_mistakes_in_notations(read: Any, text: object, say: str) -> None:
    with pytest.raises(errors.UsageError, match=say):
        read(text)


def test_rates_of_devices() -> None:
    assert limits.device_rate("device-read-bps", "disk:10m", "/b") == ("rbps", "/b/disk", 10 * MIB)
    assert limits.device_rate("device-write-iops", "/dev/a:b:100", "/b") == ("wiops", "/dev/a:b", 100)
    for option, text in (
        ("device-read-bps", "10m"),
        ("device-read-bps", ":10m"),
        ("device-read-iops", "/dev/sda:1m"),
        ("device-read-iops", "/d:1"),
        ("device-write-bps", "/d:1"),
    ):
        with pytest.raises(errors.UsageError):
            limits.device_rate(option, text, "/b")


def test_memory_and_swap_go_together() -> None:
    assert limits.gather(memory_bytes=MIB, memory_swap_bytes=-1).memory_swap_bytes == -1
    with pytest.raises(errors.UsageError, match="it needs memory"):
        limits.gather(memory_swap_bytes=MIB)
    with pytest.raises(errors.UsageError, match="less than memory"):
        limits.gather(memory_bytes=2 * MIB, memory_swap_bytes=MIB)


def of_words(*words: str) -> Limits:
    read = options.read(run_options.OPTIONS, [*words, "rootfs"])
    assert read is not None
    return run_job.job_of(read[0], *read[1], []).limits


def test_options_and_keys_mean_the_same() -> None:
    line = "-m 64m --memory-swap 128m --cpus 0.5 --cpuset-cpus 1,0 --pids-limit 20 --blkio-weight 100"
    line += " --device-read-bps /d:1m --device-write-iops /d:9 --ulimit nofile=10:20 --limits best-effort"
    file = load(
        textwrap.dedent("""\
            [defaults]
            limits = "best-effort"
            memory = "1g"
            [jobs.j]
            rootfs = "r"
            run = "x"
            memory = "64m"
            memory_swap = "128m"
            cpus = 0.5
            cpuset-cpus = "1,0"
            pids-limit = 20
            blkio-weight = 100
            device-read-bps = ["/d:1m"]
            device-write-iops = ["/d:9"]
            ulimits = ["nofile=10:20"]
            """).encode(),
        path="f.toml",
        base="/b",
    )
    assert file.jobs[0].limits == of_words(*line.split())
    assert of_words() == Limits()


def test_mistakes_in_a_job_file_have_their_place() -> None:
    text = '[jobs.j]\nrootfs = "r"\nrun = "x"\nmemory-swap = "1g"\ncpus = "all"\nulimits = ["nofile=1", "x=1"]\n'
    with pytest.raises(errors.JobFileError) as caught:
        load(text.encode(), path="f.toml", base="/b")
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["4", "5", "6"]
    assert "jobs.j.ulimits[1]" in caught.value.problems[2]


@pytest.mark.parametrize(
    ("key", "say"),
    [
        ("publish", 'did you mean "ports"'),
        ("add_host", 'did you mean "add-hosts"'),
        ("ulimit", 'did you mean "ulimits"'),
        ("volume", 'did you mean "volumes"'),
        ("mount", 'did you mean "volumes"'),
        ("userns", "guntainer batch --userns"),
    ],
)
def test_an_option_of_run_as_a_key_leads_to_the_right_one(key: str, say: str) -> None:
    with pytest.raises(errors.JobFileError) as caught:
        load(f'[jobs.j]\nrootfs = "r"\nrun = "x"\n{key} = "y"\n'.encode(), path="f.toml", base="/b")
    assert len(caught.value.problems) == 1
    assert say in caught.value.problems[0]


def test_a_mistake_in_an_option_names_it() -> None:
    for words, name in ((("-m", "1"), "--memory"), (("--cpus", "x"), "--cpus"), (("--limits", "no"), "--limits")):
        with pytest.raises(errors.UsageError, match=name):
            of_words(*words)


def spec_of(some: Limits, **devices: tuple[int, int]) -> Any:
    job = Job(id="j", rootfs=Source(location="/r"), limits=some)
    found = {f"/{name}": device for name, device in devices.items()}
    return for_job(job, tree="/t", account=Account(), uids=[(0, 1, 1)], gids=[(0, 1, 1)], devices=found)


def files_of(some: Limits, **devices: tuple[int, int]) -> dict[str, str]:
    wanted = spec_of(some, **devices)["linux"]["resources"]
    return {one.files[0]: one.texts[0] for one in resources.settings(wanted)}


def test_the_spec_has_docker_s_meaning() -> None:
    assert files_of(Limits(memory_bytes=64 * MIB)) == {
        "memory.max": str(64 * MIB),
        "memory.oom.group": "1",
        "memory.swap.max": str(64 * MIB),
    }
    assert files_of(Limits(memory_bytes=64 * MIB, memory_swap_bytes=64 * MIB))["memory.swap.max"] == "0"
    assert files_of(Limits(memory_bytes=64 * MIB, memory_swap_bytes=-1))["memory.swap.max"] == "max"
    assert files_of(Limits(cpus=0.25)) == {"cpu.max": "25000 100000"}
    assert files_of(Limits(cpuset="0-1")) == {"cpuset.cpus": "0-1"}
    assert files_of(Limits(pids=7)) == {"pids.max": "7"}
    assert files_of(Limits(io_weight=1000)) == {"io.weight": "default 10000"}
    rates = (("wbps", "/a", 5), ("riops", "/a", 6), ("rbps", "/b", 7))
    wanted = spec_of(Limits(io_max=rates), a=(8, 0), b=(8, 16))["linux"]["resources"]
    assert [one.texts[0] for one in resources.settings(wanted)] == ["8:16 rbps=7", "8:0 wbps=5 riops=6"]


def test_swap_that_nobody_asked_for_may_be_missing() -> None:
    def required(some: Limits) -> bool:
        found = resources.settings(resources.of(some, {}))
        return next(one.required for one in found if one.files == ("memory.swap.max",))

    assert not required(Limits(memory_bytes=MIB))
    assert required(Limits(memory_bytes=MIB, memory_swap_bytes=MIB))


def test_the_plan_begins_in_the_group_and_sets_limits() -> None:
    some = Limits(memory_bytes=MIB, ulimits=(("nofile", 5, 6), ("core", -1, -1)))
    plan = planner.plan(spec_of(some), planner.Root(folder="/c"), limits=((7, 1, 2), (6, 3, 4)), cgroup=2)
    operations = {operation[0]: operation[1:] for operation in plan[1]}
    assert plan[1][0][:3] == ("into_cgroup", 4, True)
    assert not plan[0] & 0x0200_0000  # CLONE_NEWCGROUP: its root would be the supervisor's group
    assert "cgroup_namespace" in operations
    infinity = (1 << 64) - 1
    assert sorted(operations["limits"][0]) == [(4, infinity, infinity), (6, 3, 4), (7, 5, 6)]
    assert "memory.max 1048576" in planner.describe(plan)
    for enough in (Limits(pids=3), Limits(memory_bytes=1 << 30)):
        plan = planner.plan(spec_of(enough), planner.Root(folder="/c"), cgroup=0)
        assert plan[1][0][:3] == ("into_cgroup", 2, False)


KILLED, FAILED, GOOD = report.signalled(9), report.exited(2), report.exited(0)
SOME = Limits(memory_bytes=64 * MIB, pids=5)


@pytest.mark.parametrize(
    ("exit_", "usage", "reason", "code"),
    [
        (KILLED, Usage(oom_kills=2), "oom", 137),
        (report.exited(137), Usage(oom_kills=1), "oom", 137),
        (FAILED, Usage(oom_kills=1), "exit", 2),
        (KILLED, Usage(), "signal", 137),
        (FAILED, Usage(pids_refused=1), "pids-limit", 2),
        (report.signalled(11), Usage(pids_refused=3), "pids-limit", 139),
        (GOOD, Usage(pids_refused=3), "exit", 0),
        (KILLED, Usage(oom_kills=1, pids_refused=1), "oom", 137),
        (report.timed_out(3), Usage(oom_kills=1, pids_refused=1), "timeout", 124),
        (report.cancelled("x"), Usage(oom_kills=1), "cancelled", 130),
    ],
)
def test_which_limit_has_ended_it(exit_: report.Exit, usage: Usage, reason: str, code: int) -> None:
    found = verdict(exit_, usage, SOME)
    assert (found.reason, found.code, found.signal) == (reason, code, exit_.signal)
    assert reason in report.REASONS


def test_words_for_people() -> None:
    assert verdict(KILLED, Usage(oom_kills=1), SOME).describe() == "out of memory: killed at its limit of 64 MiB"
    said = verdict(FAILED, Usage(pids_refused=2), SOME).describe()
    assert said == "exit 2: its limit of 5 processes was reached 2 times"
    result = report.Result(id="j", key="j", exit=verdict(FAILED, Usage(pids_refused=2), SOME))
    assert (result.outcome, result.ok) == ("pids-limit", False)


def test_a_ulimit_above_the_hard_one_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (10, 20))
    one = limiter.Limiter(alone=True)
    assert one.grant(Limits(ulimits=(("nofile", 5, 20),))).notes == ()
    for hard in (21, -1):
        with pytest.raises(
            errors.HostError, match=r"ulimit nofile=(21|unlimited): the hard limit here is 20"
        ) as caught:
            one.grant(Limits(ulimits=(("nofile", 5, hard),)))
        assert "`ulimit -Hn`" in caught.value.hint


def test_for_best_effort_the_hard_limit_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (10, 20))
    asked = (("nofile", 5, 20), ("core", 5, -1), ("nproc", 30, 30), ("stack", -1, -1))
    granted = limiter.Limiter(alone=True).grant(Limits(ulimits=asked, best_effort=True))
    assert granted.limits.ulimits == (("nofile", 5, 20), ("core", 5, 20), ("nproc", 20, 20), ("stack", 20, 20))
    assert len(granted.notes) == 3
    assert granted.notes[1] == "ulimit nproc=30: the hard limit here is 20, which holds instead"


def test_without_one_controller_the_others_stay() -> None:
    some = Limits(memory_bytes=MIB, cpus=1.0, pids=3, io_weight=10, io_max=(("rbps", "/d", 1),), cpuset="0")
    for controller in resources.CONTROLLERS:
        left = resources.without(some, controller)
        assert resources.controllers(left) == resources.controllers(some) - {controller}
    assert resources.options(some, "io") == "blkio-weight, device-read-bps"
