"""Who kills containers when their supervisor has died."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from guntainer import descriptors
from guntainer.init import guard

pytestmark = pytest.mark.root


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def opened(process: subprocess.Popen[bytes]) -> int:
    return os.pidfd_open(process.pid)


def test_a_guard_kills_when_the_other_end_is_closed(sleepers: list[subprocess.Popen[bytes]]) -> None:
    life, ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    pidfd = opened(sleepers[0])
    one = guard.Guard(pidfd, life)
    until_it_waits(one._pid)
    # what is sent to the whole group, or to it, does not touch it
    os.kill(one._pid, signal.SIGTERM)
    os.kill(one._pid, signal.SIGINT)
    assert sleepers[0].poll() is None and os.getpgid(one._pid) == one._pid
    os.close(ours)
    assert sleepers[0].wait(timeout=10) == -signal.SIGKILL
    assert os.waitstatus_to_exitcode(os.waitpid(one._pid, 0)[1]) == 0
    one.close()  # it is gone already
    for fd in (life, pidfd):
        os.close(fd)
    assert sleepers[1].poll() is None


def test_a_guard_that_is_called_off(sleepers: list[subprocess.Popen[bytes]]) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    life, ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    pidfd = opened(sleepers[0])
    one = guard.Guard(pidfd, life)
    pid = one._pid
    held = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in until_it_waits(pid)}
    assert held["0"] == os.readlink(f"/proc/self/fd/{life}") and "pidfd" in held["1"]
    one.close()
    one.close()
    assert not os.path.exists(f"/proc/{pid}")
    for fd in (life, ours, pidfd):
        os.close(fd)
    assert sleepers[0].poll() is None
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def until_it_waits(pid: int) -> list[str]:
    """The descriptors of a guard that has let go of everything else."""
    for _ in range(1000):
        found = os.listdir(f"/proc/{pid}/fd")
        if sorted(found) == ["0", "1"]:
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def keep(living: guard.Living, process: subprocess.Popen[bytes]) -> None:
    pidfd = opened(process)
    living.add(pidfd)
    os.close(pidfd)


def test_they_are_out_of_the_way_of_launches(sleepers: list[subprocess.Popen[bytes]]) -> None:
    living = guard.Living()
    for process in sleepers:
        keep(living, process)
    assert min(living._fds) >= descriptors.LEAST
    for fd in living._fds:
        os.close(fd)


def test_without_room_nothing_is_kept(sleepers: list[subprocess.Popen[bytes]]) -> None:
    living = guard.Living()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors.LEAST, hard))
    try:
        keep(living, sleepers[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(living) == 0


def test_the_dead_are_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_FEW", 4)
    before = len(os.listdir("/proc/self/fd"))
    living = guard.Living()
    for _ in range(40):
        process = subprocess.Popen(["true"])
        keep(living, process)
        process.wait()
        assert len(living) <= 4
    assert len(os.listdir("/proc/self/fd")) - before == len(living)
    living.kill()
    for fd in living._fds:
        os.close(fd)


def test_those_that_live_are_killed(sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_FEW", 2)
    living = guard.Living()
    for process in sleepers:
        keep(living, process)
    assert len(living) == 3
    living.kill()
    assert [process.wait(timeout=10) for process in sleepers] == [-signal.SIGKILL] * 3
    for fd in living._fds:
        os.close(fd)


def test_there_are_never_more_than_there_is_room_for(sleepers: list[subprocess.Popen[bytes]]) -> None:
    living = guard.Living(lambda: 4)
    living._most = 4
    for _ in range(50):
        keep(living, sleepers[0])
        assert len(living) < 4
    for fd in living._fds:
        os.close(fd)
