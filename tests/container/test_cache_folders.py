"""Cache folders: kept between runs, by key."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import Run, Traces

from guntainer.store import folders, prune
from guntainer.store.entries import Entry, entries
from guntainer.store.lookup import CACHE, open_store

pytestmark = pytest.mark.usefixtures("user_namespaces")


def found() -> list[Entry]:
    return entries(open_store(), (CACHE,))


def job_file(home: Path, archive: Path, text: str) -> Path:
    path = home / "work" / "jobs.toml"
    path.write_text(f'[rootfs.small]\nsource = "{archive}"\n[defaults]\nrootfs = "small"\n{text}')
    return path


COUNT = """[jobs.a]
run = "cat /var/c/n || true; echo x >> /var/c/n"
cache = [{ key = "a key: ${{ matrix.k }}/../\\u00e4", path = "/var/c" }]
matrix = { k = [1, 2] }
"""


@pytest.mark.root
@pytest.mark.parametrize("userns", ["auto", "single"])
def test_they_are_kept(home: Path, small_archive: Path, guntainer: Run, traces: Traces, userns: str) -> None:
    path = job_file(home, small_archive, COUNT)
    for number in range(3):
        done = guntainer("batch", "--userns", userns, "--output", "group", "--results", "out", path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [Path(f"out/a ({k})/stdout").read_text() for k in (1, 2)] == ["x\n" * number] * 2
    assert sorted(one.sources for one in found()) == [(f"a key: {k}/../ä",) for k in (1, 2)]
    name = hashlib.sha256("a key: 1/../ä".encode()).hexdigest()
    assert name in {one.digest for one in found()} and not any(one.in_use for one in found())
    assert stat.S_IMODE((home / "store" / "folders").stat().st_mode) == 0o700
    traces.check()


def test_many_jobs_share_one(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    text = '[jobs.a]\nrun = "touch /c/$HOSTNAME.${{ matrix.n }}"\ncache = { key = "k", path = "/c" }\nmatrix = { n = %s }\n'
    done = guntainer("batch", "-j", "4", job_file(home, small_archive, text % list(range(12))))
    assert done.returncode == 0, done.stdout + done.stderr
    (one,) = found()
    assert len(os.listdir(home / "store" / "folders" / one.name / "data")) == 12
    traces.check()


def test_a_job_without_one_sees_none(home: Path, small_archive: Path, guntainer: Run) -> None:
    text = '[jobs.a]\nrun = "echo x > /c/x"\ncache = { key = "k", path = "/c" }\n[jobs.b]\nrun = "test ! -e /c"\n'
    assert guntainer("batch", "-j", "1", job_file(home, small_archive, text)).returncode == 0


def test_what_sub_ids_own_can_be_removed(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, a_range: None
) -> None:
    text = '[jobs.a]\nrun = "mkdir /c/d; echo x > /c/d/x; chmod 700 /c/d; chown -R 99:99 /c/d"\ncache = { key = "k", path = "/c" }\n'
    done = guntainer("batch", "--userns", "range", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one.sources for one in prune.prune(open_store(), everything=True, dry=True) if one.kind == CACHE] == [
        ("k",)
    ]
    assert len(found()) == 1
    prune.prune(open_store(), everything=True)
    assert found() == [] and os.listdir(home / "store" / "folders") == []


def test_one_that_is_used_stays(home: Path) -> None:
    store = open_store()
    held = folders.CacheFolders(store)
    path = held.open_nowait("k")
    assert held.open_nowait("k") == path and os.path.isdir(path)
    assert [one.in_use for one in found()] == [True]
    assert prune.prune(store, everything=True) == []
    held.close()
    held.close()
    assert prune.prune(store, older_than_s=3600) == []
    os.utime(f"{store.path}/{found()[0].place}/lock", (0, 0))
    assert len(prune.prune(store, older_than_s=3600)) == 1
    again = folders.CacheFolders(store)
    assert os.path.isdir(again.open_nowait("k"))
    again.close()


def test_a_store_that_can_not_be_written(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    text = '[jobs.a]\nrun = "true"\ncache = { key = "k", path = "/c" }\n[jobs.b]\nrun = "true"\n'
    path = job_file(home, small_archive, text)
    (home / "store").rmdir()
    assert guntainer("batch", "--only", "b", path).returncode == 0
    (home / "store" / "folders").rmdir()
    (home / "store" / "folders").write_text("not a folder")
    done = guntainer("batch", path)
    assert done.returncode == 1 and "1 ok, 1 error" in done.stdout and "cache folder 'k': " in done.stdout
    traces.check()


HELD = """[defaults]
rootfs = "host"
[jobs.a]
run = "true"
cache = [{ key = "k\\u001b", path = "/root/c" }]
[jobs.b]
run = "true"
cache = [{ key = "l", path = "/root/c" }]
"""


def test_whose_lock_is_held_by_others(home: Path, guntainer: Run, traces: Traces) -> None:
    """That is said; jobs with other keys do not wait, and a signal ends it."""
    path = home / "work" / "jobs.toml"
    path.write_text(HELD)
    entry = home / "store" / "folders" / folders.name_of("k\x1b")
    assert guntainer("batch", path).returncode == 0
    (entry,) = (home / "store" / "folders").glob(f"{entry.name}*")
    with open(entry / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [sys.executable, "-m", "guntainer", "batch", "-j", "2", "--results", "out", str(path)]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while not Path("out/b/result.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 143, out + err
    assert (out + err).count("waiting for cache folder 'k\\x1b': its lock is held") == 1, out + err
    assert [json.loads(Path(f"out/{job}/result.json").read_text())["outcome"] for job in "ab"] == ["cancelled", "ok"]
    traces.check()


def test_it_goes_on_when_the_lock_is_free(home: Path, guntainer: Run, traces: Traces) -> None:
    path = home / "work" / "jobs.toml"
    path.write_text(HELD)
    assert guntainer("batch", path).returncode == 0
    (entry,) = (home / "store" / "folders").glob(f"{folders.name_of(chr(108))}*")
    lock = os.open(entry / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    threading.Timer(1, os.close, (lock,)).start()
    done = guntainer("batch", path)
    assert done.returncode == 0 and "waiting for cache folder 'l'" in done.stdout + done.stderr, done
    traces.check()


def test_the_store_s_tool(home: Path, small_archive: Path, guntainer: Run) -> None:
    text = (
        '[jobs.a]\nrun = "dd if=/dev/zero of=/c/x bs=1k count=300"\ncache = { key = "pip\\u001b[31m", path = "/c" }\n'
    )
    assert guntainer("batch", job_file(home, small_archive, text)).returncode == 0
    (row,) = [line for line in guntainer("store", "ls").stdout.splitlines() if line.startswith("folder ")]
    assert "\x1b" not in row and row.endswith("pip\\x1b[31m")
    (row,) = [line for line in guntainer("store", "du").stdout.splitlines() if line.startswith("folder ")]
    assert any(f"{size}.0 KiB" in row for size in range(300, 330))
    assert guntainer("store", "verify").returncode == 0
    done = guntainer("store", "verify", "pip\x1b[31m")
    assert done.returncode == 0 and "1 skipped" in done.stderr
    assert guntainer("store", "export", "pip\x1b[31m").returncode != 0
    assert guntainer("store", "prune").returncode == 0 and len(found()) == 1
    assert guntainer("store", "rm", "pip\x1b[31m").returncode == 0 and found() == []


def test_who_removes_one_and_who_wants_it(home: Path) -> None:
    """Whoever has it has it: it is there until it is given back, whatever others remove meanwhile."""
    store = open_store()
    over = threading.Event()

    def remove() -> None:
        while not over.is_set():
            prune.prune(store, everything=True)

    removing = threading.Thread(target=remove)
    removing.start()
    try:
        for _ in range(100):
            folders_ = folders.CacheFolders(store)
            while not (opened := folders_.open_nowait("k")):
                time.sleep(0.001)
            path = Path(opened)
            for number in range(5):
                (path / f"{number}").write_text("x")
            assert len(list(path.iterdir())) == 5
            folders_.close()
    finally:
        over.set()
        removing.join()
