"""kill -9 between any two steps of the store, then a start as if nothing had been.

A step is a call that changes a folder: mkdir, rename, symlink, unlink, rmdir. A first run counts them; then, from the same
state, it is killed before each of them, named by its number and its call.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import image_builder as make
import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

PLANTED = """
import os, sys
at, log, own = int({at}), {log!r}, os.getpid()
steps = []
def plant(name):
    real = getattr(os, name)
    def step(*words, **more):
        if os.getpid() == own:
            steps.append(name)
            if len(steps) == at:
                os.kill(own, 9)
        return real(*words, **more)
    setattr(os, name, step)
for name in ("mkdir", "makedirs", "rename", "symlink", "unlink", "rmdir"):
    plant(name)
from guntainer.cli import main
code = main(sys.argv[1:])
open(log, "w").write(" ".join(steps))
sys.exit(code)
"""
_MOST = 24
"""Points of one way; where it has more, they are spread over it."""


def planted(home: Path, at: int, *words: object) -> tuple[int, list[str]]:
    """Run a command line that is killed before its step `at`; 0: never. (exit code, its steps where it came to its end)."""
    log = home / "steps"
    log.unlink(missing_ok=True)
    code = PLANTED.format(at=at, log=str(log))
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, log.read_text().split() if log.exists() else []


def check_whole(store: Path, guntainer: Run) -> None:
    """Nothing dangles: no link leads to what is not there, no image is without a layer, nothing is left under way."""
    done = guntainer("store", "prune")
    assert done.returncode == 0, done.stderr
    assert os.listdir(store / "incoming") == []
    for folder in ("index", "refs"):
        for link in (store / folder).iterdir():
            kind, _, digest = os.readlink(link).rpartition(":")
            entries = os.listdir(store / ("images" if kind else "rootfs"))
            assert any(name.startswith(digest) for name in entries), link
    for image in (store / "images").iterdir():
        assert (image / "meta").exists()
        assert all(lower.exists() for lower in (image / "lowers").iterdir())
    for kind in ("rootfs", "layers"):
        assert all((entry / "meta").exists() for entry in (store / kind).iterdir())


@pytest.fixture
def sweep(home: Path, guntainer: Run, traces: Traces) -> Callable[..., None]:
    def run(*words: object, prepare: Callable[[], None], check: Callable[[], None]) -> None:
        prepare()
        code, steps = planted(home, 0, *words)
        assert code == 0 and len(steps) > 2
        points = range(1, len(steps) + 1)
        for at in points if len(steps) <= _MOST else points[:: len(steps) // _MOST]:
            prepare()
            code, _ = planted(home, at, *words)
            assert code == -signal.SIGKILL, f"step {at}, {steps[at - 1]}"
            try:
                check()
                check_whole(home / "store", guntainer)
            except AssertionError as error:
                raise AssertionError(f"killed before step {at} of {len(steps)}, {steps[at - 1]}: {error}") from error
        traces.check()

    return run


def empty(store: Path) -> None:
    subprocess.run([sys.executable, "-m", "guntainer", "store", "prune", "--all"], check=False, capture_output=True)
    shutil.rmtree(store, ignore_errors=True)


@pytest.mark.root
def test_while_an_archive_is_put_into_place(
    guntainer: Run, home: Path, small_archive: Path, sweep: Callable[..., None]
) -> None:
    def check() -> None:
        assert guntainer("run", small_archive, "echo", "hi").stdout == "hi\n"

    sweep("pull", small_archive, prepare=lambda: empty(home / "store"), check=check)


@pytest.fixture
def layout(home: Path, small_archive: Path) -> Path:
    base = make.layer_of(gzip.decompress(small_archive.read_bytes()))
    upper = make.layer(("srv", "dir", {}), ("srv/x", "file", {"data": b"x"}), make.opaque("srv"))
    return make.oci_folder(home / "layout", {"1": make.image(base, upper)})


@pytest.mark.root
def test_while_an_image_is_put_into_place(guntainer: Run, home: Path, layout: Path, sweep: Callable[..., None]) -> None:
    def check() -> None:
        assert guntainer("run", layout, "cat", "/srv/x").stdout == "x"

    sweep("pull", layout, prepare=lambda: empty(home / "store"), check=check)


def test_while_everything_is_removed(
    guntainer: Run, home: Path, layout: Path, small_archive: Path, sweep: Callable[..., None]
) -> None:
    def prepare() -> None:
        assert guntainer("pull", layout, small_archive).returncode == 0

    def check() -> None:
        assert guntainer("run", layout, "cat", "/srv/x").stdout == "x"
        assert guntainer("run", small_archive, "echo", "hi").stdout == "hi\n"

    sweep("store", "prune", "--all", prepare=prepare, check=check)


def test_while_a_store_of_the_first_layout_is_taken_over(
    guntainer: Run, home: Path, small_archive: Path, sweep: Callable[..., None]
) -> None:
    store = home / "store"
    assert guntainer("pull", small_archive).returncode == 0

    def prepare() -> None:
        for name in ("layers", "images", "builds", "refs"):
            shutil.rmtree(store / name, ignore_errors=True)
        (store / "VERSION").write_text("1\n")

    def check() -> None:
        before = len(os.listdir(store / "rootfs"))
        assert guntainer("run", small_archive, "echo", "hi").stdout == "hi\n"
        assert len(os.listdir(store / "rootfs")) == before == 1  # nothing was unpacked again

    sweep("store", "ls", prepare=prepare, check=check)
