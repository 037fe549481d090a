"""`guntainer report`: each report again from a folder of results, two folders compared, and every mistake in one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import report_folders as folders
from conftest import ended_jobs

from guntainer import errors, report

PROJECT = Path(__file__).resolve().parent.parent.parent


def run(*words: object, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    options: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60, "env": environment, **settings}
    return subprocess.run([sys.executable, "-m", "guntainer", "report", *map(str, words)], **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    whole, logs = folders.matrix(20)
    return folders.write(tmp_path / "new", whole, logs)


def test_the_closing_table(results: Path) -> None:
    done = run(results)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].split() == ["JOB", "OUTCOME", "CODE", "TIME"]
    assert "20 jobs: " in done.stdout


def test_every_report_at_once(results: Path, tmp_path: Path) -> None:
    done = run(results, "--html", tmp_path / "p.html", "--junit", tmp_path / "j.xml", "--json", tmp_path / "r.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "j.xml").read_text().startswith("<?xml")
    again = ended_jobs((tmp_path / "r.json").read_text())
    assert len(again) == 20
    kept = json.loads((results / "build" / "result.json").read_text())
    (one,) = (one for one in again if one["id"] == "build")
    assert {key: one[key] for key in kept} == kept
    last = json.loads((tmp_path / "r.json").read_text().splitlines()[-1])
    assert (last["event"], last["jobs"]) == ("batch-finished", 20)
    assert sorted(os.listdir(tmp_path)) == ["j.xml", "new", "p.html", "r.json"]


def test_a_link_stays_a_link(results: Path, tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("<p>before")
    (tmp_path / "link.html").symlink_to("real.html")
    assert run(results, "--html", tmp_path / "link.html").returncode == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text().startswith("<!doctype html>")


def test_to_a_socket(results: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "guntainer", "report", str(results), "--junit", "-"], stdout=theirs, cwd=PROJECT
        )
        theirs.close()
        data = b"".join(iter(lambda: ours.recv(1 << 16), b""))
        assert process.wait(30) == 0
    assert data.startswith(b"<?xml")
    assert data.endswith(b"</testsuites>\n")


@pytest.mark.parametrize("option", ["--html", "--junit", "--json"])
def test_to_standard_output(results: Path, option: str, tmp_path: Path) -> None:
    assert len(run(results, option, "-").stdout) > 1000
    with (tmp_path / "out").open("w") as file:
        assert run(results, option, "-", stdout=file, capture_output=False).returncode == 0
    assert (tmp_path / "out").stat().st_size > 1000


def test_against_another(results: Path, tmp_path: Path) -> None:
    whole, logs = folders.matrix(20, seed=8)
    old = folders.write(tmp_path / "old", whole, logs)
    done = run(results, "--against", old, "--html", tmp_path / "p.html")
    assert (done.returncode, done.stdout) == (0, "")
    assert '"comparison":' in (tmp_path / "p.html").read_text()
    done = run(results, "--against", old)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(f"against {old}: ")


def test_against_itself(results: Path) -> None:
    told = run(results, "--against", results).stdout.splitlines()[-1]
    assert told == f"against {results}: 1 still failing; 2.71 s → 2.71 s"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the following arguments are required: DIR"),
        (["nowhere"], "nowhere: No such file or directory"),
        (["new", "--against", "nowhere"], "nowhere: No such file or directory"),
        (["new", "--html", "no/p.html"], "--html no/p.html: no: No such file or directory"),
        (["new", "--junit", "new"], "Is a directory"),
        (["new", "--junit", ""], "the name of the file is empty"),
        (["new", "--junit", "x", "--json", "./x"], "--junit and --json would both be written to"),
        (["new", "--htlm", "x"], "did you mean --html?"),
        (["new", "old"], "unknown argument"),
    ],
)
def test_mistakes(results: Path, tmp_path: Path, words: list[str], told: str) -> None:
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["new"]


def test_a_full_disk(results: Path) -> None:
    done = run(results, "--junit", "/dev/full")
    assert done.returncode == 125
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves(results: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(results, "--html", "-", stdout=write, stderr=subprocess.PIPE, capture_output=False)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


def test_damage_is_told_and_the_report_is_made(results: Path, tmp_path: Path) -> None:
    (results / "lint" / "result.json").write_text('{"id": "lint", ')
    (results / "build" / "stdout").unlink()
    done = run(results, "--html", tmp_path / "p.html", "--junit", tmp_path / "j.xml")
    assert done.returncode == 0
    assert [line.partition(": warning: ")[2].partition(": ")[2] for line in done.stderr.splitlines()] == [
        "lint/result.json: no valid JSON (line 1: Expecting property name enclosed in double quotes)",
        "build/stdout: is missing",
    ]
    for told in ("lint/result.json", "build/stdout: is missing"):
        assert told in (tmp_path / "p.html").read_text()


def test_help_and_completion() -> None:
    assert "--against" in run("--help").stdout


@pytest.mark.parametrize("env", ["GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION"])
def test_a_folder_from_elsewhere_commands_no_ci_system(tmp_path: Path, env: str) -> None:
    """Ids and reasons in there are anybody's, and a step that reports them may have rights that theirs had not."""
    bad = "::error file=a::pwned"
    whole = folders.batch(
        folders.result(bad).replace(exit=report.setup_failed(errors.HostError("##vso[task.setvariable]x"))),
        folders.result("##teamcity[x]"),
    )
    folder = folders.write(tmp_path / "r", whole)
    entry = {"id": bad, "folder": "##vso[y]"}
    (folder / "batch.json").write_text(json.dumps({"version": 1, "wall_ns": 1, "jobs": [entry, {"id": "##vso[z]"}]}))
    for words in ((), ("--json", "-")):
        done = run(folder, *words, env={**os.environ, "PYTHONPATH": str(PROJECT), env: "true"})
        assert done.returncode == 0 and "pwned" in done.stdout
        text = (done.stdout + done.stderr).replace("\r", "\n")
        assert "##vso[" not in text and "##teamcity[" not in text
        assert env != "GITHUB_ACTIONS" or not [line for line in text.split("\n") if line.lstrip().startswith("::")]


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = folders.write(tmp_path / "r", folders.batch(folders.result("a", wall_ns=1)))
    (folder / "batch.json").unlink()
    os.mkdir(os.fsencode(folder) + b"/\xff")
    done = run(folder)
    assert done.returncode == 0 and "1 job: 1 ok" in done.stdout and "UnicodeEncodeError" not in done.stderr


def test_one_long_name_does_not_widen_all_lines(tmp_path: Path) -> None:
    names = ["x" * 5000, *(f"job-{n}" for n in range(2000))]
    done = run(folders.write(tmp_path / "r", folders.batch(*map(folders.result, names))))
    assert done.returncode == 0 and "x" * 5000 in done.stdout and len(done.stdout) < 1 << 20


def test_as_many_attempts_as_anybody_reads(tmp_path: Path) -> None:
    folder = folders.write(tmp_path / "r", folders.batch(folders.result("a", wall_ns=1)))
    path = folder / "a" / "result.json"
    values = json.loads(path.read_text())
    values["attempts"] = [{"reason": "exit", "code": 1}] * 50_000
    path.write_text(json.dumps(values))
    done = run(folder, "--json", "-")
    assert len(ended_jobs(done.stdout)[0]["attempts"]) == 1000


def test_an_unknown_reason_has_its_place(tmp_path: Path) -> None:
    folder = folders.write(tmp_path / "r", folders.batch(folders.result("a", wall_ns=1)))
    path = folder / "a" / "result.json"
    path.write_text(path.read_text().replace('"reason": "exit"', '"reason": "ok"'))
    assert 'a/result.json: unknown reason "ok"' in run(folder).stderr


@pytest.mark.parametrize("option", ["--html", "--junit", "--json"])
def test_into_a_pipe_that_is_another_users(results: Path, option: str) -> None:
    """As that of whoever has started us by su or sudo: it is open already, whatever its mode says."""
    read, write = os.pipe()
    os.fchmod(write, 0)
    command = [sys.executable, "-m", "guntainer", "report", str(results), option, "-"]
    process = subprocess.Popen(command, stdout=write, env={**os.environ, "PYTHONPATH": str(PROJECT)})
    os.close(write)
    with open(read, "rb") as file:
        assert len(file.read()) > 1000
    assert process.wait(30) == 0


@pytest.mark.parametrize("option", ["--html", "--junit", "--json"])
def test_nothing_but_a_report_is_written_over(results: Path, tmp_path: Path, option: str) -> None:
    """A job file, or anything else that somebody has written."""
    path = tmp_path / "jobs.toml"
    path.write_text('[jobs.a]\nrun = "true"\n')
    done = run(results, option, path)
    assert done.returncode == 2 and f"{option} {path}: is there already, and is no such report" in done.stderr
    assert path.read_text().startswith("[jobs.a]")
    path.write_text("")
    for _ in range(2):
        assert run(results, option, path).returncode == 0
        assert path.stat().st_size > 1000


def test_no_report_among_a_jobs_results(results: Path) -> None:
    job = next(path.parent for path in results.glob("*/result.json"))
    before = (job / "stdout").read_bytes()
    for name in ("stdout", "new.html", "artifacts/x.html"):
        done = run(results, "--html", job / name)
        assert done.returncode == 2 and "that is among a job's results" in done.stderr
    assert (job / "stdout").read_bytes() == before
