"""Start: one warm `guntainer run … /bin/true`, wall; the same of the peers."""

from __future__ import annotations

from bench.measure import Outcome, interleave, run
from bench.peers import Ground


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="start: one warm run of /bin/true", unit="ms")
    line = [ground.guntainer, "run", "--scratch", "memory", str(ground.archive), "/bin/true"]
    disk = [ground.guntainer, "run", str(ground.archive), "/bin/true"]
    contestants = {"guntainer": lambda: run(line) * 1e3, "guntainer --scratch disk": lambda: run(disk) * 1e3}
    if ground.has("bwrap"):
        contestants["bwrap"] = lambda: run(ground.bwrap("/bin/true")) * 1e3
    for name in ("crun", "runc"):
        if ground.has(name):
            contestants[name] = lambda name=name: run(ground.oci(name, f"s-{name}", ["/bin/true"])) * 1e3  # type: ignore[misc]
    if ground.has("podman"):
        contestants["podman"] = lambda: run(ground.podman(["/bin/true"])) * 1e3
    outcome.samples = interleave(rounds * 4, contestants)
    outcome.compare("× runc", "guntainer", "runc", 1.3, at_least=False)
    outcome.compare("× podman", "guntainer", "podman", 0.25, at_least=False)
    return outcome
