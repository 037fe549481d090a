"""Times, interleaved; medians and their spread; goals."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """`ours` against `peer`: what was wanted, what came."""

    what: str
    ratio: float
    wanted: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.ratio >= self.wanted if self.at_least else self.ratio <= self.wanted

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{'met   ' if self.met else 'MISSED'} {self.what}: {self.ratio:.2f} (goal {sign} {self.wanted:g})"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one case found."""

    case: str
    unit: str
    samples: Samples = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def compare(self, what: str, ours: str, peer: str, wanted: float, *, at_least: bool) -> None:
        """Add a goal on the ratio of medians, where the peer is there."""
        if ours in self.samples and peer in self.samples:
            ratio = self.median(ours) / self.median(peer)
            self.goals.append(Goal(what=what, ratio=ratio, wanted=wanted, at_least=at_least))

    def bound(self, what: str, value: float, wanted: float) -> None:
        self.goals.append(Goal(what=what, ratio=value, wanted=wanted, at_least=False))

    def table(self) -> str:
        width = max(map(len, self.samples), default=0)
        rows = [f"\n{self.case} ({self.unit})"]
        for name, values in self.samples.items():
            spread = f"{min(values):.4g} … {max(values):.4g}"
            rows.append(f"  {name:<{width}}  {statistics.median(values):>9.4g}   [{spread}; {len(values)}]")
        return "\n".join([*rows, *(f"  {goal}" for goal in self.goals), *(f"  note: {note}" for note in self.notes)])


def interleave(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> Samples:
    """Call each contestant once per round; each returns its own sample."""
    samples: Samples = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            samples[name].append(contestant())
    return samples


def run(
    line: Sequence[str] | str, *, cwd: Path | None = None, code: int = 0, env: Mapping[str, str] | None = None
) -> float:
    """Seconds that a command line takes.

    Raises:
        RuntimeError: it ended with another code than `code`; the time is void.
    """
    started = time.perf_counter()
    done = subprocess.run(
        line, shell=isinstance(line, str), cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    taken = time.perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"{line}: ended with {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}")
    return taken
