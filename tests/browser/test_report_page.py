"""The report page in a real browser, without a window: it opens, is looked through, and nothing that a job prints runs."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
import report_folders as folders
from browser_page import LOGS, Open, Page, small

from guntainer.reports.compare import compare

pytest_plugins = "browser_fixtures"

pytestmark = pytest.mark.browser


def test_it_opens_with_everything_in_place(opened: Open) -> None:
    page = opened(small(), LOGS)
    assert page.script("return document.title") == "smoke"
    assert page.texts("#chips .chip")[:3] == ["✕1 failed", "✕1 failed (allowed)", "T1 timeout"]
    assert page.texts("#matrix h2") == ["test", "other jobs"]
    assert page.texts("#matrix tbody th") == ["d0", "d1", "d2"]
    assert page.texts("#matrix thead tr:first-child th") == ["python", "3.0", "3.1"]
    assert page.texts("#matrix thead tr:last-child th") == ["distro ╲ flags", "f0", "f1", "f0", "f1"]
    classes = page.script(
        "return [...document.querySelectorAll('#matrix tbody .cell')].map(e => [e.className, e.textContent])"
    )
    assert classes[:5] == [
        ["sym cell o-ok", "✓"],
        ["sym cell o-flaky", "~"],
        ["sym cell o-failed", "✕"],
        ["sym cell o-timeout", "T"],
        ["sym cell o-oom", "M"],
    ]
    assert len(page.all("#table tbody tr")) == 14
    assert "First failure: test (d0, 3.1, f0)" in page.texts("#first h2")
    page.until(lambda: "an error needle" in "".join(page.texts("#first .log")))
    assert page.texts("#host dt") == [name for name, _ in folders.FACTS]


def test_a_click_on_a_cell_opens_the_job(opened: Open) -> None:
    page = opened(small(), LOGS)
    page.one("#matrix .o-failed.cell").click()
    page.until(lambda: page.panel() == "test (d0, 3.1, f0)")
    assert "failed: exit 3" in page.one("#panel").text
    assert "a note" in page.one("#panel").text
    assert page.script("return location.hash") == "#job=" + quote("test (d0, 3.1, f0)", safe="()")
    link = page.one("#panel a[target]")
    assert link.text == "dist/a b.whl"
    assert link.get_attribute("href").endswith("/artifacts/dist/a%20b.whl")
    page.one("#panel .tags a.pill").click()
    page.until(lambda: page.panel() == "build")
    page.press("\ue00c")  # Esc
    page.until(lambda: page.panel() == "")


def test_a_log_has_its_colours(opened: Open) -> None:
    page = opened(small(), LOGS, part="#job=" + quote("test (d0, 3.1, f0)"))
    assert page.log() == "an error needle"  # of a job that failed, what it complained of
    page.script("[...document.querySelectorAll('#panel .tabs button')].find(b => b.textContent === 'stdout').click()")
    page.until(lambda: "plain" in page.log())
    assert page.log().splitlines() == ["plain bold red true", "progress 2", "needle in the hay"]
    assert page.script("return document.querySelector('#panel .ln .f1.s-b').textContent") == "bold red"
    colours = page.script(
        "return [...document.querySelectorAll('#panel .ln span')].map(e => e.style.color).filter(Boolean)"
    )
    assert colours == ["rgb(1, 200, 3)"]
    page.type("#panel .tabs input", "NEEDLE")
    page.until(lambda: page.texts("#panel mark.now") == ["needle"])


def test_the_filter(opened: Open) -> None:
    page = opened(small())
    page.press("/")
    assert page.script("return document.activeElement.id") == "filter"
    page.press("d1 f1")
    page.until(lambda: len(page.all("#table tbody tr")) == 2)
    assert page.texts("#count") == ["2 of 14 jobs"]
    assert len(page.all("#matrix .cell:not(.off)")) == 2
    page.type("#filter", "flags:f0 distro:d0")
    assert len(page.all("#table tbody tr")) == 2
    page.type("#filter", "nothing is like this")
    assert page.texts("#table tbody td") == ["no job is like that"]
    page.type("#filter", "")
    page.one(".chip.o-timeout").click()
    assert page.texts("#table tbody td.c-job") == ["test (d0, 3.1, f1)"]


def test_sorting(opened: Open) -> None:
    page = opened(small())
    page.one("th.c-time button").click()
    times = page.script("return [...document.querySelectorAll('#table tbody tr')].map(r => r.job.wall)")
    assert times == sorted(times, reverse=True)
    assert page.one("th.c-time").get_attribute("aria-sort") == "descending"
    page.one("th.c-time button").click()
    assert page.one("th.c-time").get_attribute("aria-sort") == "ascending"


def test_searching_all_logs(opened: Open) -> None:
    page = opened(small(), LOGS)
    page.type("#grep", "needle")
    page.until(lambda: page.texts("#hits > p") == ["2 logs"])
    assert page.texts("#hits mark") == ["needle", "needle"]
    page.one("#hits .hit").click()
    page.until(lambda: page.panel() == "test (d0, 3.1, f0)")
    page.until(lambda: page.texts("#panel mark.now") == ["needle"])
    assert "needle in the hay" in page.log()
    page.type("#grep", "not there at all")
    page.until(lambda: page.texts("#hits > p") == ["no log has that"])


def test_a_deep_link(opened: Open) -> None:
    page = opened(small(), part="#job=" + quote("test (d1, 3.0, f1)"))
    assert page.panel() == "test (d1, 3.0, f1)"
    assert "no more than 20 processes" in page.one("#panel").text
    assert page.texts("#matrix .cell.here") == ["P"]


@pytest.mark.parametrize(
    "part", ["#job=nobody", "#job=%E0%A4%A", "#job=__proto__", "#job=<img src=x onerror=hacked=1>", "#nothing"]
)
def test_a_deep_link_to_nobody(opened: Open, part: str) -> None:
    page = opened(small(), part=part)
    assert page.panel() == ""
    assert ("no job is called" in page.texts("#count")[0]) == part.startswith("#job")


def test_the_keys(opened: Open) -> None:
    page = opened(small(), part="#job=build")
    page.press("j")
    page.until(lambda: page.panel() == "test (d0, 3.0, f0)")
    page.press("k")
    page.until(lambda: page.panel() == "build")
    page.press("\ue00c")  # Esc
    page.until(lambda: page.panel() == "")
    page.press("j")
    assert page.texts("#table tr.here td.c-job") == ["test (d0, 3.0, f0)"]
    page.press("\ue007")  # Enter
    page.until(lambda: page.panel() == "test (d0, 3.0, f0)")


def test_dark_and_light(opened: Open) -> None:
    page = opened(small())
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = page.script(ground)
    page.one("#theme").click()
    after = page.script(ground)
    assert before != after
    page.one("#theme").click()
    assert page.script(ground) == before


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_system_s_own_scheme(opened: Open, chromium: Any, scheme: str) -> None:
    chromium.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page = opened(small())
    assert page.script("return document.documentElement.dataset.theme") == scheme


def test_a_click_on_the_timeline_opens_the_job(opened: Open) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    page = opened(folders.batch(folders.result("only", wall_ns=10**9, slot=0)))
    canvas = page.one("#canvas")
    page.script("arguments[0].scrollIntoView()", canvas)
    ActionChains(chromium_of(page)).move_to_element(canvas).perform()
    page.until(lambda: "only: ok" in page.texts("#tip")[0])
    ActionChains(chromium_of(page)).move_to_element(canvas).click().perform()
    page.until(lambda: page.panel() == "only")
    page.one("#by-job").click()
    assert page.one("#by-job").get_attribute("aria-pressed") == "true"
    page.one("#zoom-in").click()
    page.one("#zoom-all").click()


def chromium_of(page: Page) -> Any:
    return page._driver


@pytest.mark.parametrize("number", range(len(folders.HOSTILE)))
def test_nothing_of_a_job_runs(opened: Open, number: int) -> None:
    whole, logs = folders.hostile()
    job = whole.results[number]
    page = opened(
        whole, logs, part="#job=" + quote(job.id, safe=""), history={job.id: [{"wall_ns": 1, "outcome": "<b>"}]}
    )
    assert page.script("return document.querySelectorAll('img, iframe, object, embed, base, form').length") == 0
    assert page.script("return document.scripts.length") == 3  # the facts, a block of logs, our own
    shown = page.script("return document.querySelector('#panel').textContent")
    if folders.HOSTILE[number].isprintable():
        assert job.id in shown
    page.script("for (const b of document.querySelectorAll('#panel .tabs button')) b.click()")
    for stream in ("stdout", "stderr"):
        page.script(
            f"[...document.querySelectorAll('#panel .tabs button')].find(b => b.textContent === '{stream}').click()"
        )
        page.log()
    page.type("#grep", "hacked")
    page.until(lambda: page.texts("#hits > p") and "searching" not in page.texts("#hits > p")[0])
    page.script(
        "document.querySelectorAll('[title]').forEach(e => e.dispatchEvent(new MouseEvent('mouseover', { bubbles: true })))"
    )
    wrong = page.script(
        "return [...document.querySelectorAll('a')].map(a => a.href).filter(h => !h.startsWith('file:'))"
    )
    assert wrong == []


def test_turned_writing_and_unseen_characters_are_shown(opened: Open) -> None:
    page = opened(folders.batch(folders.result("a\u202eb\x1bc\u200bd", wall_ns=1)))
    assert page.texts("#table td.c-job .ctl") == ["U+202E", "^[", "U+200B"]


def test_a_bomb_of_sequences_and_long_lines(opened: Open) -> None:
    noise = b"".join(b"\x1b[3%dm%c" % (n % 8, 97 + n % 26) for n in range(40_000))
    logs = {"bomb": (noise, b"x" * 250_000), "lines": (b"\n" * 300_000 + b"end\n", b"")}
    page = opened(folders.batch(*(folders.result(name, wall_ns=1) for name in logs)), logs, part="#job=bomb")
    assert page.log().startswith("abcdefg")
    page.script("location.hash = '#job=lines'")
    page.until(lambda: page.panel() == "lines" and "are left out" not in page.log() and page.texts("#panel .cut"))
    assert page.script("return document.querySelectorAll('#panel .ln').length") < 5000
    page.type("#panel .tabs input", "end")
    page.until(lambda: page.texts("#panel mark.now") == ["end"])


def test_a_thousand_jobs_can_be_read(opened: Open) -> None:
    whole, logs = folders.matrix(1000)
    page = opened(whole, logs)
    assert page.script("return document.documentElement.scrollWidth <= innerWidth")
    assert page.script("return document.querySelectorAll('#matrix .cell, #matrix .pill').length") == 1000
    page.script("document.getElementById('table').scrollIntoView()")
    last = whole.results[-1].id
    for _ in range(4):
        page.script("scrollTo(0, document.body.scrollHeight - 300)")
        time.sleep(0.1)
    page.until(lambda: last in page.texts("#table td.c-job"))
    assert len(page.all("#table tbody tr")) < 300
    page.type("#filter", last)
    page.until(lambda: last in page.texts("#table td.c-job"))


@pytest.mark.parametrize("width", [400, 1280, 1900])
def test_no_width_overflows(opened: Open, chromium: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        whole, logs = folders.matrix(120)
        page = opened(whole, logs, comparison=compare(folders.matrix(120, seed=3)[0], whole))
        assert page.script("return document.documentElement.scrollWidth") <= width
        page.script("location.hash = '#job=docs'")
        page.until(lambda: page.panel() == "docs")
        assert page.script("return document.documentElement.scrollWidth") <= width
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_comparison_and_earlier_runs(opened: Open) -> None:
    before = folders.batch(folders.result("a", wall_ns=10**9), folders.result("gone"), folders.result("b"))
    after = folders.batch(folders.result("a", wall_ns=3 * 10**9), folders.result("b", "failed", wall_ns=1))
    runs = [{"wall_ns": 10**9, "outcome": "ok"}, {"wall_ns": 10**9, "outcome": "failed"}]
    page = opened(
        after, comparison=compare(before, after, before_name="old"), history={"a": runs}, problems=("a/b is cut",)
    )
    assert page.texts("#comparison h3") == ["newly failing · 1", "gone · 1", "slower · 1"]
    assert page.texts("#problems li") == ["a/b is cut"]
    assert page.texts("#table .delta") == ["+200 %"]
    assert len(page.all("#table svg.runs rect")) == 3
    page.one("#comparison a").click()
    page.until(lambda: page.panel() == "b")


def test_ten_thousand_jobs_open(opened: Open) -> None:
    whole, logs = folders.matrix(10_000)
    page = opened(whole, logs)
    assert page.texts("#count") == ["10,000 jobs"]
    assert page.script("return document.querySelectorAll('#table tbody tr').length") < 200


def test_nothing_ran_at_all(opened: Open) -> None:
    page = opened(folders.batch(facts=()))
    assert page.texts("#count") == ["0 jobs"]
    assert page.script("return document.getElementById('times').hidden")
