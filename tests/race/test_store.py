"""The store under several hands at once."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
import unpacking
from conftest import Traces

from guntainer import errors
from guntainer.archive import worker
from guntainer.jobs.model import Source
from guntainer.store import asynchronous
from guntainer.store import prune as prune_module
from guntainer.store.entries import entries
from guntainer.store.filling import Filling, wanted_archive
from guntainer.store.lookup import open_store
from guntainer.store.prune import prune


def slow_worker(seconds: float) -> str:
    """Code for a process whose unpacker takes its time."""
    return (
        "import time, sys; from guntainer.archive import worker; run = worker._unpack\n"
        f"def slow(task, *more):\n    facts = run(task, *more); time.sleep({seconds}); return facts\n"
        "worker._unpack = slow\n"
        "from guntainer import Source; from guntainer.store.acquire import acquire\n"
        "from guntainer.store.lookup import open_store\n"
        "lease = acquire(open_store(), Source(location=sys.argv[1])); print(lease.tree)\n"
    )


def fills(store: Path) -> list[str]:
    return sorted(os.listdir(store / "rootfs"))


@pytest.mark.root
def test_found_again_without_reading(home: Path, small_archive: Path) -> None:
    store = open_store()
    assert store.find(str(small_archive)) is None
    first = unpacking.lease(store, str(small_archive))
    second = store.find(str(small_archive))
    assert second is not None and second.tree == first.tree and second.digest == first.digest
    copy = home / "copy"
    copy.write_bytes(small_archive.read_bytes())
    third = unpacking.lease(store, str(copy))
    assert third.tree == first.tree and len(fills(home / "store")) == 1
    for lease in (first, second, third):
        lease.release()


def test_a_changed_archive_is_unpacked_again(home: Path, small_archive: Path) -> None:
    store = open_store()
    path = home / "a.tar.gz"
    path.write_bytes(small_archive.read_bytes())
    one = unpacking.lease(store, str(path))
    import gzip

    path.write_bytes(gzip.compress(gzip.decompress(small_archive.read_bytes()) + bytes(512)))
    assert store.find(str(path)) is None
    two = unpacking.lease(store, str(path))
    assert one.digest != two.digest
    one.release(), two.release()


def test_a_digest_that_does_not_match(home: Path, small_archive: Path) -> None:
    store = open_store()
    with pytest.raises(errors.RootfsError, match="0" * 64):
        unpacking.lease(store, str(small_archive), sha256="0" * 64)
    assert fills(home / "store") == [] and os.listdir(home / "store" / "incoming") == []
    unpacking.lease(store, str(small_archive)).release()
    with pytest.raises(errors.RootfsError, match="0" * 64):
        store.find(str(small_archive), "0" * 64)


def test_many_processes_unpack_once(home: Path, small_archive: Path) -> None:
    log = home / "log"
    code = slow_worker(0.5).replace("facts = run", f"open({str(log)!r}, 'a').write('x'); facts = run")
    line = [sys.executable, "-c", code, str(small_archive)]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE) for _ in range(8)]
    trees = {process.communicate(timeout=60)[0] for process in processes}
    assert len(trees) == 1 and all(process.returncode == 0 for process in processes)
    assert log.read_text() == "x"
    assert os.listdir(home / "store" / "incoming") == []


@pytest.mark.parametrize("whom", ["worker", "holder"])
def test_taken_over_when_the_first_one_dies(home: Path, small_archive: Path, whom: str, traces: Traces) -> None:
    first = subprocess.Popen([sys.executable, "-c", slow_worker(30), str(small_archive)], stderr=subprocess.PIPE)
    incoming = home / "store" / "incoming"
    while not (incoming.is_dir() and any((p / "tree").exists() for p in incoming.iterdir())):
        time.sleep(0.01)
    second = subprocess.Popen([sys.executable, "-c", slow_worker(0), str(small_archive)], stdout=subprocess.PIPE)
    time.sleep(0.2)
    assert second.poll() is None
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    os.kill(int(children[0]) if whom == "worker" else first.pid, signal.SIGKILL)
    _, err = first.communicate(timeout=30)
    if whom == "worker":
        assert b"its unpacker ended by signal 9" in err
    assert second.communicate(timeout=30)[0] and second.returncode == 0
    assert len(fills(home / "store")) == 1
    traces.check()


def test_a_damaged_entry_is_rebuilt(home: Path, small_archive: Path) -> None:
    store = open_store()
    lease = unpacking.lease(store, str(small_archive))
    lease.release()
    (Path(lease.tree).parent / "meta").write_bytes(b"")
    assert store.find(str(small_archive)) is None
    again = unpacking.lease(store, str(small_archive))
    assert again.tree == lease.tree
    again.release()


def test_prune_spares_what_is_leased(home: Path, small_archive: Path) -> None:
    store = open_store()
    lease = unpacking.lease(store, str(small_archive))
    assert prune(store, everything=True) == []
    assert entries(store)[0].in_use
    lease.release()
    assert prune(store, older_than_s=3600) == []
    assert [entry.digest for entry in prune(store, everything=True)] == [lease.digest]
    assert entries(store) == [] and os.listdir(home / "store" / "index") == []
    assert store.find(str(small_archive)) is None


def test_prune_removes_what_dead_unpackers_left(home: Path, small_archive: Path) -> None:
    store = open_store()
    filling = Filling(store, wanted_archive(str(small_archive)))
    filling.lock(wait=True)
    assert isinstance(filling.begin(), worker.Task)
    prune(store)
    assert os.listdir(home / "store" / "incoming")  # alive
    os.close(filling._incoming._lock)
    prune(store)
    assert os.listdir(home / "store" / "incoming") == []


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1])
def test_cancelled_while_unpacking(home: Path, small_archive: Path, delay: float, traces: Traces) -> None:
    store = open_store()

    async def main() -> None:
        with anyio.move_on_after(delay):
            source = Source(location=str(small_archive))
            (await asynchronous.acquire(store, source, anyio.CapacityLimiter(2))).release()

    anyio.run(main)
    assert os.listdir(home / "store" / "incoming") == []
    traces.check()


def test_a_newer_layout_is_refused(home: Path) -> None:
    (home / "store" / "VERSION").write_text("99\n")
    with pytest.raises(errors.StoreError, match="newer"):
        open_store()


def test_an_unwritable_store_is_named(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(errors.StoreError, match="Not a directory"):
        open_store(str(home / "file" / "store"))


def test_prune_leaves_an_unpack_whose_lock_changes_hands(
    home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening a lock and holding it, its holder may finish and another one begin."""
    store = open_store()
    holder = Filling(store, wanted_archive(str(small_archive)))
    assert holder.lock(wait=False)
    followers = []
    flock = prune_module.fcntl.flock

    def changing_hands(fd: int, how: int) -> None:
        if not followers:
            holder.close()
            follower = Filling(store, wanted_archive(str(small_archive)))
            followers.append(follower)
            assert follower.lock(wait=False)
            assert isinstance(follower.begin(), worker.Task)
        flock(fd, how)

    monkeypatch.setattr(prune_module.fcntl, "flock", changing_hands)
    prune_module.remove_dead_unpacks(store)
    monkeypatch.undo()
    assert len(os.listdir(home / "store" / "incoming")) == 2  # the folder and the lock of the follower
    followers[0].close()
    assert os.listdir(home / "store" / "incoming") == []


def test_prune_leaves_an_entry_that_was_made_anew(
    home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    first = unpacking.lease(store, str(small_archive))
    entry = str(Path(first.tree).parent)
    first.release()
    leases = []
    flock = prune_module.fcntl.flock

    def changing_hands(fd: int, how: int) -> None:
        if not leases:
            leases.append(None)
            assert prune_module.remove_entry(entry)
            leases[0] = unpacking.lease(store, str(small_archive))
        flock(fd, how)

    monkeypatch.setattr(prune_module.fcntl, "flock", changing_hands)
    assert not prune_module.remove_entry(entry)
    monkeypatch.undo()
    assert leases[0] is not None and Path(leases[0].tree, "bin").exists()
    leases[0].release()


def test_an_archive_that_is_replaced_meanwhile(home: Path, small_archive: Path) -> None:
    """What is unpacked, hashed and remembered is one and the same file."""
    path = home / "a.tar.gz"
    path.write_bytes(small_archive.read_bytes())
    other = home / "b.tar.gz"
    other.write_bytes(small_archive.read_bytes() + bytes(64))
    code = (
        "import os, sys; from guntainer.archive import worker; into = worker._into_tree\n"
        f"def replaced(*a):\n    os.rename({str(other)!r}, {str(path)!r}); return into(*a)\n"
        "worker._into_tree = replaced\n"
        "from guntainer import Source; from guntainer.store.acquire import acquire\n"
        "from guntainer.store.lookup import open_store\n"
        "print(acquire(open_store(), Source(location=sys.argv[1])).digest)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == hashlib.sha256(small_archive.read_bytes()).hexdigest(), done.stderr
    assert open_store().find(str(path)) is None  # the file that is there now is another one


def test_a_rewrite_that_keeps_size_and_time_is_seen(home: Path, small_archive: Path) -> None:
    path = home / "a.tar.gz"
    path.write_bytes(small_archive.read_bytes() + bytes(8))
    status = path.stat()
    store = open_store()
    unpacking.lease(store, str(path)).release()
    assert store.has(str(path))
    path.write_bytes(small_archive.read_bytes() + b"\0" * 8)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not store.has(str(path)) and store.find(str(path)) is None


def test_a_store_that_others_may_write_is_refused(home: Path) -> None:
    """Whoever can write there decides what runs."""
    shared = home / "shared"
    shared.mkdir()
    (shared / "something").write_text("")
    shared.chmod(0o777)
    for _ in range(2):
        with pytest.raises(errors.StoreError, match="can be written by other users"):
            open_store(str(shared))
    empty = home / "empty"
    empty.mkdir()
    empty.chmod(0o777)
    open_store(str(empty))
    assert empty.stat().st_mode & 0o777 == 0o700


def test_what_a_killed_unpacker_left_goes_with_the_next_start(home: Path, small_archive: Path, traces: Traces) -> None:
    other = home / "other.tar.gz"
    other.write_bytes(small_archive.read_bytes() + bytes(8))
    first = subprocess.Popen([sys.executable, "-c", slow_worker(30), str(other)])
    incoming = home / "store" / "incoming"
    while not (incoming.is_dir() and any((p / "tree").exists() for p in incoming.iterdir())):
        time.sleep(0.01)
    first.kill()
    first.wait()
    deadline = time.monotonic() + 5
    while traces.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    line = [sys.executable, "-m", "guntainer", "run", str(small_archive), "true"]
    assert subprocess.run(line, check=False).returncode == 0
    assert os.listdir(incoming) == []


def test_the_command_line(home: Path, small_archive: Path, user_namespaces: None) -> None:
    def store(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "guntainer", "store", *words]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    path = store("path", str(small_archive)).stdout.strip()
    assert Path(path, "bin").exists()
    rows = store("ls").stdout.splitlines()
    assert rows[0].split()[:2] == ["KIND", "DIGEST"] and str(small_archive) in rows[1] and len(rows) == 2
    assert store("prune").stderr.startswith("0 removed")
    assert store("prune", "--older-than", "1h").stderr.startswith("0 removed")
    bad = store("prune", "--older-than", "5x")
    assert bad.returncode == 2 and "--older-than" in bad.stderr and len(bad.stderr.splitlines()) == 1
    gone = store("prune", "--all")
    assert gone.stdout.startswith("removed ") and gone.stderr.startswith("1 removed") and not Path(path).exists()
    assert len(store("ls").stdout.splitlines()) == 1
