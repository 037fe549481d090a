"""Throughput: 400 × /bin/true, 4 at a time; peers by `xargs -P4`. Containers per second, start-up of everybody included."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bench.measure import Outcome, interleave, run
from bench.peers import Ground

COUNT, PARALLEL = 400, 4


def job_file(ground: Ground) -> Path:
    path = ground.folder / "true.toml"
    path.write_text(
        f'[jobs.true]\nrootfs = "{ground.archive}"\ncommand = ["/bin/true"]\nrepeat = {COUNT}\nscratch = "memory"\n'
    )
    return path


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case=f"throughput: {COUNT} × /bin/true, {PARALLEL} at a time", unit="containers/s")
    path = job_file(ground)
    inner: list[float] = []

    def ours() -> float:
        results = ground.folder / f"results-{time.monotonic_ns()}"
        line = [ground.guntainer, "batch", f"-j{PARALLEL}", "--output", "quiet", "--results", str(results)]
        taken = run([*line, "--json", str(ground.folder / "r.json"), str(path)])
        lines = map(json.loads, (ground.folder / "r.json").read_text().splitlines())
        found = [one for one in lines if one["event"] == "job-finished"]
        if len(found) != COUNT or any(one["outcome"] != "ok" for one in found):
            raise RuntimeError("throughput: not all jobs were ok")
        starts = [one["started_at"] for one in found]
        inner.append((COUNT - 1) / (max(starts) - min(starts)))
        run(["rm", "-rf", str(results)])
        return COUNT / taken

    contestants = {
        "guntainer": ours,
        "plain /bin/true": lambda: COUNT / run(ground.many(["/bin/true"], COUNT, PARALLEL)),
    }
    if ground.has("bwrap"):
        contestants["bwrap"] = lambda: COUNT / run(ground.many(ground.bwrap("/bin/true"), COUNT, PARALLEL))
    for name in ("crun", "runc"):
        if ground.has(name):
            line = ground.oci(name, f"{name}-{{}}", ["/bin/true"])
            contestants[name] = lambda line=line: 100 / run(ground.many(line, 100, PARALLEL))  # type: ignore[misc]
    if ground.has("podman"):
        contestants["podman"] = lambda: 12 / run(ground.many(ground.podman(["/bin/true"]), 12, PARALLEL))
    outcome.samples = interleave(rounds, contestants)
    outcome.samples["guntainer, without its own start-up"] = inner
    outcome.compare("× bwrap", "guntainer", "bwrap", 1.3, at_least=True)
    outcome.compare("× crun", "guntainer", "crun", 4, at_least=True)
    outcome.compare("× podman", "guntainer", "podman", 40, at_least=True)
    outcome.compare("× plain processes", "guntainer", "plain /bin/true", 0.55, at_least=True)
    return outcome
