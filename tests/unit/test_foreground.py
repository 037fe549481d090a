"""`run` between launch and exit code, where no container is needed to see what it does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guntainer import assembly, errors, interrupts, processes, waiting
from guntainer.foreground import Foreground
from guntainer.jobs.model import Job, Source

JOB = Job(id="one", rootfs=Source(location="/r"), command=("true",))


class Refused(Foreground):
    """Overlayfs is refused, always, after a signal has come or not."""

    signal = 0
    attempts = 0

    def _once(self, wait: waiting.Wait, *_: object, copy: bool, **__: object) -> None:  # type: ignore[override]
        self.attempts += 1
        wait.asked = self.signal
        raise errors.SetupError("overlay", "/m", errno.EINVAL)


def refused(tmp_path: Path) -> Refused:
    ground = assembly.Ground(str(tmp_path), lambda: pytest.fail("nothing is written"))
    return Refused(JOB, "/r", ground, terminal=False, descend=lambda _rung: None)


def test_the_next_rung_is_tried(tmp_path: Path) -> None:
    run = refused(tmp_path)
    with pytest.raises(errors.SetupError):
        run.run()
    assert run.attempts == 2


def test_who_was_asked_to_end_tries_no_lower_rung(tmp_path: Path) -> None:
    run = refused(tmp_path)
    run.signal = signal.SIGTERM
    with pytest.raises(interrupts.Interrupted) as told:
        run.run()
    assert told.value.number == signal.SIGTERM and run.attempts == 1


def test_signals_come_through_a_pipe_and_are_as_before_afterwards() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with interrupts.SignalPipe((signal.SIGUSR1, signal.SIGTERM)) as pipe:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not pipe.ending()
            assert pipe.take() == bytes((signal.SIGUSR1, signal.SIGUSR1))
            os.kill(os.getpid(), signal.SIGTERM)
            assert pipe.ending() and pipe.take() == bytes((signal.SIGTERM,)) and not pipe.take()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.SignalPipe((signal.SIGHUP,)) as pipe:
            os.kill(os.getpid(), signal.SIGHUP)
            assert pipe.take() == b"" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_proc_tells_of_who_is_there_and_who_is_not() -> None:
    us = os.getpid()
    assert processes.alive(us) and processes.command_line(us) and not processes.has_executed(us)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert not processes.alive(child) and processes.has_executed(child)
    assert processes.descendants(child) == [] and processes.command_line(child) == b"" and processes.writes(child) == 0
    assert not processes.decides(child, signal.SIGTERM) and not processes.heard_in_group(child, signal.SIGTERM)


def test_who_below_a_process_hears_a_signal() -> None:
    """One that catches it, in its group; not one that dies of it."""
    code = (
        "import os, signal, sys, time\nos.setpgid(0, 0)\nsignal.signal(signal.SIGQUIT, signal.SIG_DFL)\nready = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    if sys.argv[1] == 'catch':\n        signal.signal(signal.SIGQUIT, lambda *_: None)\n"
        "    os.write(ready[1], b'x')\n    time.sleep(60)\n"
        "os.read(ready[0], 1)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    for how in ("catch", "die"):
        with subprocess.Popen([sys.executable, "-c", code, how], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
            assert processes.heard_below(process.pid, signal.SIGQUIT) == (how == "catch")
            os.killpg(process.pid, signal.SIGKILL)
