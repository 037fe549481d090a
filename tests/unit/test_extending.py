"""`extends`: what a job file takes over from others, what a job takes over from other jobs, and where mistakes are placed."""

from __future__ import annotations

import json
import textwrap

import pytest

from guntainer.errors import JobFileError
from guntainer.jobs import extending
from guntainer.jobs.load import JobFile, load
from guntainer.jobs.parse import LARGEST_BYTES

Files = dict[str, str | bytes | OSError]


def _read(files: Files, path: str) -> bytes:
    found = files.get(path)
    if found is None:
        raise FileNotFoundError(2, "No such file or directory", path)
    if isinstance(found, OSError):
        raise found
    return found if isinstance(found, bytes) else textwrap.dedent(found).encode()


def _load(text: str, files: Files | None = None, *, path: str = "dir/main.toml", base: str = "/p/dir") -> JobFile:
    return load(textwrap.dedent(text).encode(), path=path, base=base, read=lambda at: _read(files or {}, at))


def _problems(text: str, files: Files | None = None, **how: str) -> tuple[str, ...]:
    with pytest.raises(JobFileError) as caught:
        _load(text, files, **how)
    assert caught.value.exit_code == 2
    return caught.value.problems


JOB = '[jobs.j]\nrootfs = "r"\nrun = "true"\n'
COMMON = """
version = 1
fail_fast = true
[defaults]
rootfs = "alpine"
timeout = "5m"
volumes = [".:/src"]
env = { A = "common", B = "common" }
[rootfs.alpine]
source = "alpine.tar"
max-entries = 5
[jobs.test]
run = "make test"
matrix = { v = [1, 2], w = [3] }
[jobs.lint]
run = "make lint"
"""


class TestFiles:
    def test_a_file_is_merged_before(self) -> None:
        text = """
            extends = "../common/base.toml"
            [defaults]
            timeout = "1m"
            env = { B = "own" }
            [rootfs.alpine]
            source = "other.tar"
            [jobs.test]
            stdin = "input"
            matrix = { v = [9] }
            """
        found = _load(text, {"/p/common/base.toml": COMMON})
        assert [job.id for job in found.jobs] == ["test (9, 3)", "lint"]
        test, lint = found.jobs
        assert found.fail_fast
        assert found.extends == ("/p/common/base.toml",)
        assert (test.timeout_s, lint.timeout_s) == (60, 60)
        assert dict(lint.env) == {"A": "common", "B": "own"}
        assert test.command[-1] == "make test"
        # paths are seen from the file in which they stand
        assert test.rootfs.location == "/p/dir/other.tar"
        assert test.rootfs.limits is not None and test.rootfs.limits[1] == 5
        assert test.mounts[0].source == "/p/common"
        assert test.stdin == "/p/dir/input"

    def test_a_rootfs_of_the_other_file_lies_beside_it(self) -> None:
        found = _load('extends = ["/q/base.toml"]\n[jobs.mine]\nrun = "x"', {"/q/base.toml": COMMON})
        assert {job.rootfs.location for job in found.jobs} == {"/q/alpine.tar"}
        assert list(dict.fromkeys(job.key for job in found.jobs)) == ["test", "lint", "mine"]

    def test_later_files_win(self) -> None:
        files: Files = {
            "/p/dir/a.toml": "max-parallel = 1\n[defaults]\ntimeout = 1\nmemory = '10m'",
            "/p/dir/b.yaml": "max_parallel: 2\ndefaults: {timeout: 2}",
            "/p/dir/c.json": json.dumps({"defaults": {"timeout": 3}}),
        }
        assert _load(f'extends = ["a.toml", "b.yaml"]\n{JOB}', files).max_parallel == 2
        (job,) = _load(f'extends = ["a.toml", "b.yaml", "c.json"]\n{JOB}', files).jobs
        assert (job.timeout_s, job.limits.memory_bytes) == (3, 10 << 20)
        (job,) = _load(f'extends = ["c.json", "b.yaml", "a.toml"]\n{JOB}', files).jobs
        assert job.timeout_s == 1

    def test_a_file_that_is_reached_twice_is_merged_once(self) -> None:
        files: Files = {
            "/p/dir/base.toml": "[defaults]\ntimeout = 1\nuser = 'base'",
            "/p/dir/a.toml": 'extends = "base.toml"\n[defaults]\ntimeout = 2',
            "/p/dir/b.toml": 'extends = "base.toml"\n[defaults]\nworkdir = "/b"',
        }
        (job,) = _load(f'extends = ["a.toml", "b.toml"]\n{JOB}', files).jobs
        assert (job.timeout_s, job.user, job.workdir) == (2, "base", "/b")

    def test_a_script_replaces_a_command(self) -> None:
        files: Files = {"/p/dir/a.toml": '[jobs.j]\nrootfs = "r"\ncommand = ["a"]\n[defaults]\nrun = "b"'}
        (job,) = _load('extends = "a.toml"\n[jobs.j]\nrun = "mine"', files).jobs
        assert job.command[-1] == "mine"

    def test_a_table_is_seen_from_where_its_path_stands(self) -> None:
        files: Files = {"/q/a.toml": "[rootfs.r]\nsource = 'x.tar'\n[jobs.j]\nrootfs = 'r'\nrun = 'x'"}
        (job,) = _load('extends = "/q/a.toml"\n[rootfs.r]\nmax_entries = 7', files).jobs
        assert job.rootfs.location == "/q/x.tar"

    def test_mistakes_are_placed_in_their_file(self) -> None:
        files: Files = {
            "/p/dir/base.toml": """
                [defaults]
                timeout = "soon"
                [jobs.a]
                rootfs = "r"
                run = "x"
                nonsense = 1
                user = "u"
                """
        }
        found = _problems('extends = "base.toml"\n[jobs.a]\nuser = 5.5\n[jobs.b]\nrootfs="r"', files)
        assert found == (
            "dir/main.toml:4:1: jobs.b: there is neither command nor run: expected one of them;"
            " command = [] is the image's own",
            'dir/base.toml:3:1: defaults.timeout: expected a duration such as "30s", "10m" or "1h30m", got "soon"',
            "dir/base.toml:7:1: jobs.a.nonsense: unknown key",
        )

    def test_what_can_not_be_read_is_named(self) -> None:
        files: Files = {"/p/dir/closed.toml": PermissionError(13, "Permission denied")}
        text = f'extends = ["none.toml", "closed.toml", 5, "", "~nobody"]\n{JOB}'
        assert _problems(text, files) == (
            'dir/main.toml:1:12: extends[0]: "none.toml": No such file or directory',
            'dir/main.toml:1:25: extends[1]: "closed.toml": Permission denied',
            "dir/main.toml:1:40: extends[2]: expected the path of a job file, or a list of them, got the number 5",
            'dir/main.toml:1:43: extends[3]: expected the path of a job file, or a list of them, got the text ""',
            'dir/main.toml:1:47: extends[4]: "~nobody": No such file or directory',
        )

    def test_what_can_not_be_read_of_the_other_file(self) -> None:
        files: Files = {"/p/dir/a.yaml": "extends: [b.toml]\n", "/p/dir/c.toml": "x = ["}
        assert _problems(f'extends = "a.yaml"\n{JOB}', files) == (
            'dir/a.yaml:1:11: extends[0]: "b.toml": No such file or directory',
        )
        (line,) = _problems(f'extends = "c.toml"\n{JOB}', files)
        assert line.startswith("dir/c.toml:1:")

    def test_a_key_that_is_there_twice_in_the_other_file(self) -> None:
        found = _problems(f'extends = "a.json"\n{JOB}', {"/p/dir/a.json": '{"version": 1,\n "version": 1}'})
        assert found == ("dir/a.json:2:2: version: this key is there twice",)

    def test_nothing_is_read_where_nothing_may_be(self) -> None:
        with pytest.raises(JobFileError, match="no other file can be read here"):
            load(f'extends = "a.toml"\n{JOB}'.encode(), path="f.toml", base="/b")

    @pytest.mark.parametrize("name", ["main.toml", "./main.toml", "../dir/main.toml", "/p/dir/main.toml"])
    def test_itself(self, name: str) -> None:
        (line,) = _problems(f'extends = "{name}"\n{JOB}')
        assert line == "dir/main.toml:1:1: extends: files that extend each other: main.toml → main.toml"

    def test_a_circle_is_named(self) -> None:
        files: Files = {"/p/dir/a.toml": 'extends = "b.toml"', "/p/dir/b.toml": 'extends = ["a.toml"]'}
        assert _problems(f'extends = "a.toml"\n{JOB}', files) == (
            "dir/b.toml:1:12: extends[0]: files that extend each other: a.toml → b.toml → a.toml",
        )

    def test_depth_and_number_are_bounded(self) -> None:
        chain: Files = {f"/p/dir/{n}.toml": f'extends = "{n + 1}.toml"' for n in range(100)}
        (line,) = _problems(f'extends = "0.toml"\n{JOB}', chain)
        assert line == "dir/9.toml:1:1: extends: more than 10 files that extend one another"
        chain["/p/dir/9.toml"] = "version = 1"
        assert len(_load(f'extends = "0.toml"\n{JOB}', chain).jobs) == 1
        many: Files = {f"/p/dir/{n}.toml": "version = 1" for n in range(60)}
        names = json.dumps([f"{n}.toml" for n in range(50)])
        assert len(_load(f"extends = {names}\n{JOB}", many).jobs) == 1
        names = json.dumps([f"{n}.toml" for n in range(51)])
        (line,) = _problems(f"extends = {names}\n{JOB}", many)
        assert line.endswith("extends[50]: more than 50 files are extended")

    def test_size_is_bounded(self) -> None:
        half = b"#" * (LARGEST_BYTES // 2)
        files: Files = {"/p/dir/a.toml": half, "/p/dir/b.toml": half, "/p/dir/big.toml": half * 3}
        (line,) = _problems(f'extends = "big.toml"\n{JOB}', files)
        assert "larger than 10 MB" in line
        files = {f"/p/dir/{name}.toml": half + b"\nversion = 1" for name in "ab"}
        (line,) = _problems(f'extends = ["a.toml", "b.toml"]\n{JOB}', files)
        assert line == 'dir/main.toml:1:22: extends[1]: "b.toml": all files together are larger than 10 MB'

    def test_a_file_that_is_no_table(self) -> None:
        assert len(_load(f'extends = "a.yaml"\n{JOB}', {"/p/dir/a.yaml": "- 1\n"}).jobs) == 1


class TestJobs:
    def test_own_keys_win(self) -> None:
        text = """
            [jobs.".base"]
            rootfs = "r"
            run = "base"
            timeout = 5
            env = { A = "base", B = "base" }
            matrix = { v = [1, 2] }
            volumes = ["a:/a"]
            [jobs.test]
            extends = ".base"
            timeout = 7
            env = { B = "own" }
            [jobs.other]
            extends = ".base"
            command = ["mine"]
            matrix = { w = [1] }
            volumes = ["b:/b"]
            """
        found = _load(text)
        assert [job.id for job in found.jobs] == ["test (1)", "test (2)", "other (1)"]
        test, _, other = found.jobs
        assert (test.timeout_s, dict(test.env), test.command[-1]) == (7, {"A": "base", "B": "own"}, "base")
        assert (other.command, [mount.target for mount in other.mounts]) == (("mine",), ["/b"])

    def test_of_a_job_that_runs_itself(self) -> None:
        found = _load('[jobs.a]\nrootfs = "r"\nrun = "a"\n[jobs.b]\nextends = "a"\nrun = "b"')
        assert [(job.id, job.command[-1]) for job in found.jobs] == [("a", "a"), ("b", "b")]

    def test_several_the_last_one_wins(self) -> None:
        text = """
            [jobs.".a"]
            rootfs = "a"
            user = "a"
            env = { X = "a", Y = "a" }
            [jobs.".b"]
            extends = ".c"
            user = "b"
            env = { X = "b" }
            [jobs.".c"]
            run = "c"
            user = "c"
            [jobs.j]
            extends = [".a", ".b"]
            """
        (job,) = _load(text).jobs
        assert (job.rootfs.name, job.user, job.command[-1], dict(job.env)) == ("a", "b", "c", {"X": "b", "Y": "a"})

    def test_a_job_of_another_file(self) -> None:
        base = '[jobs.".base"]\nrootfs = "r.tar"\nrun = "x"\nstdin = "in"\nuser = "a b"'
        (line,) = _problems('extends = "/q/b.toml"\n[jobs.j]\nextends = ".base"', {"/q/b.toml": base})
        assert line.startswith('/q/b.toml:5:1: jobs.".base".user: ')
        (job,) = _load('extends = "/q/b.toml"\n[jobs.j]\nextends = ".base"\nuser = "u"', {"/q/b.toml": base[:-13]}).jobs
        assert (job.stdin, job.rootfs.location) == ("/q/in", "/q/r.tar")

    def test_a_mistake_is_told_once_and_where_it_stands(self) -> None:
        text = """
            [jobs.".base"]
            rootfs = "r"
            timeout = "soon"
            env = { "A B" = 1, C = [] }
            [jobs.a]
            extends = ".base"
            run = "x"
            env = { C = "fine" }
            [jobs.b]
            extends = ".base"
            run = "x"
            env = { D = [] }
            """
        found = _problems(text)
        assert [line.split(": ")[:2] for line in found] == [
            ["dir/main.toml:4:1", 'jobs.".base".timeout'],
            ["dir/main.toml:5:9", 'jobs.".base".env."A B"'],
            ["dir/main.toml:5:20", 'jobs.".base".env.C'],
            ["dir/main.toml:13:9", "jobs.b.env.D"],
        ]

    def test_a_template_that_nobody_takes_is_read_all_the_same(self) -> None:
        text = JOB + '[jobs.".t"]\nnonsense = 1\ntimeout = "soon"\nmatrix = []\ncommand = ["a"]\nrun = "b"'
        found = _problems(text)
        assert [line.split(": ")[1] for line in found] == [
            'jobs.".t".nonsense',
            'jobs.".t".timeout',
            'jobs.".t".matrix',
            'jobs.".t".run',
        ]

    def test_templates_alone_are_no_jobs(self) -> None:
        (line,) = _problems('[jobs.".t"]\nrun = "x"')
        assert "only templates" in line

    @pytest.mark.parametrize("key", ["..", ".", ".a b"])
    def test_names_of_templates(self, key: str) -> None:
        assert any("can not name a job" in line for line in _problems(f'{JOB}[jobs."{key}"]\nrun = "x"'))

    def test_who_is_not_there(self) -> None:
        text = '[jobs.".base"]\nrootfs = "r"\nrun = "x"\n[jobs.j]\nextends = [".bas", 5]\nrootfs = "r"\nrun = "x"'
        assert _problems(text) == (
            'dir/main.toml:5:12: jobs.j.extends[0]: there is no job ".bas" (did you mean ".base"?)',
            "dir/main.toml:5:20: jobs.j.extends[1]: expected a job's name, or a list of them, got the number 5",
        )

    def test_circles_are_named(self) -> None:
        text = """
            [jobs.a]
            extends = "b"
            rootfs = "r"
            run = "x"
            [jobs.b]
            extends = ["c"]
            [jobs.c]
            extends = "a"
            [jobs.d]
            extends = "d"
            run = "x"
            rootfs = "r"
            """
        found = _problems(text)
        assert "dir/main.toml:9:1: jobs.c.extends: jobs that extend each other: a → b → c → a" in found
        assert "dir/main.toml:11:1: jobs.d.extends: jobs that extend each other: d → d" in found

    @pytest.mark.parametrize("order", [1, -1])
    def test_depth_is_bounded_in_whatever_order_they_stand(self, order: int) -> None:
        def text(depth: int) -> str:
            jobs = [f'[jobs.j{n}]\nextends = "j{n - 1}"' for n in range(1, depth)]
            return "\n".join(['[jobs.j0]\nrootfs = "r"\nrun = "x"', *jobs][::order])

        assert len(_load(text(10)).jobs) == 10
        assert any("more than 10 jobs that extend one another" in line for line in _problems(text(11)))
        assert any("more than 10 jobs" in line for line in _problems(text(5000)))

    def test_of_something_that_is_no_job(self) -> None:
        found = _problems('[jobs]\na = 1\n[jobs.b]\nextends = "a"\nrootfs = "r"\nrun = "x"')
        assert found == (
            "dir/main.toml:2:1: jobs.a: expected a table, got the number 1",
            'dir/main.toml:4:1: jobs.b.extends: "a" is no job',
        )

    def test_underscores(self) -> None:
        text = '[jobs.".t"]\nstop_timeout = 5\nrootfs = "r"\nrun = "x"\n[jobs.j]\nextends = ".t"\nstop-timeout = 7'
        (job,) = _load(text).jobs
        assert job.stop_timeout_s == 7

    def test_yaml_and_json(self) -> None:
        (job,) = _load("jobs: {.t: {rootfs: r, run: x}, j: {extends: .t}}", path="a.yaml").jobs
        assert job.key == "j"
        (job,) = _load('{"jobs": {".t": {"rootfs": "r", "run": "x"}, "j": {"extends": [".t"]}}}', path="a.json").jobs
        assert job.key == "j"


def test_the_bounds_are_those_that_are_told() -> None:
    assert (extending.DEEPEST, extending.MOST_FILES) == (10, 50)
