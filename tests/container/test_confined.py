"""Hosts that refuse something: a masked /proc, no overlayfs, no room. Made of namespaces, as an outer container would be."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces, ended_jobs

from guntainer import skeleton

pytestmark = pytest.mark.usefixtures("user_namespaces")

MASKED = "mount -t tmpfs -o ro none /proc/scsi 2>/dev/null || mount --bind -o ro /dev/null /proc/timer_list"
NO_OVERLAY = """
mount -t tmpfs none {0}
mkdir {0}/l {0}/u {0}/w {0}/m
mount -t overlay -o lowerdir={0}/l,upperdir={0}/u,workdir={0}/w,userxattr none {0}/m
export TMPDIR={0}/m
"""  # overlayfs does not take another overlay for its upper folder


def confined(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The program inside user, mount and pid namespaces that `script` has worked over: its root has one id."""
    if words[0] in ("run", "batch"):
        words = (words[0], "--userns", "single", *words[1:])
    program = shlex.join([sys.executable, "-m", "guntainer", *map(str, words)])
    line = ["unshare", "-Urmpf", "--mount-proc", "--propagation", "private", "sh", "-ec", f"{script}\n{program}"]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def warm(home: Path, small_archive: Path, guntainer: Run) -> Path:
    assert guntainer("run", small_archive, "true").returncode == 0
    return small_archive


@pytest.fixture
def masked(warm: Path) -> str:
    """A script that masks a part of /proc, so that the kernel refuses new ones: mount(2), mount_too_revealing."""
    if confined(f"{MASKED}\ntrue", "--version").returncode:
        pytest.skip("a part of /proc can not be masked here")
    return MASKED


def test_a_masked_proc_is_the_next_rung(warm: Path, masked: str, traces: Traces) -> None:
    done = confined(
        masked, "run", warm, "sh", "-c", "test -e /proc/self/status && echo fine; echo x > /proc/sys/kernel/x"
    )
    assert "fine" in done.stdout
    assert "isolation: host-proc" in done.stderr
    traces.check()


def test_full_isolation_on_demand_runs_nothing(warm: Path, masked: str, home: Path, traces: Traces) -> None:
    done = confined(masked, "run", "--require-isolation", "full", "-v", f"{home}/work:/w", warm, "touch", "/w/ran")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1 and "full isolation was demanded" in done.stderr
    job = {"rootfs": str(warm), "command": ["touch", "/w/ran"], "volumes": [f"{home}/work:/w"]}
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": job, "b": job}}))
    done = confined(masked, "batch", "--require-isolation", "full", home / "jobs.json")
    assert done.returncode == 125
    assert done.stdout.count("full isolation was demanded") >= 2
    assert not (home / "work" / "ran").exists()
    traces.check()


def test_a_batch_says_its_rung_once(warm: Path, masked: str, home: Path) -> None:
    job = {"rootfs": str(warm), "command": ["true"], "repeat": 4}
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": job}}))
    done = confined(masked, "batch", "--json", home / "report", home / "jobs.json")
    assert done.returncode == 0
    assert done.stderr.count("isolation: host-proc") == 1
    assert {one["isolation"] for one in ended_jobs((home / "report").read_text())} == {"host-proc"}


def test_a_masked_sys_is_done_without(warm: Path) -> None:
    script = "mount -t tmpfs -o ro none /sys/firmware"
    if confined(script, "--version").returncode:
        pytest.skip("a part of /sys can not be masked here")
    done = confined(script, "run", "--network", "none", warm, "echo", "fine")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_no_sys_is_done_without(warm: Path, traces: Traces) -> None:
    for network in ("host", "none"):
        done = confined("mount -t tmpfs none /sys", "run", "--network", network, warm, "echo", "fine")
        assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
        assert "isolation" not in done.stderr
    traces.check()


def test_without_overlay_it_runs_on_a_copy(warm: Path, home: Path, traces: Traces) -> None:
    script = NO_OVERLAY.format(home / "work")
    done = confined(script, "run", warm, "sh", "-c", "echo x > /x; cat /x /etc/hostname")
    assert (done.returncode, done.stdout) == (0, "x\nguntainer\n"), done.stderr
    assert "running on a copy" in done.stderr
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {"rootfs": str(warm), "command": ["true"], "repeat": 3}}})
    )
    done = confined(script, "batch", "--json", home / "report", home / "jobs.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("running on a copy") == 1
    assert [one["scratch"] for one in ended_jobs((home / "report").read_text())] == ["copy"] * 3


def test_a_copy_is_never_written_through(warm: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    """A rootfs that has links of its own where our files go, as deep down as apt's."""
    tree, victim = home / "rootfs", home / "victim"
    subprocess.run(["cp", "-a", guntainer("store", "path", "--userns", "auto", warm).stdout.strip(), tree], check=True)
    (tree / "etc" / "apt" / "apt.conf.d").mkdir(parents=True)
    (tree / "var" / "lib" / "dpkg").mkdir(parents=True)
    victim.write_text("mine")
    names = ("hostname", "hosts", "resolv.conf", skeleton.APT_DROP_IN)
    for name in names:
        (tree / "etc" / name).unlink(missing_ok=True)
        (tree / "etc" / name).symlink_to(victim)
    files = " ".join(f"/etc/{name}" for name in names)
    script = f"for f in {files}; do test -f $f && test ! -L $f && echo real; done; cat /etc/hostname"
    done = confined(NO_OVERLAY.format(home / "work"), "run", tree, "sh", "-c", script)
    assert done.stdout.split() == ["real"] * len(names) + ["guntainer"], done.stderr
    assert "running on a copy" in done.stderr
    assert victim.read_text() == "mine"
    traces.check()


def test_a_copy_that_does_not_fit(warm: Path, home: Path, traces: Traces) -> None:
    """One line each; jobs whose layer is in memory need no copy and go on."""
    small = NO_OVERLAY.format(home / "work").replace("mount -t tmpfs none", "mount -t tmpfs -o size=1m none")
    done = confined(small, "run", warm, "true")
    assert done.returncode == 125
    lines = [line for line in done.stderr.splitlines() if "running on a copy" not in line]
    assert len(lines) == 1 and "No space left" in lines[0] and "TMPDIR" in lines[0]
    jobs = {
        "disk": {"rootfs": str(warm), "command": ["true"]},
        "memory": {"rootfs": str(warm), "command": ["true"], "scratch": "memory"},
    }
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    done = confined(small, "batch", "-j1", home / "jobs.json")
    assert "Traceback" not in done.stderr
    assert "disk    error" in done.stdout and "No space left" in done.stdout


def test_the_hosts_root_is_refused(guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", "/", "true")
    assert done.returncode == 125 and len(done.stderr.splitlines()) == 1 and "own root" in done.stderr
    traces.check()
