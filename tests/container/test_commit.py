"""`run --commit` and `--commit-layer`: what comes back is what the command has left, and nothing of ours is in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from conftest import Run, Traces
from test_confined import NO_OVERLAY, confined

pytestmark = pytest.mark.usefixtures("user_namespaces")

MANY = """
mkdir -p /d/old/sub /d/keep && echo one > /d/old/one && echo two > /d/old/sub/two && echo k > /d/keep/k
echo a > /d/a && ln /d/a /d/b && ln -s ../no/where /d/link && chmod 4750 /d/a && mkdir -m 1777 /d/t && mkdir -m 000 /d/shut
"""
CHANGES = """
rm /d/keep/k && rm -rf /d/old && mkdir /d/old && echo new > /d/old/new && echo changed >> /d/b && chmod 600 /etc/passwd
mkdir -p "/d/a b/$(printf 'x\\ny')" && touch -d 2001-02-03T04:05:06.123456789 /d/a && ln -s /etc/passwd /d/pw
dd if=/dev/zero of=/d/sparse bs=1 count=1 seek=100000000 2>/dev/null
"""
LOOK = "ls -lAnR --time-style=full-iso / --ignore=proc --ignore=sys --ignore=dev --ignore=etc; ls -lAn /etc; cat /d/b"
MINE = re.compile(r"^total .*\n|^.* (hosts|hostname|resolv\.conf)\n|(?<=^d.{9} )\d+", re.MULTILINE)
"""What is ours, or overlayfs's: sizes in blocks, and link counts of folders."""


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [member.name.removeprefix("./") for member in tar]


@pytest.mark.parametrize("ids", ["single", "range"])
def test_what_was_left_comes_back(
    small_archive: Path, guntainer: Run, home: Path, ids: str, request: pytest.FixtureRequest, traces: Traces
) -> None:
    """Twice over: the second change is one to a rootfs that has all that the first has made."""
    chown = ""
    if ids == "range":
        request.getfixturevalue("a_range")
        chown = "chown 1:2 /d/a; chown -h 65534:7 /d/link;"
    many, changed = home / "many.tar.gz", home / "changed.tar.zst"
    done = guntainer("run", "--userns", ids, "--commit", many, small_archive, "sh", "-ec", f"{MANY}{chown}{LOOK}")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"guntainer: committed {many}: \d+ entries, [\d.]+ MB\n", done.stderr.splitlines(True)[-1])
    again = guntainer("run", "--userns", ids, many, "sh", "-ec", LOOK)
    assert MINE.sub("", again.stdout) == MINE.sub("", done.stdout), again.stderr
    done = guntainer("run", "--userns", ids, "--commit", changed, many, "sh", "-ec", f"{CHANGES}{LOOK}")
    assert done.returncode == 0, done.stderr
    again = guntainer("run", "--userns", ids, changed, "sh", "-ec", LOOK)
    # a file that was copied up has a link count of its own
    assert MINE.sub("", again.stdout) == MINE.sub("", done.stdout), again.stderr
    assert "/d/old/sub" not in again.stdout and "new" in again.stdout
    assert changed.stat().st_size < 100_000_000
    traces.check()


def test_volumes_and_what_is_ours_stay_out(small_archive: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    out = home / "out.tar"
    (home / "work" / "secret").write_text("secret")
    words = [
        "-v",
        f"{home / 'work'}:/made/for/it",
        "-v",
        f"{home / 'work' / 'secret'}:/etc/secret",
        "--tmpfs",
        "/memory",
    ]
    words += ["-v", f"{home}/work:/made/other", "-v", f"{home}/work:/run/../opt/x"]
    script = "echo x > /memory/x; echo x > /made/other/y; cat /etc/secret; echo x > /made/mine; cat /etc/hosts"
    done = guntainer("run", *words, "--commit", out, small_archive, "sh", "-ec", script)
    assert done.returncode == 0, done.stderr
    found = names_in(out)
    with tarfile.open(small_archive) as tar:
        before = {member.name for member in tar}
    assert set(found) - before - {"."} == {"made", "made/mine"}
    layer = home / "layer.tar"
    assert guntainer("run", *words, "--commit-layer", layer, small_archive, "sh", "-ec", script).returncode == 0
    assert [name for name in names_in(layer) if name not in ("etc", ".")] == ["made", "made/mine"]
    done = guntainer("run", "--commit", out, small_archive, "sh", "-c", "echo 1.2.3.4 x >> /etc/hosts")
    assert done.returncode == 0 and "etc/hosts" in names_in(out)
    traces.check()


def test_a_layer_is_what_images_have(small_archive: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    many, layer = home / "many.tar", home / "layer.tar.gz"
    assert guntainer("run", "--commit", many, small_archive, "sh", "-ec", MANY).returncode == 0
    script = "rm /d/keep/k; rm -rf /d/old; mkdir /d/old; echo n > /d/old/n; rm /d/link; touch /.wh.x; echo z > /etc/z"
    done = guntainer("run", "--commit-layer", layer, many, "sh", "-ec", script)
    assert done.returncode == 0
    assert "warning: --commit-layer: 1 name that begins with .wh. left out" in done.stderr
    found = [name for name in names_in(layer) if name != "."]
    opaque = ["d/old", "d/old/.wh..wh..opq", "d/old/n"]
    assert found == ["d", "d/keep", "d/keep/.wh.k", "d/.wh.link", *opaque, "etc", "etc/z"]
    with tarfile.open(layer) as tar:
        assert all(member.isfile() and not member.size for member in tar if "/.wh." in member.name)
    traces.check()


def test_one_of_two_links_that_was_written_to(small_archive: Path, guntainer: Run, home: Path) -> None:
    """Without an index overlayfs copies up the one name alone: they are two files from then on."""
    first, second = home / "first.tar", home / "second.tar"
    assert guntainer("run", "--commit", first, small_archive, "sh", "-ec", "echo a > /a; ln /a /b").returncode == 0
    done = guntainer("run", "--commit", second, first, "sh", "-ec", "echo more >> /a; cat /a /b")
    assert done.stdout == "a\nmore\na\n"
    assert guntainer("run", second, "cat", "/a", "/b").stdout == done.stdout


def test_to_stdout(small_archive: Path, guntainer: Run, home: Path) -> None:
    """The command's own output must not get into it."""
    out = home / "out.tar"
    with open(out, "wb") as file:
        settings = {"capture_output": False, "stdout": file, "stderr": subprocess.PIPE}
        done = guntainer("run", "--commit", "-", small_archive, "sh", "-c", "echo said; echo x > /x", **settings)
    assert done.returncode == 0
    assert "said\n" in done.stderr
    assert "x" in names_in(out)
    read, write = os.pipe()
    os.close(read)
    done = guntainer("run", "--commit", "-", small_archive, "true", capture_output=False, stdout=write)
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE


def test_what_makes_no_sense_is_refused_before_the_run(
    small_archive: Path, guntainer: Run, home: Path, traces: Traces
) -> None:
    (home / "folder.tar").mkdir()
    volume = ("-v", f"{home}/work:/w")
    for words, told in (
        (("--commit", "o.zip"), "--commit o.zip: unknown kind of archive; known are .tar, .tar.gz"),
        (("--commit", ""), "--commit nothing: unknown kind of archive"),
        (("--commit-layer", "no/o.tar"), f"--commit-layer no/o.tar: the folder {home / 'work' / 'no'} does not exist"),
        (("--commit", home / "folder.tar"), "folder.tar is a folder: it is not replaced"),
        (("--commit", "/proc/o.tar"), "--commit /proc/o.tar: the folder /proc can not be written"),
        (("--commit", "a.tar", "--commit-layer", "b.tar"), "can not be used together"),
        (("--commit", "a.tar", "--scratch", "memory"), "--commit: with --scratch memory the layer is gone"),
        (("--commit", "a.tar", "--read-only"), "--commit: with --read-only nothing can change"),
    ):
        done = guntainer("run", *volume, *words, small_archive, "touch", "/w/ran")
        assert (done.returncode, len(done.stderr.splitlines())) == (125, 1), done.stderr
        assert told in done.stderr
    assert list((home / "work").iterdir()) == []
    traces.check()


def test_a_command_that_fails_is_not_committed(small_archive: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    out = home / "out.tar.xz"
    out.write_text("before")
    done = guntainer("run", "--commit", out, small_archive, "sh", "-c", "exit 3")
    assert (done.returncode, out.read_text()) == (3, "before")
    assert "warning: not committed: the command ended with 3\n" in done.stderr
    done = guntainer("run", "--commit", out, "--timeout", "0.2s", small_archive, "sleep", "9")
    assert (done.returncode, out.read_text()) == (124, "before")
    traces.check()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
def test_a_disk_without_room(small_archive: Path, guntainer: Run, home: Path, suffix: str, traces: Traces) -> None:
    """Nothing of it is left, and what was there before is."""
    assert guntainer("run", small_archive, "true").returncode == 0
    out = str(home / "work" / f"out{suffix}")
    small = (
        f"mount -t tmpfs -o size=256k none {home}/work; echo before > {out}; trap 'ls -A {home}/work; cat {out}' EXIT"
    )
    done = confined(small, "run", "--commit", out, small_archive, "true")
    assert done.returncode == 125
    assert done.stderr.splitlines()[-1] == (
        f"guntainer: error: {out}: No space left on device; free some, or write it to a larger disk"
    )
    assert done.stdout == f"out{suffix}\nbefore\n"
    traces.check()


SLOW = "dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null"


def _committing(home: Path, archive: Path) -> subprocess.Popen[bytes]:
    """A run that has begun to write its archive, which takes a while."""
    out = home / "work" / "out.tar.bz2"
    words = [sys.executable, "-m", "guntainer", "run", "--commit", str(out), str(archive), "sh", "-c", SLOW]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and process.poll() is None:
        fds = f"/proc/{process.pid}/fd"
        for fd in os.listdir(fds):
            try:
                if os.readlink(f"{fds}/{fd}").startswith(f"{home / 'work'}/") and os.stat(f"{fds}/{fd}").st_size:
                    return process
            except OSError:
                continue
        time.sleep(0.01)
    raise AssertionError(f"it has not begun to write: {process.poll()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_it_is_written(
    small_archive: Path, guntainer: Run, home: Path, number: signal.Signals, traces: Traces
) -> None:
    process = _committing(home, small_archive)
    process.send_signal(number)
    code = process.wait(20)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert list((home / "work").iterdir()) == []
    if number == signal.SIGKILL:
        assert guntainer("run", small_archive, "true").returncode == 0  # who starts next tidies up
    give_up = time.monotonic() + 10
    while traces.processes() and time.monotonic() < give_up:
        time.sleep(0.01)
    traces.check()


def test_a_run_on_a_copy(small_archive: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    """Where overlayfs is refused: what we have put into the copy is taken out of it, unless the run has changed it."""
    first, out = home / "first.tar.gz", home / "out.tar"
    script = "rm /etc/hosts; echo mine > /etc/hosts; rm -f /etc/hostname; ln -s elsewhere /etc/hostname; echo x > /x"
    assert guntainer("run", "--userns", "single", "--commit", first, small_archive, "sh", "-c", script).returncode == 0
    assert guntainer("run", "--userns", "single", first, "true").returncode == 0
    confining = NO_OVERLAY.format(home / "work")
    done = confined(confining, "run", "--commit", out, first, "sh", "-c", "echo y > /y; echo mine > /etc/resolv.conf")
    assert done.returncode == 0, done.stderr
    assert "running on a copy" in done.stderr
    with tarfile.open(out) as tar:
        members = {member.name.removeprefix("./"): member for member in tar}
        texts = {}
        for name in ("etc/hosts", "etc/resolv.conf", "x", "y"):
            file = tar.extractfile(members[name])
            assert file is not None
            texts[name] = file.read()
    assert texts == {"etc/hosts": b"mine\n", "etc/resolv.conf": b"mine\n", "x": b"x\n", "y": b"y\n"}
    assert members["etc/hostname"].linkname == "elsewhere"
    done = confined(confining, "run", "--commit-layer", home / "layer.tar", first, "true")
    assert done.returncode == 125
    assert "overlayfs is refused here, so that there is no layer" in done.stderr
    assert not (home / "layer.tar").exists()
    traces.check()
