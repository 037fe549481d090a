"""A page that has been opened in a browser, as tests look at it, and a batch that has some of everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import report_folders as folders

from guntainer import report

Open = Callable[..., "Page"]


class Page:
    """A page that has been opened, with what a test asks of it."""

    def __init__(self, driver: Any, url: str) -> None:
        self._driver = driver
        self.url = url
        self.script = driver.execute_script

    def all(self, selector: str) -> list[Any]:
        return list(self._driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self._driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return list(
            self.script("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)
        )

    def until(self, what: Callable[[], Any], seconds: float = 10) -> Any:
        """What it gives, once that is something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = what()
            if found:
                return found
            time.sleep(0.03)
        raise AssertionError("that did not happen")

    def type(self, selector: str, text: str) -> None:
        self.script(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))",
            selector,
            text,
        )

    def press(self, key: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self._driver).send_keys(key).perform()

    def panel(self) -> str:
        return str(self.script("const t = document.getElementById('panel-title'); return t ? t.textContent : ''"))

    def log(self) -> str:
        return "\n".join(self.until(lambda: self.texts("#panel .log .ln")))

    def complaints(self) -> list[str]:
        """What the browser has to say: errors, and whatever the policy kept from happening."""
        return [
            entry["message"] for entry in self._driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]

    def requests(self) -> list[str]:
        """Everything that was asked of anybody since the page was opened."""
        import json

        events = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def small(**settings: Any) -> report.Report:
    """Every outcome, in a matrix of three axes, and jobs without one."""
    outcomes = [
        "ok",
        "flaky",
        "failed",
        "timeout",
        "oom",
        "pids-limit",
        "error",
        "cancelled",
        "skipped",
        "ok",
        "ok",
        "ok",
    ]
    results = [
        folders.result("build", wall_ns=10**9, slot=0),
        folders.result("docs", "failed", allow_failure=True, wall_ns=10**8, slot=1),
    ]
    for number, outcome in enumerate(outcomes):
        axes = (("distro", f"d{number // 4}"), ("python", f"3.{number // 2 % 2}"), ("flags", f"f{number % 2}"))
        results.append(
            folders.result(
                f"test ({', '.join(value for _, value in axes)})",
                outcome,
                matrix=axes,
                begin_ns=10**9,
                prepare_ns=10**8,
                queue_ns=number * 10**7,
                launch_ns=10**6,
                wall_ns=(number + 1) * 10**8 if outcome not in ("error", "cancelled", "skipped") else 0,
                slot=number % 3,
                needs=("build",),
                notes=("a note",) if number == 2 else (),
                artifacts=(report.Artifact(path="dist/a b.whl", size_bytes=7),) if number == 2 else (),
            )
        )
    return folders.batch(*results, **settings)


LOGS = {
    "test (d0, 3.1, f0)": (
        b"plain \x1b[1;31mbold red\x1b[0m \x1b[38;2;1;200;3mtrue\x1b[0m\nprogress 1\rprogress 2\nneedle in the hay\n",
        b"an error needle\n",
    )
}
