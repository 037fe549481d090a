"""`guntainer batch --html --junit --results`: the reports of a real batch, and what becomes of them when something is in the way."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

JOBS = """
name = "nightly"
[defaults]
rootfs = "small"
[jobs.t]
run = "echo out of ${{ matrix.n }}; test ${{ matrix.n }} = 1"
matrix = { n = [1, 2] }
[jobs.after]
needs = "t"
run = "true"
[jobs.shaky]
allow-failure = true
run = "exit 3"
"""


def job_file(home: Path, archive: Path, text: str = JOBS) -> Path:
    path = home / "work" / "jobs.toml"
    head, _, rest = text.partition("[")
    path.write_text(f'{head}[rootfs.small]\nsource = "{archive}"\n[{rest}')
    return path


def logs_of(page: str) -> str:
    """What the jobs have printed, out of a page."""
    blocks = re.findall(r'<script type="text/plain" id="block-\d+">(.*?)</script>', page)
    return b"".join(zlib.decompress(base64.b64decode(block)) for block in blocks).decode()


@pytest.mark.root
def test_all_reports_of_a_batch(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    path = job_file(home, small_archive)
    done = guntainer("batch", "--results", "out", "--html", "out/r.html", "--junit", "r.xml", path)
    assert done.returncode == 1, done.stderr
    batch = json.loads(Path("out/batch.json").read_text())
    assert [job["id"] for job in batch["jobs"]] == ["t (1)", "t (2)", "after", "shaky"]
    assert batch["name"] == "nightly" and batch["wall_ns"] > 0 and batch["facts"]["kernel"]
    page = Path("out/r.html").read_text()
    assert page.lower().startswith("<!doctype html>") and "nightly" in page
    assert "out of 2" in logs_of(page)
    suites = ElementTree.fromstring(Path("r.xml").read_text())
    assert {case.get("name") for case in suites.iter("testcase")} == {"t (1)", "t (2)", "after", "shaky"}
    assert len(list(suites.iter("failure"))) == 1
    assert "2 (allowed)" not in done.stdout and "1 failed (allowed)" in done.stdout
    again = guntainer("report", "out")
    assert again.returncode == 0 and "4 jobs: 1 ok, 1 failed, 1 failed (allowed), 1 skipped" in again.stdout
    traces.check()


def test_reports_without_a_results_folder(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """The logs of those that failed are there while the page is written."""
    done = guntainer("batch", "--html", "r.html", job_file(home, small_archive))
    assert done.returncode == 1, done.stderr
    assert "out of 2" in logs_of(Path("r.html").read_text())
    traces.check()


@pytest.mark.parametrize("option", ["--html", "--junit"])
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("-", "expected a file"),
        ("none/r", "none: No such file or directory; make it first"),
        (".", "Is a directory"),
        ("closed/r", "Permission denied"),
    ],
)
def test_what_can_not_be_written_is_found_out_first(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, option: str, where: str, said: str
) -> None:
    if where == "closed/r":
        if os.getuid() == 0:
            pytest.skip("root may write everywhere")
        Path("closed").mkdir(mode=0o500)
    path = job_file(home, small_archive, '[jobs.a]\nrootfs = "small"\nvolumes = [".:/w"]\nrun = "touch /w/ran"\n')
    done = guntainer("batch", option, where, path)
    assert done.returncode == 2
    assert said in done.stderr and option in done.stderr
    assert not Path("ran").exists()
    traces.check()


def test_a_report_that_can_not_be_written_at_the_end(home: Path, small_archive: Path, traces: Traces) -> None:
    """The folder that it belongs into is gone by then."""
    Path("there").mkdir()
    run = "echo begun; while test ! -e /w/go; do sleep 0.05; done"
    path = job_file(home, small_archive, f'[jobs.a]\nrootfs = "small"\nvolumes = [".:/w"]\nrun = "{run}"\n')
    line = [sys.executable, "-m", "guntainer", "batch", "--output", "live", "--html", "there/r.html", path]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    while b"begun" not in process.stdout.readline():
        pass
    Path("there").rmdir()
    Path("go").touch()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 125
    assert b"--html there/r.html: No such file or directory; the report is not written" in err
    assert b"1 job: 1 ok" in out
    traces.check()


@pytest.mark.root
def test_reports_after_ctrl_c(home: Path, small_archive: Path, traces: Traces) -> None:
    text = (
        '[jobs.a]\nrootfs = "small"\nrun = "echo begun; exec sleep 60"\nstop-timeout = 1\n'
        '[jobs.b]\nrootfs = "small"\nneeds = "a"\nrun = "true"\n'
    )
    path = job_file(home, small_archive, text)
    process = subprocess.Popen(
        [sys.executable, "-m", "guntainer", "batch", "--output", "live", "--results", "out", "--html", "r.html", path],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    while b"begun" not in process.stdout.readline():
        pass
    assert json.loads(Path("out/batch.json").read_text())["wall_ns"] is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    batch = json.loads(Path("out/batch.json").read_text())
    assert batch["interrupted"] == signal.SIGINT and batch["wall_ns"] > 0
    assert Path("r.html").stat().st_size > 1000
    assert not list(Path().rglob("*.new"))
    traces.check()


def test_nothing_of_an_earlier_run_is_taken_for_this_one(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    text = '[jobs.a]\nrootfs = "small"\nretry = 1\nartifacts = ["/x"]\nrun = "echo x > /x; exit 1"\n'
    assert guntainer("batch", "--results", "out", job_file(home, small_archive, text)).returncode == 1
    assert Path("out/a/attempt-1/stdout").exists() and Path("out/a/artifacts/x").exists()
    again = '[jobs.a]\nrootfs = "small"\nrun = "true"\n'
    assert guntainer("batch", "--results", "out", job_file(home, small_archive, again)).returncode == 0
    assert sorted(os.listdir("out/a")) == ["result.json", "stderr", "stdout"]
    traces.check()


def test_bad_usage_leaves_the_earlier_results(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    path = job_file(home, small_archive)
    guntainer("batch", "--results", "out", "--json", "r.jsonl", path)
    before = {str(one): one.read_bytes() for one in (Path("r.jsonl"), *Path("out").rglob("*")) if one.is_file()}
    done = guntainer("batch", "--results", "out", "--json", "r.jsonl", "--html", "no/such.html", path)
    assert done.returncode == 2
    assert before == {str(one): one.read_bytes() for one in (Path("r.jsonl"), *Path("out").rglob("*")) if one.is_file()}
    traces.check()


@pytest.mark.parametrize(("first", "second"), [("--html", "--junit"), ("--json", "--html"), ("--json", "--junit")])
def test_two_reports_in_one_file(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, first: str, second: str
) -> None:
    done = guntainer("batch", first, "r", second, "./r", job_file(home, small_archive))
    assert done.returncode == 2
    assert f"{first} and {second} would both be written to ./r" in done.stderr
    assert not Path("r").exists()
    traces.check()


@pytest.mark.parametrize("option", ["--html", "--junit", "--json"])
@pytest.mark.parametrize("own", ["jobs.toml", "base.toml", "out/batch.json", "link"])
def test_no_report_is_written_over_what_is_read(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, option: str, own: str
) -> None:
    """A forgotten name, and FILE would be the job file."""
    Path("base.toml").write_text(f'[rootfs.small]\nsource = "{small_archive}"\n')
    Path("jobs.toml").write_text('extends = "base.toml"\n[jobs.a]\nrootfs = "small"\nrun = "true"\n')
    Path("link").symlink_to("jobs.toml")
    assert guntainer("batch", "--results", "out").returncode == 0
    before = {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    done = guntainer("batch", "--results", "out", option, own)
    assert done.returncode == 2 and f"{option} {own}: that is " in done.stderr
    assert before == {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    if own.startswith("out/"):
        assert guntainer("report", "out", option, own).returncode == 2
        assert Path(own).read_bytes() == before[Path(own)]
    traces.check()


@pytest.mark.parametrize("name", ["out/after/artifacts/r.html", "out/after/stdout", "out/after/r.html"])
def test_no_report_among_the_results_of_a_job(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, name: str
) -> None:
    """The folder of a job is made ready after that, and what is in there is its own."""
    path = job_file(home, small_archive)
    Path(name).parent.mkdir(parents=True)
    done = guntainer("batch", "--results", "out", "--html", name, path)
    assert done.returncode == 2 and f"--html {name}: that is among a job's results" in done.stderr
    traces.check()


@pytest.mark.parametrize("name", ["r.html", "r.html.new"])
@pytest.mark.parametrize("what", ["ln -s /w/precious /w/{}", "mkfifo /w/{}", "ln -s nowhere /w/{}"])
@pytest.mark.root
def test_what_a_job_puts_in_place_of_a_report_is_not_followed(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, name: str, what: str
) -> None:
    """The folder of the report is a volume: neither a link nor a FIFO under its name leads or holds us anywhere."""
    Path("w").mkdir()
    Path("precious").write_text("precious")
    text = (
        f'[jobs.a]\nrootfs = "host"\nvolumes = ["./w:/w"]\nrun = "{what.format(name)}; echo out of a; exit 3"\n'
    ).replace("/w/precious", str(Path("precious").absolute()))
    done = guntainer("batch", "--html", "w/r.html", job_file(home, small_archive, text), timeout=30)
    assert Path("precious").read_text() == "precious" and not Path("nowhere").exists()
    if "ln" in what and name.endswith(".new"):  # it may be anybody's: it is left alone, and said
        assert done.returncode == 125 and "the report is not written" in done.stderr
    else:
        assert done.returncode == 1, done.stderr
        assert not Path("w/r.html").is_symlink() and "out of a" in logs_of(Path("w/r.html").read_text())
    traces.check()


@pytest.mark.parametrize("planted", ["link", "fifo", "folder"])
def test_what_lies_in_a_results_folder_that_came_from_elsewhere(
    home: Path, small_archive: Path, guntainer: Run, planted: str
) -> None:
    Path("precious").write_text("precious")
    path = job_file(home, small_archive)
    for name in ("batch.json.new", "after/result.json.new"):
        place = Path("out", name)
        place.parent.mkdir(parents=True, exist_ok=True)
        if planted == "link":
            place.symlink_to(Path("precious").absolute())
        elif planted == "fifo":
            os.mkfifo(place)
        else:
            place.mkdir()
    done = guntainer("batch", "--resume", "--results", "out", path, timeout=30)
    assert Path("precious").read_text() == "precious"
    if planted == "folder":
        assert done.returncode in (1, 2) and "Is a directory" in done.stderr
    else:
        assert done.returncode == 1 and json.loads(Path("out/batch.json").read_text())["wall_ns"]
        assert Path("out/after/result.json").is_file()


def test_a_job_with_the_name_of_the_batch(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    path = job_file(home, small_archive, '[jobs."batch.json"]\nrootfs = "small"\nrun = "true"\n')
    for _ in range(2):
        done = guntainer("batch", "--results", "out", path)
        assert done.returncode == 0, done.stderr
    assert json.loads(Path("out/batch.json").read_text())["jobs"][0]["folder"] != "batch.json"
    traces.check()


@pytest.mark.parametrize(
    "what", ["mkfifo /w/out/b/stdout", "ln -s /w/precious /w/out/b/stdout", "ln -s /w/mine /w/out/b"]
)
def test_what_a_job_puts_into_the_results_is_not_followed(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, what: str
) -> None:
    """A volume that holds the results folder: the other job's logs are to be written through it."""
    Path("precious").write_text("precious")
    Path("mine").mkdir()
    made = "mkdir -p /w/out/b && " if what.endswith("stdout") else ""
    text = (
        f'[jobs.a]\nrootfs = "host"\nvolumes = [".:/w"]\nrun = "{made}{what}"\n'
        '[jobs.b]\nrootfs = "small"\nneeds = "a"\nrun = "echo b"\n'
    )
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 jobs: 1 ok, 1 error" in done.stdout
    assert Path("precious").read_text() == "precious" and os.listdir("mine") == []
    traces.check()


MOVED = "mv /w/out /w/away && ln -s mine /w/out"


@pytest.mark.root
def test_a_results_folder_that_a_job_moves_away(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    """What is written after that goes where the folder is now, and nothing where the link in its place leads."""
    for name in ("b/artifacts", "b/services"):
        Path("mine", name).mkdir(parents=True)
        Path("mine", name, "precious").write_text("precious")
    before = sorted(Path("mine").rglob("*"))
    text = (
        f'[jobs.a]\nrootfs = "host"\nvolumes = [".:/w"]\nrun = "{MOVED}"\n'
        '[jobs.b]\nrootfs = "small"\nneeds = "a"\nretry = 2\nartifacts = ["/tmp/made"]\n'
        'run = "echo b; echo made > /tmp/made; exit 3"\n'
    )
    done = guntainer("batch", "--results", "out", "--html", "r.html", job_file(home, small_archive, text))
    assert done.returncode == 125, done.stdout + done.stderr
    assert f"was moved or replaced while the batch ran: its results are in {Path('away').resolve()}" in done.stderr
    assert sorted(Path("mine").rglob("*")) == before and not Path("r.html").exists()
    assert [one["outcome"] for one in results_in("away", "a", "b")] == ["ok", "failed"]
    for name in ("stdout", "attempt-1/stdout"):
        assert Path("away/b", name).read_text() == "b\n"
    assert Path("away/b/artifacts/tmp/made").read_text() == "made\n"
    assert json.loads(Path("away/batch.json").read_text())["wall_ns"] > 0
    traces.check()


def results_in(folder: str, *names: str) -> list[dict[str, object]]:
    return [json.loads(Path(folder, name, "result.json").read_text()) for name in names]


def test_a_link_that_an_earlier_batch_has_left_there(home: Path, small_archive: Path, guntainer: Run) -> None:
    """The results of its job are not made room for where it leads."""
    Path("mine/artifacts/precious").mkdir(parents=True)
    Path("mine/stdout").write_text("precious")
    Path("out").mkdir()
    Path("out/after").symlink_to("../mine")
    done = guntainer("batch", "--results", "out", job_file(home, small_archive))
    assert done.returncode == 2 and f"{Path('out/after').absolute()}: is a link" in done.stderr, done.stderr
    assert Path("mine/artifacts/precious").is_dir() and Path("mine/stdout").read_text() == "precious"


def test_the_results_are_hidden_in_a_workspace_that_is_the_folder_itself(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    text = '[jobs.a]\nrootfs = "small"\nworkspace = { source = ".", mode = "mount" }\nrun = "ls -a out"\n'
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path("out/a/stdout").read_text() == ".\n..\n"
    traces.check()
