"""Runs on a copy, for want of overlayfs: of images and of this machine, with one id and with many, alone and in a batch."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import image_builder as make
import pytest
from conftest import Run, Traces, ended_jobs
from test_confined import NO_OVERLAY, confined
from test_copied_stack import OWNED, inside

from guntainer import idmap

pytestmark = [pytest.mark.usefixtures("user_namespaces"), pytest.mark.root]

CHANGED: list[make.Entry] = [
    ("srv/gone", "file", {"data": b"gone"}),
    ("srv/old", "dir", {"mode": 0o700}),
    ("srv/old/a", "file", {"data": b"a"}),
    ("srv/turned", "file", {"data": b"file"}),
    ("etc", "dir", {"mode": 0o751}),
    ("etc/hosts", "sym", {"to": "/srv/kept"}),
    ("srv/kept", "file", {"data": b"kept"}),
]
CHANGES: list[make.Entry] = [
    make.whiteout("srv/gone"),
    ("srv/old", "dir", {"mode": 0o711}),
    make.opaque("srv/old"),
    ("srv/old/b", "file", {"data": b"b"}),
    ("srv/turned/in", "file", {"data": b"in"}),
]
LOOK = "ls -lnR /srv /a /b /x; cat /srv/kept /srv/turned/in; ls /srv/gone 2>&1; cat /etc/hostname"


@pytest.fixture
def image(home: Path, small_archive: Path, guntainer: Run) -> str:
    """An image with all that a stack can have, in the store for either kind of ids."""
    layers = [make.layer_of(gzip.decompress(small_archive.read_bytes())), make.layer(*CHANGED), make.layer(*CHANGES)]
    layers += [make.layer(*entries) for stack in OWNED.values() for entries in stack]
    make.oci_folder(home / "layout", {"x:1": make.image(*layers, config={"Cmd": ["sh", "-c", LOOK]})})
    return f"oci:{home}/layout"


def ranged(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The program as the root of many ids, after a script."""
    ids = idmap.open_ids("range")
    os.set_inheritable(ids.namespace, True)
    try:
        program = shlex.join([sys.executable, "-m", "guntainer", *map(str, words)])
        return inside(ids, "sh", "-ec", f"{script}\n{program}")
    finally:
        os.close(ids.namespace)


def rows(listing: str) -> list[list[str]]:
    """What `ls -ln` says, but for what is its file system's: counts of names, of which some are hidden, and sizes of folders."""
    found = [line.split() for line in listing.splitlines() if not line.startswith("total ")]
    return [[row[0], *row[2:4], *row[5 if row[0][0] == "d" else 4 :]] if len(row) > 8 else row for row in found]


@pytest.mark.parametrize("kind", ["single", "range"])
def test_an_image_on_a_copy_is_the_same(
    image: str, home: Path, traces: Traces, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "range":
        request.getfixturevalue("a_range")
    around = ranged if kind == "range" else confined
    shown = around("true", "run", image)
    assert shown.returncode == 0 and "copy" not in shown.stderr, shown.stderr
    done = around(NO_OVERLAY.format(home / "work"), "run", image)
    assert "running on a copy" in done.stderr
    assert rows(done.stdout) == rows(shown.stdout)
    assert "keptin" in done.stdout and "cannot access" in done.stdout
    traces.check()


def test_a_batch_of_images_on_copies(image: str, home: Path, traces: Traces) -> None:
    job = {"rootfs": image, "command": ["sh", "-c", "echo x > /srv/kept; ls /srv /srv/old"], "repeat": 4}
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": job}}))
    done = confined(NO_OVERLAY.format(home / "work"), "batch", "--json", home / "report", home / "jobs.json")
    assert done.returncode == 0, done.stderr
    results = ended_jobs((home / "report").read_text())
    assert [one["scratch"] for one in results] == ["copy"] * 4
    assert done.stdout.count("turned") == 4 and "gone" not in done.stdout
    traces.check()


def test_a_commit_of_an_image_on_a_copy(image: str, home: Path, traces: Traces) -> None:
    """The same archive as from an overlay."""
    script = "echo new > /srv/new; rm -r /srv/old; chmod 700 /srv/turned"
    found = []
    for around in ("true", NO_OVERLAY.format(home / "work")):
        done = confined(around, "run", "--commit", home / "out.tar", image, "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        assert ("running on a copy" in done.stderr) == (len(found) == 1)
        with tarfile.open(home / "out.tar") as tar:
            found.append({one.name: (one.type, one.mode, one.uid, one.gid, one.size, one.linkname) for one in tar})
    for tree in found:
        for name in ("./proc", "./sys", "./dev"):
            tree.pop(name, None)
    assert found[0] == found[1]
    assert found[1]["etc/hosts"][-1] == "/srv/kept" and found[1]["etc"][1] == 0o751


def test_this_machine_on_a_copy(home: Path, guntainer: Run, traces: Traces) -> None:
    """Of the small tree that is bound over: nothing of the machine is copied."""
    script = (
        "test -x /usr/bin/env && echo usr; echo own > /own && cat /own; touch /usr/x 2>&1 | grep -c Read-only; hostname"
    )
    small = NO_OVERLAY.format(home / "work").replace("mount -t tmpfs none", "mount -t tmpfs -o size=1m none")
    done = confined(small, "run", "-h", "inner", "host", "sh", "-c", script)
    assert done.stdout.split() == ["usr", "own", "1", "inner"], done.stderr
    assert "running on a copy" in done.stderr
    traces.check()


def test_a_copy_that_fails_makes_room_for_the_next(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = guntainer("store", "path", "--userns", "single", small_archive).stdout.strip()
    if not path:
        assert guntainer("run", "--userns", "single", small_archive, "true").returncode == 0
        path = guntainer("store", "path", "--userns", "single", small_archive).stdout.strip()
    room = int(subprocess.run(["du", "-sk", path], capture_output=True, text=True, check=True).stdout.split()[0])
    (home / "large").mkdir()
    (home / "large" / "file").write_bytes(b"x" * (room * 3 << 10))
    jobs = {
        "large": {"rootfs": str(home / "large"), "command": ["true"]},
        "small": {"rootfs": str(small_archive), "command": ["echo", "fine"]},
    }
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    script = NO_OVERLAY.format(home / "work").replace("-t tmpfs none", f"-t tmpfs -o size={room * 3 // 2}k none")
    done = confined(script, "batch", "-j1", home / "jobs.json")
    lines = [line for line in done.stdout.splitlines() if "No space left" in line]
    assert len(lines) >= 1 and "file: No space left" in lines[0], done.stdout
    assert "fine" in done.stdout, (done.stdout, done.stderr)


def test_what_can_not_be_read(home: Path, a_range: None, traces: Traces) -> None:
    """A file of an id that is not mapped."""
    ids = idmap.open_ids("range")
    os.set_inheritable(ids.namespace, True)
    (home / "tmp" / "tree" / "in").mkdir(parents=True)
    made = inside(ids, "sh", "-ec", f"cd {home}/tmp/tree/in; touch secret; chmod 600 secret; chown 5:5 secret")
    os.close(ids.namespace)
    assert made.returncode == 0, made.stderr
    done = confined(NO_OVERLAY.format(home / "work"), "run", home / "tmp" / "tree", "true")
    lines = [line for line in done.stderr.splitlines() if "running on a copy" not in line]
    assert done.returncode == 125 and len(lines) == 1, done.stderr
    assert "in/secret: Permission denied" in lines[0] and "--scratch memory" in lines[0]


@pytest.mark.parametrize("command", ["run", "batch"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_it_is_copied(home: Path, number: signal.Signals, command: str, traces: Traces) -> None:
    """The copy is held when half of it is there, so that it would never end by itself: it ends with its owner."""
    tree = home / "tree"
    for folder in range(100):
        (tree / str(folder)).mkdir(parents=True)
        for name in range(100):
            (tree / str(folder) / str(name)).touch()
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": {"rootfs": str(tree), "command": ["true"]}}}))
    words = ["run", str(tree), "true"] if command == "run" else ["batch", str(home / "jobs.json")]
    words.insert(1, "--userns=single")
    program = shlex.join([sys.executable, "-m", "guntainer", *words])
    line = ["unshare", "-Urm", "--propagation", "private", "sh", "-ec"]
    line.append(f"{NO_OVERLAY.format(home / 'work')}\nexec {program}")
    with subprocess.Popen(
        line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        copier = held(home / "work" / "m")
        left = Path(f"/proc/{process.pid}/root{home / 'work' / 'm'}")
        folder = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        try:
            process.send_signal(number)
            code = process.wait(20)
            assert code == (-number if number == signal.SIGKILL else 128 + number)
            give_up = time.monotonic() + 10
            while os.path.exists(f"/proc/{copier}") and time.monotonic() < give_up:
                time.sleep(0.01)
            assert not os.path.exists(f"/proc/{copier}")
            assert number == signal.SIGKILL or os.listdir(folder) == []
        finally:
            os.close(folder)
    give_up = time.monotonic() + 10
    while traces.processes() and time.monotonic() < give_up:
        time.sleep(0.01)
    traces.check()


def held(place: Path) -> int:
    """Wait for a copy that has begun below a folder, and stop it; returns its process."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            targets = [word for word in words if word.startswith(f"{place}/".encode())]
            if b"guntainer.store.flatten" in b" ".join(words) and targets:
                return stopped(int(entry.name), f"/proc/{entry.name}/root{os.fsdecode(targets[0])}", give_up)
        time.sleep(0.005)
    raise AssertionError("no copy has begun")


def stopped(pid: int, target: str, give_up: float) -> int:
    while not os.listdir(target):
        assert time.monotonic() < give_up
    assert os.getpgid(pid) == pid  # what a terminal sends is for its owner to decide about
    os.kill(pid, signal.SIGSTOP)
    return pid


# -- with reflinks

REFUSING = """
from guntainer import container, errors, foreground, report
from guntainer.cli import entry
once, attempt = foreground.Foreground._once, container.Container._attempt
refused = errors.SetupError("overlay", "of this test", 22)
def one(self, *words, copy):
    if copy:
        return once(self, *words, copy=copy)
    raise refused
async def of_many(self, isolation, copy):
    if copy:
        return await attempt(self, isolation, copy=copy)
    return container.Outcome(exit=report.setup_failed(refused), isolation=isolation)
foreground.Foreground._once, container.Container._attempt = one, of_many
entry()
"""
PROBE = """
from guntainer.doctor import storage
from guntainer.doctor.examine import Circumstances
with Circumstances() as around:
    print(storage._copies(around))
"""


@pytest.fixture
def with_reflinks(home: Path) -> list[str]:
    """Words before a command: it runs where TMPDIR and the store lie on a file system that has reflinks, made for this test."""
    image, place = home / "btrfs", home / "work" / "place"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(300 << 20)
    script = f"mount -o loop {image} {place} && mkdir -p {place}/tmp && export TMPDIR={place}/tmp"
    script += f' GUNTAINER_STORE={place}/store && exec "$@"'
    line = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh"]
    made = shutil.which("mkfs.btrfs") and subprocess.run(["mkfs.btrfs", "-q", image], check=False).returncode == 0
    if not made or subprocess.run([*line, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system with reflinks can be made here: by root, with mkfs.btrfs, btrfs and loop devices")
    return line


def test_a_copy_by_reflinks(home: Path, small_archive: Path, with_reflinks: list[str]) -> None:
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "command": ["cat", "/etc/hostname"], "repeat": 2}}})
    )
    line = [*with_reflinks, sys.executable, "-c", REFUSING, "batch", "--json", home / "report", home / "jobs.json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [one["scratch"] for one in ended_jobs((home / "report").read_text())] == ["reflink copy"] * 2
    line = [*with_reflinks, sys.executable, "-c", REFUSING, "run", small_archive, "sh", "-c", "echo x > /x; cat /x"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "x\n"), done.stderr


def test_doctor_tells_reflinks_from_copies(home: Path, with_reflinks: list[str], guntainer: Run) -> None:
    line = [*with_reflinks, sys.executable, "-c", PROBE]
    assert subprocess.run(line, capture_output=True, text=True, check=False).stdout == "reflink copy\n"
    # the store elsewhere
    line[-3:-3] = ["env", f"GUNTAINER_STORE={home}/store"]
    assert subprocess.run(line, capture_output=True, text=True, check=False).stdout == "copy\n"


def test_doctor_says_what_is_done_instead(home: Path) -> None:
    done = confined(NO_OVERLAY.format(home / "work"), "doctor", "overlay-disk")
    assert "overlay-disk  degraded" in done.stdout
    assert "with TMPDIR on overlay; containers run on a copy of the rootfs" in done.stdout
