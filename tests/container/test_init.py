"""`guntainer init` and `guntainer schema`: what they write, that it passes, runs, and never takes the place of another file."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from guntainer.cli import init
from guntainer.errors import UsageError
from guntainer.jobs.load import JobFile, load
from guntainer.jobs.names import folder_name
from guntainer.starter import archives, project
from tests.conftest import Run

PYPROJECT = """
[project]
name = "x"
requires-python = ">=3.11"
classifiers = ["Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.12"]
[tool.pytest.ini_options]
"""
FOLDERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nothing": ({}, {"hello": "cat /etc/os-release"}),
    "make": ({"Makefile": "all:\n\techo\ntest: all\n\techo tested\n"}, {"make": "make test"}),
    "make check": ({"GNUmakefile": "check::\n\techo\ntest := 5\n"}, {"make": "make check"}),
    "make without a test": ({"Makefile": "test := 5\nall:\n\techo\n"}, {"hello": "cat /etc/os-release"}),
    "pytest": ({"pyproject.toml": PYPROJECT}, {"pytest": "python3 -m pytest"}),
    "unittest": (
        {"pyproject.toml": "[project]\nname = 'x'", "tests/test_x.py": ""},
        {"unittest": "python3 -m unittest"},
    ),
    "hatch": ({"pyproject.toml": "[tool.hatch.envs.dev.scripts]\ntest = 'pytest'"}, {"hatch": "hatch run dev:test"}),
    "tox in pyproject": ({"pyproject.toml": "[tool.tox]\nlegacy_tox_ini = 'x'\n[tool.pytest]"}, {"tox": "tox"}),
    "tox": ({"tox.ini": "[tox]\nenvlist =\n  py{311,312}-{a,b}\n  lint # x\n[testenv]\n"}, {"tox": "tox -e py311-a"}),
    "tox twice": ({"tox.ini": "[tox]\nenvlist = a, A, py{X,x}\n"}, {"tox": "tox -e a"}),
    "tox without a list": ({"tox.ini": "[testenv]\ncommands = x\n", "pyproject.toml": PYPROJECT}, {"tox": "tox"}),
    "npm": ({"package.json": '{"scripts": {"test": "jest"}}', "package-lock.json": "{}"}, {"npm": "npm test"}),
    "pnpm": ({"package.json": '{"scripts": {"test": "jest"}}', "pnpm-lock.yaml": ""}, {"pnpm": "pnpm test"}),
    "npm init": (
        {"package.json": json.dumps({"scripts": {"test": 'echo "Error: no test specified" && exit 1'}})},
        {"hello": "cat /etc/os-release"},
    ),
    "cargo": ({"Cargo.toml": "[package]"}, {"cargo": "cargo test"}),
    "go": ({"go.mod": "module x"}, {"go": "go test ./..."}),
    "many": (
        {"Makefile": "test:\n\ttrue\n", "pyproject.toml": PYPROJECT, "Cargo.toml": "", "go.mod": ""},
        {"pytest": "python3 -m pytest", "make": "make test", "cargo": "cargo test", "go": "go test ./..."},
    ),
    "damaged": (
        {
            "pyproject.toml": "[",
            "package.json": "[" * 100_000,
            "Makefile": "\x00\xff",
            "tox.ini": "[tox]\nenvlist = {{{}",
        },
        {"tox": "tox"},
    ),
}


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def read(folder: Path) -> JobFile:
    return load((folder / "jobs.toml").read_bytes(), path="jobs.toml", base=str(folder))


@pytest.mark.parametrize(("files", "jobs"), FOLDERS.values(), ids=FOLDERS)
def test_what_is_in_a_folder(guntainer: Run, tmp_path: Path, files: dict[str, str], jobs: dict[str, str]) -> None:
    folder = fill(tmp_path / "project", files) if files else tmp_path / "project"
    folder.mkdir(exist_ok=True)
    done = guntainer("init", folder)
    assert done.returncode == 0, done.stderr
    checked = guntainer("batch", "--check", folder / "jobs.toml")
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
    found = {job.key: job for job in reversed(read(folder).jobs)}
    assert set(found) == set(jobs)
    for key, script in jobs.items():
        lines = found[key].command[-1].splitlines()
        assert any(line.startswith(script) for line in lines), lines
        assert (found[key].rootfs.kind, found[key].workdir) == ("host", "/workspace")


def test_what_can_not_be_understood_is_named(tmp_path: Path) -> None:
    found = project.look(str(fill(tmp_path, FOLDERS["damaged"][0])))
    assert [note.partition(":")[0] for note in found.notes] == ["pyproject.toml", "package.json"]
    assert all(note.isprintable() for note in found.notes)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "Makefile")
    os.mkfifo(tmp_path / "x.tar.gz")
    assert project.look(str(tmp_path)).tests == ()
    assert archives.look(str(tmp_path)) == ()


def test_a_folder_is_no_file_of_a_project(guntainer: Run, home: Path) -> None:
    for name in ("Makefile", "tox.ini", "package.json"):
        (home / "work" / name).mkdir()
    done = guntainer("init")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert [job.key for job in read(home / "work").jobs] == ["hello"]


@pytest.mark.parametrize("what", ["folder", "fifo", "file"])
def test_no_descriptor_is_left(tmp_path: Path, what: str) -> None:
    path = tmp_path / "Makefile"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("test:\n")
    before = os.listdir("/proc/self/fd")
    if what == "file":
        assert init._workflow(str(path)) == b"test:\n"
    else:
        with pytest.raises(UsageError, match="Is a directory" if what == "folder" else "it is not a file"):
            init._workflow(str(path))
    assert len(project.look(str(tmp_path)).tests) == (1 if what == "file" else 0)
    assert os.listdir("/proc/self/fd") == before


def test_it_runs_at_once(guntainer: Run, home: Path) -> None:
    folder = fill(home / "work", {"Makefile": "test:\n\t@echo tested in $$PWD\n"})
    if shutil.which("make") is None:
        (folder / "Makefile").unlink()
    assert guntainer("init").stderr == "guntainer: jobs.toml: written; next: guntainer batch\n"
    done = guntainer("batch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/workspace" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == sorted({"Makefile", "jobs.toml"} & set(os.listdir(folder)))


def test_archives_become_an_axis(guntainer: Run, home: Path, small_archive: Path) -> None:
    folder = home / "work"
    (folder / "rootfs").mkdir()
    for name in ("debian-12.tar.gz", "rootfs/a b.tar.gz", "rootfs/alpine-minirootfs-3.20-aarch64.tar.gz"):
        shutil.copy(small_archive, folder / name)
    (folder / "notes.tar.gz").write_text("no archive")
    with tarfile.open(folder / "project-1.0.tar.gz", "w:gz") as archive:
        for name in ("setup.py", "bin", "lib", "etc"):
            archive.addfile(tarfile.TarInfo(f"project-1.0/{name}"))
    unpacked = folder / "images" / "unpacked"
    for name in ("bin", "etc", "usr"):
        (unpacked / name).mkdir(parents=True)
    fill(folder, {"Makefile": "test:\n\ttrue\n"})
    assert guntainer("init").returncode == 0
    jobs = read(folder).jobs
    assert [job.id for job in jobs] == ["make (debian-12)", "make (a-b)", "make (unpacked)"]
    assert [Path(job.rootfs.location).name for job in jobs] == ["debian-12.tar.gz", "a b.tar.gz", "unpacked"]
    assert "# [rootfs.alpine-3-20]" in (folder / "jobs.toml").read_text()
    assert guntainer("batch", "--check").returncode == 0


def test_archives_that_differ_in_case_alone(guntainer: Run, home: Path, small_archive: Path) -> None:
    for name in ("a.tar.gz", "A.tar.gz", "HOST.tar.gz"):
        shutil.copy(small_archive, home / "work" / name)
    assert guntainer("init").returncode == 0
    assert [job.id for job in read(home / "work").jobs] == ["hello (A)", "hello (HOST-2)", "hello (a-2)"]
    assert guntainer("batch", "--check").returncode == 0


def test_paths_that_look_like_expressions(guntainer: Run, home: Path, small_archive: Path) -> None:
    shutil.copy(small_archive, home / "work" / "${{ matrix.x }}.tar.gz")
    assert guntainer("init").returncode == 0
    text = (home / "work" / "jobs.toml").read_text()
    assert '# source = "./${{ matrix.x }}.tar.gz"\n# left out: no path in a job file can hold ${{' in text
    assert [job.rootfs.kind for job in read(home / "work").jobs] == ["host"]
    folder = home / "${{ matrix.y }}"
    folder.mkdir()
    shutil.copy(small_archive, folder / "a.tar.gz")
    done = guntainer("init", folder, "-o", "other.toml")
    assert (done.returncode, guntainer("batch", "--check", "other.toml").returncode) == (0, 0)
    fill(folder, {"ci.yml": WORKFLOW})
    done = guntainer("init", folder, "--from-github", folder / "ci.yml", "-o", "third.toml")
    assert (done.returncode, guntainer("batch", "--check", "third.toml").returncode) == (0, 0)


def test_nothing_is_written_that_would_be_wrong(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guntainer.starter.writing._hello", lambda names: ["[jobs.hello]"])
    with pytest.raises(UsageError, match=r"^init \.: no job file can be made of what is here: .*rootfs is missing"):
        init.main([])
    assert os.listdir(home / "work") == []


def test_a_rootfs_for_each_python(guntainer: Run, home: Path, small_archive: Path) -> None:
    folder = fill(home / "work", {"pyproject.toml": PYPROJECT})
    for name in ("python-3.11.tar.gz", "python3.12.tar.gz", "other.tar.gz"):
        shutil.copy(small_archive, folder / name)
    assert guntainer("init").returncode == 0
    assert [job.id for job in read(folder).jobs] == ["pytest (python-3-11)", "pytest (python3-12)"]


def test_versions_of_python_are_a_comment_without(guntainer: Run, home: Path) -> None:
    folder = fill(home / "work", {"pyproject.toml": PYPROJECT})
    assert guntainer("init").returncode == 0
    assert '# python = ["3.11", "3.12"]' in (folder / "jobs.toml").read_text()


def test_real_rootfs(guntainer: Run, home: Path, distributions: Path) -> None:
    (home / "work" / "rootfs").symlink_to(distributions)
    assert guntainer("init").returncode == 0
    keys = {job.rootfs.name for job in read(home / "work").jobs}
    assert any(key.startswith("alpine-3") for key in keys)
    assert guntainer("batch", "--check").returncode == 0


class TestWriting:
    def test_never_over_another_file(self, guntainer: Run, home: Path) -> None:
        (home / "work" / "jobs.toml").write_text("mine")
        done = guntainer("init")
        assert done.returncode == 2
        assert done.stderr == (
            "guntainer: error: init: ./jobs.toml is there already; -o FILE writes another one, --force replaces it\n"
        )
        assert (home / "work" / "jobs.toml").read_text() == "mine"
        assert guntainer("init", "--force", "-q").stderr == ""
        assert (home / "work" / "jobs.toml").read_text().startswith("# Jobs for")
        assert os.listdir(home / "work") == ["jobs.toml"]

    def test_nor_beside_one_of_another_kind(self, guntainer: Run, home: Path) -> None:
        (home / "work" / "jobs.yaml").write_text("mine")
        done = guntainer("init")
        assert (done.returncode, "jobs.yaml is there already" in done.stderr) == (2, True)
        assert guntainer("init", "-o", "other.toml").stderr.endswith(
            "other.toml: written; next: guntainer batch other.toml\n"
        )

    def test_a_dangling_link_is_a_file(self, guntainer: Run, home: Path) -> None:
        (home / "work" / "jobs.toml").symlink_to("elsewhere")
        assert guntainer("init").returncode == 2
        assert not (home / "work" / "elsewhere").exists()

    def test_standard_output(self, guntainer: Run, home: Path) -> None:
        done = guntainer("init", "-o", "-")
        assert (done.returncode, done.stderr) == (0, "")
        checked = guntainer("batch", "--check", "-", input=done.stdout)
        assert checked.returncode == 0
        assert os.listdir(home / "work") == []

    def test_elsewhere_the_folder_is_still_meant(self, guntainer: Run, home: Path) -> None:
        folder = fill(home / "project", {"Makefile": "test:\n\ttrue\n"})
        (home / "work" / "ci").mkdir()
        assert guntainer("init", folder, "-o", "ci/jobs.toml").returncode == 0
        (job,) = read(home / "work" / "ci").jobs
        assert job.workspace is not None
        assert os.path.samefile(job.workspace.source, folder)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["none"], "init none: No such file or directory"),
            (["-o", "none/jobs.toml"], "none/jobs.toml: No such file or directory"),
            (["-o", "."], "is there already"),
            (["-o", ".", "--force"], ".: Is a directory"),
            (["--from-github", "none.yml"], "--from-github none.yml: No such file or directory"),
            (["--from-github", "."], "--from-github .: Is a directory"),
            (["a", "b"], "unknown argument 'b'"),
            (["--forse"], "did you mean --force?"),
        ],
    )
    def test_what_can_not_be(self, guntainer: Run, home: Path, words: list[str], told: str) -> None:
        done = guntainer("init", *words)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
        assert os.listdir(home / "work") == []

    def test_a_folder_that_is_closed(self, guntainer: Run, home: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (home / "work").chmod(0o500)
        done = guntainer("init")
        (home / "work").chmod(0o700)
        assert (done.returncode, "Permission denied" in done.stderr) == (2, True)

    def test_no_room(self, guntainer: Run, home: Path) -> None:
        done = guntainer("init", "-o", "/dev/full")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        done = guntainer("init", "-o", "/dev/full", "--force")
        assert (done.returncode, "No space left on device" in done.stderr) == (125, True)


WORKFLOW = """
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    container: host
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-go@v5
      - run: echo tested
"""


def test_from_github(guntainer: Run, home: Path) -> None:
    fill(home / "work", {".github/workflows/ci.yml": WORKFLOW})
    done = guntainer("init", "--from-github", ".github/workflows/ci.yml")
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == (
        "guntainer: warning: .github/workflows/ci.yml:9:9: jobs.test.steps[1].uses: left out: actions/setup-go@v5:"
        " actions do not run here; write what it does"
    )
    assert len(done.stderr.splitlines()) == 2
    assert guntainer("batch", "--check").returncode == 0


def test_from_github_runs(guntainer: Run, home: Path) -> None:
    text = WORKFLOW.replace("    container: host\n", "").replace("ubuntu-latest", "self-hosted")
    fill(home / "work", {"ci.yml": text})
    assert guntainer("init", "--from-github", "ci.yml").returncode == 0
    done = guntainer("batch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tested" in done.stdout


STEPS = """
on: push
jobs:
  test:
    runs-on: self-hosted
    strategy: {fail-fast: false, matrix: {flags: ['-DX="a b" -DY=$HOME', '"a b"', '$(echo run)']}}
    steps:
      - run: |
          # nothing yet
      - {run: "echo 'A=b c' >> $GITHUB_ENV; printf 'B=$d' >> $GITHUB_ENV"}
      - {run: "false\\necho GOES-ON", continue-on-error: true}
      - {run: "cat <<EOF\\nopen $A $B"}
      - {run: 'echo "flags: $FLAGS"', if: "matrix.flags != ''", env: {FLAGS: "${{ matrix.flags }}"}}
      - {run: "print('python')", shell: python, working-directory: /}
      - {run: "sudo echo root \\\\"}
      - {run: "false | true; echo GOES-ON", shell: bash}
"""


def test_steps_run_as_on_github(guntainer: Run, home: Path) -> None:
    fill(home / "work", {"ci.yml": STEPS})
    done = guntainer("init", "--from-github", "ci.yml")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    done = guntainer("batch", "--results", home / "out")
    assert done.returncode == 1, done.stdout + done.stderr
    for job, flags in zip(read(home / "work").jobs, ('-DX="a b" -DY=$HOME', '"a b"', "$(echo run)"), strict=True):
        out = (home / "out" / folder_name(job.id) / "stdout").read_text()
        assert out.splitlines() == ["open b c $d", f"flags: {flags}", "python", "root"], out


class TestSchema:
    def test_printed(self, guntainer: Run) -> None:
        done = guntainer("schema")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def test_written(self, guntainer: Run, home: Path) -> None:
        for _ in range(2):
            assert guntainer("schema", "-o", "schema.json").returncode == 0
        assert os.listdir(home / "work") == ["schema.json"]
        assert json.loads(Path("schema.json").read_text())["title"]

    def test_what_can_not_be(self, guntainer: Run, home: Path) -> None:
        assert guntainer("schema", "-o", "none/x").returncode == 2
        assert guntainer("schema", "x").returncode == 2
        assert guntainer("schema", "-o", "/dev/full").returncode == 125


class TestBatch:
    """What `batch` makes of --set and `extends`."""

    FILE = 'extends = "common.toml"\n[jobs.j]\nrun = "echo $A-${{ matrix.v }}"\nmatrix = { v = [1] }\n'

    def test_set_and_extends(self, guntainer: Run, home: Path) -> None:
        files = {"jobs.toml": self.FILE, "common.toml": '[defaults]\nrootfs = "host"\nenv = { A = "x" }\n'}
        fill(home / "work", files)
        done = guntainer("batch", "--set", "env.A=set", "--set", "matrix.v=5,6", "--set", "defaults.timeout=1m")
        assert done.returncode == 0, done.stdout + done.stderr
        assert {"set-5", "set-6"} <= set(done.stdout.split())

    def test_mistakes(self, guntainer: Run, home: Path) -> None:
        fill(home / "work", {"jobs.toml": self.FILE})
        done = guntainer("batch", "--check")
        assert (done.returncode, done.stderr) == (
            2,
            'guntainer: error: jobs.toml:1:1: extends: "common.toml": No such file or directory\n',
        )
        os.mkfifo("common.toml")
        assert "not a file" in guntainer("batch", "--check").stderr
        done = guntainer("batch", "--check", "--set", "nonsense")
        assert (done.returncode, done.stderr.startswith("guntainer: error: --set nonsense: expected ")) == (2, True)
