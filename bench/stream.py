"""Stream: 1 GiB from one container into its log file, unwatched and shown live; against the shell and podman."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

from bench.measure import Outcome, interleave, run
from bench.peers import Ground

SIZE = 1 << 30
# Large blocks: with small ones it is the program's own calls that are measured, and busybox makes them at two speeds, by
# whether the kernel or ld.so loads it.
COMMAND = ["dd", "if=/dev/zero", "bs=1M", "count=1024"]


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="stream: 1 GiB into the log file", unit="GiB/s")
    path = ground.folder / "stream.toml"
    path.write_text(
        f'[jobs.s]\nrootfs = "{ground.archive}"\ncommand = {COMMAND}\nscratch = "memory"\n'.replace("'", '"')
    )

    def checked(file: Path) -> None:
        if file.stat().st_size != SIZE:
            raise RuntimeError(f"stream: {file} has {file.stat().st_size} bytes")
        file.unlink()

    inside: list[float] = []

    def ours(mode: str) -> float:
        results = ground.folder / f"stream-{time.monotonic_ns()}"
        words = [ground.guntainer, "batch", "--output", mode, "--results", str(results), str(path)]
        taken = run(f"{shlex.join(words)} > /dev/null")
        checked(results / "s" / "stdout")
        if mode == "quiet":
            inside.append(1e9 / json.loads((results / "s" / "result.json").read_text())["wall_ns"])
        run(["rm", "-rf", str(results)])
        return 1 / taken

    # the same program for everybody: the rootfs's own dd
    dd = shlex.join([*map(str, ground.tree.glob("lib/ld-musl-*.so.1")), str(ground.tree / "bin/busybox"), *COMMAND])
    log = ground.folder / "plain"

    def plain(line: str) -> float:
        taken = run(line)
        checked(log)
        return 1 / taken

    contestants = {
        "guntainer, nobody watching": lambda: ours("quiet"),
        "guntainer, shown live": lambda: ours("live"),
        "dd > file": lambda: plain(f"{dd} > {log}"),
        "the host's head > file": lambda: plain(f"head -c {SIZE} /dev/zero > {log}"),
        "dd | tee file": lambda: plain(f"{dd} | tee {log} > /dev/null"),
    }
    if ground.has("podman"):
        contestants["podman, its default log"] = lambda: 1 / run(f"{shlex.join(ground.podman(COMMAND))} > /dev/null")
    outcome.samples = interleave(rounds, contestants)
    outcome.samples["guntainer, nobody watching, without its own start-up"] = inside
    outcome.compare(
        "unwatched × dd > file",
        "guntainer, nobody watching, without its own start-up",
        "dd > file",
        0.9,
        at_least=True,
    )
    outcome.compare(
        "unwatched × the host's head > file", "guntainer, nobody watching", "the host's head > file", 0.9, at_least=True
    )
    outcome.compare("live × dd | tee", "guntainer, shown live", "dd | tee file", 0.6, at_least=True)
    outcome.compare("live × podman", "guntainer, shown live", "podman, its default log", 3, at_least=True)
    return outcome
