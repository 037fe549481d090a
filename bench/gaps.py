"""How long an event loop can do nothing else, while it waits for an unpack and while a tree is removed.

Two things are measured. The longest gap between two turns of a loop that is never idle is what a user sees, and has the
other processes' turns at the cores in it: beside it stands the same loop with a busy process per core and nothing of ours.
The longest single call that the loop makes is ours alone, in time of its own thread's: that is what may be blamed on us.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from bench import archives, unpacker
from bench.measure import Outcome, interleave, run
from bench.peers import Ground

MOST_MS = 5.0
_CODE = """
import asyncio, asyncio.events, json, os, sys, time
import anyio
from guntainer import Source
from guntainer.idmap import open_ids
from guntainer.offloading import in_thread
from guntainer.store import asynchronous
from guntainer.store.lookup import open_store
from guntainer.store.remove import remove_tree

longest = [0.0, 0.0]
ran = asyncio.events.Handle._run

def timed(handle):
    cpu = time.thread_time()
    try:
        return ran(handle)
    finally:
        longest[1] = max(longest[1], time.thread_time() - cpu)

async def tick():
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.0005)
        now = time.perf_counter()
        longest[0] = max(longest[0], now - last - 0.0005)
        last = now

async def unpack(archive, place):
    store = open_store(place, open_ids("auto"))
    lease = await asynchronous.acquire(store, Source(location=archive), anyio.CapacityLimiter(2))
    lease.release()

async def remove(tree, _place):
    await in_thread(remove_tree, tree)

async def nothing(seconds, _place):
    await asyncio.sleep(float(seconds))

async def main():
    work = {"unpack": unpack, "remove": remove, "nothing": nothing}[sys.argv[1]]
    await in_thread(os.getpid)
    asyncio.events.Handle._run = timed
    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    longest[:] = [0.0, 0.0]
    await work(*sys.argv[2:])
    found = list(longest)
    ticker.cancel()
    print(json.dumps(found))

anyio.run(main)
"""


def _measure(*words: str) -> tuple[float, float]:
    """(the longest gap, the longest call of the loop's own time) in ms."""
    done = subprocess.run([sys.executable, "-c", _CODE, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-400:])
    gap, call = json.loads(done.stdout)
    return gap * 1e3, call * 1e3


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="gaps: what an event loop waits for", unit="ms")
    packed = archives.packed(archives.system(), ".gz")
    small = archives.small_files()
    store, tree = ground.folder / "gap-store", ground.folder / "gap-tree"
    calls: dict[str, list[float]] = {"longest call, unpack": [], "longest call, remove": []}

    def unpack() -> float:
        gap, call = _measure("unpack", str(packed), str(store))
        calls["longest call, unpack"].append(call)
        run([sys.executable, "-m", "guntainer", "store", "prune", "--all", "--store", str(store)])
        return gap

    def remove() -> float:
        tree.mkdir()
        unpacker.tar(small)(tree)
        gap, call = _measure("remove", str(tree), "")
        calls["longest call, remove"].append(call)
        return gap

    def beside(count: int) -> Callable[[], float]:
        def one() -> float:
            busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
            try:
                return _measure("nothing", "0.5", "")[0]
            finally:
                for process in busy:
                    process.kill()
                    process.wait()

        return one

    contestants = {
        "longest gap, unpack": unpack,
        "longest gap, remove": remove,
        "longest gap, idle": beside(0),
        "longest gap, 2 busy processes beside": beside(2),
    }
    outcome.samples = interleave(rounds, contestants) | calls
    for name in calls:
        outcome.bound(f"ms: {name}", max(outcome.samples[name]), MOST_MS)
    for name in ("longest gap, unpack", "longest gap, remove"):
        outcome.compare(
            f"{name} × that with 2 busy processes", name, "longest gap, 2 busy processes beside", 1.5, at_least=False
        )
    return outcome
