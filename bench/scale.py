"""Scale: 1,000 live `sleep`s under one supervisor: memory, time to start, time to end."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from bench.measure import Outcome
from bench.peers import Ground


def available_kib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    raise RuntimeError("no MemAvailable")


def pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError("no Pss")


def sleepers(pid: int) -> int:
    """Live containers: children of the supervisor that have become `sleep`."""
    count = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            try:
                count += b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes()[:20]
            except OSError:
                continue
    return count


def one(ground: Ground, count: int) -> dict[str, float]:
    path = ground.folder / "sleep.toml"
    path.write_text(
        f'[jobs.s]\nrootfs = "{ground.archive}"\ncommand = ["sleep", "1000"]\nrepeat = {count}\nscratch = "memory"\n'
    )
    line = [ground.guntainer, "batch", f"-j{count}", "--output", "quiet", str(path)]
    time.sleep(1)
    before = available_kib()
    started = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while (alive := sleepers(process.pid)) < count:
            if time.perf_counter() - started > 60 or process.poll() is not None:
                raise RuntimeError(f"scale: only {alive} of {count} are alive")
            time.sleep(0.01 if alive > count * 0.9 else 0.05)
        taken = time.perf_counter() - started
        time.sleep(1)
        found = {"start_s": taken, "all_kib": before - available_kib(), "supervisor_kib": pss_kib(process.pid)}
        asked = time.perf_counter()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        found["end_s"] = time.perf_counter() - asked
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 130:
        raise RuntimeError(f"scale: ended with {process.returncode}")
    return found


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="scale: 1,000 live sleeps", unit="see the rows")
    names = ("start_s", "all_kib", "supervisor_kib", "end_s")
    for _ in range(min(rounds, 3)):
        few, many = one(ground, 100), one(ground, 1000)
        for name in names:
            outcome.samples.setdefault(f"100: {name}", []).append(few[name])
            outcome.samples.setdefault(f"1000: {name}", []).append(many[name])
    per = (outcome.median("1000: all_kib") - outcome.median("100: all_kib")) / 900
    own = (outcome.median("1000: supervisor_kib") - outcome.median("100: supervisor_kib")) / 900
    outcome.bound("KiB of the machine per container", per, 300)
    outcome.bound("KiB of the supervisor per container", own, 40)
    growth = outcome.median("1000: start_s") / 1000 / (outcome.median("100: start_s") / 100)
    outcome.bound("time per container of 1,000 × that of 100 (start-up included)", growth, 1.3)
    outcome.bound("seconds to kill and reap 1,000", outcome.median("1000: end_s"), 2)
    return outcome
