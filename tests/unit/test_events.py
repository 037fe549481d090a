"""Events as values, as lines of JSON, and what becomes of a supervisor's calls."""

from __future__ import annotations

import json

import anyio
import pytest

import guntainer
from guntainer import events, json_lines, report
from guntainer.jobs.model import Job, Source
from guntainer.report import Report, Result, exited, signalled, timed_out
from guntainer.watcher import Announcer, Both, Watcher

JOB = Job(id="a", rootfs=Source(location="/r"))
GOOD = Result(id="a", key="a", exit=exited(0), wall_ns=5)
BAD = Result(id="b", key="b", exit=exited(3), begin_ns=1, wait_ns=2, prepare_ns=3, queue_ns=4, wall_ns=100)


def told() -> tuple[Announcer, list[events.Event]]:
    found: list[events.Event] = []
    return Announcer(found.append), found


async def _everything(watcher: Announcer) -> None:
    watcher.begin(("a", "b"), parallel=3, facts=(("kernel", "6"),))
    watcher.waiting(JOB)
    watcher.preparing(JOB)
    watcher.progress("small", 5, 10)
    watcher.started(JOB)
    await watcher.output(JOB, "stdout", b"\xff\n")
    watcher.retrying(JOB, 1, timed_out(5), 2.5)
    watcher.note("less\nthan asked for")
    await watcher.finished(GOOD)
    watcher.end(Report(results=(GOOD, BAD), wall_ns=7))


def all_events() -> list[events.Event]:
    watcher, found = told()
    anyio.run(_everything, watcher)
    return found


def test_every_call_becomes_an_event() -> None:
    found = all_events()
    assert [type(one).__name__ for one in found] == [
        "BatchStarted", "JobWaiting", "JobPreparing", "Progress", "JobStarted", "JobOutput", "JobRetrying", "Note",
        "JobFinished", "BatchFinished",
    ]  # fmt: skip
    times = [one.at_ns for one in found]
    assert times == sorted(times) and times[0] == 0
    assert {type(one) for one in found} == set(events.Event.__subclasses__())
    match found[5]:
        case guntainer.JobOutput(id=job, stream=stream, data=data):
            assert (job, stream, data) == ("a", "stdout", b"\xff\n")
        case _:
            pytest.fail("no JobOutput")


def test_lines() -> None:
    lines = [json_lines.line(one) for one in all_events()]
    assert all(line == b"" or (line.endswith(b"\n") and line.count(b"\n") == 1 and line.isascii()) for line in lines)
    objects = [json.loads(line) for line in lines if line]
    assert [one["event"] for one in objects] == [
        "batch-started", "job-started", "job-retrying", "note", "job-finished", "batch-finished",
    ]  # fmt: skip
    first, started, retrying, note, finished, last = objects
    assert (first["version"], first["jobs"], first["parallel"], first["facts"]) == (1, ["a", "b"], 3, {"kernel": "6"})
    assert set(started) == {"event", "at_ns", "id"}
    assert (retrying["id"], retrying["attempt"], retrying["reason"], retrying["code"]) == ("a", 1, "timeout", 124)
    assert (retrying["message"], retrying["signal"], retrying["wait_s"]) == ("timeout after 5 s", None, 2.5)
    assert note["text"] == "less\nthan asked for"
    assert finished["id"] == "a" and finished["outcome"] == "ok"
    del last["at_ns"]
    assert last == {
        "event": "batch-finished", "exit_code": 1, "interrupted": None, "wall_ns": 7, "jobs": 2,
        "outcomes": {"ok": 1, "failed": 1}, "allowed": 0,
    }  # fmt: skip


def test_the_format_is_all_documented() -> None:
    words = set((json_lines.__doc__ or "").replace(",", " ").split())
    for line in filter(None, map(json_lines.line, all_events())):
        found = json.loads(line)
        keys = {"event", "at_ns"} if found["event"] == "job-finished" else set(found)
        assert words >= keys | {found["event"]}


def test_the_exit_code_may_be_another_one() -> None:
    end = events.BatchFinished(report=Report(results=(GOOD,)))
    assert json.loads(json_lines.line(end))["exit_code"] == 0
    assert json.loads(json_lines.line(end, exit_code=125))["exit_code"] == 125
    assert "exit_code" not in json.loads(json_lines.line(events.Note(text="x"), exit_code=125))


def test_lines_of_a_report_are_in_the_order_of_the_ends() -> None:
    lines = [json.loads(line) for line in json_lines.of_report(Report(results=(BAD, GOOD), wall_ns=50, interrupted=2))]
    assert [(one["event"], one.get("id"), one["at_ns"]) for one in lines] == [
        ("job-finished", "a", 5), ("job-finished", "b", 110), ("batch-finished", None, 110),
    ]  # fmt: skip
    assert (lines[-1]["exit_code"], lines[-1]["interrupted"]) == (130, 2)


def test_names_that_are_no_unicode_make_lines_as_well() -> None:
    line = json_lines.line(events.JobFinished(result=Result(id="\udcff", key="x", exit=signalled(11))))
    assert json.loads(line)["id"] == "\ufffd" and line.isascii()  # many readers take no half of a pair
    assert json.loads(json_lines.line(events.Note(text="\udcff 🐧 \\udcff")))["text"] == "\ufffd 🐧 \\udcff"


def test_no_ci_system_sees_a_command_in_a_line() -> None:
    line = json_lines.line(events.Note(text="##vso[x]y ##[z] ### \\##"))
    assert b"##" not in line and json.loads(line)["text"] == "##vso[x]y ##[z] ### \\##"


class _Seen(Watcher):
    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> object:
        if name in vars(Watcher) and not name.startswith("_") and name != "live":
            object.__getattribute__(self, "seen").append(name)
        return object.__getattribute__(self, name)


def test_both_are_told() -> None:
    one, other = _Seen(live=False), _Seen(live=True)
    both = Both(one, other)

    async def tell() -> None:
        both.waiting(JOB)
        both.preparing(JOB)
        both.started(JOB)
        both.retrying(JOB, 1, exited(1), 0.0)
        await both.output(JOB, "stdout", b"x")
        await both.finished(GOOD)
        both.progress("x", 1, 2)
        both.note("x")

    anyio.run(tell)
    assert both.live and not Both(one, one).live
    names = [name for name in vars(Watcher) if not name.startswith("_") and name != "live"]
    assert other.seen == names
    assert one.seen == [name for name in names if name != "output"]


def test_every_public_name_is_there() -> None:
    assert sorted(guntainer.__all__) == sorted(guntainer._HOMES)
    for name in guntainer.__all__:
        assert getattr(guntainer, name) is not None
    assert guntainer.Report is report.Report
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = guntainer.nothing_such
