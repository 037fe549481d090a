"""JUnit's XML: valid against the schema's rules, read back by junitparser, and whatever a job prints is text in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import report_folders as folders
from hypothesis import given
from hypothesis import strategies as st
from junitparser import xunit2
from lxml import etree

from guntainer import report
from guntainer.reports import junit
from guntainer.reports.logs import Logs, open_logs

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "junit.xsd"))


def parsed(data: bytes) -> Any:
    """The document, when it is valid."""
    tree = etree.fromstring(data)
    assert SCHEMA.validate(tree), SCHEMA.error_log
    return xunit2.JUnitXml.fromstring(data)


def document(whole: report.Report, logs: Logs | None = None) -> bytes:
    return b"".join(junit.pieces(whole, logs or Logs(None)))


def cases(whole: report.Report) -> dict[str, Any]:
    return {case.name: case for suite in parsed(document(whole)) for case in suite}


def test_every_outcome() -> None:
    words = ("ok", "flaky", "failed", "signal", "timeout", "oom", "pids-limit", "error", "cancelled", "skipped")
    results = [folders.result(word, word, wall_ns=1_500_000_000) for word in words]
    results.append(folders.result("may", "failed", allow_failure=True))
    again = (report.Attempt(exit=report.exited(7)), report.Attempt(exit=folders.result("x", "error").exit))
    results.append(folders.result("thrice", "timeout", attempts=again))
    found = cases(folders.batch(*results))
    tags = {name: [child.tag for child in case._elem] for name, case in found.items()}
    assert tags == {
        "ok": [],
        "flaky": ["flakyFailure"],
        "failed": ["failure"],
        "signal": ["failure"],
        "timeout": ["failure"],
        "oom": ["failure"],
        "pids-limit": ["failure"],
        "error": ["error"],
        "cancelled": ["skipped"],
        "skipped": ["skipped"],
        "may": ["skipped"],
        "thrice": ["failure", "rerunFailure", "rerunError"],
    }
    assert found["ok"].time == 1.5
    assert found["failed"].result[0].message == "exit 3"
    assert found["oom"].result[0].type == "oom"
    assert found["may"].result[0].message == "failed (allowed): exit 3"
    assert found["skipped"].result[0].message == "skipped: build did not succeed"
    assert found["cancelled"].result[0].message == "cancelled: another job failed"
    assert found["flaky"].is_flaky
    assert found["flaky"].is_passed


def test_suites_and_their_numbers() -> None:
    whole = folders.batch(
        folders.result("test (a)", wall_ns=10**9),
        folders.result("test (b)", "failed", wall_ns=2 * 10**9, started_at=1.78e9),
        folders.result("lint", "error"),
        folders.result("docs", "skipped"),
    )
    root = parsed(document(whole))
    assert (root.tests, root.failures, root.errors, root.time) == (4, 1, 1, 3.0)
    suites = {suite.name: suite for suite in root}
    assert list(suites) == ["test", "lint", "docs"]
    test = suites["test"]
    assert (test.tests, test.failures, test.errors, test.skipped, test.time) == (2, 1, 0, 0, 3.0)
    assert suites["docs"].skipped == 1
    assert test.timestamp == "2026-05-28T20:26:40"
    assert test.hostname == "build-7"
    assert {one.name: one.value for one in test.properties()} == {**dict(folders.FACTS), "parallel": "8"}
    assert [case.classname for case in test] == ["test", "test"]


def test_outputs_are_bounded_and_clean(tmp_path: Path) -> None:
    whole = folders.batch(
        folders.result("a", "failed", wall_ns=1),
        folders.result("b", "flaky", wall_ns=1),
    )
    logs = {
        "a": (b"x" * 100 + b"\n" + b"\x1b[31mred\x1b[0m \x07\x00\xff ]]> <b>\n" * 9_000, b"to stderr\n"),
        "b": (b"fine\n", b""),
    }
    folder = folders.write(tmp_path, whole, logs)
    with open_logs(str(folder)) as opened:
        data = document(whole, opened)
    found = {case.name: case for suite in parsed(data) for case in suite}
    out = found["a"].system_out
    assert out.startswith("[… ")
    assert "bytes are left out]\nred \\x07\\x00\ufffd ]]> <b>\n" in out
    assert len(out) < junit.MOST_BYTES + 100
    assert found["a"].system_err == "to stderr\n"
    assert found["b"].system_out == "fine\n"
    assert found["b"].flaky_failures()[0].system_out == "the attempt that failed\n"


def test_all_outputs_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junit, "MOST_ALL", 100_000)
    whole = folders.batch(*(folders.result(f"j{n}", "failed" if n == 3 else "ok", wall_ns=1) for n in range(20)))
    folder = folders.write(tmp_path, whole, {one.id: (b"y" * 60_000, b"") for one in whole.results})
    with open_logs(str(folder)) as opened:
        data = document(whole, opened)
    assert len(data) < 120_000
    assert b"y" * 60_000 in data  # the failure has all of its own


def test_hostile_names(tmp_path: Path) -> None:
    whole, logs = folders.hostile()
    folder = folders.write(tmp_path, whole, logs)
    with open_logs(str(folder)) as opened:
        root = parsed(document(whole, opened))
    names = [case.name for suite in root for case in suite]
    assert names[0] == "</script><script>window.hacked=1</script> (0)"
    assert "red (7)" in names
    assert len(names) == len(folders.HOSTILE)


@given(st.text(st.characters(), max_size=60))
def test_any_text_can_stand_there(text: str) -> None:
    result = folders.result(text or "-", "failed", key=text or "-", notes=(text,))
    parsed(document(folders.batch(result, facts=((text, text),))))


@given(st.text(st.sampled_from("\x1b[]PX^_\\;:?0123456789mABKhl\x07\x9b \n"), max_size=40))
def test_no_escape_is_left(text: str) -> None:
    assert not set(junit.xml_text(text)) & {"\x1b", "\x07"}


def test_without_lxml_it_is_valid_as_well(tmp_path: Path) -> None:
    """junitparser takes lxml where it is installed, which it need not be."""
    code = (
        "import sys; sys.modules['lxml'] = None\n"
        "import report_folders as folders\n"
        "from guntainer.reports import junit\n"
        "from guntainer.reports.logs import open_logs\n"
        "whole, logs = folders.hostile()\n"
        f"with open_logs(str(folders.write(__import__('pathlib').Path({str(tmp_path)!r}), whole, logs))) as opened:\n"
        "    sys.stdout.buffer.write(b''.join(junit.pieces(whole, opened)))\n"
    )
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=tests.parent,
        env={"PYTHONPATH": f"{tests}:{tests.parent}"},
    )
    assert done.returncode == 0, done.stderr
    parsed(done.stdout)
