"""`batch --json`: each line when it happens, whole, wherever it goes; and what becomes of a batch whose lines nobody takes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, Traces, ended_jobs

pytestmark = pytest.mark.usefixtures("user_namespaces")


def job_file(home: Path, archive: Path, **jobs: dict[str, Any]) -> Path:
    path = home / "jobs.json"
    path.write_text(json.dumps({"jobs": {name: {"rootfs": str(archive), **keys} for name, keys in jobs.items()}}))
    return path


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "guntainer", "batch", "--output", "quiet", *map(str, words)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_lines_come_when_it_happens(home: Path, small_archive: Path, traces: Traces) -> None:
    path = job_file(home, small_archive, a={"run": "exit 3", "allow-failure": True}, b={"run": "sleep 50"})
    process = start("-j2", "--json", "-", path)
    assert process.stdout is not None
    lines = []
    while not lines or lines[-1]["event"] != "job-finished":
        lines.append(json.loads(process.stdout.readline()))
    assert process.poll() is None  # b runs on
    assert [one["event"] for one in lines] == ["batch-started", "job-started", "job-started", "job-finished"]
    assert (lines[0]["jobs"], lines[0]["parallel"]) == (["a", "b"], 2)
    assert lines[3]["id"] == "a"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    lines += map(json.loads, out.splitlines())
    assert [one["event"] for one in lines[4:]] == ["job-finished", "batch-finished"]
    last = lines[-1]
    assert (last["exit_code"], last["interrupted"], last["outcomes"]) == (143, 15, {"failed": 1, "cancelled": 1})
    assert last["allowed"] == 1 and process.returncode == 143
    times = [one["at_ns"] for one in lines]
    assert times == sorted(times) and times[0] == 0
    traces.check()


def test_a_file_is_emptied_first_and_its_results_are_those_of_the_folder(
    home: Path, small_archive: Path, guntainer: Run
) -> None:
    Path("r.json").write_text("{" + "x" * 100_000)
    path = job_file(home, small_archive, a={"run": "exit 1", "retry": {"attempts": 2, "backoff": "10ms"}})
    assert guntainer("batch", "--json", "r.json", "--results", "out", path).returncode == 1
    lines = [json.loads(line) for line in Path("r.json").read_text().splitlines()]
    assert [one["event"] for one in lines] == [
        "batch-started", "job-started", "job-retrying", "job-started", "job-finished", "batch-finished",
    ]  # fmt: skip
    assert (lines[2]["id"], lines[2]["attempt"], lines[2]["code"], lines[2]["wait_s"]) == ("a", 1, 1, 0.01)
    (ended,) = ended_jobs(Path("r.json").read_text())
    kept = json.loads(Path("out/a/result.json").read_text())
    assert {key: ended[key] for key in kept} == kept and set(ended) - set(kept) == {"event", "at_ns"}
    again = guntainer("report", "out", "--json", "-").stdout
    assert [json.loads(line)["event"] for line in again.splitlines()] == ["job-finished", "batch-finished"]
    assert {key: ended_jobs(again)[0][key] for key in kept} == kept


def test_what_goes_otherwise_than_asked_for_is_a_note(home: Path, small_archive: Path, guntainer: Run) -> None:
    (home / "jobs.toml").write_text(
        f'[jobs.a]\nrootfs = "{small_archive}"\nrun = "true"\nmatrix = {{ n = [1], exclude = [{{ n = 5 }}] }}\n'
    )
    done = guntainer("batch", "--json", "-", home / "jobs.toml")
    notes = [one for one in map(json.loads, done.stdout.splitlines()) if one["event"] == "note"]
    assert len(notes) == 1 and "exclude" in notes[0]["text"], done.stderr


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "fifo"])
def test_a_pipe_that_is_read_late(home: Path, small_archive: Path, traces: Traces, name: str) -> None:
    """Also one whose reader does not take a thing for a while: the batch goes on."""
    path = job_file(home, small_archive, a={"run": "true", "repeat": 100})
    reader, writer = os.pipe()
    os.mkfifo("fifo")
    if name == "fifo":
        os.close(reader)
        os.close(writer)
        reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
    process = start("-j2", "--json", name.format(writer), path, pass_fds=[] if name == "fifo" else [writer])
    if name != "fifo":
        os.close(writer)
    assert process.stdout is not None
    told = ""
    while "100 jobs: 100 ok" not in told:  # all have ended, and nobody has read a line
        told = process.stdout.readline()
        assert told
    with open(reader) as lines:
        text = lines.read()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert len(ended_jobs(text)) == 100 and json.loads(text.splitlines()[-1])["event"] == "batch-finished"
    traces.check()


def test_a_reader_that_never_takes_anything_is_not_waited_for_after_a_signal(
    home: Path, small_archive: Path, traces: Traces
) -> None:
    reader, writer = os.pipe()
    path = job_file(home, small_archive, a={"run": "true", "repeat": 100})
    process = start("-j2", "--json", f"/dev/fd/{writer}", path, pass_fds=[writer])
    os.close(writer)
    assert process.stdout is not None
    process.stdout.read(1)
    threading.Event().wait(0.3)
    process.send_signal(signal.SIGINT)
    threading.Event().wait(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    os.close(reader)
    assert process.returncode == 130
    traces.check()


def test_a_reader_that_leaves(home: Path, small_archive: Path, traces: Traces) -> None:
    reader, writer = os.pipe()
    path = job_file(home, small_archive, a={"run": "sleep 0.3", "repeat": 3})
    process = start("-j1", "--json", f"/dev/fd/{writer}", path, pass_fds=[writer])
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)
    out, err = process.communicate(timeout=20)
    why = f"--json /dev/fd/{writer}: Broken pipe; "
    assert "3 jobs: 3 ok" in out and process.returncode == 125
    assert err.splitlines() == [
        f"guntainer: warning: {why}no more lines are written there, and the batch goes on",
        f"guntainer: error: {why}the report is not whole",
    ]
    traces.check()


def test_a_limit_on_files_leaves_whole_lines(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """RLIMIT_FSIZE cuts a write(2) as a full disk does."""
    path = job_file(home, small_archive, a={"run": "true", "repeat": 10})
    Path("r.json").write_text("")

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    assert guntainer("batch", path).returncode == 0  # in the store from now on
    process = start("-j1", "--json", "r.json", path, preexec_fn=small)
    out, err = process.communicate(timeout=60)
    text = Path("r.json").read_text()
    assert 0 < len(text) <= 5000 and text.endswith("\n"), (out, err)
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert events[0] == "batch-started" and "batch-finished" not in events
    assert err.count("--json r.json: File too large") == 2 and process.returncode in (1, 125), err
    traces.check()


def test_a_descriptor_that_is_not_open(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, a={"run": "true"})
    done = guntainer("batch", "--json", "/dev/fd/77", path)
    assert done.returncode == 2 and "--json /dev/fd/77: Bad file descriptor; name a file" in done.stderr


def test_a_file_that_is_open_already_is_written_where_its_owner_stands(
    home: Path, small_archive: Path, guntainer: Run
) -> None:
    path = job_file(home, small_archive, a={"run": "true"})
    with open("log", "w+") as file:
        file.write("before\n")
        file.flush()
        done = guntainer("batch", "--json", f"/dev/fd/{file.fileno()}", path, pass_fds=[file.fileno()])
    lines = Path("log").read_text().splitlines()
    assert done.returncode == 0 and lines[0] == "before"
    assert [json.loads(line)["event"] for line in lines[1:]] == [
        "batch-started", "job-started", "job-finished", "batch-finished",
    ]  # fmt: skip
