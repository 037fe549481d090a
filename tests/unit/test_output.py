"""What a batch shows: prefixes, the table, the exit code; and the screen, whether it is read or not."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
from collections.abc import Callable, Coroutine, Iterator

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors, nonblocking, report, report_text
from guntainer import screen as screens
from guntainer.output import Group, Live, Output
from guntainer.screen import MOST, Screen
from guntainer.shown import unpacking as unpackings
from guntainer.shown.taming import Prefixer, Tamer
from guntainer.shown.unpacking import Unpacking


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
    assert prefixer.feed(b"\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07 over\r\nx\rwrite\r\n") == (
        b"> \x1b[31mred\x1b[0m [2J]0;title over\r\n> \xe2\x80\xa6 write\r\n"
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("\r10 %\r20 %\r100 %", "… 100 %"),
        ("10 %\r20 %\r100 %\r", "… 100 %"),
        ("10 %\r20 %\ndone\r\n", "… 20 %\ndone\r\n"),
        ("ends\r\r\nso\r\r", "ends\r\nso"),
        ("\r" * 1000, ""),
        ("a\r::error::b\n", "… ::error::b\n"),
        ("x" * 70_000 + "\rshort\n", None),
    ],
)
def test_of_a_line_that_is_written_over_the_last_state_is_left(said: str, left: str | None, size: int) -> None:
    tamer = Tamer()
    data = said.encode()
    text = b"".join(tamer.feed(data[at : at + size]) for at in range(0, len(data), size)) + tamer.end()
    if left is None:  # too long to be kept until its end: what was shown stays
        assert text.decode() in ("x" * 70_000 + "\n… short\n", "… short\n")
    else:
        assert text.decode() == left


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


def test_the_table_shows_attempts_and_what_may_fail() -> None:
    attempts = (report.Attempt(exit=report.exited(1)),)
    results = (
        report.Result(id="a", key="a", exit=report.exited(0), attempts=attempts),
        report.Result(id="b", key="b", exit=report.timed_out(5), attempts=attempts, allow_failure=True),
    )
    text = report_text.table(report.Report(results=results), colour=True)
    lines = text.splitlines()
    assert "\x1b[33mflaky" in lines[1] and lines[1].endswith("  attempt 2")
    assert "\x1b[33mtimeout (allowed)" in lines[2] and lines[2].endswith("  attempt 2: timeout after 5 s")


LONG = "no limit of memory: the cgroup controller memory is not delegated to you in /user.slice/user-1000.slice"


@pytest.mark.parametrize("mode", [Live, Group, Output])
def test_a_long_reason_is_told_in_full_once(mode: type[Output]) -> None:
    """By the job itself, or where that says nothing by the first failure; afterwards only so much that it is known again."""
    ended = report.setup_failed(
        errors.HostError(LONG, hint="ask for less, or have it delegated", probe="cgroup-memory")
    )
    a_report = report.Report(results=(result("a", ended),))

    async def show(fd: int) -> None:
        screen = Screen(fd)
        more = {"width": 3} if mode is Live else {}
        shown = mode(screen, colour=False, terminal=False, env={}, **more)  # type: ignore[arg-type]
        await shown.finished(a_report.results[0])
        shown.closing(a_report)
        shown.say(report_text.table(a_report, colour=False, told=shown.told))
        await screen.flush()
        screen.close()

    fd = os.memfd_create("shown")
    asyncio.run(show(fd))
    text = os.pread(fd, 1 << 16, 0).decode()
    os.close(fd)
    begun = LONG[:40]
    assert text.count(str(ended.error)) == 1 and text.count("have it delegated") == 1
    assert text.count(begun) == (2 if mode is Output else 3)
    assert all(len(line) < 120 for line in text.splitlines() if begun in line and str(ended.error) not in line)


def test_each_long_reason_is_in_the_table_once() -> None:
    ends = [report.setup_failed(errors.HostError(f"{LONG} {number}")) for number in (1, 1, 2)]
    a_report = report.Report(results=tuple(result(str(n), end) for n, end in enumerate(ends)))
    text = report_text.table(a_report, colour=False)
    assert (text.count(f"{LONG} 1"), text.count(f"{LONG} 2"), text.count(" …")) == (1, 1, 1)


def test_json_tells_of_a_signal() -> None:
    assert report_text.json_object(result("a", report.signalled(11)))["signal"] == 11


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


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_what_is_taken_out_does_not_depend_on_the_chunks(size: int) -> None:
    data = "é\x9b2J\x1b[1;31mred\x1b[0m\x1b[2J\r\na\r::error::x\r\n##[group]a ### é#".encode() + b"\x1b[3"
    tamer = Tamer()
    text = b"".join(tamer.feed(data[at : at + size]) for at in range(0, len(data), size)) + tamer.end()
    assert text.decode() == "é2J\x1b[1;31mred\x1b[0m[2J\r\n… ::error::x\r\n## [group]a ### é#[3"


@pytest.mark.parametrize("env", [{"GITHUB_ACTIONS": "true"}, {"GITLAB_CI": "true"}])
def test_ci_systems_are_not_commanded(env: dict[str, str]) -> None:
    shown = Live(None, colour=False, terminal=False, env=env, width=1)  # type: ignore[arg-type]
    assert shown.tame
    assert b"\x1b" not in b"".join(shown.shielded(iter([b"\x1b[0Ksection_end:1:x\r\x1b", b"[0K\n"])))


Ends = tuple[int, int]


@pytest.fixture(params=["pipe", "pipe that can not be opened again", "socket"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """(to read, to write)"""
    if request.param == "socket":
        read, write = (one.detach() for one in socket.socketpair())
    else:
        read, write = os.pipe()
    monkeypatch.setattr(screens, "PATIENCE_S", (0.4, 0.05))
    if "again" in request.param:
        monkeypatch.setattr(nonblocking, "reopened", lambda *_: -1)
    yield read, write
    assert os.get_blocking(write), "the flags are the caller's"
    os.close(write)


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


async def everything(fd: int, size: int) -> bytes:
    """As much from a pipe, slowly."""
    data = b""
    while len(data) < size:
        await asyncio.sleep(0.001)
        more = await asyncio.to_thread(os.read, fd, 1 << 16)
        assert more
        data += more
    return data


def test_writers_are_held_back_and_nothing_is_lost(ends: Ends) -> None:
    pieces = [bytes([n]) * 100_000 for n in range(40)]

    async def main() -> None:
        screen = Screen(ends[1])

        async def writing() -> None:
            for piece in pieces:
                await screen.write(piece)

        task = asyncio.create_task(writing())
        await asyncio.sleep(0.1)
        assert not task.done() and screen._size <= MOST + 100_000
        reading = asyncio.create_task(everything(ends[0], 4_000_000))
        await task
        await screen.flush()
        assert await reading == b"".join(pieces)
        screen.close()

    run(main)
    os.close(ends[0])


def test_a_reader_that_takes_nothing_is_given_up_in_a_hurry(ends: Ends) -> None:
    async def main() -> None:
        screen = Screen(ends[1])
        loop = asyncio.get_running_loop()
        screen.put(b"x" * 3_000_000)
        flushing = asyncio.create_task(screen.flush())
        await asyncio.sleep(0.1)
        assert not flushing.done()
        started = loop.time()
        screen.hurry()
        await asyncio.sleep(0.1)
        assert not flushing.done()
        screen.hurry()
        await flushing
        assert screen.gone and loop.time() - started < 0.39
        await screen.write(b"dropped")
        screen.close()

    run(main)
    os.close(ends[0])


def test_one_hurry_gives_it_some_time(ends: Ends) -> None:
    async def main() -> None:
        screen = Screen(ends[1])
        screen.hurry()
        started = asyncio.get_running_loop().time()
        screen.put(b"x" * 3_000_000)
        await screen.flush()
        assert screen.gone and 0.35 < asyncio.get_running_loop().time() - started < 5
        screen.close()

    run(main)
    os.close(ends[0])


def test_a_reader_that_left_is_told_of_once(ends: Ends) -> None:
    lost: list[OSError] = []

    async def main() -> None:
        screen = Screen(ends[1], lost.append)
        os.close(ends[0])
        screen.put(b"x")
        await screen.flush()
        screen.put(b"y")
        screen.close()

    run(main)
    assert len(lost) == 1 and isinstance(lost[0], BrokenPipeError)


def test_how_far_archives_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpackings, "_STALE_S", 50)
    ours, theirs = pty.openpty()
    seen = pyte.Screen(60, 10)
    stream = pyte.ByteStream(seen)

    def shown() -> list[str]:
        os.set_blocking(ours, False)
        try:
            while True:
                stream.feed(os.read(ours, 1000))
        except BlockingIOError:
            return [line.rstrip() for line in seen.display if line.strip()]

    async def main() -> None:
        screen = Screen(theirs)
        unpacking = Unpacking(screen, 60)
        unpacking.told("x/a.tar.gz", 40, 100)
        assert shown() == ["unpacking a.tar.gz 40 %"]
        monkeypatch.setattr(unpackings, "_INTERVAL_S", 50)
        unpacking.told("x/a.tar.gz", 50, 100)
        assert shown() == ["unpacking a.tar.gz 40 %"], "too soon"
        monkeypatch.setattr(unpackings, "_INTERVAL_S", 0)
        unpacking.told("b.tar.gz\x1b", 10, 100)
        screen.put(b"a line\n")
        await asyncio.sleep(0.1)
        assert shown() == ["a line", "unpacking a.tar.gz 50 %, b.tar.gz\\x1b 10 %"]
        unpacking.over("x/a.tar.gz")
        screen.put(b"half a ")
        unpacking.over("b.tar.gz\x1b")
        screen.put(b"line\n")
        assert shown() == ["a line", "half a line"]
        unpacking.told("n" * 100, 1, 2)
        assert shown()[2] == f"unpacking {'n' * 49}"
        monkeypatch.setattr(unpackings, "_STALE_S", 0)
        unpacking._tidy()
        assert len(shown()) == 2
        unpacking.close()
        screen.close()

    run(main)
    os.close(theirs)
    os.close(ours)


def test_what_is_taken_out_makes_nothing_new() -> None:
    tamer = Tamer()
    assert b"\xc2\x9b" not in tamer.feed(b"\xc2\x07\x9b31mRED") + tamer.feed(b"\xc2\xc2\x9b\x9bx") + tamer.end()
    tamer = Tamer()
    assert b"##[" not in tamer.feed(b"#\x00") + tamer.feed(b"#[error]x") + tamer.end()


def test_of_a_line_that_is_out_already_what_is_written_over_it_is_the_next() -> None:
    """But not of the line after it."""
    long = b"x" * 70_000
    for said, left in (
        (b"\rover\n", "\n… over\n"),
        (b"\r\r\n", "\r\n"),
        (b" end\nabc\rdef\n", " end\n… def\n"),
    ):
        tamer = Tamer()
        assert tamer.feed(long) == long
        assert (tamer.feed(said) + tamer.end()).decode() == left


@pytest.mark.parametrize("is_out", [True, False])
def test_runs_of_returns_take_no_time(is_out: bool) -> None:
    """Each is looked at once: it took a minute and a half, while all other jobs waited."""
    tamer = Tamer()
    if is_out:
        tamer.feed(b"x" * 70_000)
    for end in (b"\n", b"x\n"):
        text = tamer.feed(b"\r" * (4 << 20) + end) + tamer.end()
        assert len(text) < 20


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("日本", 4), ("é", 1), ("e\u0301", 1), ("ไทยกำลังทดสอบ", 12), ("\u1112\u1161\u11ab", 2), ("", 0)],
)  # fmt: skip
def test_columns(text: str, columns: int) -> None:
    assert report_text.width_of(text) == columns
    assert report_text.width_of(report_text.padded(text, 20)) == 20


def test_names_of_any_width_line_up() -> None:
    shown = Live(None, colour=False, terminal=False, env={}, width=12)  # type: ignore[arg-type]
    for name in ("a", "日本語", "éé", "ไทย"):
        prefix = shown._prefixer(name, "stdout").feed(b"x\n").decode()
        assert report_text.width_of(prefix.partition("|")[0]) == 13


def test_after_a_signal_nothing_cancelled_is_the_first_failure() -> None:
    cancelled = result("a", report.cancelled("cancelled by SIGINT"))
    failed = result("b", report.exited(1))
    assert report.Report(results=(cancelled,)).first_failure is cancelled
    assert report.Report(results=(cancelled,), interrupted=2).first_failure is None
    assert report.Report(results=(cancelled, failed), interrupted=2).first_failure is failed


@pytest.mark.parametrize(("env", "told"), [({"GITHUB_ACTIONS": "true"}, "::error title=a::exit 3\n"), ({}, "")])
def test_quiet_annotates_where_that_is_read(env: dict[str, str], told: str) -> None:
    async def show(fd: int) -> None:
        screen = Screen(fd)
        shown = Output(screen, colour=False, terminal=False, env=env)
        await shown.finished(result("a", report.exited(3)))
        await screen.flush()
        screen.close()

    fd = os.memfd_create("shown")
    asyncio.run(show(fd))
    assert os.pread(fd, 1 << 16, 0).decode() == told
    os.close(fd)
