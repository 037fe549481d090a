"""Which jobs a batch runs: --matrix, --shard, and what is known of earlier runs: --rerun-failed, --resume, how long they took."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Run, Traces, ended_jobs

pytestmark = pytest.mark.usefixtures("user_namespaces")

PATIENCE_S = 20.0
TOUCHY = """
[defaults]
rootfs = "{rootfs}"
volumes = ["{flags}:/flags"]
[jobs.good]
run = "echo good"
[jobs.touchy]
run = "test -e /flags/fixed || exit 3"
[jobs.after]
run = "echo after"
needs = "touchy"
"""
MATRIX = """
[defaults]
rootfs = "{rootfs}"
[jobs.prepare]
stage = "setup"
run = "true"
[jobs.build]
matrix = {{ os = ["alpine", "debian"], version = ["1", "2"] }}
run = "true"
[jobs.test]
matrix = {{ os = ["alpine", "debian"] }}
needs = "build"
run = "true"
"""


def written(home: Path, text: str, rootfs: Path, name: str = "jobs.toml") -> Path:
    (home / "flags").mkdir(exist_ok=True)
    path = home / "work" / name
    path.write_text(text.format(rootfs=rootfs, flags=home / "flags"))
    return path


def finished(path: Path) -> dict[str, dict[str, object]]:
    """The results in the lines of --json, by id."""
    return {one["id"]: one for one in ended_jobs(path.read_text())}


def outcomes(path: Path) -> dict[str, object]:
    return {id_: one["outcome"] for id_, one in finished(path).items()}


def listed(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_matrix_and_shard_choose(guntainer: Run, home: Path, small_archive: Path) -> None:
    written(home, MATRIX, small_archive)
    assert listed(guntainer("batch", "--list", "--matrix", "version:2")) == [
        "prepare", "build (alpine, 2)", "build (debian, 2)",
    ]  # fmt: skip
    parts = [listed(guntainer("batch", "--list", "--shard", f"{number}/3")) for number in (1, 2, 3)]
    assert all("prepare" in part for part in parts)
    assert len({name for part in parts for name in part}) == 7
    bad = guntainer("batch", "--matrix", "os:debain")
    assert bad.returncode == 2
    assert 'os is never "debain", only alpine, debian (did you mean "debian"?)' in bad.stderr
    assert guntainer("batch", "--shard", "4/3").returncode == 2
    assert listed(guntainer("batch", "--list", "--only", "prepare", "--shard", "1/2")) == ["prepare"]
    empty = guntainer("batch", "--only", "prepare", "--shard", "2/2")
    assert (empty.returncode, empty.stdout) == (0, "--shard 2/2: no job is left for this part\n")


def test_a_part_without_jobs_leaves_no_reports_of_an_earlier_batch(
    guntainer: Run, home: Path, small_archive: Path, traces: Traces
) -> None:
    written(home, TOUCHY, small_archive)
    reports = ("--html", "out/page.html", "--junit", "junit.xml", "--json", "lines", "--results", "out")
    assert guntainer("batch", *reports).returncode == 1
    before = Path("out/batch.json").read_bytes(), Path("out/touchy/result.json").read_bytes()
    done = guntainer("batch", "--shard", "9/9", *reports)
    assert (done.returncode, done.stdout, done.stderr) == (0, "--shard 9/9: no job is left for this part\n", "")
    assert [json.loads(line)["event"] for line in Path("lines").read_text().splitlines()] == [
        "batch-started", "batch-finished",
    ]  # fmt: skip
    suites = ElementTree.parse("junit.xml").getroot()
    assert suites.get("tests") == "0" and not suites.findall(".//testcase")
    page = Path("out/page.html").read_text()
    assert "touchy" not in page and "jobs.toml" in page and page.rstrip().endswith("</html>")
    assert (Path("out/batch.json").read_bytes(), Path("out/touchy/result.json").read_bytes()) == before
    # a folder that is new can be reported of afterwards
    assert guntainer("batch", "--shard", "9/9", "--results", "new").returncode == 0
    told = guntainer("report", "new")
    assert (told.returncode, told.stderr) == (0, "") and "0 jobs: nothing to do" in told.stdout
    # what only looks writes nothing, and what can not be written is said
    Path("lines").write_text("as it was")
    assert guntainer("batch", "--list", "--shard", "9/9", "--json", "lines").returncode == 0
    assert Path("lines").read_text() == "as it was"
    wrong = guntainer("batch", "--shard", "9/9", "--junit", "none/junit.xml")
    assert wrong.returncode == 2 and "--junit none/junit.xml" in wrong.stderr
    assert guntainer("batch", "--shard", "9/9", "--json", "jobs.toml").returncode == 2
    full = guntainer("batch", "--shard", "9/9", "--json", "/dev/full")
    assert full.returncode == 125 and "--json /dev/full: No space left on device" in full.stderr
    read, write = os.pipe()
    os.close(read)  # whoever reads us has left
    line = [sys.executable, "-m", "guntainer", "batch", "--shard", "9/9", "--json", "-"]
    assert subprocess.run(line, stdout=write, stderr=subprocess.DEVNULL, check=False).returncode == 141
    os.close(write)
    traces.check()


def test_what_is_needed_is_run_and_said(guntainer: Run, home: Path, small_archive: Path, traces: Traces) -> None:
    written(home, MATRIX, small_archive)
    done = guntainer("batch", "--only", "test (alpine)", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert set(outcomes(home / "work" / "out.json")) == {
        "prepare", "build (alpine, 1)", "build (alpine, 2)", "build (debian, 1)", "build (debian, 2)", "test (alpine)",
    }  # fmt: skip
    assert "run as well, since the chosen jobs need them: prepare, build (alpine, 1)" in done.stderr
    traces.check()


@pytest.mark.parametrize("results", [(), ("--results", "out")])
def test_rerun_failed(
    guntainer: Run, home: Path, small_archive: Path, traces: Traces, results: tuple[str, ...]
) -> None:
    written(home, TOUCHY, small_archive)
    unknown = guntainer("batch", "--rerun-failed", *results)
    assert unknown.returncode == 2 and "nothing is known of earlier runs of jobs.toml" in unknown.stderr
    assert guntainer("batch", *results).returncode == 1
    (home / "flags" / "fixed").touch()
    assert listed(guntainer("batch", "--rerun-failed", "--list", *results)) == ["touchy", "after"]
    done = guntainer("batch", "--rerun-failed", "--json", "out.json", *results)
    assert done.returncode == 0, done.stderr
    assert outcomes(home / "work" / "out.json") == {"touchy": "ok", "after": "ok"}
    nothing = guntainer("batch", "--rerun-failed", *results)
    assert (nothing.returncode, nothing.stdout) == (0, "nothing failed last time\n")
    nothing = guntainer("batch", "--rerun-failed", "--json", "-", *results)
    assert (nothing.returncode, nothing.stderr) == (0, "nothing failed last time\n")
    first, last = map(json.loads, nothing.stdout.splitlines())
    assert (first["event"], first["jobs"], first["version"]) == ("batch-started", [], 1)
    assert (last["event"], last["exit_code"], last["jobs"]) == ("batch-finished", 0, 0)
    traces.check()


def test_a_part_of_the_jobs_leaves_the_other_results_in_the_folder(
    guntainer: Run, home: Path, small_archive: Path, traces: Traces
) -> None:
    """`report DIR` is about all of them, whichever batch has run them; the batch's own reports are about its own jobs."""
    path = written(home, TOUCHY, small_archive)
    guntainer("batch", "--results", "out")
    (home / "flags" / "fixed").touch()
    done = guntainer("batch", "--results", "out", "--rerun-failed", "--json", "lines")
    assert done.returncode == 0 and outcomes(Path("lines")) == {"touchy": "ok", "after": "ok"}
    told = guntainer("report", "out", "--json", "all")
    assert (told.returncode, told.stderr) == (0, "")
    found = finished(Path("all"))
    assert {id_: one["outcome"] for id_, one in found.items()} == {"good": "ok", "touchy": "ok", "after": "ok"}
    assert {id_: one["notes"] for id_, one in found.items()} == {
        "good": ["from the earlier run"],
        "touchy": [],
        "after": [],
    }
    assert list(finished_in("out")) == ["good", "touchy", "after"]  # as in the file
    guntainer("batch", "--results", "out", "--only", "good")
    told = guntainer("report", "out")
    assert "3 jobs: 3 ok" in told.stdout and told.stdout.count("from the earlier run") == 2
    # a job that the file does not have any more is none of the batch's
    path.write_text(path.read_text().replace("[jobs.good]", "[jobs.better]"))
    guntainer("batch", "--results", "out", "--only", "better")
    assert list(finished_in("out")) == ["better", "touchy", "after"]
    traces.check()


def finished_in(folder: str) -> dict[str, object]:
    return {one["id"]: one for one in json.loads(Path(folder, "batch.json").read_text())["jobs"]}


def test_the_page_is_made_again_with_earlier_durations(guntainer: Run, home: Path, small_archive: Path) -> None:
    written(home, TOUCHY, small_archive)
    for _ in range(3):
        guntainer("batch", "--results", "out", "--html", "first.html")
    again = guntainer(
        "report", "out", "--html", "second.html", env={**os.environ, "XDG_STATE_HOME": str(home / "nothing")}
    )
    assert again.returncode == 0, again.stderr
    assert runs_in(Path("second.html")) == runs_in(Path("first.html"))
    assert [len(runs) for runs in runs_in(Path("second.html"))] == [2, 2, 1]


def runs_in(page: Path) -> list[list[object]]:
    """The earlier runs of each job, [milliseconds, outcome], out of a report page."""
    found = re.search(r'id="facts">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return [job.get("runs", []) for job in json.loads(found[1])["jobs"]]


def test_standard_input_has_no_history(guntainer: Run, home: Path, small_archive: Path) -> None:
    text = written(home, TOUCHY, small_archive).read_text()
    assert guntainer("batch", "-", input=text).returncode == 1
    assert not (home / "state").exists()
    done = guntainer("batch", "-", "--rerun-failed", input=text)
    assert done.returncode == 2 and "standard input has no history" in done.stderr


def test_a_damaged_history_is_a_note(guntainer: Run, home: Path, small_archive: Path) -> None:
    written(home, TOUCHY, small_archive)
    assert guntainer("batch").returncode == 1
    (path,) = (home / "state" / "guntainer" / "history").glob("*.json")
    path.write_text("{")
    done = guntainer("batch")
    assert done.returncode == 1 and "it is damaged" in done.stderr
    assert "is ignored" not in guntainer("batch").stderr


def test_without_a_place_for_it(
    guntainer: Run, home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home, TOUCHY, small_archive)
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    done = guntainer("batch")
    assert done.returncode == 1 and "history" not in done.stderr
    assert "no history is kept" in guntainer("batch", "-v").stderr


def test_options_that_do_not_go_together(guntainer: Run, home: Path, small_archive: Path) -> None:
    written(home, TOUCHY, small_archive)
    for words, told in [
        (("--resume",), "--resume needs --results DIR"),
        (("--resume", "--rerun-failed", "--results", "out"), "can not be used together"),
        (("--watch", "--list"), "--watch runs jobs"),
        (("--results", ""), "--results: expected the path of a folder, got an empty one"),
        (("--watch", "--rerun-failed"), "--watch runs the same jobs each time"),
        (("--watch", "-"), "standard input can not be watched"),
    ]:
        done = guntainer("batch", *words)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_resume_takes_over_what_was_good(guntainer: Run, home: Path, small_archive: Path, traces: Traces) -> None:
    written(home, TOUCHY, small_archive)
    new = guntainer("batch", "--resume", "--results", "out")
    assert new.returncode == 1 and "out has no results yet: all jobs are run" in new.stderr
    before = json.loads((home / "work/out/good/result.json").read_text())
    (home / "flags" / "fixed").touch()
    done = guntainer("batch", "--resume", "--results", "out", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert list(outcomes(home / "work" / "out.json").items()) == [("good", "ok"), ("touchy", "ok"), ("after", "ok")]
    told = finished(home / "work/out.json")
    assert told["good"]["started_at"] == before["started_at"] and told["good"]["notes"] == ["from the earlier run"]
    assert told["touchy"]["notes"] == []
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("good ")]
    assert "ok" in row and row.endswith("from the earlier run")
    assert "3 jobs: 3 ok" in done.stdout
    assert [one["id"] for one in json.loads((home / "work/out/batch.json").read_text())["jobs"]] == [
        "good", "touchy", "after",
    ]  # fmt: skip
    assert (home / "work/out/good/stdout").read_text() == "good\n"
    again = guntainer("batch", "--resume", "--results", "out")
    assert again.returncode == 0 and again.stdout.count("from the earlier run") == 3
    traces.check()


SLOW = """
[defaults]
rootfs = "{rootfs}"
volumes = ["{flags}:/flags"]
[jobs]
[jobs.quick]
run = "echo quick"
[jobs.slow]
run = "touch /flags/up; test -e /flags/fixed || exec sleep 100"
[jobs.bad]
run = "test -e /flags/fixed"
"""


@pytest.mark.parametrize("option", ["--resume", "--rerun-failed"])
def test_after_a_kill(guntainer: Run, home: Path, small_archive: Path, option: str) -> None:
    """Results are written as jobs end: what a killed batch has done is known, and so is what it has not."""
    written(home, SLOW, small_archive)
    words = [sys.executable, "-m", "guntainer", "batch", "--results", "out", "-j", "3"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for = [home / "work/out/quick/result.json", home / "work/out/bad/result.json", home / "flags/up"]
    deadline = time.monotonic() + PATIENCE_S
    while not all(path.exists() for path in wait_for):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (home / "flags" / "fixed").touch()
    ran = listed(guntainer("batch", option, "--results", "out", "--list"))
    assert ran == ["slow", "bad"]
    done = guntainer("batch", option, "--results", "out", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert set(outcomes(home / "work" / "out.json")) == (
        {"slow", "bad"} | ({"quick"} if option == "--resume" else set())
    )


@pytest.mark.parametrize(
    "content",
    ['{"id": "good", "reason": "exit", "code": 0', "[]", '{"id": "other", "reason": "exit", "code": 0}', '{"id": "good", "reason": "?"}'],
)  # fmt: skip
def test_results_that_can_not_be_believed_are_run_again(
    guntainer: Run, home: Path, small_archive: Path, content: str
) -> None:
    written(home, TOUCHY, small_archive)
    (home / "flags" / "fixed").touch()
    assert guntainer("batch", "--results", "out").returncode == 0
    path = home / "work/out/good/result.json"
    path.write_text(content)
    assert listed(guntainer("batch", "--resume", "--results", "out", "--list")) == ["good"]


def test_a_result_that_leads_elsewhere_is_none(guntainer: Run, home: Path, small_archive: Path) -> None:
    written(home, TOUCHY, small_archive)
    (home / "flags" / "fixed").touch()
    assert guntainer("batch", "--results", "out").returncode == 0
    path = home / "work/out/good/result.json"
    (home / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(home / "elsewhere")
    assert listed(guntainer("batch", "--resume", "--results", "out", "--list")) == ["good"]
    path.unlink()
    os.mkfifo(path)
    assert listed(guntainer("batch", "--resume", "--results", "out", "--list")) == ["good"]


LONGEST = """
[defaults]
rootfs = "{rootfs}"
volumes = ["{flags}:/flags"]
[jobs.short]
run = "echo short >>/flags/order"
[jobs.long]
run = "sleep 0.4; echo long >>/flags/order"
[jobs.middle]
run = "sleep 0.2; echo middle >>/flags/order"
"""


def test_the_longest_is_first_when_it_is_known(guntainer: Run, home: Path, small_archive: Path) -> None:
    written(home, LONGEST, small_archive)
    order = home / "flags" / "order"
    for expected in (["short", "long", "middle"], ["long", "middle", "short"]):
        assert guntainer("batch", "-j", "1").returncode == 0
        assert order.read_text().split() == expected
        order.unlink()
