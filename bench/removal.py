"""Remove a tree, on tmpfs: a whole system, and 100,000 small files; against rm -rf."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import archives, unpacker
from bench.measure import Outcome, interleave, run
from bench.peers import Ground


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="removal of a tree", unit="ms")
    sources = {"system": archives.system(), "small files": archives.small_files()}
    tree = ground.folder / "to-remove"

    def timed(archive: Path, remove: Callable[[Path], float]) -> Callable[[], float]:
        def one() -> float:
            tree.mkdir()
            unpacker.tar(archive)(tree)
            taken = remove(tree)
            if tree.exists():
                raise RuntimeError(f"{tree} is still there")
            return taken * 1e3

        return one

    contestants: dict[str, Callable[[], float]] = {}
    for what, archive in sources.items():
        contestants[f"guntainer, {what}"] = timed(archive, lambda path: unpacker.remove(path)[0])
        contestants[f"rm -rf, {what}"] = timed(archive, lambda path: run(["rm", "-rf", str(path)]))
    outcome.samples = interleave(rounds * 2, contestants)
    for what in sources:
        peer = f"rm -rf, {what}"
        outcome.compare(f"{peer} takes × guntainer", peer, f"guntainer, {what}", 1.0, at_least=True)
    return outcome
