"""Two runs of a batch beside each other: what has begun to fail, what was fixed, what has become slower. Opens no file."""

from __future__ import annotations

from guntainer import report
from guntainer.report_text import duration, visible, width_of
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.report import Report, Result

LEAST_SHARE = 0.20
LEAST_NS = 100_000_000
"""A job is slower or faster where its time differs by more than both: a fifth, and 100 ms."""


class Change(Value):
    """A job in both runs, or in one of them."""

    id: str
    before: Result | None = None
    after: Result | None = None


class Comparison(Value):
    """What differs. The jobs are in the order of the new run, those that are gone in that of the old one."""

    newly_failing: tuple[Change, ...] = ()
    still_failing: tuple[Change, ...] = ()
    fixed: tuple[Change, ...] = ()
    new: tuple[Change, ...] = ()
    gone: tuple[Change, ...] = ()
    slower: tuple[Change, ...] = ()
    faster: tuple[Change, ...] = ()
    before_name: str = ""
    """What the old run is called: its folder."""
    before_wall_ns: int = 0
    after_wall_ns: int = 0

    def parts(self) -> tuple[tuple[str, tuple[Change, ...]], ...]:
        """In the order in which people want to know."""
        return (
            ("newly failing", self.newly_failing),
            ("fixed", self.fixed),
            ("still failing", self.still_failing),
            ("new", self.new),
            ("gone", self.gone),
            ("slower", self.slower),
            ("faster", self.faster),
        )


def failing(result: Result) -> bool:
    """It failed by itself, allowed or not; what was cancelled or skipped tells nothing."""
    return not result.ok and result.exit.reason not in (report.CANCELLED, report.SKIPPED)


def compare(before: Report, after: Report, *, before_name: str = "") -> Comparison:
    """The new run as seen from the old one."""
    old = {result.id: result for result in before.results}
    found: dict[str, list[Change]] = {}
    for result in after.results:
        was = old.pop(result.id, None)
        change = Change(id=result.id, before=was, after=result)
        for name in _names(was, result):
            found.setdefault(name, []).append(change)
    found["gone"] = [Change(id=job_id, before=result) for job_id, result in old.items()]
    found["slower"] = sorted(found.get("slower", []), key=_ratio, reverse=True)
    found["faster"] = sorted(found.get("faster", []), key=_ratio)
    return Comparison(
        **{name: tuple(changes) for name, changes in found.items()},
        before_name=before_name,
        before_wall_ns=before.wall_ns,
        after_wall_ns=after.wall_ns,
    )


def _names(before: Result | None, after: Result) -> list[str]:
    """In which parts of a comparison a job stands."""
    if before is None:
        return ["new"]
    if failing(after):
        return ["still_failing" if failing(before) else "newly_failing"]
    if not after.ok:
        return []
    names = ["fixed"] if failing(before) else []
    difference = after.wall_ns - before.wall_ns
    if before.ok and abs(difference) > LEAST_NS and abs(difference) > LEAST_SHARE * before.wall_ns:
        names.append("slower" if difference > 0 else "faster")
    return names


def _ratio(change: Change) -> float:
    assert change.before is not None
    assert change.after is not None
    return change.after.wall_ns / max(1, change.before.wall_ns)


def words(change: Change) -> str:
    """What became of one job: `ok → failed, exit 3`, `1.20 s → 2.40 s (+100 %)`."""
    before, after = change.before, change.after
    if before is None:
        assert after is not None
        return _ended(after)
    if after is None:
        return f"was {before.verdict}"
    if before.ok and after.ok:
        share = round((_ratio(change) - 1) * 100)
        return f"{duration(before.wall_ns)} → {duration(after.wall_ns)} ({share:+d} %)"
    return f"{before.verdict} → {_ended(after)}"


def _ended(result: Result) -> str:
    return result.verdict if result.ok else f"{result.verdict}, {result.exit.describe()}"


_COLOURS = {"newly failing": "31", "fixed": "32", "still failing": "31", "slower": "33", "faster": "32"}


def text(comparison: Comparison, *, colour: bool) -> str:
    """For a terminal: a table, and a line that sums it up."""
    rows = [
        (name, visible(change.id), visible(words(change))) for name, changes in comparison.parts() for change in changes
    ]
    lines = []
    if rows:
        widths = [max(width_of(row[column]) for row in rows) for column in (0, 1)]
        for name, job_id, what in rows:
            label = name + " " * (widths[0] - width_of(name))
            if colour and name in _COLOURS:
                label = f"\x1b[{_COLOURS[name]}m{label}\x1b[0m"
            lines.append(f"{label}  {job_id}{' ' * (widths[1] - width_of(job_id))}  {what}".rstrip())
    return "\n".join([*lines, visible(summary(comparison))]) + "\n"


def summary(comparison: Comparison) -> str:
    """`against old: 1 newly failing, 2 fixed; 3.20 s → 2.90 s`"""
    counts = ", ".join(f"{len(changes)} {name}" for name, changes in comparison.parts() if changes)
    times = f"{duration(comparison.before_wall_ns)} → {duration(comparison.after_wall_ns)}"
    return f"against {comparison.before_name or 'the earlier run'}: {counts or 'no difference'}; {times}"
