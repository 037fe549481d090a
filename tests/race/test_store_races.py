"""`prune --all` again and again, against all who put things into the store and run on them."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path

import image_builder as make
import pytest
from conftest import Run, Traces

from guntainer.idmap import Ids
from guntainer.store.lookup import FOLDERS, open_store
from guntainer.store.prune import prune

pytestmark = pytest.mark.usefixtures("user_namespaces")

_ROUNDS = 25

# Leases what there is, unpacks what there is not, and looks whether its tree stays whole as long as it has the lease.
_LEASING = """
import os, sys
from guntainer import errors
from guntainer.jobs import sources
from guntainer.store import acquire
from guntainer.store.lookup import open_store
store = open_store()
for number in range({rounds}):
    source = sources.parse(sys.argv[1 + number % (len(sys.argv) - 1)], "/")
    try:
        lease = acquire.acquire(store, source)
    except errors.StoreError as error:
        assert "run it again" in str(error), error
        continue
    with lease:
        for _ in range(20):
            seen = {{name for folder in lease.rootfs.folders for name in os.listdir(folder)}}
            assert seen >= {{"mark", "bin"}}, (source.location, seen)
"""
_PULLING = """
import subprocess, sys
for number in range(8):
    line = [sys.executable, "-m", "guntainer", *sys.argv[1].split(), sys.argv[2 + number % (len(sys.argv) - 2)]]
    line += ["sh", "-c", "cat /mark && ls /bin/sh"] if sys.argv[1] == "run" else []
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        assert done.returncode == 125 and "run it again" in done.stderr, done
        assert len(done.stderr.splitlines()) == 1, done
"""
_PRUNING = """
import sys
from guntainer.store.lookup import open_store
from guntainer.store.prune import prune
store = open_store()
while True:
    prune(store, everything=True)
    prune(store, keep_bytes=1, dry=True)
"""


@pytest.fixture
def sources(home: Path, small_archive: Path) -> list[str]:
    """Two archives, and two images with a common layer; each has the programs of this machine and a file `mark`."""
    tar = gzip.decompress(small_archive.read_bytes())
    base = make.layer_of(tar)
    found = []
    for name in ("a", "b"):
        mark = make.layer(("mark", "file", {"data": name.encode()}))
        found.append(str(make.oci_folder(home / name, {"1": make.image(base, mark)})))
        # two tars, one after the other, without the end of the first
        archive = home / f"{name}.tar"
        archive.write_bytes(make.tar_of([("mark", "file", {"data": name.encode()})])[:1024] + tar)
        found.append(str(archive))
    return found


def test_no_lease_loses_its_tree(home: Path, sources: list[str], guntainer: Run, traces: Traces) -> None:
    open_store()

    def start(code: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)

    pruning = [start(_PRUNING) for _ in range(2)]
    leasing = _LEASING.format(rounds=_ROUNDS)
    working = [start(leasing, *sources), start(leasing, *sources[::-1])]
    working += [start(_PULLING, "run", *sources), start(_PULLING, "pull -q", *sources)]
    try:
        said = [process.communicate(timeout=100)[1] for process in working]
        assert said == [""] * len(working)
        assert [process.poll() for process in pruning] == [None, None]
    finally:
        for process in [*pruning, *working]:
            process.kill()
            process.wait()
    assert [process.communicate()[1] for process in pruning] == ["", ""]
    assert guntainer("store", "prune", "--all").returncode == 0
    store = home / "store"
    for name in ("rootfs", "images", "layers", "index", "incoming"):
        assert os.listdir(store / name) == [], name
    traces.check()


def test_a_layer_is_kept_for_who_makes_an_image_of_it(home: Path, sources: list[str], guntainer: Run) -> None:
    """Its lock is held shared; a prune that came in between two looks finds the image."""
    from guntainer.store import entries as looking
    from guntainer.store import prune as pruning

    guntainer("pull", "-q", *sources)
    store = open_store()
    layers = looking.entries(store, ("layers",))
    shared = next(layer for layer in layers if len(layer.images) == 2)
    # as one that was looked at before the images were made
    assert not pruning.remove(store, shared.replace(images=()))
    image = looking.entries(store, ("images",))[0]
    assert pruning.take_out(store, [image]) == []
    assert {layer.name for layer in looking.entries(store, ("layers",))} >= {shared.name}
    assert len(looking.entries(store, ("layers",))) == len(layers) - 1
    prune(store, everything=True)
    assert looking.all_entries(store) == []


def test_threads_that_make_the_same_store(tmp_path: Path) -> None:
    """Batches may run in any thread, and the first ones in several at once."""
    failed: list[Exception] = []

    def make(path: Path, start: threading.Barrier) -> None:
        start.wait(10)
        try:
            open_store(str(path), Ids())
        except Exception as error:
            failed.append(error)

    for number in range(60):
        start = threading.Barrier(6)
        threads = [threading.Thread(target=make, args=(tmp_path / str(number), start)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert failed == []
    assert {tuple(sorted(os.listdir(path))) for path in tmp_path.iterdir()} == {tuple(sorted((*FOLDERS, "VERSION")))}
