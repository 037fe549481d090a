"""Images while others ask for the same ones, and while somebody loses patience."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import image_builder as make
import pytest
import unpacking
from conftest import Run, Traces

from guntainer import interrupts
from guntainer.jobs.model import Source
from guntainer.store import asynchronous, filling, headstart
from guntainer.store.lookup import Store, open_store

pytestmark = pytest.mark.usefixtures("user_namespaces")


@pytest.fixture
def layout(home: Path, small_archive: Path) -> Path:
    base = make.layer_of(gzip.decompress(small_archive.read_bytes()))
    layers = [make.layer((f"n{n}", "file", {"data": os.urandom(300_000)})) for n in range(12)]
    return make.oci_folder(home / "layout", {"1": make.image(base, *layers)})


COUNTED = (
    "import sys; from guntainer.archive import worker; unpack = worker._unpack\n"
    "def counted(task, *more):\n    open({log!r}, 'a').write('x'); return unpack(task, *more)\n"
    "worker._unpack = counted\n"
    "from guntainer.cli import main; sys.exit(main(sys.argv[1:]))\n"
)


def test_many_processes_unpack_each_layer_once(home: Path, layout: Path) -> None:
    log = home / "log"
    line = [sys.executable, "-c", COUNTED.format(log=str(log)), "pull", "-q", str(layout)]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = {process.communicate(timeout=100)[0] for process in processes}
    assert len(said) == 1 and len(said.pop().strip()) == 64
    assert log.read_text() == "x" * 13
    assert os.listdir(home / "store" / "incoming") == []


def settle(traces: Traces) -> None:
    """A feeder whose unpacker was killed ends with its next write: that is soon, and not waited for."""
    for _ in range(100):
        if not traces.processes():
            return
        time.sleep(0.02)


def test_two_hundred_processes_ask_for_ten_archives(home: Path) -> None:
    """Each is unpacked once."""
    log = home / "log"
    archives = []
    for number in range(10):
        archives.append(home / f"{number}.tar")
        archives[-1].write_bytes(make.tar_of([("bin", "dir", {}), ("bin/x", "file", {"data": b"%d" % number})]))
    code = COUNTED.format(log=str(log))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, "pull", "-q", "--userns", "single", str(archives[number % 10])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(200)
    ]
    said = [process.communicate(timeout=110)[0].strip() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert len(set(said)) == 10 and all(len(set(said[number::10])) == 1 for number in range(10))
    assert log.read_text() == "x" * 10
    assert os.listdir(home / "store" / "incoming") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.05, 0.1, 0.15, 0.2, 0.3])
def test_a_signal_while_layers_are_unpacked(
    guntainer: Run, home: Path, layout: Path, delay: float, number: signal.Signals, traces: Traces
) -> None:
    process = subprocess.Popen([sys.executable, "-m", "guntainer", "run", str(layout), "sleep", "20"])
    time.sleep(delay)
    process.send_signal(number)
    assert process.wait(30) in (128 + number, -number)
    store = home / "store"
    assert not (store / "incoming").exists() or os.listdir(store / "incoming") == []
    settle(traces)
    traces.check()
    assert guntainer("run", str(layout), "echo", "whole").stdout == "whole\n"


@pytest.mark.parametrize("delay", [0.2, 0.3, 0.4])
def test_a_signal_while_a_batch_unpacks_them(home: Path, layout: Path, delay: float, traces: Traces) -> None:
    (home / "work" / "jobs.toml").write_text(f'[jobs.j]\nrootfs = "{layout}"\ncommand = ["sleep", "20"]\nrepeat = 2\n')
    process = subprocess.Popen([sys.executable, "-m", "guntainer", "batch", "jobs.toml"], cwd=home / "work")
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (130, -2)
    assert not (home / "store" / "incoming").exists() or os.listdir(home / "store" / "incoming") == []
    settle(traces)
    traces.check()


def test_one_bad_layer_ends_the_others(guntainer: Run, home: Path, small_archive: Path, traces: Traces) -> None:
    base = make.layer_of(gzip.decompress(small_archive.read_bytes()))
    bad = make.layer_of(b"no tar at all" * 1000)
    make.oci_folder(home / "layout", {"1": make.image(base, bad, make.layer(("f", "file", {})))})
    done = guntainer("run", str(home / "layout"), "true")
    assert done.returncode == 125 and f"layer {bad.digest.removeprefix('sha256:')[:12]}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    store = home / "store"
    assert os.listdir(store / "images") == os.listdir(store / "incoming") == os.listdir(store / "index") == []
    (home / "work" / "jobs.toml").write_text(f'[jobs.j]\nrootfs = "{home}/layout"\ncommand = ["true"]\n')
    done = guntainer("batch", "jobs.toml")
    assert done.returncode == 125 and "layer" in done.stdout
    assert os.listdir(store / "images") == os.listdir(store / "incoming") == []
    settle(traces)
    traces.check()


def test_an_unpack_that_was_begun_before_does_not_outlive_who_waits_for_a_turn(
    home: Path, small_archive: Path, traces: Traces
) -> None:
    """All turns are taken when it is given up: its worker is ended, and its folder gone."""

    async def wait_in_vain(store: Store, begun: headstart.Begun) -> None:
        turns = anyio.CapacityLimiter(1)
        async with turns:
            with anyio.move_on_after(0.1) as scope:
                await asynchronous.acquire(store, Source(location=str(small_archive)), turns, begun=begun)
        assert scope.cancelled_caught

    store = open_store(str(home / "store"))
    start = headstart.HeadStart()
    start.begin(store, [(str(small_archive), None)], most=1)
    begun = start.take(str(small_archive), None)
    assert begun is not None
    anyio.run(wait_in_vain, store, begun)
    with pytest.raises(ChildProcessError):
        os.waitpid(begun.pid, os.WNOHANG)
    assert os.listdir(home / "store" / "incoming") == []
    traces.check()


def test_what_waits_for_a_turn_has_no_lock(home: Path, layout: Path, traces: Traces) -> None:
    """So that another process can unpack it meanwhile, and nothing is open for it."""

    async def wait_in_vain(store: Store) -> None:
        turns = anyio.CapacityLimiter(1)
        async with turns:
            with anyio.move_on_after(0.3):
                await asynchronous.acquire(store, Source(location=str(layout)), turns)

    locked: list[str] = []

    def lock(self: filling.Incoming, *, wait: bool) -> bool:
        locked.append(self.folder)
        return taken(self, wait=wait)

    taken = filling.Incoming.lock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling.Incoming, "lock", lock)
        anyio.run(wait_in_vain, open_store(str(home / "store")))
    assert locked == []
    traces.check()


def test_a_signal_at_the_moment_in_which_a_lock_is_taken(
    home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    """Whoever was told that it is taken had no time to remember it."""
    taken = filling.Incoming.lock

    def lock(self: filling.Incoming, *, wait: bool) -> bool:
        taken(self, wait=wait)
        raise interrupts.Interrupted(signal.SIGINT)

    monkeypatch.setattr(filling.Incoming, "lock", lock)
    with pytest.raises(interrupts.Interrupted):
        unpacking.lease(open_store(str(home / "store")), str(small_archive))
    assert os.listdir(home / "store" / "incoming") == []
    traces.check()
