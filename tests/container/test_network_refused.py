"""Private networks that can not be had: the reason is told before anything is begun. These need neither tool nor device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import networks
import pytest
from conftest import Run, Traces
from networks import Box, batch_file

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.usefixtures("user_namespaces")]
box = networks.box


# -- the command line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("-p", "80:80"), "-p: published ports need network private: with host"),
        (("--network", "none", "-p", "80:80"), "-p: published ports need network private: with none"),
        (("--network", "private", "-p", "x"), '-p: expected [[IP:][HOST]:]CONTAINER[/udp], got "x"'),
        (("--dns", "example"), "--dns: expected an IP address"),
        (("--add-host", "a"), "--add-host: expected"),
        (("--add-host", "a:host-gateway"), "--add-host: host-gateway needs network private"),
        (("--network", "bridge"), "--network bridge: expected host or none or private"),
    ],
)
def test_options_that_make_no_sense(guntainer: Run, home: Path, words: tuple[str, ...], part: str) -> None:
    done = guntainer("run", *words, home, "true")
    assert done.returncode == 125
    assert part in done.stderr


def test_there_is_no_tool(
    guntainer: Run, box: Box, home: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    monkeypatch.setenv("PATH", str(home / "work"))
    done = guntainer("run", *box("print('ran')"))
    assert (done.returncode, done.stdout) == (125, "")
    assert "a private network needs pasta or slirp4netns, and PATH has neither" in done.stderr
    assert "(guntainer doctor network-tool)" in done.stderr
    assert not list((home / "store").rglob("*")), "nothing was begun"
    traces.check()


def test_a_dry_run_warns_of_what_is_missing(
    guntainer: Run, box: Box, home: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    """The plan is shown all the same: it may be meant for another host."""
    monkeypatch.setenv("PATH", str(home / "work"))
    done = guntainer("run", "--dry-run", "--userns", "single", *box("print('ran')"))
    assert done.returncode == 0 and "hand out the network namespace" in done.stdout
    said = [line for line in done.stderr.splitlines() if "pasta" in line]
    assert len(said) == 1 and said[0].startswith(
        "guntainer: warning: a run would be refused here: a private network needs"
    )
    traces.check()


def test_the_device_is_closed(home: Path, box: Box, monkeypatch: pytest.MonkeyPatch, traces: Traces) -> None:
    """Where it is open, it is hidden behind an empty folder first."""
    (home / "bin").mkdir()
    (home / "bin" / "pasta").write_text("#!/bin/sh\n")
    (home / "bin" / "pasta").chmod(0o755)
    why = "No such file or directory"
    hidden = ["/usr/bin/unshare", "-Urm", "--propagation", "private", "/bin/sh", "-ec"]
    hidden += ['/bin/mount -t tmpfs none /dev/net; exec "$@"', "sh"]
    if os.path.exists("/dev/net/tun") and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        why, hidden = "Permission denied", []
    monkeypatch.setenv("PATH", str(home / "bin"))
    for command, code in (("run", 125), ("batch", 125)):
        words = box("print('ran')")
        given = [command, "--userns", "single", *(words if command == "run" else [batch_file(home, words)])]
        line = [*hidden, sys.executable, "-m", "guntainer", *map(str, given)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "\nran" in done.stdout) == (code, False), done.stderr
        told = f"a private network needs /dev/net/tun, which can not be opened here ({why})"
        assert told in done.stderr + done.stdout
        assert "(guntainer doctor tun)" in done.stderr + done.stdout
        traces.check()
