"""Cold: an Alpine archive → run → clean, with an empty store, on tmpfs; against tar, bwrap and rm in a shell."""

from __future__ import annotations

import shlex
import time

from bench.measure import Outcome, interleave, run
from bench.peers import Ground


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="cold: archive → /bin/true → clean", unit="ms")

    def ours(*words: str) -> float:
        store = str(ground.folder / f"cold-{time.monotonic_ns()}")
        taken = run([ground.guntainer, "run", "--store", store, *words, str(ground.archive), "/bin/true"])
        run(["rm", "-rf", store])
        return taken * 1e3

    contestants = {"guntainer": ours, "guntainer --no-cache": lambda: ours("--no-cache")}
    if ground.has("bwrap"):
        tree = ground.folder / "cold"
        line = " ".join(map(shlex.quote, ground.bwrap("/bin/true", tree=tree)))
        shell = f"mkdir {tree} && tar -xzf {ground.archive} -C {tree} && {line}; code=$?; rm -rf {tree}; exit $code"
        contestants["tar, bwrap, rm"] = lambda: run(shell) * 1e3
    outcome.samples = interleave(rounds * 2, contestants)
    outcome.compare("× tar + bwrap + rm", "guntainer", "tar, bwrap, rm", 0.8, at_least=False)
    return outcome
