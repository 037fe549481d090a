"""The report page as people read it: logs of any kind, what stands where, the focus and the keys."""

from __future__ import annotations

import time
from typing import Any

import pytest
import report_folders as folders
from browser_page import LOGS, Open, Page, small
from selenium.webdriver.common.keys import Keys

from guntainer import report
from guntainer.reports.compare import compare

pytest_plugins = "browser_fixtures"

pytestmark = pytest.mark.browser

SECOND = 10**9
MANY = 256 << 10


def shown_log(opened: Open, text: bytes, **settings: Any) -> Page:
    """The page of two jobs, of which the first has printed that and is open."""
    whole = folders.batch(folders.result("a", wall_ns=SECOND), folders.result("b", wall_ns=SECOND))
    page = opened(whole, {"a": (text, b"")}, part="#job=a", **settings)
    page.until(lambda: page.texts("#panel .log .ln"))
    return page


def style(page: Page, selector: str, what: str) -> Any:
    return page.script("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, what)


# --- logs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"\r" * MANY + b"end\n", ["end"]),
        (b"\r" * MANY, []),
        (b"\0" * MANY, [f"^@ × {MANY}"]),
        (b"\0\1" * (MANY // 2), None),
        (b"a\0" * (MANY // 2), None),
        (b"x" * (MANY // 2) + b"\by" * (MANY // 4), None),
    ],
    ids=["returns", "only returns", "zeros", "mixed", "zeros between", "backspaces"],
)
def test_a_log_of_control_characters_does_not_hold_up_the_page(
    opened: Open, text: bytes, shown: list[str] | None
) -> None:
    whole = folders.batch(folders.result("bad", "failed", wall_ns=SECOND), folders.result("ok"))
    page = opened(whole, {"bad": (text, b"")})
    page.script("location.hash = '#job=bad'")
    page.until(lambda: page.panel() == "bad")
    time.sleep(0.2)
    if shown is not None:
        assert page.texts("#panel .log .ln") == shown
    assert page.script("return document.querySelectorAll('.log *').length") < 1000


def test_a_search_in_logs_of_carriage_returns_ends(opened: Open) -> None:
    ids = [f"job {number}" for number in range(16)]
    whole = folders.batch(*(folders.result(one, "failed", wall_ns=SECOND) for one in ids))
    page = opened(whole, dict.fromkeys(ids, (b"\r" * MANY, b"\r" * MANY)))
    page.type("#grep", "needle")
    page.until(lambda: page.texts("#hits > p") == ["no log has that"])


def test_unseen_characters_in_a_row_are_one_element(opened: Open) -> None:
    page = shown_log(opened, b"a\0\0b\x01\x02c" + "\u200b\u200d".encode() + b"d" + b"\x07" * 50)
    assert page.texts("#panel .ln .ctl") == ["^@^@", "^A^B", "U+200B U+200D", "^G × 50"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"progress 1\rprogress 2\rdone\n", "done"),
        (b"kept\r\r\n", "kept"),
        (b"|\b/\b-\b\\", "\\"),
        (b"abc\b\bX\b\b\b\b\b\bY", "Y"),
        (b"\x1b[31mabc\b\x1b[32md", "abd"),
        (b"trailing\b\n", "trailing"),
    ],
)
def test_what_was_written_over_is_neither_shown_nor_found(opened: Open, text: bytes, shown: str) -> None:
    page = shown_log(opened, text)
    assert page.texts("#panel .ln")[0] == shown
    for needle, count in ((shown, "1 log"), ("progress 1", "no log has that")):
        page.type("#grep", needle)
        page.until(lambda count=count: page.texts("#hits > p") == [count])


@pytest.mark.parametrize(
    ("sequence", "classes", "colour"),
    [
        ("38:2::255:0:0", "", "rgb(255, 0, 0)"),
        ("38:2:255:0:0", "", "rgb(255, 0, 0)"),
        ("38:5:196", "", "rgb(255, 0, 0)"),
        ("38;2;255;0;0", "", "rgb(255, 0, 0)"),
        ("38;5;1", "f1", ""),
        ("4:3", "s-u", ""),
        ("31;4:0", "f1", ""),
        ("58;5;1", None, ""),
        ("58;2;1;3;9", None, ""),
        ("58:2::1:3:9;31", "f1", ""),
        ("31m\x1b[>4;2", "f1", ""),
        ("31m\x1b[?4", "f1", ""),
        ("31m\x1b[0 ", "f1", ""),
        ("38;5;16", "", "rgb(112, 112, 112)"),
        ("38;5;16;48;5;231", "", "rgb(0, 0, 0)"),
    ],
)
def test_colours_as_terminals_have_them(opened: Open, sequence: str, classes: str | None, colour: str) -> None:
    page = shown_log(opened, f"\x1b[{sequence}mhere\n".encode())
    assert page.texts("#panel .ln") == ["here"]
    found = page.script(
        "const e = document.querySelector('#panel .ln span'); return e ? [e.className, e.style.color] : null"
    )
    assert found == (None if classes is None else [classes, colour])


def test_a_found_word_can_be_read_whatever_its_colour(opened: Open) -> None:
    page = shown_log(opened, b"\x1b[38;2;250;128;114;48;2;9;9;9mneedle\x1b[0m\n")
    page.type("#panel .tabs input", "needle")
    page.until(lambda: page.texts("#panel mark.now") == ["needle"])
    assert style(page, "#panel mark.now span", "color") == style(page, "#panel mark.now", "color") == "rgb(0, 0, 0)"
    assert style(page, "#panel mark.now span", "backgroundColor") == "rgba(0, 0, 0, 0)"


def test_the_log_of_a_failure_opens_at_its_end(opened: Open) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(3000))
    whole = folders.batch(folders.result("bad", "failed", wall_ns=SECOND), folders.result("good", wall_ns=SECOND))
    page = opened(whole, {"bad": (lines, b""), "good": (lines, b"")}, part="#job=bad")
    below = "const l = document.querySelector('#panel .log'); return l.scrollHeight - l.scrollTop - l.clientHeight"
    above = "return document.querySelector('#panel .log').scrollTop"
    page.until(lambda: "line 2999" in page.log() and page.script(below) < 5)
    time.sleep(0.3)  # chunks above it are filled meanwhile
    assert page.script(below) < 5
    page.script("[...document.querySelectorAll('#panel .tabs button')].find(b => b.textContent === 'top').click()")
    page.until(lambda: page.script(above) == 0)
    page.script("location.hash = '#job=good'")
    page.until(lambda: page.panel() == "good" and page.texts("#panel .ln"))
    assert page.script(above) == 0


# --- the page


def test_a_single_job_that_failed_is_shown_with_its_log(opened: Open) -> None:
    log = b"".join(b"line %d\n" % number for number in range(100)) + b"it broke " + b"here " * 2000 + b"\n"
    page = opened(folders.batch(folders.result("only", "failed", wall_ns=SECOND)), {"only": (log, b"")})
    page.until(lambda: "it broke" in "".join(page.texts("#first .log")))
    assert page.texts("#first > p") == ["failed: exit 3"]
    assert page.one("#first .log").size["height"] <= 190
    assert page.script("const l = document.querySelector('#first .log'); return l.scrollTop") > 0


def test_failures_come_first(opened: Open) -> None:
    page = opened(small())
    outcomes = page.script("return [...document.querySelectorAll('#table tbody tr')].map(r => r.job.verdict)")
    assert outcomes[:3] == ["failed", "failed (allowed)", "timeout"]
    assert outcomes[-1] == "skipped"
    assert page.one("th.c-outcome").get_attribute("aria-sort") == "ascending"
    page.one("th.c-outcome button").click()
    page.one("th.c-outcome button").click()
    places = page.script("return [...document.querySelectorAll('#table tbody tr')].map(r => r.job.place)")
    assert places == sorted(places)
    assert page.one("th.c-outcome").get_attribute("aria-sort") is None


def test_a_batch_without_failures_is_in_the_order_of_its_file(opened: Open) -> None:
    page = opened(folders.batch(folders.result("b"), folders.result("a", "flaky"), folders.result("c")))
    assert page.texts("#table td.c-job") == ["b", "a", "c"]


def test_columns_without_anything_are_not_there(opened: Open) -> None:
    page = opened(folders.batch(folders.result("a", "failed", wall_ns=SECOND), folders.result("b", wall_ns=SECOND)))
    assert page.script("return [...document.querySelectorAll('#table th')].map(h => h.dataset.key)") == [
        "outcome",
        "job",
        "code",
        "time",
    ]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["3", "1", "9", "", "10", "1.5"], ["1", "1.5", "3", "9", "10", "–"]),
        (["b", "a", "", "c"], ["b", "a", "c", "–"]),
    ],
)
def test_the_columns_of_a_ragged_matrix(opened: Open, values: list[str], shown: list[str]) -> None:
    axes = [(("row", f"r{n % 2}"), *((("v", value),) if value else ())) for n, value in enumerate(values)]
    page = opened(folders.batch(*(folders.result(f"t ({n})", matrix=pairs) for n, pairs in enumerate(axes))))
    assert page.texts("#matrix thead tr:last-child th")[1:] == shown


def test_the_columns_of_a_whole_matrix_stay_as_they_were_written(opened: Open) -> None:
    axes = [(("row", row), ("v", value)) for row in ("x", "a") for value in ("3.13", "3.9", "3.10")]
    page = opened(folders.batch(*(folders.result(f"t ({n})", matrix=pairs) for n, pairs in enumerate(axes))))
    assert page.texts("#matrix thead tr:last-child th")[1:] == ["3.13", "3.9", "3.10"]
    assert page.texts("#matrix tbody th") == ["x", "a"]


@pytest.mark.parametrize("width", [400, 1280])
def test_a_comparison_shows_its_figures_whole(opened: Open, chromium: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        long = "a job of a very long name " * 8
        before = folders.batch(folders.result(long, wall_ns=SECOND), folders.result("b", wall_ns=9 * SECOND))
        after = folders.batch(folders.result(long, wall_ns=3 * SECOND), folders.result("b", wall_ns=SECOND))
        page = opened(after, comparison=compare(before, after))
        assert page.texts("#comparison li .dim") == ["1.00 s → 3.00 s (+200 %)", "9.00 s → 1.00 s (−89 %)"]
        cut = "e.scrollWidth > e.clientWidth || e.getBoundingClientRect().right > innerWidth"
        cut = f"return [...document.querySelectorAll('#comparison li .dim')].filter(e => {cut}).length"
        assert page.script(cut) == 0
        assert page.script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_results_of_an_earlier_batch_are_not_in_the_timeline(opened: Open) -> None:
    old = folders.result("old", "failed", begin_ns=SECOND, wall_ns=600 * SECOND, slot=1).earlier()
    page = opened(folders.batch(old, folders.result("new", wall_ns=SECOND, slot=0), wall_ns=SECOND))
    assert "without 1 job from earlier runs" in page.texts("#phases")[0]
    page.one("#by-job").click()
    canvas = page.one("#canvas")
    assert canvas.size["height"] < 60  # one row
    page.script("location.hash = '#job=old'")
    page.until(lambda: page.panel() == "old")
    assert "from the earlier run" in page.one("#panel").text


def test_the_dark_colours_need_no_script(opened: Open, chromium: Any) -> None:
    try:
        chromium.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        )
        page = opened(small())
        ground = "return getComputedStyle(document.body).backgroundColor"
        scripted = page.script(ground)
        page.script("delete document.documentElement.dataset.theme")
        assert page.script(ground) == scripted == "rgb(21, 23, 26)"
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_no_word_is_said_twice(opened: Open) -> None:
    attempt = report.Attempt(exit=report.timed_out(5), wall_ns=20_000_000)
    limits = (("memory.max", "67108864"), ("pids.max", "20000"))
    late = folders.result("late", "timeout", attempts=(attempt,), wall_ns=SECOND, limits=limits)
    page = opened(folders.batch(late), part="#job=late")
    assert page.texts("#panel .said") == ["timeout after 5 s"]
    assert page.texts("#panel li") == ["attempt 1: timeout after 5 s (20 ms)", "attempt 2: timeout (1.00 s)"]
    assert page.texts("#panel dd")[-2:] == ["64 MiB", "20000"]


# --- the focus and the keys


def test_closing_a_job_leaves_the_page_where_it_is(opened: Open) -> None:
    whole, logs = folders.matrix(75)
    page = opened(whole, logs)
    page.script("scrollTo(0, document.body.scrollHeight / 2)")
    cell = page.one("#matrix .cell.o-ok")
    page.script("arguments[0].scrollIntoView({ block: 'start' }); arguments[0].focus()", cell)
    page.press(Keys.ENTER)
    page.until(page.panel)
    before = page.until(lambda: page.script("return scrollY"))
    page.press(Keys.ESCAPE)
    page.until(lambda: page.panel() == "")
    assert abs(page.script("return scrollY") - before) < 300
    assert page.script("return document.activeElement === arguments[0]", cell)
    assert page.script("return location.href.includes('#')") is False
    page.script("history.back()")
    page.until(page.panel)


def test_closing_another_job_than_was_opened(opened: Open) -> None:
    page = opened(small(), LOGS)
    page.one("#matrix .o-failed.cell").click()
    page.until(page.panel)
    page.press("j")
    page.until(lambda: page.panel() == "docs")
    page.press(Keys.ESCAPE)
    page.until(lambda: page.panel() == "")
    assert page.script("return document.activeElement.closest('tr').job.id") == "docs"
    steps = page.script("return history.length")
    page.press(Keys.ESCAPE)  # nothing is open
    assert page.script("return history.length") == steps


def test_the_keys_after_a_click(opened: Open) -> None:
    page = opened(small())
    page.one(".chip.o-ok").click()
    page.press("j")
    page.press("j")
    second = page.texts("#table tr.here td.c-job")
    page.press(Keys.ENTER)
    page.until(lambda: [page.panel()] == second)
    assert page.one(".chip.o-ok").get_attribute("aria-pressed") == "true"


def test_the_focus_of_a_row_stays_when_rows_are_drawn_again(opened: Open) -> None:
    page = opened(small())
    focused = "return document.activeElement.closest('tr').job.id"
    page.press("j")
    page.press("j")
    before = page.script(focused)
    page.script("dispatchEvent(new Event('resize'))")
    assert [page.script(focused)] == page.texts("#table tr.here .c-job") == [before]


def test_enter_opens_the_first_hit(opened: Open) -> None:
    page = opened(small(), LOGS)
    page.one("#grep").click()
    page.press("needle" + Keys.ENTER)
    page.until(lambda: page.panel() == "test (d0, 3.1, f0)")
    page.until(lambda: page.texts("#panel mark.now") == ["needle"])


def test_the_heads_stay_in_sight(opened: Open) -> None:
    whole, logs = folders.matrix(200)
    page = opened(whole, logs)
    page.script("scrollTo(0, document.body.scrollHeight - 400)")
    time.sleep(0.2)
    tops = page.script(
        "return ['#find', '#table th.c-job'].map(s => document.querySelector(s).getBoundingClientRect()).map(b => [b.top, b.bottom])"
    )
    assert tops[0][0] == 0
    assert 0 <= tops[0][1] - tops[1][0] < 3  # one directly below the other


def test_many_rows_have_all_the_width_while_a_job_is_open(opened: Open) -> None:
    whole, logs = folders.matrix(600)
    page = opened(whole, logs, part="#job=docs")
    page.until(page.panel)
    cells = page.script("return [...document.querySelectorAll('#table th')].map(c => c.offsetWidth)")
    assert abs(sum(cells) - page.one("#table").size["width"]) < 5
