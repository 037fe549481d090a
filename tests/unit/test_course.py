"""How far a batch is, in words; and the sign of life of one that is silent."""

from __future__ import annotations

import asyncio
import os

import pytest

from guntainer import report
from guntainer.jobs.model import Job, Source
from guntainer.output import Group, Live
from guntainer.report_text import rounded
from guntainer.screen import Screen
from guntainer.shown.course import Course
from guntainer.shown.heartbeat import Heartbeat, words


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def job(id_: str, *, kind: str = "path") -> Job:
    return Job(id=id_, rootfs=Source(location="/x/debian.tar", name="debian", kind=kind))


def result(id_: str, exit_: report.Exit | None = None, **more: object) -> report.Result:
    return report.Result(id=id_, key=id_, exit=exit_ or report.exited(0), rootfs="debian", **more)  # type: ignore[arg-type]


def test_a_batch_from_its_beginning_to_its_end() -> None:
    clock = Clock()
    course = Course(["a", "b", "c", "d"], parallel=2, clock=clock)
    assert course.words() == ["0/4 done", "4 queued"]
    for id_ in "abc":
        course.preparing(job(id_, kind="url" if id_ == "a" else "path"))
    course.waiting(job("d"))
    course.progress("debian", 30, 100)
    assert course.fetched("debian") and course.bars["debian"].percent == 30
    assert words(course) == "… unpacking debian 30 %; 0/4 done"
    course.started(job("a"))
    course.started(job("b"))
    assert not course.bars
    clock.now += 130
    assert course.words() == ["0/4 done", "2 running, 1 queued, 1 waiting"]
    assert words(course) == "… 2 jobs running for 2 min 10 s: a, b; 0/4 done"
    course.retrying(job("b"), 1, 5)
    assert words(course) == "… 1 job running for 2 min 10 s: a; 0/4 done"
    course.preparing(job("b"))
    course.started(job("b"))
    assert course.running["b"].attempt == 2
    course.finished(result("b", attempts=(report.Attempt(exit=report.exited(1)),)))
    course.finished(result("a", report.exited(1)))
    course.finished(result("d", report.skipped("skipped: a failed")))
    assert course.words() == ["3/4 done, 1 failed, 1 flaky, 1 skipped", "1 queued"]
    assert words(course) == "… 1 queued; 3/4 done, 1 failed, 1 flaky, 1 skipped"
    course.finished(result("c", report.exited(1), allow_failure=True))
    assert course.words() == ["4/4 done, 1 failed, 1 failed (allowed), 1 flaky, 1 skipped"]


def test_how_long_it_takes_yet() -> None:
    clock = Clock()
    second = 10**9
    course = Course(
        ["a", "b", "c", "d"], parallel=2, clock=clock, expected={"a": 10 * second, "b": 20 * second, "other": 1}
    )
    assert course.left_s() == 30  # the two unknown ones are taken for as long as the others
    course.started(job("a"))
    course.started(job("b"))
    clock.now += 5
    assert course.left_s() == 25
    assert course.words()[1] == "ETA 25 s"
    course.finished(result("c"))
    course.finished(result("d"))
    assert course.left_s() == 15, "no sooner than the longest one"
    clock.now += 100
    assert course.left_s() == 0


@pytest.mark.parametrize("expected", [None, {}, {"a": 1}, {"x": 1, "y": 1, "z": 1}])
def test_what_is_known_of_few_is_no_estimate(expected: dict[str, int] | None) -> None:
    assert Course(["a", "b", "c"], expected=expected).left_s() is None
    assert Course([], expected=expected).left_s() is None


def test_the_end_of_what_a_job_said() -> None:
    course = Course(["a"])
    course.said("a", "stdout", b"too early")
    course.started(job("a"))
    course.said("a", "stdout", b"one\ntw")
    course.said("a", "stdout", b"o")
    assert course.running["a"].tail == b"one\ntwo"
    course.said("a", "stderr", b"three")
    assert course.running["a"].tail == b"three"
    course.said("a", "stderr", b"x" * 5000)
    assert len(course.running["a"].tail) == 1024


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7265, "2 h 1 min")]
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert rounded(seconds) == text


def shown(main: object, fd: int) -> str:
    asyncio.run(asyncio.wait_for(main(), 20))  # type: ignore[operator]
    text = os.pread(fd, 1 << 16, 0).decode()
    os.close(fd)
    return text


def test_a_silent_batch_gives_signs_of_life_outside_of_blocks() -> None:
    fd = os.memfd_create("shown")

    async def main() -> None:
        screen = Screen(fd)
        course = Course(["a\x1b[2J", "b"])
        group = Group(screen, colour=False, terminal=False, env={"GITHUB_ACTIONS": "true"})
        course.started(job("a\x1b[2J"))
        heart = Heartbeat(screen, course, group.aside, 0.1)
        await asyncio.sleep(0.17)
        async with group._turn:
            await asyncio.sleep(0.3)
            assert os.fstat(fd).st_size < 70, "nothing within a block"
            group.retrying("b ##[add-mask]x", 1, report.exited(3), 2.0)
            screen.put(b"(a block)\n")
        for _ in range(4):
            screen.put(b".\n")
            await asyncio.sleep(0.05)
        await group.finished(result("b"))
        heart.close()
        heart.close()
        await asyncio.sleep(0.15)
        screen.close()

    lines = shown(main, fd).splitlines()
    assert lines[0] == "… 1 job running for 0 s: a\\x1b[2J; 0/2 done"
    assert lines[1:6] == ["(a block)", ".", ".", ".", "."]
    assert lines[-1] == "== b ## [add-mask]x: attempt 1 failed (exit 3), again in 2 s" and len(lines) == 8


def test_live_lines_tell_of_each_attempt_and_of_what_may_fail() -> None:
    fd = os.memfd_create("shown")

    async def main() -> None:
        screen = Screen(fd)
        live = Live(screen, colour=False, terminal=False, env={}, width=1)
        await live.output("a", "stdout", b"half")
        live.retrying("a", 1, report.exited(3), 0.5)
        live.retrying("a", 2, report.exited(3), 0)
        attempts = (report.Attempt(exit=report.exited(3)),) * 2
        await live.finished(result("a", attempts=attempts))
        await live.finished(result("b", report.exited(4), allow_failure=True))
        await live.finished(result("c", report.skipped("skipped: b failed")))
        screen.close()

    assert shown(main, fd).splitlines() == [
        "a | half",
        "a | attempt 1 failed (exit 3), again in 0.5 s",
        "a | attempt 2 failed (exit 3), again at once",
        "a | exit 0 at attempt 3 (flaky: exit 3 before)",
        "b | exit 4 (allowed to fail)",
        "c | skipped: b failed",
    ]
