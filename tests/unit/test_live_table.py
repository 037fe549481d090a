"""The live table, as a terminal shows it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Coroutine, Iterator

import pyte
import pytest

from guntainer import report
from guntainer.jobs.model import Job, Source
from guntainer.screen import Screen
from guntainer.shown import live_table
from guntainer.shown.course import Course
from guntainer.shown.live_table import LiveTable


class Terminal:
    """A terminal that is looked at."""

    def __init__(self) -> None:
        self.ours, self.fd = pty.openpty()
        os.set_blocking(self.ours, False)
        self.seen = pyte.Screen(80, 24)
        self.stream = pyte.ByteStream(self.seen)
        self.bytes = b""
        self.resize(80, 24)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.seen.resize(lines, columns)

    def lines(self) -> list[str]:
        """What is to be seen; empty lines at the end are left out."""
        try:
            while data := os.read(self.ours, 1 << 16):
                self.bytes += data
                self.stream.feed(data)
        except BlockingIOError:
            pass
        return "\n".join(line.rstrip() for line in self.seen.display).rstrip("\n").split("\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setattr(live_table, "INTERVAL_S", 0.01)
    monkeypatch.setattr(live_table, "_SHARE", 0)
    one = Terminal()
    yield one
    os.close(one.ours)
    os.close(one.fd)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def job(id_: str) -> Job:
    return Job(id=id_, rootfs=Source(location="/x/debian.tar", name="debian"))


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def opened(terminal: Terminal, course: Course, *, colour: bool = False, **more: bool) -> tuple[Screen, LiveTable]:
    screen = Screen(terminal.fd)
    return screen, LiveTable(screen, course, fd=terminal.fd, colour=colour, env={"TERM": "xterm"}, first_s=0, **more)


def test_lines_scroll_above_the_table(terminal: Terminal) -> None:
    clock = Clock()
    course = Course(["a", "job (b, 2)", "c"], clock=clock)

    async def main() -> None:
        screen, table = opened(terminal, course)
        course.progress("x/debian.tar.gz", 40, 100)
        await asyncio.sleep(0.05)
        assert terminal.lines() == [
            " ⠋ debian.tar.gz  40 % ━━━━━━━━──────────── unpacking",
            " 0/3 done · 3 queued",
        ]
        for id_ in ("a", "job (b, 2)"):
            course.started(job(id_))
        course.progress("x/debian.tar.gz", 100, 100)
        course.said("job (b, 2)", "stdout", b"one\n\x1b[31mtwo\x1b[0m \x1b]0;title\x07\x1b[2J and\r 42 %\n\n")
        for number in range(40):
            screen.put(b"line %d\n" % number)
        clock.now = 61.25
        table.changed()
        await asyncio.sleep(0.1)
        table_lines = [
            " ⠋ a          1 min 1 s running",
            " ⠋ job (b, 2) 1 min 1 s running 42 %",
            " 0/3 done · 2 running, 1 queued",
        ]
        assert terminal.lines() == [*(f"line {n}" for n in range(19, 40)), *table_lines]
        course.finished(report.Result(id="a", key="a", exit=report.exited(1)))
        table.changed()
        await asyncio.sleep(0.05)
        assert terminal.lines()[-2:] == [
            " ⠋ job (b, 2) 1 min 1 s running 42 %",
            " 1/3 done, 1 failed · 1 running, 1 queued",
        ]
        screen.put(b"the last\n")
        table.close()
        table.changed()
        assert terminal.lines()[-3:] == ["line 38", "line 39", "the last"]
        assert not terminal.seen.cursor.hidden and terminal.seen.cursor.x == 0
        assert b"\x1b[31m" not in terminal.bytes and b"\x1b[?25l" not in terminal.bytes
        assert terminal.bytes.rfind(b"\x1b[?7h") > terminal.bytes.rfind(b"\x1b[?7l"), "lines wrap again"
        screen.close()

    run(main)


def test_half_of_the_terminal_at_most(terminal: Terminal) -> None:
    jobs = [f"job {number:02}" for number in range(40)]
    course = Course(jobs, expected=dict.fromkeys(jobs, 2 * 10**9))

    async def main() -> None:
        for id_ in jobs[:35]:
            course.started(job(id_))
        for name in "abcdefgh":
            course.progress(name, 1, 2)
        screen, table = opened(terminal, course)
        await asyncio.sleep(0.05)
        lines = terminal.lines()
        assert len(lines) == 12 and lines[-1].startswith(" 0/40 done · ETA 1 min ")
        assert [line[3] for line in lines[:3]] == ["a", "b", "c"] and lines[3][3:].startswith("job 00")
        assert lines[10] == " … and 5 more unpacking, 28 more running"
        for rows in (5, 3, 1, 0, 24):
            terminal.resize(80, rows or 1)
            table.changed()
            await asyncio.sleep(0.05)
            assert len(terminal.lines()) == max(1, rows // 2)
            assert terminal.lines()[-1].startswith(" 0/40 done"), rows
        table.close()
        assert terminal.lines() == [""]
        screen.close()

    run(main)


@pytest.mark.parametrize("columns", [1, 2, 5, 20, 40, 200])
@pytest.mark.parametrize("plain", [True, False])
def test_every_width_and_every_text(terminal: Terminal, columns: int, plain: bool) -> None:
    """Wide, combining and unprintable characters, and what a job makes of its last line: no line is ever wrapped."""
    names = ["plain", "漢字" * 30, "e\u0301" * 50, "👩‍👩‍👧" * 20, "\u202ebidi\x1b[2J", "x" * 300]
    course = Course(names)

    async def main() -> None:
        for id_ in names:
            course.started(job(id_))
            course.said(id_, "stdout", f"{id_} \x1b[5;5H\x9b2J\x0b\x0c [red]no markup[/red] :smile:".encode() * 3)
            course.said(id_, "stderr", b"\xff\xfe" + os.urandom(300))
        course.progress("漢" * 80, 1, 3)
        terminal.resize(columns, 40)
        screen, table = opened(terminal, course, colour=not plain, ascii_only=plain)
        screen.put(b"first\n")
        for _ in range(3):
            table.changed()
            await asyncio.sleep(0.03)
            course.said("plain", "stdout", b"\x1b[3A\n\xf0\x9f\x98\x80" * 20)
        lines = terminal.lines()
        at = -(-5 // columns)
        assert "".join(lines[:at]) == "first" and len(lines) <= at + 8
        assert terminal.seen.cursor.y == at and terminal.seen.cursor.x == 0
        table.close()
        assert "".join(terminal.lines()) == "first"
        screen.close()

    run(main)


def test_a_job_that_waits_for_its_next_attempt(terminal: Terminal) -> None:
    clock = Clock()
    course = Course(["a", "b"], clock=clock)

    async def main() -> None:
        course.started(job("a"))
        course.retrying(job("a"), 1, 10.2)
        screen, table = opened(terminal, course, colour=True)
        await asyncio.sleep(0.05)
        assert terminal.lines() == ["   a      again in 10 s", " 0/2 done · 1 again, 1 queued"]
        clock.now = 10
        table.changed()
        await asyncio.sleep(0.05)
        assert terminal.lines()[0] == "   a      queued"
        course.started(job("a"))
        course.finished(report.Result(id="b", key="b", exit=report.exited(1), allow_failure=True))
        table.changed()
        await asyncio.sleep(0.05)
        assert terminal.lines() == [" ⠋ a  0 s attempt 2", " 1/2 done, 1 failed (allowed) · 1 running"]
        assert b"\x1b[1;31m" not in terminal.bytes
        course.finished(report.Result(id="a", key="a", exit=report.exited(1)))
        table.changed()
        await asyncio.sleep(0.05)
        terminal.lines()
        assert b"\x1b[1;31m" in terminal.bytes
        screen.close()
        table.close()

    run(main)


def test_not_within_a_line_nor_before_the_reader_has_taken_it(terminal: Terminal) -> None:
    course = Course(["a"])

    async def main() -> None:
        screen, table = opened(terminal, course)
        screen.put(b"half")
        await asyncio.sleep(0.05)
        assert terminal.lines() == ["half"]
        screen.put(b" and half\n")
        table.changed()
        await asyncio.sleep(0.05)
        assert terminal.lines() == ["half and half", " 0/1 done · 1 queued"]
        screen.put(b"half")
        await screen.flush()
        assert terminal.lines() == ["half and half", "half"]
        screen.put(b"\n" + b"much\n" * 100_000)  # more than a terminal takes
        table.changed()
        await asyncio.sleep(0.05)
        before = screen._size
        table.changed()
        await asyncio.sleep(0.05)
        assert screen._size == before > 0, "nobody looks: nothing is drawn on top of it"
        flushing = asyncio.create_task(screen.flush())
        while not flushing.done():
            terminal.lines()
            await asyncio.sleep(0.001)
        table.changed()
        await asyncio.sleep(0.05)
        assert terminal.lines()[-2:] == ["much", " 0/1 done · 1 queued"]
        screen.close()
        assert terminal.lines()[-1] == "much"
        table.close()

    run(main)


def test_it_is_drawn_eight_times_a_second_at_most(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_table, "INTERVAL_S", 1 / 8)
    drawn = []
    monkeypatch.setattr(LiveTable, "_draw", lambda _table: drawn.append(1))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        screen, table = opened(terminal, Course(["a"]))
        started = loop.time()
        while loop.time() - started < 0.6:
            table.changed()
            await asyncio.sleep(0.002)
        assert 2 <= len(drawn) <= 6
        table.close()
        drawn.clear()
        monkeypatch.setattr(live_table, "_SHARE", 20)
        monkeypatch.setattr(live_table.time, "thread_time", iter(range(100)).__next__)  # a drawing takes a whole second
        screen, table = opened(terminal, Course(["a"]))
        for _ in range(100):
            table.changed()
            await asyncio.sleep(0.005)
        assert len(drawn) == 1, "it waits for twenty times as long"
        table.close()
        screen.close()

    run(main)


def test_a_resized_terminal_is_drawn_again(terminal: Terminal) -> None:
    course = Course(["a" * 30], clock=Clock())

    async def main() -> None:
        course.started(job("a" * 30))
        screen, table = opened(terminal, course)
        await asyncio.sleep(0.05)
        assert terminal.lines() == [f" ⠋ {'a' * 24}…  0 s running", " 0/1 done · 1 running"]
        terminal.resize(20, 10)
        os.kill(os.getpid(), live_table._signal.SIGWINCH)
        await asyncio.sleep(0.05)
        assert terminal.lines() == [f" ⠋ {'a' * 10}…  0 s", " 0/1 done"]
        table.close()
        screen.close()

    run(main)


def test_a_short_batch_loads_no_rich() -> None:
    code = """
import asyncio, os, pty, sys
from guntainer.screen import Screen
from guntainer.shown.course import Course
from guntainer.shown.live_table import LiveTable

async def main():
    ours, theirs = pty.openpty()
    screen = Screen(theirs)
    table = LiveTable(screen, Course([]), fd=theirs, colour=True, env={})
    await asyncio.sleep(0.05)
    table.close()
    screen.close()

asyncio.run(main())
from guntainer import log
log.configure(level="info", format="console").warning("x")
print([name for name in sys.modules if name.split(".")[0] == "rich"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "guntainer: warning: x\n")
