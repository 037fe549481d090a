"""Two runs beside each other."""

from __future__ import annotations

import report_folders as folders

from guntainer.reports.compare import Comparison, compare, text, words

SECOND = 1_000_000_000


def names(comparison: Comparison) -> dict[str, list[str]]:
    return {name: [change.id for change in changes] for name, changes in comparison.parts() if changes}


def test_every_part() -> None:
    before = folders.batch(
        folders.result("breaks"),
        folders.result("mends", "failed"),
        folders.result("stays bad", "failed"),
        folders.result("goes"),
        folders.result("slows", wall_ns=SECOND),
        folders.result("speeds", wall_ns=2 * SECOND),
        folders.result("same", wall_ns=SECOND),
        folders.result("waited", "skipped"),
    )
    after = folders.batch(
        folders.result("comes"),
        folders.result("breaks", "timeout"),
        folders.result("mends", "flaky"),
        folders.result("stays bad", "oom"),
        folders.result("slows", wall_ns=2 * SECOND),
        folders.result("speeds", wall_ns=SECOND),
        folders.result("same", wall_ns=int(1.1 * SECOND)),
        folders.result("waited", "error"),
    )
    assert names(compare(before, after)) == {
        "newly failing": ["breaks", "waited"],
        "fixed": ["mends"],
        "still failing": ["stays bad"],
        "new": ["comes"],
        "gone": ["goes"],
        "slower": ["slows"],
        "faster": ["speeds"],
    }


def test_what_is_cancelled_or_skipped_tells_nothing() -> None:
    before = folders.batch(folders.result("a"), folders.result("b", "failed"))
    after = folders.batch(folders.result("a", "skipped"), folders.result("b", "cancelled"))
    assert names(compare(before, after)) == {}


def test_slower_takes_a_fifth_and_a_tenth_of_a_second() -> None:
    before = folders.batch(folders.result("short", wall_ns=10_000_000), folders.result("long", wall_ns=10 * SECOND))
    after = folders.batch(folders.result("short", wall_ns=90_000_000), folders.result("long", wall_ns=11 * SECOND))
    assert names(compare(before, after)) == {}
    after = folders.batch(folders.result("short", wall_ns=120_000_000), folders.result("long", wall_ns=13 * SECOND))
    comparison = compare(before, after)
    assert names(comparison) == {"slower": ["short", "long"]}  # the worst first
    assert words(comparison.slower[1]) == "10.00 s → 13.00 s (+30 %)"


def test_as_text() -> None:
    before = folders.batch(folders.result("a"), folders.result("b\x1b[2J", "failed"))
    after = folders.batch(folders.result("a", "failed"), folders.result("b\x1b[2J"))
    shown = text(compare(before, after, before_name="old"), colour=False)
    assert shown.splitlines()[0] == "newly failing  a         ok → failed, exit 3"
    assert "\x1b" not in shown
    assert shown.endswith("against old: 1 newly failing, 1 fixed; 0.0 ms → 0.0 ms\n")
    assert "\x1b[31mnewly failing\x1b[0m" in text(compare(before, after), colour=True)
    assert "no difference" in text(compare(folders.batch(), folders.batch()), colour=False)
