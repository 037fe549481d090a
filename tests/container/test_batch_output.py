"""What `guntainer batch` shows, to whoever reads it or does not; and what it leaves in files."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, Traces, ended_jobs

pytestmark = pytest.mark.usefixtures("user_namespaces")

TIMED = 'run = "head -c 8000000 /dev/zero; sleep 100"\ntimeout = 0.5\nrepeat = 2\n'
ENDLESS = 'run = "while :; do echo 0123456789012345678901234567890123456789; done"\nrepeat = 2\nstop-timeout = 1\n'


def job_file(home: Path, archive: Path, *jobs: str) -> Path:
    """jobs.toml with these jobs, named a, b, …"""
    path = home / "work" / "jobs.toml"
    texts = [f'[jobs.{chr(97 + n)}]\nrootfs = "small"\n{job}' for n, job in enumerate(jobs)]
    path.write_text("\n".join([f'version = 1\n[rootfs.small]\nsource = "{archive}"', *texts]))
    return path


def start(*words: object, **settings: object) -> subprocess.Popen[bytes]:
    """A batch in a process of its own; signals as in a shell's foreground."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    settings.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen([sys.executable, "-m", "guntainer", "batch", *map(str, words)], **settings)  # type: ignore[call-overload,no-any-return]


def until(done: Callable[[], bool], seconds: float = 25) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def code_of(process: subprocess.Popen[bytes], seconds: float = 15) -> int:
    """The exit code, without reading what it writes."""
    try:
        return process.wait(seconds)
    finally:
        process.kill()
        for file in (process.stdout, process.stderr):
            if file is not None:
                file.close()


@pytest.mark.parametrize("mode", ["live", "group"])
def test_timeouts_and_signals_work_when_nobody_reads(
    home: Path, small_archive: Path, traces: Traces, mode: str
) -> None:
    path = job_file(home, small_archive, TIMED)
    process = start("-j1", "--output", mode, "--results", "out", path, stderr=subprocess.STDOUT)
    results = [home / "work" / "out" / f"a #{n}" / "result.json" for n in (1, 2)]
    until(lambda: all(one.exists() for one in results))
    assert [json.loads(one.read_text())["outcome"] for one in results] == ["timeout"] * 2
    assert process.poll() is None
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert code_of(process, 5) == 130
    traces.check()


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_signals_end_it_when_nobody_reads(
    home: Path, small_archive: Path, traces: Traces, number: int, times: int
) -> None:
    path = job_file(home, small_archive, ENDLESS)
    process = start("-j2", "--output", "live", "--json", "r.json", path, stderr=subprocess.STDOUT)
    # more than the pipe takes: the rest is held back by now, or soon
    until(lambda: sum(p.stat().st_size for p in (home / "tmp").rglob("log-*")) > 200_000)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.2)
    assert code_of(process) == 128 + number
    assert len(ended_jobs((home / "work" / "r.json").read_text())) == 2
    traces.check()


@pytest.mark.parametrize("mode", ["live", "group"])
def test_a_slow_reader_gets_everything(home: Path, small_archive: Path, traces: Traces, mode: str) -> None:
    path = job_file(home, small_archive, 'run = "head -c 4000000 /dev/zero; echo end"\n')
    process = start("--output", mode, path)
    assert process.stdout is not None
    shown = b""
    while data := os.read(process.stdout.fileno(), 1 << 15):
        shown += data
        time.sleep(0.005)
    assert code_of(process) == 0
    assert shown.count(b"\0") == 4_000_000 and b"\0end\n" in shown and b"1 job: 1 ok" in shown
    traces.check()


def test_the_log_is_whole_when_the_reader_stalls(home: Path, small_archive: Path, traces: Traces) -> None:
    """It stops reading when so little is left that the container can end: that must still reach the log."""
    data = os.urandom(19_900_000) + b"\n" + b"x" * 99_999
    (home / "data").write_bytes(data)
    path = job_file(home, small_archive, f'command = ["cat", "/data"]\nvolumes = ["{home}/data:/data:ro"]\n')
    process = start("--output", "live", "--results", "out", path)
    assert process.stdout is not None
    left = len(data) - 900_000
    while left > 0:
        left -= len(os.read(process.stdout.fileno(), min(left, 1 << 16)))
    until((home / "work" / "out" / "a" / "result.json").exists)
    assert (home / "work" / "out" / "a" / "stdout").read_bytes() == data
    rest = process.stdout.read()
    assert b"a | [the end of its output is not shown" in rest and b"1 job: 1 ok" in rest
    assert code_of(process) == 0
    traces.check()


def test_only_what_can_be_read_is_standard_input(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    work = home / "work"
    os.mkfifo(work / "fifo")
    (work / "file").write_text("given\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(work / "socket"))
        names = ["file", "fifo", "socket", ".", "/dev/null", "missing"]
        jobs = [f'command = ["cat"]\nstdin = "{name}"\n' for name in names]
        done = guntainer("batch", "--json", "r.json", job_file(home, small_archive, *jobs), timeout=20)
    results = sorted(ended_jobs((work / "r.json").read_text()), key=lambda one: one["id"])
    assert [result["outcome"] for result in results] == ["ok", "error", "error", "error", "ok", "error"]
    assert f"stdin {work}/fifo: a FIFO can not be read from here; write it" in results[1]["message"]
    assert "a socket" in results[2]["message"] and "a folder" in results[3]["message"]
    assert done.returncode == 1 and "given\n" in done.stdout
    traces.check()


@pytest.mark.parametrize("mode", ["live", "quiet"])
def test_when_the_reader_has_left_it_ends_as_by_sigpipe(
    home: Path, small_archive: Path, traces: Traces, mode: str
) -> None:
    endless = mode == "live"
    path = job_file(home, small_archive, ENDLESS if endless else 'run = "true"\n')
    process = start("-j1", "--output", mode, "--json", "r.json", path)
    assert process.stdout is not None and process.stderr is not None
    if endless:
        process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert (code_of(process), err) == (141, b"")
    outcomes = [one["outcome"] for one in ended_jobs((home / "work" / "r.json").read_text())]
    assert outcomes == (["cancelled", "cancelled"] if endless else ["ok"])
    traces.check()


@pytest.mark.parametrize("mode", ["live", "group", "quiet"])
def test_a_full_disk_under_the_output_is_said_once(home: Path, small_archive: Path, guntainer: Run, mode: str) -> None:
    path = job_file(home, small_archive, 'run = "echo a"\nrepeat = 3\n')
    with open("/dev/full", "wb") as full:
        done = guntainer("batch", "--output", mode, path, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 125
        assert done.stderr.startswith("guntainer: error: standard output: No space left on device")
        assert len(done.stderr.splitlines()) == 1
        path = job_file(home, small_archive, 'run = "exit 3"\n')
        done = guntainer("batch", "--output", mode, path, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1
    done = guntainer("batch", path, preexec_fn=lambda: os.close(1))
    assert (done.returncode, "Bad file descriptor" in done.stderr) == (1, True)


TEXT = r"a\r::error::b\n##[error]c\n\033[2Jd\033[31me\n\033[0Ksection_end:1:x\r\033[0K\n"
COMMANDS = f"""run = 'printf "{TEXT}"; exit 1'"""


@pytest.mark.parametrize("mode", ["live", "group", "quiet"])
@pytest.mark.parametrize("ci", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_a_job_commands_no_ci_system(home: Path, small_archive: Path, guntainer: Run, mode: str, ci: str) -> None:
    path = job_file(home, small_archive, COMMANDS)
    done = guntainer("batch", "--output", mode, path, env={**os.environ, ci: "true"}, text=False)
    text = done.stdout.decode()
    assert done.returncode == 1 and "… ::error::b" in text and "d\x1b[31me" in text
    assert not [line for line in text.replace("\r", "\n").split("\n") if line.startswith(("##[", "::error::b"))]
    assert "\x1b[2J" not in text and "section_end:1:x\r" not in text


@pytest.mark.parametrize("mode", ["live", "group", "quiet"])
def test_a_job_does_not_command_the_terminal(home: Path, small_archive: Path, mode: str) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    path = job_file(home, small_archive, COMMANDS)
    process = start("--output", mode, path, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"})
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 1 << 16):
            text += data
    except OSError:
        pass  # EIO: nobody has the terminal any more
    os.close(ours)
    assert code_of(process) == 1
    assert "… ::error::b\r\n".encode() in text and b"[2Jd\x1b[31me\r\n" in text and b"first failure" in text
    assert b"\x1b[2J" not in text and b"section_end:1:x\r\x1b" not in text


def test_a_signal_that_is_ignored_at_the_start_stays_so(home: Path, small_archive: Path, traces: Traces) -> None:
    """nohup(1)"""
    path = job_file(home, small_archive, 'run = "echo up; sleep 0.5"\n')
    process = start("--output", "live", path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout is not None and b"up" in process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert b"1 job: 1 ok" in process.stdout.read()
    assert code_of(process) == 0
    traces.check()


def test_results_of_an_earlier_run_are_not_mixed_with_these(home: Path, small_archive: Path, guntainer: Run) -> None:
    out = home / "work" / "out"
    for name in ("a", "b", "other"):
        (out / name).mkdir(parents=True)
        for file in ("stdout", "stderr", "result.json", "result.json.new", "mine"):
            (out / name / file).write_text("old")
    path = job_file(home, small_archive, 'run = "echo new"\n', 'command = ["cat"]\nstdin = "missing"\n')
    assert guntainer("batch", "--results", "out", path).returncode == 1
    assert sorted(p.name for p in (out / "a").iterdir()) == ["mine", "result.json", "stderr", "stdout"]
    assert ((out / "a" / "stdout").read_text(), (out / "a" / "stderr").read_text()) == ("new\n", "")
    assert "old" not in {p.read_text() for p in (out / "b").iterdir() if p.name != "mine"}
    assert {p.read_text() for p in (out / "other").iterdir()} == {"old"}
    (out / "a" / "stdout").unlink()
    (out / "a" / "stdout").mkdir()
    done = guntainer("batch", "--results", "out", path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and "out/a/stdout" in done.stderr
    out.chmod(0o500)
    done = guntainer("batch", "--results", "out", path)
    out.chmod(0o700)
    assert os.geteuid() == 0 or (done.returncode == 2 and "out: Permission denied" in done.stderr)


def test_a_full_disk_under_the_results_is_named(home: Path, small_archive: Path, guntainer: Run) -> None:
    (home / "full").mkdir()
    path = job_file(
        home, small_archive, 'run = "head -c 1000000 /dev/zero"\nrepeat = 2\n', 'run = "true"\nrepeat = 20\n'
    )
    batch = f"{sys.executable} -m guntainer batch --results {home}/full/r --json {home}/full/r.json {path}"
    script = f"mount -t tmpfs -o size=200k none {home}/full && {{ {batch}; c=$?; ls {home}/full >&2; exit $c; }}"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    full = [line for line in lines if f"{home}/full: no space left" in line]
    assert len(full) == 1 and "logs of jobs that failed may be cut" in full[0]
    why = f"--json {home}/full/r.json: No space left on device; "
    assert f"guntainer: error: {why}the report is not whole" in lines
    assert sum(line.startswith(f"guntainer: warning: {why}no more lines") for line in lines) == 1
    assert lines[-2:] == ["r", "r.json"] and done.returncode == 125


def test_a_report_that_can_not_be_written_says_why(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, 'run = "true"\n')
    (home / "work" / "locked").mkdir(mode=0o500)
    for name, why in [
        ("none/r.json", "none: No such file or directory; make it first"),
        (".", "Is a directory"),
        ("locked/r.json", "Permission denied"),
    ]:
        if name.startswith("locked") and os.geteuid() == 0:
            continue
        done = guntainer("batch", "--json", name, path)
        assert (done.returncode, len(done.stderr.splitlines()), why in done.stderr) == (2, 1, True), done.stderr
    assert not (home / "store" / "VERSION").exists() or not list((home / "store" / "rootfs").iterdir())


def test_what_is_missing_at_the_start_is_one_line(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, 'run = "true"\n')
    done = guntainer("batch", "-", preexec_fn=lambda: os.close(0))
    assert (done.returncode, done.stderr) == (
        2,
        "guntainer: error: batch -: standard input is closed; give it a file, or name one\n",
    )
    assert "--max-cells 0: expected a number from 1" in guntainer("batch", "--max-cells", "0", path).stderr
    for words, text in [(["--results", "r", path], None), (["-"], path.read_text())]:
        gone = home / "gone"
        gone.mkdir(exist_ok=True)
        line = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
        command = ["sh", "-c", line, "sh", gone, sys.executable, "-m", "guntainer", "batch", *words]
        done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, timeout=30)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "the working directory does not exist any more; go to another one" in done.stderr


def test_messages_as_json(home: Path, small_archive: Path, traces: Traces) -> None:
    path = job_file(home, small_archive, 'run = "echo up; sleep 50"\nmatrix = { n = [1], exclude = [{ n = 5 }] }\n')
    process = start("--output", "live", "--log-format", "json", path)
    assert process.stdout is not None and b"up" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    messages = [json.loads(line) for line in err.splitlines()]
    assert process.returncode == 143 and [one["level"] for one in messages] == ["warning", "warning"]
    assert "exclude" in messages[0]["event"] and messages[1]["event"] == "SIGTERM: stopping; once more kills"
    traces.check()


def test_signals_at_the_end_leave_no_half_report(home: Path, small_archive: Path, traces: Traces) -> None:
    """TERM at any moment from the last job's end on: every line of the report is whole, and tells of the job."""
    path = job_file(home, small_archive, 'run = "true"\n')
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        process = start("--output", "live", "--results", "out", "--json", "r.json", path)
        until((home / "work" / "out" / "a" / "result.json").exists)
        threading.Event().wait(delay)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert process.returncode in (0, 143, -signal.SIGTERM), err
        assert len(ended_jobs((home / "work" / "r.json").read_text())) == 1
        (home / "work" / "r.json").unlink()
        (home / "work" / "out" / "a" / "result.json").unlink()
        traces.check()


def test_a_report_goes_where_it_is_told(home: Path, small_archive: Path, guntainer: Run) -> None:
    (home / "jobs.toml").write_text(f'[jobs.a]\nrootfs = "{small_archive}"\ncommand = ["true"]\n')
    for target in ("/dev/stdout", "-"):
        done = guntainer("batch", "--output", "quiet", "--json", target, home / "jobs.toml")
        assert done.returncode == 0 and '"outcome": "ok"' in done.stdout, done.stderr
    assert guntainer("batch", "--json", "/dev/null", home / "jobs.toml").returncode == 0
    assert not (home / "work" / "-").exists()


def test_a_failure_that_said_nothing_leaves_commands_on(
    home: Path, small_archive: Path, guntainer: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (home / "jobs.toml").write_text(
        f'[jobs.a]\nrootfs = "{small_archive}"\nrun = "echo said; exit 1"\n'
        f'[jobs.b]\nrootfs = "{small_archive}"\ncommand = ["false"]\n'
    )
    for mode in ("group", "live", "quiet"):
        for more in ([], ["--results", home / "results"]):
            said = guntainer("batch", "-j1", "--output", mode, *more, home / "jobs.toml").stdout.splitlines()
            stopped = [line.removeprefix("::stop-commands::") for line in said if line.startswith("::stop-commands::")]
            assert [line for line in said if line.strip(":") in stopped] == [f"::{token}::" for token in stopped]


def test_no_room_for_a_summary_is_said(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, 'run = "exit 3"\n')
    summary = home / "summary"
    summary.write_bytes(bytes(1_000_000))
    done = guntainer("batch", path, env={**os.environ, "GITHUB_STEP_SUMMARY": str(summary)})
    assert done.returncode == 1 and f"GITHUB_STEP_SUMMARY {summary}: no room" in done.stderr
    assert summary.stat().st_size == 1_000_000
