"""A browser without a window, and pages that are opened in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_folders as folders
from browser_page import Open, Page

from guntainer import report, reports

WIDE, HIGH = 1280, 900


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser of this module's own."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no browser here: install chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    home = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    words = ["--headless=new", f"--window-size={WIDE},{HIGH}", f"--user-data-dir={home}", "--disable-dev-shm-usage"]
    words += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    if os.getuid() == 0 or not _sandbox():
        words.append("--no-sandbox")
    for word in words:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Network.enable", {})
    yield driver
    driver.quit()


def _sandbox() -> bool:
    """Chromium's own sandbox wants user namespaces."""
    import subprocess

    return subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode == 0


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Open]:
    """Write a page and open it; at the end nothing may have gone wrong in it, nor been fetched."""
    pages: list[Page] = []

    def make(whole: report.Report, logs: Any = None, *, part: str = "", **settings: Any) -> Page:
        folder = tmp_path / f"r{len(pages)}"
        folders.write(folder, whole, logs)
        reports.write_html(str(folder / "report.html"), whole, str(folder), **settings)
        chromium.get("about:blank")
        page = Page(chromium, (folder / "report.html").as_uri())
        page.complaints()
        page.requests()
        chromium.get(page.url + part)
        page.until(lambda: page.script("return document.documentElement.dataset.ready === 'yes'"))
        pages.append(page)
        return page

    yield make
    for page in pages[-1:]:
        assert page.complaints() == []
        assert {url.partition("#")[0] for url in page.requests() if not url.startswith("data:image/svg+xml")} <= {
            page.url
        }
        assert page.script("return window.hacked") is None
        page.script("localStorage.clear()")
        chromium.get("about:blank")
