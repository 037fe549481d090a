"""What a batch shows: prefixes, the table, the exit code."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors, report, report_text
from guntainer.output import Prefixer


def result(id_: str, exit_: report.Exit) -> report.Result:
    return report.Result(id=id_, key=id_, exit=exit_, wall_ns=1_500_000)


@given(st.lists(st.text(alphabet="ab\n", max_size=6)))
def test_prefixes_whatever_the_chunks(chunks: list[str]) -> None:
    prefixer = Prefixer(b"> ", tame=False)
    out = b"".join(prefixer.feed(chunk.encode()) for chunk in chunks) + prefixer.end()
    text = "".join(chunks)
    assert out.decode() == "".join(
        f"> {line}\n" for line in text.split("\n")[: None if not text.endswith("\n") and text else -1]
    )


def test_a_job_can_not_move_the_cursor() -> None:
    prefixer = Prefixer(b"> ", tame=True)
    assert prefixer.feed(b"\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07 over\rwrite\r\n") == (
        b"> \x1b[31mred\x1b[0m [2J]0;title overwrite\r\n"
    )


@pytest.mark.parametrize(
    ("exits", "code"),
    [
        ([], 0),
        ([report.exited(0)], 0),
        ([report.exited(0), report.exited(3)], 1),
        ([report.signalled(9)], 1),
        ([report.setup_failed(errors.HostError("no"))], 125),
        ([report.setup_failed(errors.HostError("no")), report.exited(0)], 1),
        ([report.setup_failed(errors.CommandNotFound("no"))], 1),
    ],
)
def test_exit_codes(exits: list[report.Exit], code: int) -> None:
    assert report.Report(results=tuple(result(str(n), e) for n, e in enumerate(exits))).exit_code == code
    assert report.Report(results=(), interrupted=2).exit_code == 130


def test_the_table() -> None:
    results = (
        result("a", report.exited(0)),
        result("b\x1b[2J", report.timed_out(5)),
        result("漢", report.cancelled("why")),
    )
    text = report_text.table(report.Report(results=results, wall_ns=2 * 10**9), colour=False)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[-1] == "3 jobs: 1 ok, 1 timeout, 1 cancelled in 2.00 s"
    assert "timeout after 5 s" in lines[2]


def test_json_has_one_object_per_job() -> None:
    lines = report_text.json_lines(report.Report(results=(result("a", report.signalled(11)),))).splitlines()
    assert json.loads(lines[0])["signal"] == 11


def test_the_first_failure_is_one_that_failed_by_itself() -> None:
    results = (result("a", report.cancelled("x")), result("b", report.exited(1)))
    found = report.Report(results=results).first_failure
    assert found is not None and found.id == "b"


def test_values_can_not_be_changed() -> None:
    value = report.exited(1)
    with pytest.raises(AttributeError):
        value.code = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        report.Exit(reason="exit")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        report.Exit(reason="exit", code=1, colour=2)  # type: ignore[call-arg]
    assert value.replace(code=2) == report.exited(2) and hash(value) == hash(report.exited(1))
