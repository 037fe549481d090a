"""`--set`: values of a job file from the command line."""

from __future__ import annotations

import textwrap

import pytest

from guntainer.errors import JobFileError, UsageError
from guntainer.jobs.load import JobFile, load
from guntainer.jobs.placing import Placed
from guntainer.jobs.setting import parse

FILE = """
    max_parallel = 2
    [defaults]
    timeout = "1m"
    env = { CI = "1" }
    [rootfs.alpine]
    source = "alpine.tar"
    [jobs.test]
    rootfs = "alpine"
    run = "make"
    env = { CI = "own", X = "own" }
    matrix = { python = ["3.10"], os = ["a", "b"], include = [{ python = "3.10", extra = "e" }] }
    [jobs."py3.11.x"]
    rootfs = "alpine"
    command = ["c"]
    pids_limit = 5
    [jobs.env]
    rootfs = "alpine"
    run = "x"
    """


def _load(*settings: str, text: str = FILE, name: str = "f.toml") -> JobFile:
    found = tuple(map(parse, settings))
    return load(textwrap.dedent(text).encode(), path=name, base="/b", settings=found, here="/here")


def _usage(*settings: str) -> str:
    with pytest.raises(UsageError) as caught:
        _load(*settings)
    return str(caught.value)


def _problems(*settings: str) -> tuple[str, ...]:
    with pytest.raises(JobFileError) as caught:
        _load(*settings)
    assert caught.value.exit_code == 2
    return caught.value.problems


def _job(key: str, *settings: str) -> object:
    return next(job for job in _load(*settings).jobs if job.key == key)


def test_a_variable_of_every_job() -> None:
    found = _load("env.CI=true", "env.X=a=b", "env.NEW=1.10")
    test, other = found.jobs[0], found.jobs[-1]
    assert dict(test.env) == {"CI": "true", "X": "a=b", "NEW": "1.10"}
    assert dict(other.env) == {"CI": "true", "X": "a=b", "NEW": "1.10"}


def test_an_axis() -> None:
    found = _load("matrix.python=3.11, 3.12")
    assert [job.id for job in found.jobs if job.key == "test"] == [
        "test (3.11, a)",
        "test (3.11, b)",
        "test (3.12, a)",
        "test (3.12, b)",
        "test (3.10, e)",  # the include, which fits to none of them any more
    ]
    assert [job.id for job in _load('matrix.os=["x,y", "z"]').jobs][:2] == ["test (3.10, x,y)", "test (3.10, z)"]


def test_an_axis_that_is_not_there() -> None:
    assert _usage("matrix.pyhton=3") == (
        '--set matrix.pyhton=3: no job has an axis "pyhton" in its matrix (did you mean "python"?)'
    )
    assert "no job has an axis" in _usage("matrix.include=3")
    assert "no job has an axis" in _usage("matrix.extra=3")


def test_a_value_of_the_defaults_and_of_a_job() -> None:
    found = _load("defaults.timeout=5m", "jobs.test.timeout=7", "jobs.py3.11.x.user=1000")
    by_key = {job.key: job for job in found.jobs}
    assert (by_key["test"].timeout_s, by_key["env"].timeout_s) == (7, 300)
    assert by_key["py3.11.x"].user == "1000"


def test_names_with_dots_and_underscores() -> None:
    found = _load('jobs."py3.11.x".pids-limit=9', "max-parallel=4", "jobs.test.env.X=1")
    assert next(job for job in found.jobs if job.key == "py3.11.x").limits.pids == 9
    assert found.max_parallel == 4
    assert dict(found.jobs[0].env)["X"] == "1"


def test_a_job_whose_name_is_a_word_of_ours() -> None:
    job = next(job for job in _load('jobs.env.command=["a", "b"]', "jobs.env.run=y").jobs if job.key == "env")
    assert job.command[-1] == "y"


def test_lists_tables_and_flags() -> None:
    found = _load('jobs.test.volumes=[".:/src:ro"]', "jobs.test.read-only=true", "jobs.test.matrix={v = [1]}")
    (job,) = [job for job in found.jobs if job.key == "test"]
    assert job.read_only
    # as any path of the command line, it is seen from where one is
    assert (job.mounts[0].source, job.id) == ("/here", "test (1)")


def test_a_script_takes_the_place_of_a_command() -> None:
    job = next(job for job in _load("jobs.py3.11.x.run=make").jobs if job.key == "py3.11.x")
    assert job.command[-1] == "make"


def test_a_rootfs() -> None:
    assert _load("rootfs.alpine.source=other.tar").jobs[0].rootfs.location == "/here/other.tar"
    assert _load("rootfs.alpine.source=docker://alpine").jobs[0].rootfs.kind == "registry"
    assert _load().jobs[0].rootfs.location == "/b/alpine.tar"


def test_the_last_one_wins() -> None:
    assert _load("defaults.timeout=1", "defaults.timeout=2").jobs[0].timeout_s == 2


def test_what_is_taken_over_from_a_job_is_set_as_well() -> None:
    text = '[jobs.".t"]\nrootfs = "r"\nrun = "x"\nmatrix = { a = [1] }\n[jobs.j]\nextends = ".t"'
    (job,) = _load("jobs..t.timeout=5", "matrix.a=7", text=text).jobs
    assert (job.timeout_s, job.id) == (5, "j (7)")


@pytest.mark.parametrize(
    "text", ["512m", "", "null", "true", "1.10", "[", "[1", "a\nb = 2", "1\nx = 2", "{", '"', "[" * 9999]
)
def test_any_value_is_read(text: str) -> None:
    placed = Placed({"jobs": {"j": {}}}, (parse(f"jobs.j.user={text}"),))
    assert isinstance(placed.root, dict)
    assert str(placed.root["jobs"]["j"]["user"]) == text
    assert list(placed.settings) == [("jobs", "j", "user")]


def test_nothing_is_changed_in_place() -> None:
    root = {"jobs": {"j": {"env": {"A": "1"}}}}
    changed = Placed(root, (parse("env.A=2"),)).root
    assert root == {"jobs": {"j": {"env": {"A": "1"}}}}
    assert changed == {"jobs": {"j": {"env": {"A": "2"}}}, "defaults": {"env": {"A": "2"}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x", "--set x: expected env.NAME=TEXT, matrix.AXIS=A,B, defaults.KEY=VALUE or jobs.NAME.KEY=VALUE"),
        ("=x", "--set =x: expected env.NAME"),
        ("env=x", "--set env=x: expected env.NAME"),
        ("job.x.y=1", '--set job.x.y=1: "job" can not be set (did you mean "jobs"?): expected env.NAME'),
        ("version=2", '"version" can not be set'),
        ("timeout.x=1", "expected timeout=VALUE"),
        ("matrix.os=", "--set matrix.os=: expected values with commas between them"),
        ("matrix.os=a,,b", "expected values with commas"),
        ("matrix.os=[]", "--set matrix.os=[]: the axis is empty: expected at least one value"),
        ("jobs.test.matrix.os= [ ]", "the axis is empty"),
        (
            "jobs.test.env.X.B=1",
            '--set jobs.test.env.X.B=1: jobs.test.env.X is the text "own": nothing can be set in it',
        ),
        (
            "defaults.timeout.x=1",
            '--set defaults.timeout.x=1: defaults.timeout is the text "1m": nothing can be set in it',
        ),
        ('jobs."py3.11.x".command.x=1', 'jobs."py3.11.x".command is a list: nothing can be set in it'),
        ("jobs.tset.timeout=1", 'there is no "tset" in [jobs] (did you mean "test"?)'),
        ("jobs.test=1", "expected jobs.test.KEY=VALUE"),
        ("rootfs.alpin.source=x", 'there is no "alpin" in [rootfs] (did you mean "alpine"?)'),
        ("jobs.test.a b=1", '"a b" is no key'),
        ("defaults..x=1", '".x" is no key'),
        ("defaults.x.=1", '"x." is no key'),
        ("defaults.=1", '"" is no key'),
        ("jobs.test.extends=env", "what a job or a file extends can not be set"),
        ("env.X=a\0b", "a NUL character"),
    ],
)
def test_what_can_not_be_set(text: str, told: str) -> None:
    assert told in _usage(text)
    assert "\n" not in _usage(text)


def test_a_wrong_value_is_told_with_its_option() -> None:
    assert _problems("defaults.timeout=soon", "jobs.test.cpus=x", "env.A B=1") == (
        '--set defaults.timeout=soon: expected a duration such as "30s", "10m" or "1h30m", got "soon"',
        '--set env.A B=1: "A B" can not name a variable: expected letters, digits and _',
        '--set jobs.test.cpus=x: expected a number of processors from 0.01 such as "1.5", got "x"',
    )
    assert _problems("jobs.test.timeuot=1") == ('--set jobs.test.timeuot=1: unknown key (did you mean "timeout"?)',)
    assert _problems("jobs.test.env.A.B=1") == (
        "--set jobs.test.env.A.B=1: expected a text, a number, true or false, got a table",
    )
    assert _problems("jobs.test.retry.backoff=1s") == (
        "--set jobs.test.retry.backoff=1s: attempts is missing: expected how often to try in all, such as 3",
    )
    assert _problems("matrix.os=a,a") == ('--set matrix.os=a,a: "a" is in this axis twice',)


def test_a_file_that_is_none_is_told_first() -> None:
    with pytest.raises(JobFileError, match="expected a table"):
        _load("env.X=1", "jobs.a.b=1", text="- 1\n", name="f.yaml")
    with pytest.raises(JobFileError, match="expected a table"):
        _load("env.X=1", text="jobs: {a: 1}", name="f.yaml")


TEMPLATES = """
    [defaults]
    rootfs = "r"
    run = "x"
    workspace = { source = "w", target = "/w" }
    [jobs.".t"]
    matrix = { os = ["x", "y"], py = ["1", "2"] }
    retry = { attempts = 3, on = ["exit"] }
    [jobs.a]
    extends = ".t"
    [jobs.b]
    extends = "a"
    """


def _ids(*settings: str) -> list[str]:
    return [job.id for job in _load(*settings, text=TEMPLATES).jobs]


def test_a_part_of_what_a_job_takes_over() -> None:
    both = ["a (x, 9)", "a (y, 9)", "b (x, 9)", "b (y, 9)"]
    assert _ids("jobs.a.matrix.py=9") == both
    assert _ids("jobs.a.matrix.os=z", "jobs.b.matrix.py=9") == ["a (z, 1)", "a (z, 2)", "b (z, 9)"]
    assert _ids("jobs.b.matrix.py=9") == ["a (x, 1)", "a (x, 2)", "a (y, 1)", "a (y, 2)", "b (x, 9)", "b (y, 9)"]
    found = _load("jobs.a.retry.attempts=5", "jobs.a.workspace.mode=mount", text=TEMPLATES).jobs
    assert {(job.retry.attempts, job.retry.on) for job in found if job.retry} == {(5, ("exit",))}
    modes = {(job.workspace.source, job.workspace.target, job.workspace.mode) for job in found if job.workspace}
    assert modes == {("/b/w", "/w", "mount")}


def test_the_order_of_settings_of_a_job_and_of_its_template() -> None:
    for settings in (["jobs..t.matrix.os=z", "jobs.a.matrix.py=9"], ["jobs.a.matrix.py=9", "jobs..t.matrix.os=z"]):
        assert _ids(*settings) == ["a (z, 9)", "b (z, 9)"]
    # a job's own is over what it takes over; of its own, the last one wins
    assert _ids("jobs.a.matrix.py=9", "jobs..t.matrix.py=7")[0] == "a (x, 9)"
    assert _ids("jobs.a.matrix.py=9", "matrix.py=7")[0] == "a (x, 7)"
    assert _ids("matrix.py=7", "jobs.a.matrix.py=9")[0] == "a (x, 9)"
    assert _ids("jobs.a.matrix.py=9", "jobs.a.matrix={ v = [1] }") == ["a (1)", "b (1)"]
    assert _ids("jobs.a.matrix={ v = [1] }", "jobs.a.matrix.py=9") == ["a (1, 9)", "b (1, 9)"]


def test_the_places_of_what_is_taken_over_in_part() -> None:
    text = TEMPLATES.replace('["x", "y"]', '["x", "x"]')
    with pytest.raises(JobFileError) as caught:
        _load("jobs.a.matrix.py=9,9", text=text)
    assert caught.value.problems == (
        'f.toml:7:23: jobs.".t".matrix.os[1]: "x" is in this axis twice',
        '--set jobs.a.matrix.py=9,9: "9" is in this axis twice',
    )
    files = {"/b/up/base.toml": textwrap.dedent(TEMPLATES).encode()}
    found = load(
        b'extends = "up/base.toml"\n[jobs.c]\nextends = "a"\nworkspace.source = "own"\n',
        path="f.toml",
        base="/b",
        read=files.__getitem__,
        settings=(parse("jobs.a.workspace.mode=mount"), parse("jobs.c.workspace.target=/x")),
        here="/here",
    )
    sources = {job.key: job.workspace.source for job in found.jobs if job.workspace}
    assert sources == {"a": "/b/up/w", "b": "/b/up/w", "c": "/b/own"}
    (here,) = {job.workspace.source for job in _load("jobs.a.workspace.source=.", text=TEMPLATES).jobs if job.workspace}
    assert here == "/here"


def test_jobs_that_extend_each_other_are_told_as_ever() -> None:
    text = '[jobs.a]\nextends = ["b", "a"]\nrootfs = "r"\nrun = "x"\n[jobs.b]\nextends = "a"\nretry = { attempts = 2 }'
    with pytest.raises(JobFileError, match="jobs that extend each other"):
        _load("jobs.a.retry.attempts=3", text=text)
    many = "\n".join(f'[jobs.j{n}]\nextends = ["j{n - 1}", "j{n - 1}"]' for n in range(1, 3000))
    with pytest.raises(JobFileError, match="more than 10 jobs"):
        _load("jobs.j2999.retry.attempts=3", text=f'{many}\n[jobs.j0]\nrun = "x"\nrootfs = "r"')
