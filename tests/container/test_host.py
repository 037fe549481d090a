"""`host`: the machine's own system, read-only, in a root that is thrown away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = [pytest.mark.usefixtures("user_namespaces"), pytest.mark.root]


def test_its_programs_run_and_nothing_of_it_can_be_written(guntainer: Run, home: Path, traces: Traces) -> None:
    script = (
        "test -x /usr/bin/env && echo usr; touch /etc/x /usr/x 2>&1 | grep -c Read-only;"
        "echo own > /own && echo own > /tmp/own && cat /own; ls -A /home /srv /root | grep -v : | wc -w"
    )
    done = guntainer("run", "host", "sh", "-c", script)
    assert done.stdout.split() == ["usr", "2", "own", "0"], done.stderr
    assert not Path("/own").exists()
    traces.check()


def test_names_are_those_of_the_container(guntainer: Run) -> None:
    script = "hostname; grep -c 127.0.1.1.*inner /etc/hosts; wc -c < /etc/resolv.conf"
    done = guntainer("run", "-h", "inner", "--network", "none", "host", "sh", "-c", script)
    assert done.stdout.split() == ["inner", "1", "0"], done.stderr
    assert socket.gethostname() != "inner"


@pytest.mark.parametrize("volume", ["", "run"])
def test_where_the_hosts_resolv_conf_is_a_link_into_run(guntainer: Run, home: Path, volume: str) -> None:
    etc = home / "etc"
    etc.mkdir()
    for name in ("passwd", "group", "ld.so.cache"):
        if os.path.exists(f"/etc/{name}"):
            shutil.copy(f"/etc/{name}", etc / name)
    (etc / "resolv.conf").symlink_to("../run/resolver/stub.conf")
    (home / "run").mkdir()
    given = ["-v", f"{home}/run:/run"] if volume else []
    line = [sys.executable, "-m", "guntainer", "run", *given, "--dns", "9.9.9.9", "host", "cat", "/etc/resolv.conf"]
    script = f'mount --bind {etc} /etc && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *line], capture_output=True, text=True, check=False
    )
    assert os.listdir(home / "run") == []
    assert volume or done.stdout == "nameserver 9.9.9.9\n", done.stderr


def test_a_digest_can_not_be_demanded(guntainer: Run) -> None:
    done = guntainer("run", "--sha256", "0" * 64, "host", "true")
    assert done.returncode == 125 and "a folder has no sha256" in done.stderr


def test_accounts_are_the_hosts(guntainer: Run) -> None:
    done = guntainer("run", "--userns", "single", "-u", "daemon", "host", "id", "-un")
    assert done.stdout == "daemon\n", done.stderr


def test_a_volume_takes_the_place_of_a_folder(guntainer: Run, home: Path) -> None:
    (home / "opt").mkdir()
    (home / "opt" / "mine").write_text("mine")
    done = guntainer("run", "-v", f"{home}/opt:/opt", "host", "cat", "/opt/mine")
    assert done.stdout == "mine", done.stderr


def test_in_a_batch(guntainer: Run, home: Path, traces: Traces) -> None:
    (home / "work" / "jobs.toml").write_text('[jobs.j]\nrootfs = "host"\nrun = "id -u"\nrepeat = 3\n')
    done = guntainer("batch", "jobs.toml")
    assert done.returncode == 0, done.stderr
    traces.check()


def test_a_file_of_that_name_is_a_path(guntainer: Run, home: Path) -> None:
    os.mkdir(home / "work" / "host")
    done = guntainer("run", "./host", "true")
    assert done.returncode == 127 and "not found" in done.stderr


def test_the_root_itself_is_refused_by_name(guntainer: Run) -> None:
    done = guntainer("run", "/", "true")
    assert done.returncode == 125 and "`host` is its /usr, /etc and friends" in done.stderr
