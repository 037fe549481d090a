"""Unpack several archives at once, and one of 100,000 small files, on tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import archives, unpacker
from bench.measure import Outcome, interleave
from bench.peers import Ground

COUNT = 4
# The way of a batch: at most one unpacker per core, and an event loop that waits for them.
_CODE = """
import sys, time
import anyio
from guntainer import Source
from guntainer.idmap import open_ids
from guntainer.store import asynchronous
from guntainer.store.lookup import open_store

async def main():
    store = open_store(sys.argv[2], open_ids("auto"))
    limit = anyio.CapacityLimiter(int(sys.argv[1]))

    async def one(archive):
        (await asynchronous.acquire(store, Source(location=archive), limit)).release()

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for archive in sys.argv[3:]:
            group.start_soon(one, archive)
    print(time.perf_counter() - started)

anyio.run(main)
"""


def _copies(packed: Path, folder: Path) -> list[Path]:
    """As many with a digest each: the zeros after them are padding to all who read them."""
    made = []
    for number in range(COUNT):
        path = folder / f"{number}-{packed.name}"
        path.write_bytes(packed.read_bytes() + bytes(4 * number))
        made.append(path)
    return made


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case=f"crowd: {COUNT} systems at once; {archives.SMALL_FILES} small files", unit="ms")
    plain = archives.system()
    place = unpacker.Place(ground)
    folder = ground.folder / "crowd"
    folder.mkdir()
    copies: dict[str, list[Path]] = {}
    for suffix in (".gz", ".xz"):
        copies[suffix] = _copies(archives.packed(plain, suffix), folder)
    small = archives.small_files()

    def ours(suffix: str, at_once: int, *, one_core: bool = False) -> Callable[[], float]:
        def work(into: Path) -> float:
            bound = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if one_core else []
            line = [*bound, sys.executable, "-c", _CODE, str(at_once), str(into / "store"), *map(str, copies[suffix])]
            done = subprocess.run(line, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(done.stderr[-400:])
            return float(done.stdout)

        return lambda: place.timed("all", work, "store/rootfs/*/tree") * 1e3

    def tars(suffix: str, at_once: int) -> Callable[[], float]:
        def work(into: Path) -> float:
            trees = [into / str(number) / "tree" for number in range(COUNT)]
            for tree in trees:
                tree.mkdir(parents=True)
            lines = [
                ["tar", "-xf", str(path), "-C", str(tree)] for path, tree in zip(copies[suffix], trees, strict=True)
            ]
            started = time.perf_counter()
            for first in range(0, COUNT, at_once):
                running = [subprocess.Popen(line) for line in lines[first : first + at_once]]
                if any([process.wait() for process in running]):  # noqa: C419 - all of them are waited for
                    raise RuntimeError("tar failed")
            return time.perf_counter() - started

        return lambda: place.timed("all", work, "*/tree") * 1e3

    def few(into: Path) -> float:
        return unpacker.unpack((small, into / "it"))[0]

    contestants: dict[str, Callable[[], float]] = {}
    for suffix in copies:
        contestants[f"guntainer, {COUNT} {suffix}, one by one"] = ours(suffix, 1)
        contestants[f"guntainer, {COUNT} {suffix}, one by one on one core"] = ours(suffix, 1, one_core=True)
        contestants[f"guntainer, {COUNT} {suffix} at once"] = ours(suffix, 2)
        contestants[f"tar, {COUNT} {suffix}, one by one"] = tars(suffix, 1)
        contestants[f"tar, {COUNT} {suffix} at once"] = tars(suffix, 2)
    contestants["guntainer, small files"] = lambda: place.timed("small", few, "it/tree") * 1e3
    contestants["tar, small files"] = lambda: place.timed("small", unpacker.tar(small)) * 1e3
    if ground.installed("bsdtar"):
        contestants["bsdtar, small files"] = lambda: place.timed("small", unpacker.tar(small, program="bsdtar")) * 1e3
    outcome.samples = interleave(rounds, contestants)
    for suffix in copies:
        many = f"guntainer, {COUNT} {suffix} at once"
        for who, how in (("guntainer", ""), ("guntainer", " on one core"), ("tar", "")):
            peer = f"{who}, {COUNT} {suffix}, one by one{how}"
            outcome.compare(f"{peer} take × at once", peer, many, 1.8, at_least=True)
    outcome.compare(
        "tar, small files takes × guntainer", "tar, small files", "guntainer, small files", 1.0, at_least=True
    )
    outcome.notes.append("one by one, a .gz has two processes at work already: one decompresses, one writes")
    peaks = unpacker.peak_kib(small, ground.folder / "peak")
    for role, kib in peaks.items():
        outcome.bound(f"KiB at most of the {role}, small files", kib, 64 << 10)
    shutil.rmtree(folder)
    return outcome
