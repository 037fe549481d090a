"""Processes of ours beside an event loop: what comes of one that is interrupted, that fails, that can not be started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guntainer import errand, errors, hostids
from guntainer.idmap import Ids

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_what_it_says() -> None:
    before = descriptors()
    words = [sys.executable, "-c", "import sys; print(sys.stdin.read()[::-1], end=''); sys.exit(3)"]
    assert asyncio.run(errand.Errand("x", words, b"abc").wait()) == (3, b"cba")
    assert descriptors() == before


def test_interrupted() -> None:
    before, others = descriptors(), children()

    async def run() -> None:
        one = errand.Errand("x", SLEEP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.wait(), 0.05)
        assert children() == others
        one.kill()  # does nothing any more

    started = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - started < 30 and descriptors() == before


def test_killed() -> None:
    async def run() -> tuple[int, bytes]:
        one = errand.Errand("x", SLEEP)
        asyncio.get_running_loop().call_later(0.05, one.kill)
        return await one.wait()

    assert asyncio.run(run()) == (-9, b"")


def test_one_that_can_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    with pytest.raises(errors.HostError, match=r"x: /no/such/program: No such file"):
        errand.Errand("x", ["/no/such/program"])

    def refused(*_words: object, **_options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refused)
    with pytest.raises(errors.Exhausted, match="no more processes"):
        errand.Errand("x", SLEEP)
    assert descriptors() == before


def test_it_ends_with_its_parent() -> None:
    """It waits for a task that never comes, and for nothing else."""
    code = (
        f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n"
        "from guntainer import errand; from guntainer.idmap import Ids\n"
        "import subprocess, time, os\n"
        "words = errand.line('collecting', Ids())\n"
        "r, w = os.pipe()\n"
        "p = subprocess.Popen(words, stdin=r, pass_fds=(w,))\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(1)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    pid = int(done.stdout)
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "ZX":
            return
        time.sleep(0.05)
    pytest.fail("it lives on")


def test_its_words() -> None:
    words = errand.line("artifacts", Ids(), ["a"])
    assert words[0] == sys.executable and words[-3:] == [str(hostids.SINGLE), str(os.getpid()), "a"]
    assert not errand.must_enter(Ids())
    assert errand.must_enter(Ids(kind="range", namespace=7))
    assert errand.line("x", Ids(kind="range", namespace=7))[-2] == "7"
    assert errand.line("x", Ids(kind="range", namespace=7, inside=True))[-2] == str(hostids.HERE)
