"""The throw-away kernel itself: what comes out of it is what went in, and nothing of it stays."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kernel
import pytest
import qemu
import uml
from conftest import PROJECT

RUNNER = str(Path(kernel.__file__))


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not uml.is_there():
        pytest.skip(uml.LACKS)
    if os.environ.get("GUNTAINER_VM"):
        pytest.skip("a kernel in a kernel")
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture(params=[(), ("--qemu",)], ids=["uml", "qemu"])
def machine(request: pytest.FixtureRequest, installed: None) -> tuple[str, ...]:
    """Either machine, as an option of the runner."""
    if request.param and not qemu.is_there():
        pytest.skip(qemu.LACKS)
    return request.param  # type: ignore[no-any-return]


def boot(*words: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, RUNNER, *words], stdout=-1, stderr=-1, **options)  # type: ignore[call-overload,no-any-return]


def session_of(runner: subprocess.Popen[bytes]) -> int:
    """The session of the kernel's processes."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for word in Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split():
            try:
                line = Path(f"/proc/{word}/cmdline").read_bytes()
            except FileNotFoundError:
                continue  # it has ended meanwhile
            if uml.MARK in line or qemu.MARK in line:
                return int(word)
        time.sleep(0.02)
    raise AssertionError("it does not start")


def members(session: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.parent.name)
    return found


def until_nothing_is_left(session: int, folder: Path) -> None:
    deadline = time.monotonic() + 20
    while members(session) or list(folder.iterdir()):
        assert time.monotonic() < deadline, (members(session), list(folder.iterdir()))
        time.sleep(0.02)


def test_bytes_and_the_exit_code_come_out_as_they_are(tmp_path: Path, machine: tuple[str, ...]) -> None:
    code = (
        "import hashlib, os, sys; data = os.urandom(3_000_001); sys.stdout.buffer.write(data); "
        "sys.stderr.write(hashlib.sha256(data).hexdigest()); sys.stdout.flush(); sys.stderr.flush(); "
        "os.kill(os.getpid(), 15)"
    )
    process = boot(*machine, "--", sys.executable, "-c", code)
    out, err = process.communicate(timeout=90)
    assert err.decode() == hashlib.sha256(out).hexdigest()
    assert (len(out), process.returncode) == (3_000_001, 128 + signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_an_ordinary_user_in_a_group_of_its_own() -> None:
    script = "id -u; cat /proc/self/cgroup; exit 7"
    process = boot("--controllers", "memory pids", "--uid", "4242", "--", "sh", "-c", script)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 7, err.decode(errors="replace")
    uid, group = out.decode().split()
    assert (uid, process.returncode) == ("4242", 7)
    assert group == "0::/user.slice/user-4242.slice/user@4242.service/app.slice/command.scope"


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (("--undelegated",), b"command.scope is not delegated to you"),
        (("--controllers", "pids"), b"no limit of memory: the cgroup controller memory is not delegated to you"),
    ],
)
def test_limits_without_delegation(small_archive: Path, words: tuple[str, ...], say: bytes) -> None:
    line = (sys.executable, "-m", "guntainer", "run", "-m", "64m", str(small_archive), "true")
    process = boot(*words, "--env", f"PYTHONPATH={PROJECT}", "--", *line)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 125
    assert say in err


def test_the_time_limit(tmp_path: Path, machine: tuple[str, ...]) -> None:
    process = boot(*machine, "--timeout", "4", "--", "sleep", "100")
    session = session_of(process)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (124, b"vm: time limit of 4 s\n")
    until_nothing_is_left(session, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_runner_is_killed(tmp_path: Path, machine: tuple[str, ...], number: int) -> None:
    process = boot(*machine, "--", "sleep", "100")
    session = session_of(process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode in (-number, 128 + number)
    until_nothing_is_left(session, tmp_path)


def test_a_machine_that_can_not_be_set_up_says_why() -> None:
    process = boot("--sysctl", "no.such=1", "--", "true")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 125
    assert b"/proc/sys/no/such" in err
