"""Private networks where a tool is too old, tells no version, or nothing that makes sense: the other one is used, or it is said."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import networks
import oldtools
import pytest
from conftest import Run, Traces, ended_jobs
from networks import ASK, Box, batch_file, fake, running, server, until
from oldtools import ODD, OLD, alive, odd, real, too_old

pytestmark = [
    pytest.mark.root,
    pytest.mark.vm,
    pytest.mark.usefixtures("user_namespaces", "private_networks", "no_tool_left"),
]
box, outside, private_networks, no_tool_left = (
    networks.box,
    networks.outside,
    networks.private_networks,
    networks.no_tool_left,
)
place, two_tools = oldtools.place, oldtools.two_tools


def asks(outside: str, port: int) -> str:
    return f"{ASK}\nprint(ask(TCP, {outside!r}, {port}))"


@pytest.mark.parametrize("kind", ["old", *ODD])
def test_the_other_one_is_used(guntainer: Run, box: Box, place: Path, outside: str, traces: Traces, kind: str) -> None:
    real(place, "slirp4netns")
    path = real(place, "pasta", version=OLD["pasta"]) if kind == "old" else odd(place, "pasta", kind)
    with server(outside) as found:
        done = guntainer("run", *box(asks(outside, found.port)))
    assert (done.returncode, done.stdout) == (0, "echo hi\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"guntainer: warning: pasta: {path}: ")
    assert line.endswith(": at least 2023_02_27 is needed: slirp4netns is used instead") or kind == "old"
    if kind == "old":
        assert line == f"guntainer: warning: {too_old(path)}: slirp4netns is used instead"
    if kind == "lacks":
        assert "(unknown version), and --help does not name --config-net: at" in line
    traces.check()


def test_a_batch_asks_and_says_so_once(guntainer: Run, box: Box, place: Path, home: Path, outside: str) -> None:
    asked = f'case "$1" in --version|--help) echo "$0 $1" >> {home / "work" / "asked"};; esac'
    real(place, "slirp4netns", before=asked)
    path = fake(place, "pasta", f"{asked}\necho pasta {OLD['pasta']}", version="")
    with server(outside) as found:
        file = batch_file(home, box(asks(outside, found.port)), repeat=8)
        done = guntainer("batch", "-j", "4", file)
    assert done.returncode == 0, done.stderr
    assert len(found.heard) == 8
    assert done.stderr.count(f"{too_old(path)}: slirp4netns is used instead") == 1, done.stderr
    times = sorted((home / "work" / "asked").read_text().splitlines())
    assert times == sorted(f"{place}/{name} {option}" for name in networks.TOOLS for option in ("--version", "--help"))


def test_both_are_too_old(guntainer: Run, box: Box, place: Path, home: Path, traces: Traces) -> None:
    paths = [real(place, name, version=OLD[name]) for name in networks.TOOLS]
    why = (
        f"no private network: {too_old(paths[0])}; {too_old(paths[1])}; "
        "install a newer passt, or a newer slirp4netns (guntainer doctor network-tool)"
    )
    done = guntainer("run", *box("print('ran')"))
    assert (done.returncode, done.stdout, done.stderr) == (125, "", f"guntainer: error: {why}\n")
    assert not list((home / "store").rglob("*")), "nothing was begun"
    done = guntainer("batch", "--json", "-", "--output", "quiet", batch_file(home, box("print('ran')"), repeat=3))
    results = ended_jobs(done.stdout)
    assert done.returncode == 125 and len(results) == 3, done.stderr
    assert {(one["outcome"], one["probe"]) for one in results} == {("error", "network-tool")}
    traces.check()


def test_the_only_one_is_too_old(guntainer: Run, box: Box, place: Path, traces: Traces) -> None:
    for name in networks.TOOLS:
        path = real(place, name, version=OLD[name])
        done = guntainer("run", *box("print('ran')"))
        assert (done.returncode, done.stdout) == (125, "")
        assert f"no private network: {too_old(path)}; install a newer" in done.stderr
        path.unlink()
    traces.check()


def test_one_fails_and_the_other_is_too_old(guntainer: Run, box: Box, place: Path, traces: Traces) -> None:
    """The second one is asked when its turn comes."""
    fake(place, "pasta", "echo no route >&2; exit 1")
    path = real(place, "slirp4netns", version=OLD["slirp4netns"])
    done = guntainer("run", *box("print('ran')"))
    assert (done.returncode, done.stdout) == (125, "")
    assert f"no private network: pasta: no route; {too_old(path)} (guntainer doctor network-tool)" in done.stderr
    traces.check()


@pytest.mark.parametrize("name", networks.TOOLS)
def test_no_version_and_every_option(
    guntainer: Run, box: Box, place: Path, outside: str, traces: Traces, name: str
) -> None:
    real(place, name, version="unknown version")
    with server(outside) as found:
        done = guntainer("run", *box(asks(outside, found.port)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "echo hi\n", "")
    traces.check()


@pytest.mark.parametrize("way", ["exec {0}/nap 600", "{0}/nap 600 & {0}/nap 600; wait"])
def test_a_tool_that_does_not_answer(box: Box, place: Path, outside: str, traces: Traces, way: str) -> None:
    hangs = fake(place, "pasta", way.format(place), version="")
    real(place, "slirp4netns")
    driver = "from guntainer.network import asking\nasking.BOUND_S = 0.3\nfrom guntainer.cli import entry\nentry()\n"
    with server(outside) as found:
        words = box(asks(outside, found.port))
        line = [sys.executable, "-c", driver, "run", *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, "echo hi\n"), done.stderr
        assert f"pasta: {hangs}: --version does not end within 0.3 s, and --help does not end within" in done.stderr
        assert alive(place) == []
    fake(place, "slirp4netns", way.format(place), version="")
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (125, "", 1), done.stderr
    traces.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_tool_is_asked(
    box: Box, place: Path, home: Path, traces: Traces, number: signal.Signals
) -> None:
    fake(place, "pasta", f"echo up > {home / 'work' / 'up'}; {place}/nap 600", version="")
    with running("run", *box("print('ran')")) as process:
        until((home / "work" / "up").exists)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    until(lambda: not alive(place))
    traces.check()
