"""A rootfs, a job and a command that want more than they were given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from conftest import Run, Traces

import guntainer
from guntainer.jobs.model import Mount, Scratch

pytestmark = pytest.mark.usefixtures("user_namespaces")


@pytest.fixture
def rootfs(home: Path, small_archive: Path, guntainer: Run) -> Path:
    """A rootfs folder that a test may put traps into."""
    tree = guntainer("store", "path", small_archive).stdout.strip()
    subprocess.run(["cp", "-a", tree, home / "rootfs"], check=True)
    return home / "rootfs"


def climbing(path: Path) -> str:
    """`path` as a relative link that climbs out of a root, as deep as anybody may sit in it."""
    return "../" * 12 + str(path).lstrip("/")


@pytest.mark.root
@pytest.mark.parametrize("how", ["relative link", "absolute link", "dots in the target", "link as the target itself"])
@pytest.mark.parametrize("kind", ["folder", "file", "tmpfs"])
@pytest.mark.parametrize("leads_somewhere", [False, True])
def test_a_mount_target_stays_inside(
    home: Path, rootfs: Path, guntainer: Run, traces: Traces, how: str, kind: str, leads_somewhere: bool
) -> None:
    outside = home / "outside"
    outside.mkdir()
    (home / "given").mkdir()
    (home / "given" / "file").write_text("given")
    link = {"relative link": climbing(outside), "absolute link": str(outside)}.get(how, climbing(outside / "made"))
    (rootfs / "trap").symlink_to(link)
    if leads_somewhere:
        (rootfs / str(outside).lstrip("/")).mkdir(parents=True)
    target = {
        "relative link": "/trap/made",
        "absolute link": "/trap/made",
        "dots in the target": "/etc/" + climbing(outside / "made"),
    }.get(how, "/trap")
    options = {
        "folder": ["-v", f"{home}/given:{target}"],
        "file": ["-v", f"{home}/given/file:{target}"],
        "tmpfs": ["--tmpfs", target],
    }[kind]
    done = guntainer("run", *options, rootfs, "sh", "-c", f"ls {outside}; cat /proc/mounts")
    assert list(outside.iterdir()) == []
    if leads_somewhere or how == "dots in the target":
        assert how == "link as the target itself" or (done.returncode == 0 and f" {outside}/made " in done.stdout)
    else:
        # the link dangles in the rootfs: refused, by name
        assert done.returncode == 125 and "trap" in done.stderr and len(done.stderr.splitlines()) == 1
    traces.check()


@pytest.mark.root
@pytest.mark.parametrize("name", ["dev", "proc", "sys", "etc"])
@pytest.mark.parametrize("kind", ["relative", "absolute", "file", "missing"])
def test_folders_of_the_kernel_that_are_traps(
    home: Path, rootfs: Path, guntainer: Run, traces: Traces, name: str, kind: str
) -> None:
    outside = home / "outside"
    outside.mkdir()
    subprocess.run(["rm", "-rf", rootfs / name], check=True)
    if kind == "file":
        (rootfs / name).write_text("")
    elif kind != "missing":
        (rootfs / name).symlink_to(climbing(outside) if kind == "relative" else outside)
    done = guntainer("run", rootfs, "sh", "-c", "test -c /dev/null && test -d /proc/self && echo fine")
    assert done.stdout == "fine\n", done.stderr
    assert list(outside.iterdir()) == []
    traces.check()


def test_jobs_do_not_get_each_others_volumes(home: Path, small_archive: Path) -> None:
    (home / "secret").mkdir()
    (home / "secret" / "file").write_text("")
    source = guntainer.Source(location=str(small_archive))

    def job(id_: str, *mounts: Mount) -> guntainer.Job:
        command = ("sh", "-c", "test ! -e /data/file")
        return guntainer.Job(id=id_, rootfs=source, command=command, mounts=mounts, scratch=Scratch(kind="memory"))

    async def run() -> list[int]:
        async with guntainer.Supervisor(parallel=1) as supervisor:
            jobs = [job("with", Mount(source=f"{home}/secret", target="/data")), job("without"), job("without 2")]
            return [result.exit.code for result in (await supervisor.run(jobs)).results]

    assert anyio.run(run) == [1, 0, 0]


def test_our_reaper_shows_nothing_of_the_host(home: Path, small_archive: Path) -> None:
    """pid 1 is a clone of this program then, with the caller's environment and other jobs' plans in its memory."""
    code = (
        "from guntainer import assembly; assembly.find_init = lambda *_: None\n"
        "from guntainer.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    )
    script = "for f in environ mem maps fd/0 cwd/x root/x exe; do head -c 1 /proc/1/$f && echo open: $f; done 2>&1"
    line = [sys.executable, "-c", code, "run", "--init", str(small_archive), "sh", "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert "open:" not in done.stdout
    assert done.stdout.count("cannot open") == 7, done.stdout + done.stderr
    assert done.stdout.count("Permission denied") >= 6  # real root may look for descriptor 0, which is closed


def test_descriptors_of_the_supervisor_stay_outside(home: Path, small_archive: Path, guntainer: Run) -> None:
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "command": ["ls", "/proc/self/fd"]}}})
    )
    assert guntainer("batch", "--results", home / "out", home / "jobs.json").returncode == 0
    assert (home / "out" / "a" / "stdout").read_text().split() == ["0", "1", "2", "3"]  # 3 is the listing itself


def test_the_stores_tree_can_not_be_written(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    tree = Path(guntainer("store", "path", small_archive).stdout.strip())
    before = sorted((str(p), p.lstat().st_mode, p.lstat().st_mtime_ns) for p in tree.rglob("*"))
    script = "echo x > /etc/passwd; chmod 777 /bin /; rm -rf /usr/* 2>/dev/null; mkdir /new; touch /etc/new; true"
    for scratch in ("disk", "memory"):
        guntainer("run", "--scratch", scratch, small_archive, "sh", "-c", script)
    assert sorted((str(p), p.lstat().st_mode, p.lstat().st_mtime_ns) for p in tree.rglob("*")) == before
    traces.check()


def test_a_layer_that_is_used_again_is_as_new(home: Path, small_archive: Path) -> None:
    """A job may have changed the root folder's mode without leaving anything in it."""
    source = guntainer.Source(location=str(small_archive))
    commands = [("chmod", "777", "/"), ("sh", "-c", 'test "$(stat -c %a /)" = 755')]
    jobs = [guntainer.Job(id=str(n), rootfs=source, command=command) for n, command in enumerate(commands)]

    async def run() -> list[int]:
        async with guntainer.Supervisor(parallel=1) as supervisor:
            return [result.exit.code for result in (await supervisor.run(jobs)).results]

    assert anyio.run(run) == [0, 0]
