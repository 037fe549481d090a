"""Matrix: 9 jobs, 3 Alpine releases × 3, `cat /etc/os-release && apk --version`, cold and warm."""

from __future__ import annotations

import json
import shlex
import statistics
import time
from pathlib import Path

from bench.measure import Outcome, interleave, run
from bench.peers import Ground

SCRIPT = "cat /etc/os-release && apk --version"


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="matrix: 3 Alpine releases × 3", unit="ms")
    releases = ground.archives[-3:]
    path = ground.folder / "matrix.toml"
    cells = json.dumps([str(archive) for archive in releases])
    path.write_text(
        '[defaults]\nscratch = "memory"\n[jobs.m]\nrootfs = "${{ matrix.release }}"\n'
        f'run = "{SCRIPT}"\n[jobs.m.matrix]\nrelease = {cells}\nround = [1, 2, 3]\n'
    )

    def ours(*words: str) -> float:
        return run([ground.guntainer, "batch", "--output", "quiet", *words, str(path)]) * 1e3

    def cold() -> float:
        store = str(ground.folder / f"cold-{time.monotonic_ns()}")
        taken = ours("--store", store)
        run(["rm", "-rf", store])
        return taken

    report = ground.folder / "matrix.json"
    start_up: list[float] = []

    def warm_run() -> float:
        began = time.time()
        taken = ours("--json", str(report))
        lines = map(json.loads, report.read_text().splitlines())
        first = min(one["started_at"] for one in lines if one["event"] == "job-finished")
        start_up.append((first - began) * 1e3)
        return taken

    contestants = {"guntainer, cold": cold, "guntainer, warm": warm_run}
    if ground.has("bwrap"):
        lines = [
            shlex.join(ground.bwrap("sh", "-c", SCRIPT, tree=tree)) for tree in ground.trees[-3:] for _ in range(3)
        ]
        warm = f"printf '%s\\0' {' '.join(map(shlex.quote, lines))} | xargs -0 -P2 -I{{}} sh -c '{{}} > /dev/null'"
        (ground.folder / "warm.sh").write_text("\n".join(f"{line} > /dev/null" for line in lines))
        warm = f"xargs -P2 -d '\\n' -I{{}} sh -c '{{}}' < {ground.folder}/warm-lines"
        (ground.folder / "warm-lines").write_text("".join(f"{line.replace(chr(39), chr(34))}\n" for line in lines))
        contestants["bwrap on trees, xargs -P2"] = lambda: run(warm) * 1e3
        contestants["tar, bwrap, rm, xargs -P2"] = lambda: run(_shell(ground, releases)) * 1e3
    if ground.has("podman"):
        first = len(ground.archives) - 3
        images = [shlex.join(ground.podman(["sh", "-c", SCRIPT], tag=first + n)) for n in range(3) for _ in range(3)]
        (ground.folder / "podman-lines").write_text("".join(f"{line.replace(chr(39), chr(34))}\n" for line in images))
        line = f"xargs -P2 -d '\\n' -I{{}} sh -c '{{}}' < {ground.folder}/podman-lines > /dev/null"
        contestants["podman run, warm"] = lambda: run(line) * 1e3
        imports = " && ".join(
            shlex.join([*ground._podman(), "import", str(archive), f"alpine-{first + n}"])
            for n, archive in enumerate(releases)
        )
        contestants["podman import + run"] = lambda: run(f"{imports} && {line}") * 1e3
    outcome.samples = interleave(max(2, rounds // 2), contestants)
    outcome.samples["guntainer, warm, until the first launch"] = start_up
    outcome.compare("cold × podman import + run", "guntainer, cold", "podman import + run", 0.3, at_least=False)
    outcome.compare("cold × tar + bwrap + rm", "guntainer, cold", "tar, bwrap, rm, xargs -P2", 0.8, at_least=False)
    outcome.compare("warm × podman run", "guntainer, warm", "podman run, warm", 0.2, at_least=False)
    if "bwrap on trees, xargs -P2" in outcome.samples:
        both = outcome.median("bwrap on trees, xargs -P2") + statistics.median(start_up)
        outcome.bound("warm × (bwrap on unpacked trees + our start-up)", outcome.median("guntainer, warm") / both, 1.2)
    return outcome


def _shell(ground: Ground, releases: list[Path]) -> str:
    """Unpack each release, two at a time; run the nine, two at a time; remove."""
    base = ground.folder / "shell"
    unpack = "\n".join(f"mkdir {base}/{n} && tar -xzf {archive} -C {base}/{n}" for n, archive in enumerate(releases))
    (ground.folder / "unpack-lines").write_text(unpack + "\n")
    lines = [shlex.join(ground.bwrap("sh", "-c", SCRIPT, tree=base / str(n))) for n in range(3) for _ in range(3)]
    (ground.folder / "shell-lines").write_text("".join(f"{line.replace(chr(39), chr(34))}\n" for line in lines))
    return (
        f"mkdir {base} && xargs -P2 -d '\\n' -I{{}} sh -c '{{}}' < {ground.folder}/unpack-lines && "
        f"xargs -P2 -d '\\n' -I{{}} sh -c '{{}}' < {ground.folder}/shell-lines > /dev/null; code=$?; rm -rf {base}; exit $code"
    )
