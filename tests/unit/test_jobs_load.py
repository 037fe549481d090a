"""Job files in three notations: what they become, and how every mistake is told with its place."""

from __future__ import annotations

import json
import signal
import textwrap
import tomllib
from pathlib import Path

import pytest

from guntainer.errors import JobFileError, UsageError
from guntainer.jobs.load import JobFile, load
from guntainer.jobs.model import Job, Mount, Scratch, Source
from guntainer.jobs.positions import json_places, toml_places

JOB = '[jobs.j]\nrootfs = "./r"\ncommand = ["c"]\n'


def _load(text: str, name: str = "f.toml") -> JobFile:
    return load(textwrap.dedent(text).encode(), path=name, base="/b")


def _yaml(text: str) -> JobFile:
    return _load(text, "f.yaml")


def _problems(text: str | bytes, name: str = "f.toml") -> tuple[str, ...]:
    source = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
    with pytest.raises(JobFileError) as caught:
        load(source, path=name, base="/b")
    assert caught.value.exit_code == 2
    return caught.value.problems


def _job(lines: str) -> Job:
    (job,) = _load(JOB + lines).jobs
    return job


EXAMPLE = """
version = 1
name = "n"
description = "d"
max-parallel = 8
fail_fast = true
[defaults]
timeout = "10m"
env = { CI = "1", X = "d" }
network = "none"
[rootfs.alpine]
source = "rootfs/a.tar.gz"
sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
[jobs.smoke]
rootfs = "alpine"
run = "true"
env = { X = "${{ matrix.a }}", B = true }
[jobs.smoke.matrix]
a = [1, 3.10]
[jobs.stress]
rootfs = "/abs/tree"
command = ["/bin/true", ""]
repeat = 3
scratch = "memory:16m"
timeout = 5
network = "host"
"""


def test_a_whole_file() -> None:
    found = _load(EXAMPLE)
    assert (found.path, found.max_parallel, found.fail_fast, found.warnings) == ("f.toml", 8, True, ())
    assert [job.id for job in found.jobs] == ["smoke (1)", "smoke (3.10)", "stress #1", "stress #2", "stress #3"]
    assert found.jobs[1] == Job(
        id="smoke (3.10)",
        key="smoke",
        rootfs=Source(location="/b/rootfs/a.tar.gz", name="alpine", sha256="a" * 64),
        matrix=(("a", "3.10"),),
        command=("/bin/sh", "-e", "-c", "true"),
        entrypoint=(),
        env=(("CI", "1"), ("X", "3.10"), ("B", "true")),
        timeout_s=600.0,
        network="none",
    )
    assert found.jobs[3] == Job(
        id="stress #2",
        key="stress",
        rootfs=Source(location="/abs/tree", name="/abs/tree"),
        command=("/bin/true", ""),
        env=(("CI", "1"), ("X", "d")),
        scratch=Scratch(kind="memory", size_bytes=16 << 20),
        timeout_s=5.0,
    )


def test_the_same_file_in_three_notations() -> None:
    table = {
        "version": 1,
        "defaults": {"timeout": 1.5, "read-only": True},
        "rootfs": {"a": {"source": "x.tar"}},
        "jobs": {
            "j": {
                "rootfs": "a",
                "command": ["echo", "${{ matrix.n }}"],
                "matrix": {"n": [1, 2.50, True, "no"], "exclude": [{"n": 1}]},
            }
        },
    }
    text = json.dumps(table, indent=1).replace("2.5", "2.50")
    toml = """
        version = 1
        defaults = { timeout = 1.5, read_only = true }
        rootfs.a.source = "x.tar"
        [jobs.j]
        rootfs = "a"
        command = ["echo", "${{ matrix.n }}"]
        matrix = { n = [1, 2.50, true, "no"], exclude = [{ n = 1 }] }
        """
    yaml = """
        version: 1
        defaults: &d {timeout: 1.5, read-only: true}
        rootfs: {a: {source: x.tar}}
        jobs:
          j:
            rootfs: a
            command: [echo, "${{ matrix.n }}"]
            matrix:
              n: [1, 2.50, true, no]
              exclude:
              - n: 1
        """
    found = [_load(text, "f.json"), _load(toml), _yaml(yaml)]
    assert found[0].jobs == found[1].jobs == found[2].jobs
    assert [job.command[1] for job in found[0].jobs] == ["2.50", "true", "no"]


def test_every_key_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    job = _job(
        """
        volumes = [".:/src:ro", {type = "bind", source = "~/x", target = "/x", read_only = true},
                   {type = "tmpfs", target = "/t", size = "1m"}]
        tmpfs = ["/run:size=16m"]
        workdir = "/src"
        user = 1000
        hostname = "h"
        stdin = "in.txt"
        init = true
        read-only = true
        scratch = "memory"
        cache = false
        timeout = "1h30m"
        stop-signal = "INT"
        stop-timeout = "2s"
        fail-fast = true
        max-parallel = 2
        """
    )
    assert job.mounts == (
        Mount(target="/src", source="/b", read_only=True),
        Mount(target="/x", source="/home/me/x", read_only=True),
        Mount(target="/t", kind="tmpfs", size_bytes=1 << 20),
        Mount(target="/run", kind="tmpfs", size_bytes=16 << 20),
    )
    assert (job.workdir, job.user, job.hostname, job.stdin) == ("/src", "1000", "h", "/b/in.txt")
    assert (job.init, job.read_only, job.cache, job.scratch.kind) == (True, True, False, "memory")
    assert (job.timeout_s, job.stop_timeout_s, job.stop_signal) == (5400, 2, signal.SIGINT)
    assert (job.fail_fast, job.max_parallel) == (True, 2)


@pytest.mark.parametrize(
    ("lines", "entrypoint", "command"),
    [
        ("command = []", None, ()),
        ('command = ["a"]', None, ("a",)),
        ('run = "x"', (), ("/bin/sh", "-e", "-c", "x")),
        ('run = "x"\nentrypoint = ["/init", "--"]', ("/init", "--"), ("/bin/sh", "-e", "-c", "x")),
        ('entrypoint = "/a b"', ("/a b",), ()),
        ('entrypoint = ""\ncommand = ["a"]', (), ("a",)),
        ('entrypoint = []\ncommand = ["a"]', (), ("a",)),
        ('entrypoint = ["a", ""]', ("a", ""), ()),
    ],
)
def test_entrypoints(lines: str, entrypoint: tuple[str, ...] | None, command: tuple[str, ...]) -> None:
    job = _load(f'[jobs.j]\nrootfs = "./r"\n{lines}\n').jobs[0]
    assert (job.entrypoint, job.command) == (entrypoint, command)


def test_publishing_all() -> None:
    job = _load('[jobs.j]\nrootfs = "./r"\ncommand = []\nnetwork = "private"\npublish-all = true\n').jobs[0]
    assert job.publish_all


def test_what_a_job_does_not_say_is_the_models_default() -> None:
    assert _job("") == Job(id="j", key="j", rootfs=Source(location="/b/r", name="./r"), command=("c",))


def test_a_job_overrides_its_defaults() -> None:
    found = _load(
        """
        [defaults]
        command = ["default"]
        rootfs = "./d"
        volumes = ["/a:/a"]
        timeout = 3
        max-parallel = 2
        [jobs.one]
        run = "x"
        volumes = []
        timeout = 0
        [jobs.two]
        """
    ).jobs
    assert [job.command[0] for job in found] == ["/bin/sh", "default"]
    assert [len(job.mounts) for job in found] == [0, 1]
    assert [job.timeout_s for job in found] == [None, 3.0]
    assert [job.max_parallel for job in found] == [2, 2]


def test_a_rootfs_is_a_name_or_a_path() -> None:
    text = '[rootfs.alpine-320]\nsource = "a.tar"\n[jobs.j]\nrootfs = "{}"\ncommand = ["c"]\n'

    def location(name: str) -> str:
        return _load(text.replace("{}", name)).jobs[0].rootfs.location

    assert location("alpine-320") == "/b/a.tar"
    assert location("alpine-32.tar") == "/b/alpine-32.tar"
    assert location("./alpine-32") == "/b/alpine-32"
    assert location("/x/y") == "/x/y"
    assert location("unlike") == "/b/unlike"
    assert _problems(text.replace("{}", "alpine-32")) == (
        'f.toml:4:1: jobs.j.rootfs: no "alpine-32" in [rootfs] (did you mean "alpine-320"?);'
        " a path is written ./alpine-32",
    )


def test_sources_that_are_no_path() -> None:
    text = '[jobs.j]\nrootfs = "{}"\ncommand = ["c"]\n'

    def source(name: str) -> Source:
        return _load(text.replace("{}", name)).jobs[0].rootfs

    assert source("host").kind == "host"
    assert source("./host") == Source(location="/b/host", name="./host")
    assert source("oci:x:3.1") == Source(location="/b/x", name="oci:x:3.1", kind="oci", reference="3.1")
    assert source("docker-archive:a.tar").kind == "docker-archive"
    assert source("docker://alpine").location == "docker://docker.io/library/alpine:latest"
    url = source("https://u:secret@x.example/y.tar?sig=1#sha256=" + "a" * 64)
    assert (url.kind, url.name, url.sha256) == ("url", "https://x.example/y.tar", "a" * 64)
    for wrong in ("docker://x/UPPER", "ftp://x/y", "containers-storage:x", "https://x/y#sha256=1", "oci:"):
        assert len(_problems(text.replace("{}", wrong))) == 1


def test_a_source_of_a_text() -> None:
    assert Source.of("host").kind == "host"
    assert Source.of("a.tar", base="/b").location == "/b/a.tar"
    assert Source.of("oci:l:1", base="/b") == Source(location="/b/l", name="oci:l:1", kind="oci", reference="1")


def test_how_a_source_is_come_by() -> None:
    text = """
        [defaults]
        pull = "never"
        max-entries = 10
        [rootfs.r]
        source = "docker://127.0.0.1:1/x"
        platform = "arm64"
        [jobs.j]
        rootfs = "r"
        command = ["c"]
        max-unpacked = "1m"
        """
    found = _load(text).jobs[0].rootfs
    assert (found.name, found.pull, found.platform, found.limits) == ("r", "never", "linux/arm64", (1 << 20, 10))
    for key, value in (("pull", "newer"), ("platform", "windows/amd64"), ("max-unpacked", "x"), ("max-entries", "0")):
        assert len(_problems(JOB + f'{key} = "{value}"\n')) == 1


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    assert _problems(
        """\
        version = 2
        timout = 3
        [defaults]
        timeout = "soon"
        retry = -1
        [rootfs.r]
        source = "x"
        sha256 = "…"
        [jobs.a]
        rootfs = "r"
        run = "x"
        command = ["x"]
        env = { "A B" = "1", C = [1] }
        volumes = [
          "ok:/ok",
          "data",
        ]
        [jobs.b]
        read-only = true
        read_only = true
        needs = ["c"]
        """
    ) == (
        "f.toml:1:1: version: this guntainer reads version 1, got the number 2",
        'f.toml:2:1: timout: unknown key (did you mean "timeout"?)',
        'f.toml:4:1: defaults.timeout: expected a duration such as "30s", "10m" or "1h30m", got "soon"',
        "f.toml:5:1: defaults.retry: expected a whole number from 0 to 99, got the number -1",
        'f.toml:8:1: rootfs.r.sha256: expected 64 hexadecimal digits, got "…"',
        "f.toml:11:1: jobs.a.run: command and run exclude each other: expected one of them",
        'f.toml:13:9: jobs.a.env."A B": "A B" can not name a variable: expected letters, digits and _',
        "f.toml:13:22: jobs.a.env.C: expected a text, a number, true or false, got a list",
        'f.toml:16:3: jobs.a.volumes[1]: expected "SRC:DST[:ro|rw]", got "data"',
        "f.toml:18:1: jobs.b: rootfs is missing: expected a name of [rootfs.NAME] or a path",
        "f.toml:18:1: jobs.b: there is neither command nor run: expected one of them; command = [] is the image's own",
        'f.toml:20:1: jobs.b.read_only: this key is there twice, as "read-only" too',
        'f.toml:21:10: jobs.b.needs[0]: there is no job "c"',
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('comand = ["x"]', 'comand: unknown key (did you mean "command"?)'),
        ('work_dir = "/x"', 'work_dir: unknown key (did you mean "workdir"?)'),
        ("Timeout = 3", 'Timeout: unknown key (did you mean "timeout"?)'),
        ("env = [1]", 'env: expected a table such as {CI = "1"}, got a list'),
        ("workdir = 3", "workdir: expected a text, got the number 3: put it into quotes"),
        ("hostname = 3.10", "hostname: expected a text, got the number 3.1: put it into quotes"),
        ('workdir = "src"', 'workdir: expected an absolute path in the container such as "/src", got "src"'),
        ('workdir = ""', "workdir: expected a text, got an empty one"),
        ('init = "yes"', 'init: expected true or false, got the text "yes"'),
        ("init = 1", "init: expected true or false, got the number 1"),
        ("user = true", "user: expected a user, got true"),
        ('user = "a b"', 'user: expected "UID[:GID]" or "name[:group]", got "a b"'),
        ("repeat = 0", "repeat: expected a whole number of at least 1, got the number 0"),
        ("repeat = true", "repeat: expected a whole number of at least 1, got true"),
        ("repeat = 1.5", "repeat: expected a whole number of at least 1, got the number 1.5"),
        ('max-parallel = "4"', 'max-parallel: expected a whole number of at least 1, got the text "4"'),
        ("timeout = true", "timeout: expected a number or a text, got true"),
        ("timeout = 2024-01-02", "timeout: expected a number or a text, got a date"),
        ("stop-signal = 65", 'stop-signal: expected a signal such as "TERM", "SIGINT" or a number from 1 to 64'),
        ('network = "privat"', 'network: expected "host", "none" or "private", got "privat"'),
        ('volumes = "a:/b"', 'volumes: expected a list such as [".:/src:ro"], got the text "a:/b"'),
        ('volumes = ["a:/proc/x"]', "volumes[0]: can not mount on /proc/x"),
        ('volumes = ["a:/x/.."]', "volumes[0]: can not mount on /"),
        ('volumes = ["a:/x"]\ntmpfs = ["/x/"]', "tmpfs[0]: /x is mounted twice"),
        ('volumes = [{target = "/x"}]', "volumes[0]: source is missing: expected a path on the host"),
        ('volumes = [{source = "x"}]', "volumes[0]: target is missing: expected an absolute path in the container"),
        ('volumes = [{type = "tmpf", target = "/x"}]', 'volumes[0]: type: expected "bind" or "tmpfs", got "tmpf"'),
        ('volumes = [{type = "tmpfs", target = "/x", source = "y"}]', "volumes[0]: source makes no sense with"),
        ('volumes = [{source = "y", target = "/x", size = "1m"}]', 'volumes[0]: size makes no sense with type "bind"'),
        ('volumes = [{source = "y", target = "/x", readonly = true}]', "volumes[0].readonly: unknown key (did"),
        ("volumes = [3]", "volumes[0]: expected a text, got the number 3"),
        ('scratch = "memory:0"', "scratch: a size must be at least one byte"),
        ("matrix = 3", "matrix: expected a table of axes"),
        ('hostname = "a\\u0000b"', "hostname: a NUL character can not be passed on"),
    ],
)  # fmt: skip
def test_bad_values(line: str, message: str) -> None:
    (problem,) = _problems(JOB + line + "\n")
    place, _, rest = problem.partition(": jobs.j.")
    assert place.startswith("f.toml:")
    assert rest.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rootfs = "./r"', "jobs.j: there is neither command nor run"),
        (
            'rootfs = "./r"\ncommand = "x y"',
            'jobs.j.command: expected a list such as ["/bin/true"], got the text "x y"',
        ),
        ('rootfs = "./r"\ncommand = []\nentrypoint = [""]', 'jobs.j.entrypoint: the program is empty: "" or [] is no'),
        ('rootfs = "./r"\ncommand = []\nentrypoint = 3', "jobs.j.entrypoint: expected a list such as"),
        (
            'rootfs = "./r"\ncommand = []\npublish-all = true',
            "jobs.j.publish-all: published ports need network private",
        ),
        ('rootfs = "./r"\ncommand = []\npublish-all = "yes"', "jobs.j.publish-all: expected true or false"),
        ('rootfs = "./r"\ncommand = [""]', "jobs.j.command: the command is empty"),
        ('rootfs = "./r"\ncommand = ["sleep", 5]', "jobs.j.command[1]: expected a text, got the number 5: put it into"),
        ('rootfs = "./r"\nrun = " \\n"', "jobs.j.run: the script is empty"),
        (f'rootfs = "./r"\nrun = "{"x" * 131072}"', "jobs.j.run: is 131072 bytes long"),
        ("rootfs = 3\nrun = 'x'", "jobs.j.rootfs: expected a text, got the number 3"),
    ],
)
def test_bad_commands(text: str, message: str) -> None:
    (problem,) = _problems(f"[jobs.j]\n{text}\n")
    assert message in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version = 1\n", "f.toml:1:1: there are no jobs: expected at least one [jobs.NAME]"),
        ("version = 1\n[jobs]\n", "f.toml:2:1: jobs: there are no jobs: expected at least one [jobs.NAME]"),
        ("jobs = [1]", "f.toml:1:1: jobs: expected tables [jobs.NAME], got a list"),
        ("jobs.j = 1", "f.toml:1:1: jobs.j: expected a table, got the number 1"),
        ("version = true\n" + JOB, "f.toml:1:1: version: this guntainer reads version 1, got true"),
        ("name = 1\n" + JOB, "f.toml:1:1: name: expected a text, got the number 1"),
        ("defaults = 1\n" + JOB, "f.toml:1:1: defaults: expected a table, got the number 1"),
        ("defaults.matrix.a = [1]\n" + JOB,
         "f.toml:1:1: defaults.matrix: a matrix belongs to a job: [jobs.NAME.matrix]"),
        ("rootfs = 'x'\n" + JOB, "f.toml:1:1: rootfs: expected tables [rootfs.NAME], got the text \"x\""),
        ("rootfs.x = 'y'\n" + JOB, "f.toml:1:1: rootfs.x: expected a table, got the text \"y\""),
        ("[rootfs.x]\n" + JOB, "f.toml:1:1: rootfs.x: source is missing: expected an archive, a folder, an image or a URL"),
        ("rootfs.x.source = '${{ matrix.a }}'\n" + JOB,
         "f.toml:1:1: rootfs.x.source: an expression has a meaning only in a job"),
        (JOB.replace("jobs.j", 'jobs."a b"'),
         'f.toml:1:1: jobs."a b": "a b" can not name a job: expected up to 100 letters,'
         " digits, . _ and -, not starting with . or -"),
        (JOB + JOB.replace("jobs.j", "jobs.J"), 'f.toml:4:1: jobs.J: two jobs would be called "J" and "j", at jobs.j'),
        (JOB + "repeat = 1000000000\n", "f.toml:1:1: jobs.j: the file has more than 100000 jobs"),
    ],
)  # fmt: skip
def test_bad_files(text: str, problem: str) -> None:
    assert _problems(text) == (problem,)


@pytest.mark.parametrize("name", ["f.toml", "f.yaml", "f.json", "-"])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", ":1: the file is empty"),
        (b" \n\n", ":1: the file is empty"),
        (b"\xef\xbb\xbfversion = 1", ":1:1: the file starts with a byte order mark"),
        (b"\xff\xfea\0", ":1:1: the file is UTF-16"),
        (b"# a\n# \xc3\xa9\xff", ":2:4: byte 0xff is not UTF-8"),
        (b"# a\n#\0", ":2:2: a NUL byte"),
        (b"#" * 10_000_001, ":1: the file is larger than 10 MB"),
    ],
)
def test_files_that_are_no_text(name: str, text: bytes, problem: str) -> None:
    (found,) = _problems(text, name)
    assert found.startswith(name + problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (JOB + JOB, "f.toml:4:8: this key or table is there twice"),
        ('a = 1\n"a" = 2\n', "f.toml:2:8: this key or table is there twice"),
        ("a = {b = 1, b = 2}", "f.toml:1:18: this key or table is there twice"),
        ("a = {}\na.b = 1\n", "f.toml:2:8: this table is complete already"),
        ("x = [1,\n", "f.toml:1:8: not valid TOML"),
        ("a = 1\nb = no\n", "f.toml:2:5: not valid TOML: Invalid value"),
        ("a = " + "[" * 5000, "f.toml:1: nested more than 100 levels deep"),
        ("a = " + "[" * 200 + "]" * 200, "f.toml:1: nested more than 100 levels deep"),
        ("a = 2024-13-01", "f.toml:1"),
        ("a = " + "9" * 5000, "f.toml:1: not valid TOML"),
    ],
)
def test_bad_toml(text: str, problem: str) -> None:
    (found,) = _problems(text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"jobs": {,}}', "f.json:1:11: not valid JSON"),
        ('{"a":\n NaN}', "f.json:1: not valid JSON: NaN is no number"),
        ("[" * 100_000, "f.json:1: nested more than 100 levels deep"),
        ("[]", "f.json:1:1: expected a table, got a list"),
        (
            '{"jobs": {"j": {"rootfs": "./r", "run": "x",\n "run": "y"}}}',
            "f.json:2:2: jobs.j.run: this key is there twice",
        ),
        (
            '{"jobs": {"j": {"rootfs": "./r", "run": "\\ud800"}}}',
            "f.json:1:34: jobs.j.run: holds half of a surrogate pair",
        ),
        ('{"jobs": {"j": {"rootfs": "./r", "run": null}}}', "f.json:1:34: jobs.j.run: expected a text, got nothing"),
        (
            '{"jobs": {"j": {"rootfs": "./r", "command": ["a",\n  3]}}}',
            "f.json:2:3: jobs.j.command[1]: expected a text",
        ),
    ],
)
def test_bad_json(text: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in _problems(text, "f.json"))


def test_yaml_keeps_the_text_where_text_is_wanted() -> None:
    (job,) = _yaml(
        """
        jobs:
          j:
            rootfs: ./r
            command: [echo, no, 3.10, 1:30, 0x1f, 2024-01-01, true, 'null']
            hostname: 123
            user: 0
            init: true
            timeout: 1.50
            env: {A: no, B: 3.10, C: Yes, D: 012, E: "", F: 1_000}
        """
    ).jobs
    assert job.command == ("echo", "no", "3.10", "1:30", "0x1f", "2024-01-01", "true", "null")
    assert dict(job.env) == {"A": "no", "B": "3.10", "C": "Yes", "D": "012", "E": "", "F": "1_000"}
    assert (job.hostname, job.user, job.init, job.timeout_s) == ("123", "0", True, 1.5)
    assert all(type(item) is str for item in (*job.command, *dict(job.env).values(), job.hostname))


def test_yaml_anchors_and_merge_keys() -> None:
    found = _yaml(
        """
        jobs:
          a: &a
            rootfs: ./r
            run: |
              one
              two
            env: &e {X: 1}
          b:
            <<: *a
            env: {<<: [*e, {Y: 2, X: 3}], Z: 4}
        """
    ).jobs
    assert found[1].command[-1] == "one\ntwo\n"
    assert dict(found[1].env) == {"Z": "4", "X": "1", "Y": "2"}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{','.join(['*' + p] * 10)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("jobs:\n  j:\n\trootfs: x\n", "f.yaml:3:1: not valid YAML: a tab where only spaces may indent"),
        ("jobs: {\n", "f.yaml:2:1: not valid YAML"),
        ("a: b: c", "f.yaml:1:5: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: not valid YAML: expected a single document"),
        ("# nothing\n", "f.yaml:1: the file is empty"),
        ("a: *x\n", "f.yaml:1:4: not valid YAML: found undefined alias"),
        ("a: &a [*a]\n", "f.yaml:1:4: an alias inside of its own anchor"),
        ("a: &a {<<: *a}\n", "f.yaml:1:4: an alias inside of its own anchor"),
        ("a: !!python/object:os.system x\n", "f.yaml:1:4: the tag !!python/object:os.system is not known"),
        ("a: !x {}\n", "f.yaml:1:4: the tag !x is not known"),
        ("? [a]\n: b\n", "f.yaml:1:3: a key must be a text"),
        ("a: {<<: 3}\n", 'f.yaml:1:9: "<<" merges a table'),
        ("[" * 90_000, "f.yaml:1:1001: not valid YAML"),
        ("a: " + "[" * 200 + "]" * 200, "f.yaml:1:104: nested more than 100 levels deep"),
        ("jobs: ~\n", "f.yaml:1:1: jobs: there are no jobs"),
        ("a: \x01\n", "f.yaml:1: not valid YAML"),
        ("3\n", "f.yaml:1:1: expected a table, got the number 3"),
    ],
)
def test_bad_yaml(text: str, problem: str) -> None:
    found = _problems(text, "f.yaml")
    assert any(each.startswith(problem) for each in found), found


def test_an_alias_bomb_is_refused() -> None:
    (found,) = _problems(BOMB, "f.yaml")
    assert "an alias bomb" in found


def test_yaml_places() -> None:
    assert _problems(
        """\
        jobs:
          j: &j
            rootfs: ./r
            run: x
            run: y
            env:
              A: [1]
              B:
            volumes:
              - a:/b
              - b
          k:
            <<: *j
            timeout: soon
        """,
        "f.yaml",
    ) == (
        "f.yaml:5:5: jobs.j.run: this key is there twice",
        "f.yaml:7:7: jobs.j.env.A: expected a text, a number, true or false, got a list",
        "f.yaml:7:7: jobs.k.env.A: expected a text, a number, true or false, got a list",
        "f.yaml:8:7: jobs.j.env.B: expected a text, a number, true or false, got nothing",
        "f.yaml:8:7: jobs.k.env.B: expected a text, a number, true or false, got nothing",
        'f.yaml:11:9: jobs.j.volumes[1]: expected "SRC:DST[:ro|rw]", got "b"',
        'f.yaml:11:9: jobs.k.volumes[1]: expected "SRC:DST[:ro|rw]", got "b"',
        'f.yaml:14:5: jobs.k.timeout: expected a duration such as "30s", "10m" or "1h30m", got "soon"',
    )


def test_toml_places_behind_every_kind_of_text() -> None:
    found = _problems(
        '''\
        # a comment with = and [brackets]
        name = """
        [jobs.no]
        "" \\"""
        """"
        description = \'\'\'
        x = 1\'\'\'
        [defaults]
        env."A".b = 1
        "timeout" = "x"  # = [
        [[jobs.j.volumes]]
        source = "a"
        target = "/a"
        [[jobs.j.volumes]]
        source = "b"
        target = "b"
        [jobs.j]
        '''
    )
    assert [problem.split(": ")[0] for problem in found[:2]] == ["f.toml:9:1", "f.toml:10:1"]


def test_toml_tables_in_a_list() -> None:
    found = _problems(
        """\
        [jobs.j]
        rootfs = "./r"
        run = '''
        [x]
        '''
        [[jobs.j.volumes]]
        source = "a"
        target = "/a"
        [[jobs.j.volumes]]
        source = "b"
        targt = "/b"
        [jobs.j.env]
        'q.r' = [1]
        """
    )
    assert found == (
        "f.toml:9:1: jobs.j.volumes[1]: target is missing: expected an absolute path in the container",
        'f.toml:11:1: jobs.j.volumes[1].targt: unknown key (did you mean "target"?)',
        'f.toml:13:1: jobs.j.env."q.r": expected a text, a number, true or false, got a list',
    )


def _paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, item in entries for each in ((*path, key), *_paths(item, (*path, key)))]


def test_every_key_and_item_has_a_place() -> None:
    toml = EXAMPLE + '[jobs.smoke."q.\\u0041".x]\ny = [{a = [[1], []]},\n {"b c".d = """\n""" }, # ]\n]\n'
    table = tomllib.loads(toml)
    assert set(_paths(table)) <= set(toml_places(toml))
    text = json.dumps(table, indent=1)
    places = json_places(text)
    assert set(_paths(table)) == set(places)
    assert all(text.startswith(json.dumps(path[-1]), at) for path, at in places.items() if isinstance(path[-1], str))


def test_crlf_moves_no_line() -> None:
    text = JOB.replace("\n", "\r\n") + 'timeout = "x"\r\n'
    assert _problems(text.encode())[0].startswith("f.toml:4:1: jobs.j.timeout")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (JOB, "toml"),
        ("# x\n\njobs.j.rootfs = './r'\njobs.j.run = 'x'\n", "toml"),
        ('{"jobs": {"j": {"rootfs": "./r", "run": "x"}}}', "json"),
        ("---\njobs: {j: {rootfs: ./r, run: a = b}}\n", "yaml"),
        ("jobs:\n  j: {rootfs: ./r, run: x}\n", "yaml"),
    ],
)
def test_the_notation_is_guessed_where_no_name_tells_it(text: str, kind: str) -> None:
    assert len(_load(text, "-").jobs) == 1
    assert load(text.encode(), path="jobs.txt", base="/b", format=kind) == _load(text, "jobs.txt")


def test_an_unknown_format_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="expected toml, yaml or json"):
        load(JOB.encode(), path="-", base="/b", format="ini")


def test_no_message_breaks_its_line() -> None:
    evil = 'version = "\\n::error::x"\n"a\\n::error::\\u001b[31m" = 1\n' + JOB + 'hostname = "\\n::error::"\n'
    evil += '[rootfs.alpine]\nsource = "x"\n[jobs.k]\nrootfs = "alp\\nine"\nrun = "x"\n'
    for problem in _problems(evil):
        assert problem.isprintable()


def test_a_flood_of_problems_is_cut() -> None:
    found = _problems(JOB + "".join(f"x{n} = 1\n" for n in range(1000)))
    assert len(found) == 201
    assert found[-1] == "f.toml: and 800 more"


def test_a_thousand_jobs_are_read_in_no_time() -> None:
    text = JOB + "[jobs.j.matrix]\n" + f"a = {list(range(1024))}\n"
    assert len(_load(text).jobs) == 1024


def test_the_package_itself_is_empty() -> None:
    import guntainer.jobs

    text = Path(guntainer.jobs.__file__).read_text()
    assert "import" not in text.replace("imported", "").replace("imports", "")


def test_where_each_job_stands_is_told_when_asked_for() -> None:
    text = b'[jobs.a]\nrootfs = "/x"\nrun = "true"\n\n[jobs.b]\nrootfs = "/x"\nrun = "true"\nmatrix = {n = [1, 2]}\n'
    assert load(text, path="jobs.toml", base="/b", placed=True).places == {
        "a": ("jobs.toml", 1),
        "b": ("jobs.toml", 5),
    }
    assert load(text, path="jobs.toml", base="/b").places == {}
