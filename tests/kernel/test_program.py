"""Programs of system calls: the machine code and the loop in Python do the same."""

from __future__ import annotations

import os
import signal

import pytest

from guntainer.kernel import program as program_module
from guntainer.kernel import syscalls
from guntainer.kernel.program import RECORD_BYTES, Program


@pytest.fixture(params=["machine code", "loop"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "loop":
        monkeypatch.setattr(program_module, "_entry", None)
    elif program_module._entry is None:
        pytest.skip("no machine code for this processor")
    return str(request.param)


def run(program: Program, fds: list[int] | None = None, launch_id: int = 7) -> tuple[int, bytes]:
    """Launch, wait; returns the wait status and what was written to the fault fd."""
    read, write = os.pipe()
    program.finish()
    program.prepare(launch_id, write, fds or [])
    pid, pidfd = program.launch(0, exit_signal=signal.SIGCHLD)
    os.close(write)
    status = os.waitpid(pid, 0)[1]
    os.close(pidfd)
    with open(read, "rb") as file:
        return status, file.read()


def words(record: bytes) -> list[int]:
    return [int.from_bytes(record[n * 8 : n * 8 + 8], "little", signed=True) for n in range(3)]


@pytest.mark.root
def test_calls_in_order(way: str) -> None:
    program = Program()
    read, write = os.pipe()
    program.call_with_fd("write", 0, 0, b"one ", 4)
    program.call_with_fd("write", 0, 0, b"two", 3)
    program.call("exit_group", 5)
    status, record = run(program, [write])
    os.close(write)
    assert os.waitstatus_to_exitcode(status) == 5 and record == b""
    assert os.read(read, 100) == b"one two"
    os.close(read)
    assert not program.busy


def test_a_result_is_a_later_argument(way: str, tmp_path: object) -> None:
    path = f"{tmp_path}/file"
    program = Program()
    fd = program.call("openat", -100, path, os.O_CREAT | os.O_WRONLY, 0o600)
    program.call("write", fd, b"content", 7)
    program.call("exit_group", 0)
    status, _ = run(program)
    assert status == 0
    with open(path, "rb") as file:
        assert file.read() == b"content"


@pytest.mark.root
def test_a_failure_is_told_with_its_step(way: str) -> None:
    program = Program()
    program.step = 3
    program.call("chdir", "/")
    program.step = 4
    program.call("chdir", "/nonexistent")
    program.call("exit_group", 0)
    status, record = run(program)
    assert os.waitstatus_to_exitcode(status) == 125
    assert len(record) == RECORD_BYTES
    assert words(record) == [7, 4, -2]


def test_errors_can_be_ignored_or_branched_on(way: str) -> None:
    program = Program()
    program.call("chdir", "/nonexistent", ignore=True)
    label = program.label()
    program.call("chdir", "/nonexistent", on_error=label)
    program.call("exit_group", 1)
    program.here(label)
    good = program.label()
    program.jump_to(program.call("chdir", "/"), good)
    program.call("exit_group", 2)
    program.here(good)
    program.call("exit_group", 9)
    status, record = run(program)
    assert os.waitstatus_to_exitcode(status) == 9 and record == b""


def test_exec_with_arguments_and_environment(way: str) -> None:
    program = Program()
    read, write = os.pipe()
    program.call_with_fd("dup3", 0, 0, 1, 0)
    argv = program.pointers((b"sh", b"-c", b'echo "$0 $A"', b"zero"))
    program.call("execve", "/bin/sh", argv, program.pointers((b"A=b c",)))
    status, record = run(program, [write])
    os.close(write)
    assert (status, record, os.read(read, 100)) == (0, b"", b"zero b c\n")
    os.close(read)
    assert not program.busy  # it is free as soon as the clone has executed


def test_a_program_runs_again_with_other_descriptors(way: str) -> None:
    program = Program()
    program.call_with_fd("write", 0, 0, b"x", 1)
    program.call("exit_group", 0)
    program.finish()
    for _ in range(3):
        read, write = os.pipe()
        program.prepare(1, 2, [write])
        pid, pidfd = program.launch(0, exit_signal=signal.SIGCHLD)
        os.waitpid(pid, 0)
        os.close(write), os.close(pidfd)
        assert os.read(read, 10) == b"x"
        os.close(read)


def test_handlers_are_not_run_in_the_clone(way: str) -> None:
    """A signal for the clone finds the default disposition, not our handlers."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    program = Program()
    read, write = os.pipe()
    program.call_with_fd("read", 0, 0, program.data(bytes(8), shared=False), 1)
    program.finish()
    program.prepare(1, 2, [read])
    pid, pidfd = program.launch(0, exit_signal=signal.SIGCHLD)
    syscalls.pidfd_send_signal(pidfd, signal.SIGUSR1)
    status = os.waitpid(pid, 0)[1]
    signal.signal(signal.SIGUSR1, before)
    for fd in (read, write, pidfd):
        os.close(fd)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGUSR1 and seen == []


def test_clone_errors_are_raised(way: str) -> None:
    program = Program()
    program.call("exit_group", 0)
    program.finish()
    program.prepare(1, 2, [])
    with pytest.raises(OSError, match="Invalid argument"):
        program.launch(0x8000, exit_signal=signal.SIGCHLD)  # CLONE_PARENT refuses an exit signal
    assert not program.busy
