"""What the cases of unpacking share: ours in a process of its own, the peers' command lines, and what makes a tree right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import run
from bench.peers import Ground

# Everything is loaded before the clock starts, as in a batch; the namespace is there too.
_CODE = """
import os, sys, time
from guntainer.idmap import open_ids
from guntainer.store import fill, filling
ids = open_ids("auto")
started = time.perf_counter()
for archive, into in zip(sys.argv[1::2], sys.argv[2::2]):
    os.mkdir(into)
    task = filling.task_of(filling.wanted_archive(archive), into, ids, hash_it=False)
    working = fill.Working(task)
    while working.more() is None:
        pass
    working.close()
print(time.perf_counter() - started)
"""
_REMOVE = """
import sys, time
from guntainer.store.remove import remove_tree
started = time.perf_counter()
remove_tree(sys.argv[1])
print(time.perf_counter() - started)
"""


def _ours(code: str, *words: str) -> tuple[float, float]:
    """(seconds of the work itself, of the whole process)."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-400:])
    return float(done.stdout), taken


def unpack(*pairs: tuple[Path, Path]) -> tuple[float, float]:
    """Unpack archives one after the other, each into a new folder."""
    return _ours(_CODE, *(str(path) for pair in pairs for path in pair))


def remove(path: Path) -> tuple[float, float]:
    return _ours(_REMOVE, str(path))


class Place:
    """A folder to unpack into, checked and emptied after each time."""

    def __init__(self, ground: Ground) -> None:
        self._top = ground.folder / "unpacked"
        self._right: dict[str, tuple[int, int]] = {}

    def timed(self, what: str, work: Callable[[Path], float], tree: str = "") -> float:
        """Seconds of `work`, given a new folder.

        Args:
            what: is unpacked: the first tree of it says what the others must have.
            tree: where in the folder it is; with a `*`, in each of these places.

        Raises:
            RuntimeError: the tree is another one: the time is void.
        """
        self._top.mkdir()
        try:
            taken = work(self._top)
            tops = self._top.glob(tree) if tree else [self._top]
            count, size = zip(*map(contents, tops), strict=True)
            found = (sum(count), sum(size))
            if found != self._right.setdefault(what, found):
                raise RuntimeError(f"{what}: {found} (files, bytes) came out, and {self._right[what]} before")
        finally:
            remove(self._top)  # rm(1) could not: sub-ids own some of it
        return taken


def contents(top: Path) -> tuple[int, int]:
    """(regular files and links, bytes of the files) of a tree; folders that are closed to us do not count."""
    count = size = 0
    for folder, _, names in os.walk(top):
        for name in names:
            status = os.lstat(f"{folder}/{name}")
            count += 1
            size += status.st_size if status.st_mode & 0o170000 == 0o100000 else 0
    return count, size


def tar(archive: Path, *words: str, program: str = "tar") -> Callable[[Path], float]:
    return lambda into: run([program, *words, "-xf", str(archive), "-C", str(into)])


def peak_kib(archive: Path, into: Path) -> dict[str, int]:
    """VmHWM of the unpacker and of its feeder, proc(5): the most memory that each had."""
    from guntainer.archive import worker

    into.mkdir()
    pid, pipe = worker.spawn(worker.Task(("file", str(archive), 0, 0), "bench", str(into), hash_it=True, limits=None))
    os.set_blocking(pipe, False)
    found = {"unpacker": 0, "feeder": 0}
    told = b""
    while True:
        for role, process in _processes(pid):
            found[role] = max(found[role], _hwm(process))
        try:
            data = os.read(pipe, 1 << 16)
        except BlockingIOError:
            time.sleep(0.001)
            continue
        if not data:
            break
        told += data
    os.close(pipe)
    os.waitpid(pid, 0)
    if worker.Pipe().feed(told)[-1][0] != "done":
        raise RuntimeError(f"{archive}: {told!r}")
    run(["rm", "-rf", str(into)])
    return found


def _processes(pid: int) -> list[tuple[str, int]]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [("unpacker", pid), *(("feeder", int(child)) for child in children[:1])]


def _hwm(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")), 0)
