"""A report as JUnit's XML, as Jenkins's and GitLab's readers take it: the junit-10 schema of Jenkins's xunit plugin.

A suite is a job's key, a case is a job: `name` is its id, `classname` the key.

    ok                              a case
    flaky                           a case with a flakyFailure (flakyError) per attempt that failed, as Maven's surefire has it:
                                    passed for every reader, and Jenkins's flaky-test-handler counts it
    failed, timeout, oom, …         failure
    error                           error: it has not run
    skipped, cancelled              skipped
    failed (allowed)                skipped, `failed (allowed): exit 3`: neither reader knows a failure that does not count
    failed after several attempts   failure, with a rerunFailure per earlier one

Other words than these would be lost on both readers, or refused by the schema. What a job prints is bounded, freed of ANSI
sequences, and of characters that XML 1.0 has not.
"""

from __future__ import annotations

import re
import time

from guntainer import report
from guntainer.reports.logs import STREAMS, shares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from guntainer.report import Exit, Report, Result
    from guntainer.reports.logs import Logs

MOST_BYTES = 64 << 10
"""Of each stream: its end."""
MOST_ALL = 20 << 20
"""Of all streams: GitLab reads no report that is larger than 30 MB."""
_MOST_NAME = 1000  # characters of an attribute
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[PX^_][^\x1b]*(?:\x1b\\|$)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """`text` as XML 1.0 can hold it: §2.2, Char. Colours and cursor movements go, other control characters are shown."""
    text = _ANSI.sub("", text)
    return _ILLEGAL.sub(lambda match: repr(match[0])[1:-1], text)


def _attribute(text: str) -> str:
    """For an attribute: readers make its line breaks spaces anyway."""
    text = xml_text(text)
    return text if len(text) <= _MOST_NAME else text[:_MOST_NAME] + " …"


def pieces(a_report: Report, logs: Logs) -> Iterator[bytes]:
    """The document in UTF-8, a case at a time: ten thousand of them as one tree would be more than the batch itself."""
    outputs = _Outputs(a_report, logs)
    root = _xunit2().JUnitXml(_attribute(a_report.name or a_report.file or "guntainer"))
    _count(root, a_report.results)
    yield b'<?xml version="1.0" encoding="UTF-8"?>\n' + _opened(root)
    for key, results in _by_key(a_report).items():
        yield _opened(_suite(key, results, a_report))
        for result in results:
            yield _serialised(_case(result, outputs)) + b"\n"
        yield b"</testsuite>\n"
    yield b"</testsuites>\n"


def _serialised(element: Any) -> bytes:
    data: bytes = element.tostring()
    return data.partition(b"?>")[2].lstrip() if data.startswith(b"<?xml") else data


def _opened(element: Any) -> bytes:
    """An element without its end."""
    data = _serialised(element)
    end = b"</%s>" % element._tag.encode()
    return (data.removesuffix(end) if data.endswith(end) else data.removesuffix(b"/>").rstrip() + b">") + b"\n"


def _xunit2() -> Any:
    """The library, which has annotations in some places only; and takes lxml for its trees, where that is installed."""
    from junitparser import xunit2

    return xunit2


def _by_key(a_report: Report) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in a_report.results:
        found.setdefault(result.key, []).append(result)
    return found


def _suite(key: str, results: list[Result], a_report: Report) -> Any:
    """A suite without its cases."""
    suite = _xunit2().TestSuite(_attribute(key))
    began = min((r.started_at for r in results if r.started_at), default=0.0) or a_report.started_at
    suite.timestamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began))  # the schema has no place for a zone
    facts = dict(a_report.facts)
    suite.hostname = _attribute(facts.get("host") or facts.get("hostname") or "localhost")
    for name, value in (*a_report.facts, ("parallel", str(a_report.parallel))):
        suite.add_property(_attribute(name), _attribute(value))
    _count(suite, results)
    suite.skipped = sum(_kind(result) == "skipped" for result in results)
    return suite


def _count(element: Any, results: Sequence[Result]) -> None:
    kinds = [_kind(result) for result in results]
    element.tests, element.failures, element.errors = len(kinds), kinds.count("failure"), kinds.count("error")
    element.time = round(sum(result.wall_ns for result in results) / 1e9, 3)


def _kind(result: Result) -> str:
    """The name of the element that says how a case ended; "" where it passed."""
    if result.ok:
        return ""
    if result.allowed or result.exit.reason in (report.SKIPPED, report.CANCELLED):
        return "skipped"
    return "error" if result.exit.reason == report.SETUP else "failure"


def _case(result: Result, outputs: _Outputs) -> Any:
    xunit2 = _xunit2()
    case = xunit2.TestCase(_attribute(result.id), _attribute(result.key), round(result.wall_ns / 1e9, 3))
    verdict = _verdict(result)
    if verdict is not None:
        case.append(verdict)
    for place, attempt in enumerate(result.attempts, 1):
        case.append(_earlier(result, place, attempt.exit, outputs))
    for stream, cls in zip(STREAMS, _streams(), strict=True):
        text = outputs.of(result, stream)
        if text:
            case.append(cls(text))
    return case


def _streams() -> tuple[Any, Any]:
    from junitparser import junitparser

    return junitparser.SystemOut, junitparser.SystemErr


def _verdict(result: Result) -> Any:
    """The element that says that a case did not pass; None where it did."""
    from junitparser import Error, Failure, Skipped

    kind, why = _kind(result), result.exit.describe()
    if not kind:
        return None
    if kind == "skipped":
        word = result.verdict
        return Skipped(_attribute(why if why.startswith(word) else f"{word}: {why}"))
    found: Any = (Error if kind == "error" else Failure)(_attribute(why), result.outcome)
    found.text = xml_text("\n".join([why, *result.notes]))
    return found


def _earlier(result: Result, place: int, exit_: Exit, outputs: _Outputs) -> Any:
    """An attempt that was not the last one."""
    xunit2 = _xunit2()
    failed, error = (xunit2.FlakyFailure, xunit2.FlakyError) if result.ok else (xunit2.RerunFailure, xunit2.RerunError)
    setup = exit_.reason == report.SETUP
    why = f"attempt {place}: {exit_.describe()}"
    found: Any = (error if setup else failed)(_attribute(why), "error" if setup else exit_.reason)
    found.stack_trace = xml_text(why)
    for stream, name in zip(STREAMS, ("system_out", "system_err"), strict=True):
        text = outputs.of(result, stream, place)
        if text:
            setattr(found, name, text)
    return found


class _Outputs:
    """The ends of the streams, within a budget that failures come first in."""

    def __init__(self, a_report: Report, logs: Logs) -> None:
        self._logs = logs
        names, sizes, first = [], [], []
        for result in a_report.results:
            for stream, attempt, size in logs.sizes(result):
                names.append((result.id, stream, attempt))
                sizes.append(size)
                first.append(not result.ok)
        self._most = dict(zip(names, shares(sizes, first, MOST_ALL, MOST_BYTES), strict=True))

    def of(self, result: Result, stream: str, attempt: int = 0) -> str:
        most = self._most.get((result.id, stream, attempt), 0)
        log = self._logs.end(result, stream, attempt, most) if most else None
        if log is None or not log.size_bytes:
            return ""
        text = xml_text(log.tail.decode("utf-8", "replace"))
        return f"[… {log.left_out} bytes are left out]\n{text}" if log.left_out else text
