"""What CI systems read of a batch: blocks, annotations, the summary; and that neither jobs nor their names command them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors, report, report_text
from guntainer.output import Group, Live, Output
from guntainer.screen import Screen
from guntainer.shown import summary
from guntainer.shown.ci import Ci
from guntainer.shown.taming import Prefixer, Tamer, last_line, plain

GITHUB = {"GITHUB_ACTIONS": "true"}
EVIL = "x\r\n::add-mask::a\r::error::b ##[group]c ##vso[task.complete]d ##teamcity[e] \x1b[0Ksection_end:1:x\r\x1b[0K"
# the runner's own rules: a command begins a line, or is ##[…] anywhere in one; .NET ends lines at CR, LF, CR LF
COMMAND = re.compile(r"^\s*::[^:]|##(?:vso|teamcity)?\[")
OURS = ("::group::", "::endgroup::", "::error ", "::warning ", "::notice ", "::stop-commands::")


def result(id_: str, exit_: report.Exit, **more: Any) -> report.Result:
    return report.Result(id=id_, key=id_.partition(" ")[0], exit=exit_, started_at=7.5, **more)


def commands(text: str) -> list[str]:
    """What a runner would obey: nothing between a stop-commands and its token."""
    token, found = "", []
    for line in re.split(r"\r\n|\r|\n", text):
        if token:
            token = "" if line.strip() == token else token
        elif COMMAND.search(line):
            found.append(line)
            if line.startswith("::stop-commands::"):
                token = f"::{line.removeprefix('::stop-commands::')}::"
    assert not token, "commands are on again"
    return found


def shown(
    mode: type[Output], env: dict[str, str], results: list[report.Result], lines: Sequence[tuple[str, bytes]] = ()
) -> str:
    fd = os.memfd_create("shown")

    async def main() -> None:
        screen = Screen(fd)
        more: dict[str, Any] = {"width": 3} if mode is Live else {}
        output = mode(screen, colour=False, terminal=False, env=env, again=lambda one: f"guntainer {one.id}", **more)
        for id_, data in lines if mode is Live else ():
            await output.output(id_, "stdout", data)
        for one in results:
            output.retrying(one.id, 1, one.exit, 2)
            await output.finished(one)
        a_report = report.Report(results=tuple(results))
        output.closing(a_report)
        output.say(report_text.table(a_report, colour=False, told=output.told))
        output.aside(f"… {results[0].id}\n" if results[0].id.isprintable() else "")
        screen.close()

    asyncio.run(asyncio.wait_for(main(), 20))
    text = os.pread(fd, 1 << 22, 0).decode()
    os.close(fd)
    return text


@pytest.mark.parametrize("mode", [Live, Group, Output])
@pytest.mark.parametrize("more", [{}, {"GITLAB_CI": "true"}])
def test_names_reasons_and_logs_command_nobody(mode: type[Output], more: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "##[error]log"
    log.write_bytes(EVIL.encode() * 3)
    error = errors.HostError(EVIL, hint=EVIL)
    results = [
        result(
            f"a ({EVIL})",
            report.setup_failed(error),
            stdout=str(log),
            attempts=(report.Attempt(exit=report.exited(1), stdout=str(log)),),
        ),
        result("b (##[debug])", report.exited(1), stdout=str(log), stderr=str(tmp_path / "gone"), allow_failure=True),
        result("c (##[debug])", report.skipped(EVIL)),
    ]
    text = shown(
        mode, {**GITHUB, **more}, results, [("a", EVIL.encode()), ("b", b"half"), ("a", b"\n"), ("b", b"::error::x\n")]
    )
    found = [line for line in commands(text) if not line.startswith(OURS)]
    assert not found
    assert all("##[" not in line for line in commands(text))
    assert "\x1b" not in text
    assert text.count("::group::") == text.count("::endgroup::\n") == (2 if mode is Group else 0)


@given(
    st.lists(
        st.sampled_from(["#", "##", "[", "vso[", "teamcity[", "\n", "\r", "::error::", "\x1b", "\x9b", "a", "team"]),
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_no_chunks_make_a_command(parts: list[str], size: int) -> None:
    data = "".join(parts).encode()
    prefixer = Prefixer(b"x | ", tame=True, whole=True)
    pieces = [prefixer.feed(data[at : at + size]) for at in range(0, len(data), size)]
    text = b"".join([*pieces, prefixer.end()])
    assert not commands(text.decode())
    assert all(piece.endswith(b"\n") and piece.startswith(b"x | ") for piece in pieces if piece), "whole lines only"
    tamer = Tamer()
    tamed = b"".join(tamer.feed(data[at : at + size]) for at in range(0, len(data), size)) + tamer.end()
    assert not re.search(rb"##(vso|teamcity)?\[", tamed)


def test_the_rest_of_a_line_is_never_the_beginning_of_one() -> None:
    """Another job's line comes in between: what follows would stand at the beginning, without a prefix."""
    results = [result("a", report.exited(0)), result("b", report.exited(0))]
    text = shown(Live, GITHUB, results, [("a", b"foo"), ("b", b"bar\n"), ("a", b"::error::x\n")])
    assert text.splitlines()[:2] == ["b   | bar", "a   | foo::error::x"]


def test_a_line_without_an_end_is_broken() -> None:
    prefixer = Prefixer(b"> ", tame=False, whole=True)
    assert prefixer.feed(b"x" * 65536) == b""
    assert prefixer.feed(b"x") == b"> " + b"x" * 65537 + b"\n"
    assert prefixer.feed(b"::error::\ny") == b"> ::error::\n"
    assert prefixer.end() == b"> y\n" and prefixer.end() == b""


def test_a_log_that_can_not_be_read_to_its_end_leaves_commands_on(tmp_path: Path) -> None:
    """A folder opens, but is not read; of a file the first bytes may have been shown by then."""
    assert commands(shown(Group, GITHUB, [result("a", report.exited(1), stdout=str(tmp_path))]))


def test_annotations_have_their_places() -> None:
    failed = result("a (x, 1)", report.exited(3))
    ci = Ci({**GITHUB, "GITHUB_WORKSPACE": "/repo/"}, {"a": ("/repo/ci/jobs,1.toml", 12), "b": ("jobs.toml", 0)})
    assert ci.annotation(failed, "exit 3") == "::error file=ci/jobs%2C1.toml,line=12,title=a (x%2C 1)::exit 3\n"
    assert (
        ci.annotation(result("b", report.exited(3), allow_failure=True), "a\n%")
        == "::warning file=jobs.toml,title=b::a\\n%25\n"
    )
    flaky = result("c", report.exited(0), attempts=(report.Attempt(exit=report.exited(1)),))
    assert ci.annotation(flaky, "x") == "::notice title=c::x\n"
    for exit_ in (report.exited(0), report.cancelled("x"), report.skipped("x")):
        assert ci.annotation(result("a", exit_), "x") == ""
    assert Ci({}).annotation(failed, "x") == ""


def test_blocks_show_each_attempt(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n")
    attempts = (report.Attempt(exit=report.exited(3), stdout=str(tmp_path / "one"), wall_ns=10**9),)
    text = shown(
        Group, {}, [result("a", report.exited(0), stdout=str(tmp_path / "two"), attempts=attempts, wall_ns=10**9)]
    )
    assert text.splitlines()[:6] == [
        "== a: attempt 1 failed (exit 0), again in 2 s",
        "== a: exit 0 at attempt 2 (flaky: exit 3 before) in 1.00 s",
        "[attempt 1: exit 3 in 1.00 s]",
        "one",
        "[attempt 2]",
        "two",
    ]
    assert "first failure" not in text
    text = shown(Group, {}, [result("a", report.exited(1)), result("b", report.skipped("skipped: a failed"))])
    assert "== b: skipped: a failed\n" in text and "run it again: guntainer a\n" in text


def test_sections_of_gitlab() -> None:
    text = shown(Group, {"GITLAB_CI": "true"}, [result("a", report.exited(1), stdout="/gone", wall_ns=10**9)])
    assert re.search(
        r"\x1b\[0Ksection_start:7:(job_\w+)\[collapsed=false\]\r\x1b\[0Ka: exit 1 in 1.00 s\n\x1b\[0Ksection_end:8:\1\r\x1b\[0K\n",
        text,
    )


def test_plain_text_of_a_log() -> None:
    assert (
        plain(b"\x1b[1;31mred\x1b[0m\r\n\x1b]8;;http://x\x1b\\link\x1b]0;t\x07\x1b(B\ttab\x00\x9b \xe2\x80\xae!")
        == "red\nlink\ttab\ufffd !"
    )
    assert last_line(b"one\n 10 %\r 20 %\r\n\x1b[0m \n") == "20 %"
    assert last_line(b"\n\n\x1b[2J") == last_line(b"") == ""


def test_a_summary() -> None:
    results = (
        result("smoke (a|b, <i>)", report.exited(0), wall_ns=10**9),
        result("*bold* @user #1 https://x.example", report.exited(3), stdout="x"),
        result("`c`", report.timed_out(5), allow_failure=True),
        result("d", report.skipped("skipped: c failed")),
    )
    a_report = report.Report(results=results, file="ci/jobs.toml", wall_ns=10**9)
    text = summary.markdown(a_report, tail=b"```\n<script>\n\x1b[31m````x\n", again="guntainer batch 'x'")
    lines = text.splitlines()
    assert lines[0] == "### ❌ guntainer batch <code>ci&#47;jobs&#46;toml</code>"
    assert "4 jobs&#58; 1 ok&#44; 1 failed&#44; 1 timeout &#40;allowed&#41;" in lines[2]
    assert lines[6] == "| ✅ | <code>smoke &#40;a&#124;b&#44; &#60;i&#62;&#41;</code> | ok | 0 | 1.00 s |  |"
    assert lines[7].startswith(
        "| ❌ | <code>&#42;bold&#42; &#64;user &#35;1 https&#58;&#47;&#47;x&#46;example</code> | failed | 3 |"
    )
    assert lines[8].startswith("| ⚠️ | <code>&#96;c&#96;</code>") and lines[9].startswith("| ⏭️ |")
    at = lines.index("`````text")
    assert lines[at + 1 : at + 5] == ["```", "<script>", "````x", "`````"]
    assert lines[-3:] == ["```text", "guntainer batch 'x'", "```"]
    good = summary.markdown(report.Report(results=results[:1]))
    assert good.startswith("### ✅") and "First failure" not in good
    assert summary.markdown(report.Report(results=()))


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_name_and_no_log_is_markdown(name: str, log: str) -> None:
    a_report = report.Report(results=(result(name, report.setup_failed(errors.HostError(name))),), name=name)
    text = summary.markdown(a_report, tail=log.encode("utf-8", "replace"))
    head, _, block = text.partition("text\n")
    assert not re.search(
        r"[*_\[\]()~@!\\{}]|<(?!/?code>)", head.replace("guntainer batch", "").partition("| ---: | |")[2]
    )
    assert head.count("\n| ") == 3, "no name makes a row"
    fence = re.findall("(?m)^(`{3,})$", text)
    assert not block or fence[-1] not in block[: -len(fence[-1]) - 2]


def test_a_summary_of_too_many_keeps_the_bad_ones() -> None:
    results = [result(f"job {n}", report.exited(1 if n == 9_000 else 0), wall_ns=n) for n in range(20_000)]
    text = summary.markdown(report.Report(results=tuple(results)), tail=b"x" * 100_000)
    assert 800_000 < len(text.encode()) <= summary.LIMIT
    assert "| ❌ | <code>job 9000</code>" in text and re.search(r"… and \d+ more jobs", text)
    for limit in (0, 300, 500, 1000, 5000):
        text = summary.markdown(report.Report(results=tuple(results)), tail=b"x" * 3000, limit=limit)
        assert len(text.encode()) <= limit and bool(text) == (limit >= 300)


def test_a_summary_is_appended_or_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    assert anyio.run(summary.append, str(path), "after 漢\udcff\n") == ""
    assert path.read_text() == "before\nafter 漢?\n"
    assert summary.room_in(str(path)) == summary.LIMIT - path.stat().st_size
    path.write_bytes(b"x" * summary.LIMIT)
    assert summary.room_in(str(path)) == 0
    os.mkfifo(tmp_path / "fifo")
    for bad, why in (
        ("fifo", "No such device"),
        ("none/x", "No such file"),
        (".", "Is a directory"),
        ("a\0b", "null byte"),
    ):
        problem = anyio.run(summary.append, str(tmp_path / bad), "x")
        assert problem.startswith("GITHUB_STEP_SUMMARY ") and why in problem and "no summary is written" in problem
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert "not a file" in anyio.run(summary.append, str(tmp_path / "fifo"), "x")
    os.close(reading)
    assert "No space left" in anyio.run(summary.append, "/dev/full", "x") or "not a file" in anyio.run(
        summary.append, "/dev/full", "x"
    )
    assert summary.room_in(str(tmp_path / "none")) == summary.LIMIT


def test_what_is_taken_out_makes_no_other_sequence() -> None:
    """U+009B is CSI, as two bytes; what stands around one that is taken out must not become one."""
    tamer = Tamer()
    text = tamer.feed(b"\xc2\xc2\xc2") + tamer.feed(b"\x9b\x9b\x9b2J") + tamer.end()
    assert text == b"2J"
    many = b"\xc2" * 60_000 + b"\x80" * 60_000  # once through, not once for each of them
    tamer = Tamer()
    assert tamer.feed(many + b"x") + tamer.end() == b"x"
    printable = "Â µ\xa0é".encode()
    for at in range(len(printable)):
        tamer = Tamer()
        assert tamer.feed(printable[:at]) + tamer.feed(printable[at:]) + tamer.end() == printable


def test_a_summary_with_a_very_long_reason() -> None:
    result = report.Result(id="a", key="a", exit=report.setup_failed(errors.HostError("<&|" * 60_000)))
    text = summary.markdown(report.Report(results=(result,)))
    assert "First failure" in text and len(text) < 100_000
