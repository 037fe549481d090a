"""Which ids a container has: a range of sub-ids or one, what that does to owners, and that everything can be removed again."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, Traces, ended_jobs

from guntainer import idmap

pytestmark = pytest.mark.usefixtures("user_namespaces")


@pytest.fixture
def owned(home: Path, small_archive: Path) -> Path:
    """The small archive, and entries of other owners."""
    path = home / "owned.tar"
    kinds = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE, "file": tarfile.REGTYPE}
    entries = [
        ("owned", "dir", 0o2750, 10, 20),
        ("owned/file", "file", 0o640, 11, 21),
        ("owned/suid", "file", 0o4755, 12, 22),
        ("owned/link", "link", 0o777, 13, 23),
        ("owned/fifo", "fifo", 0o600, 14, 24),
        ("owned/closed", "dir", 0o000, 15, 25),
        ("owned/closed/in", "file", 0o000, 15, 25),
        ("owned/far", "file", 0o644, 1_000_000, 5),
    ]
    with tarfile.open(small_archive) as source, tarfile.open(path, "w") as made:
        for member in source:
            made.addfile(member, source.extractfile(member) if member.isreg() else None)
        for name, kind, mode, uid, gid in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.linkname = kinds[kind], mode, uid, gid, "file"
            made.addfile(info, io.BytesIO())
    return path


OWNERS = "cd /owned && stat -c '%n %u:%g %a' . file suid link fifo far; stat -c '%u:%g %a' closed"


def test_a_range_keeps_owners(owned: Path, a_range: None, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", "--userns", "range", owned, "sh", "-c", OWNERS)
    assert done.stdout.splitlines() == [
        ". 10:20 2750",
        "file 11:21 640",
        "suid 12:22 4755",
        "link 13:23 777",
        "fifo 14:24 600",
        "far 0:5 644",
        "15:25 0",
    ]
    assert "1 entries of users that are not mapped are root's now" in done.stderr
    done = guntainer("store", "prune", "--all")
    assert done.stdout.startswith("removed ") and done.returncode == 0
    traces.check()


def test_with_one_id_everything_is_the_callers(owned: Path, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", "--userns", "single", owned, "sh", "-c", OWNERS)
    assert {line.split()[-2] for line in done.stdout.splitlines()} == {"0:0"}, done.stderr
    traces.check()


def test_trees_of_two_maps_are_never_mixed(owned: Path, a_range: None, guntainer: Run, home: Path) -> None:
    for _ in range(2):
        for kind, owner in (("range", "11:21"), ("single", "0:0")):
            done = guntainer("run", "--userns", kind, owned, "stat", "-c", "%u:%g", "/owned/file")
            assert done.stdout == owner + "\n", done.stderr
    rows = [line.split()[1:3] for line in guntainer("store", "ls").stdout.splitlines()[1:]]
    assert sorted(kind for _, kind in rows) == ["range", "single"]
    assert len({digest for digest, _ in rows}) == 1
    paths = {guntainer("store", "path", "--userns", kind, owned).stdout for kind in ("range", "single")}
    assert len(paths) == 2


def batch(home: Path, guntainer: Run, job: dict[str, object], *words: str) -> subprocess.CompletedProcess[str]:
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": job}}))
    return guntainer("batch", *words, "--json", home / "report", home / "jobs.json")


@pytest.mark.parametrize("cache", [True, False])
def test_a_batch_keeps_owners(
    owned: Path, a_range: None, guntainer: Run, home: Path, traces: Traces, cache: bool
) -> None:
    job = {"rootfs": str(owned), "command": ["stat", "-c", "%u:%g", "/owned/file"], "cache": cache}
    done = batch(home, guntainer, job, "--userns", "range")
    assert "11:21" in done.stdout, done.stdout + done.stderr
    assert ended_jobs((home / "report").read_text())[0]["userns"] == "range"
    traces.check()


MESS = "mkdir -p /m/a/b && echo x > /m/a/b/c && chown -R 7:8 /m && chmod 700 /m/a /m && chmod 0 /m/a/b"


@pytest.mark.root
def test_what_sub_ids_own_is_removed(
    small_archive: Path, a_range: None, guntainer: Run, home: Path, traces: Traces
) -> None:
    done = guntainer("run", "--userns", "range", small_archive, "sh", "-c", MESS)
    assert (done.returncode, done.stderr) == (0, "")
    job = {"rootfs": str(small_archive), "run": MESS, "repeat": 3}
    done = batch(home, guntainer, job, "--userns", "range")
    assert done.returncode == 0, done.stdout
    traces.check()


def wait(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_what_a_killed_run_left_goes_with_the_next(
    small_archive: Path, a_range: None, guntainer: Run, home: Path, traces: Traces
) -> None:
    line = [sys.executable, "-m", "guntainer", "run", "--userns", "range", str(small_archive)]
    with subprocess.Popen([*line, "sh", "-c", f"{MESS}; echo done; sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"done\n"
        process.send_signal(signal.SIGKILL)
    wait(lambda: traces.processes() == [])
    assert traces.folders()
    # of another map: who starts next need not be in the same one
    assert guntainer("run", "--userns", "single", small_archive, "true").returncode == 0
    traces.check()


def test_a_killed_unpack_of_owners_is_removed(
    owned: Path, a_range: None, guntainer: Run, home: Path, traces: Traces
) -> None:
    """A dead unpack is a folder in incoming/ without a holder: here with folders of sub-ids in it."""
    ids = idmap.open_ids("range")
    folder = home / "store" / "incoming" / "dead"
    guntainer("store", "ls")
    folder.mkdir(parents=True)
    code = f"import os; os.makedirs('{folder}/tree/x/y'); os.chown('{folder}/tree/x', 5, 5); os.chmod('{folder}/tree/x', 0)"
    line = idmap.inside(ids, [], code)
    assert subprocess.run(line, pass_fds=[ids.namespace], check=False).returncode == 0
    os.close(ids.namespace)
    assert guntainer("run", owned, "true").returncode == 0
    assert not folder.exists()
    traces.check()


@pytest.mark.root
@pytest.mark.parametrize("userns", ["range", "single"])
@pytest.mark.parametrize(("user", "told"), [("1234:56", "1234:56"), ("4321", "4321:0"), ("0", "0:0")])
def test_users(
    small_archive: Path, a_range: None, guntainer: Run, traces: Traces, userns: str, user: str, told: str
) -> None:
    done = guntainer(
        "run", "--userns", userns, "-u", user, small_archive, "sh", "-c", "echo $(id -u):$(id -g); touch /tmp-file"
    )
    assert done.stdout == told + "\n"
    # root's folder is not another user's, where there are other users at all
    assert (done.returncode != 0) == (userns == "range" and user != "0")
    traces.check()


def test_groups_of_the_rootfs(small_archive: Path, a_range: None, guntainer: Run, home: Path) -> None:
    tree = guntainer("store", "path", small_archive).stdout.strip()
    subprocess.run(["cp", "-a", tree, home / "rootfs"], check=True)
    (home / "rootfs" / "etc").mkdir(exist_ok=True)
    (home / "rootfs" / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n")
    (home / "rootfs" / "etc" / "group").write_text(
        "anna:x:1000:\naudio:x:29:anna,root\nvideo:x:44:anna\nbad:x:zz:anna\n"
    )
    for user, groups in (("anna", "1000 29 44"), ("root", "0 29"), ("anna:audio", "29"), ("77", "0")):
        done = guntainer("run", "--userns", "range", "-u", user, home / "rootfs", "id", "-G")
        assert done.stdout.split() == groups.split(), done.stderr


def test_a_user_that_is_not_mapped(small_archive: Path, a_range: None, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", "--userns", "range", "-u", "65536", small_archive, "true")
    assert done.returncode == 125
    assert "65536" in done.stderr and "--userns single" in done.stderr and len(done.stderr.splitlines()) == 1
    traces.check()


def without_a_range(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The program as the same user, in a mount namespace where `script` has changed something."""
    program = shlex.join([sys.executable, "-m", "guntainer", *map(str, words)])
    line = ["unshare", "--map-current-user", "--keep-caps", "-m", "--propagation", "private"]
    return subprocess.run(
        [*line, "sh", "-ec", f"{script}\n{program}"], capture_output=True, text=True, timeout=60, check=False
    )


FAULTS = {
    "no line": ("mount --bind /dev/null /etc/subuid", "/etc/subuid has no range for"),
    "no group line": ("mount --bind /dev/null /etc/subgid", "/etc/subgid has no range for"),
    "too few": ("mount --bind {}/few /etc/subuid", "has 1000 ids, and 65536 are needed"),
    "no setuid bit": ("mount --bind {}/helper $(command -v newuidmap)", "not setuid root"),
    "refused": ("true", "_map failed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_without_a_range_one_id_is_taken(
    small_archive: Path, a_range: None, home: Path, guntainer: Run, traces: Traces, fault: str
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root needs no helper")
    script, why = FAULTS[fault]
    (home / "few").write_text(f"{os.getuid()}:100000:1000\n")
    (home / "helper").write_text("#!/bin/sh\n")
    (home / "helper").chmod(0o755)
    script = script.format(home)
    if without_a_range(script, "--version").returncode:
        pytest.skip("a namespace in which this user stays the same can not be made here")
    done = without_a_range(script, "run", small_archive, "sh", "-c", "cat /proc/self/uid_map; echo fine")
    assert done.returncode == 0 and done.stdout.endswith("fine\n")
    (note,) = done.stderr.splitlines()
    assert note.startswith("guntainer: one id: ") and why in note
    assert without_a_range(script, "run", "-q", small_archive, "true").stderr == ""
    demanded = without_a_range(script, "run", "--userns", "range", small_archive, "true")
    assert demanded.returncode == 125
    (line,) = demanded.stderr.splitlines()
    assert why in line and "(guntainer doctor subid)" in line and "--userns single" in line
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "command": ["true"]}}}))
    done = without_a_range(script, "batch", "--json", home / "report", home / "jobs.json")
    assert done.returncode == 0 and done.stderr.count("one id: ") == 1
    assert ended_jobs((home / "report").read_text())[0]["userns"] == "single"
    done = without_a_range(script, "batch", "--userns", "range", home / "jobs.json")
    assert done.returncode == 125 and why in done.stderr
    traces.check()


@pytest.mark.root
def test_what_was_kept_can_be_removed(small_archive: Path, a_range: None, guntainer: Run, home: Path) -> None:
    done = guntainer("run", "--keep", "--userns", "range", small_archive, "sh", "-c", MESS)
    kept, _, how = done.stderr.strip().partition("kept ")[2].partition("; to remove it: guntainer ")
    assert (Path(kept) / "m").is_dir()
    assert subprocess.run([sys.executable, "-m", "guntainer", *how.split()], check=False).returncode == 0
    assert not Path(kept).exists()


def test_unshare(a_range: None, guntainer: Run) -> None:
    assert guntainer("unshare", "sh", "-c", "id -u; exit 7", "--help").stdout == "0\n"
    assert guntainer("unshare", "--", "sh", "-c", "exit 7").returncode == 7
    for words, code in ((["no-such-program"], 127), (["/etc/passwd"], 126), ([], 2), (["--no-such"], 2)):
        done = guntainer("unshare", *words)
        assert done.returncode == code and len(done.stderr.splitlines()) == 1


def test_more_capabilities_come_with_a_namespace_of_ones_own(
    small_archive: Path, a_range: None, guntainer: Run, home: Path
) -> None:
    """With the same ids in it: no capability reaches another container, or the fork helper."""
    if os.geteuid() == 0:
        pytest.skip("root's containers can not have such capabilities")
    job = {
        "rootfs": str(small_archive),
        "run": "readlink /proc/self/ns/user; touch /f; chown 5:6 /f; stat -c %u:%g /f",
        "repeat": 2,
    }
    jobs = {
        "usual": job,
        "privileged": {**job, "privileged": True},
        "init": {**job, "cap-add": ["SYS_TIME"], "init": True},
    }
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    done = guntainer("batch", "--userns", "range", "--results", home / "results", home / "jobs.json")
    assert done.returncode == 0, done.stdout
    told = {path.parent.name: path.read_text().split() for path in (home / "results").glob("*/stdout")}
    assert len(told) == 6 and {words[1] for words in told.values()} == {"5:6"}
    namespaces = {name: words[0] for name, words in told.items()}
    usual = {namespace for name, namespace in namespaces.items() if name.startswith("usual")}
    others = [namespace for name, namespace in namespaces.items() if not name.startswith("usual")]
    assert len(usual) == 1 and len(set(others)) == 4 and not usual & set(others)


TOO_MANY = """
import sys
from guntainer import planner
planner._own_map_text = lambda _: "0 0 4294967295\\n"
from guntainer.cli import entry
entry()
"""


@pytest.mark.parametrize("init", [[], ["--init"]], ids=["pid 1", "under an init"])
@pytest.mark.parametrize("how", ["run", "batch"])
def test_ids_that_the_kernel_refuses(
    home: Path, small_archive: Path, a_range: None, guntainer: Run, traces: Traces, how: str, init: list[str]
) -> None:
    """Of a container that has a user namespace below the range: said as such, and not as a SIGKILL."""
    words = ["run", "--privileged", "--userns", "range", *init, str(small_archive), "true"]
    if how == "batch":
        job = {"rootfs": str(small_archive), "command": ["true"], "privileged": True, "init": bool(init)}
        (home / "jobs.json").write_text(json.dumps({"jobs": {"one": job}}))
        words = ["batch", "--userns", "range", str(home / "jobs.json")]
    done = subprocess.run([sys.executable, "-c", TOO_MANY, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 125, done.stdout + done.stderr
    assert "have ids mapped" in done.stdout + done.stderr or "map_ids" in done.stdout + done.stderr
    assert "SIGKILL" not in done.stdout + done.stderr
    traces.check()


def test_the_hosts_init_is_found_with_a_range_as_well(a_range: None, guntainer: Run, small_archive: Path) -> None:
    """Where the program is root in a user namespace, and the host's root is nobody in particular."""
    from guntainer import assembly

    if assembly.find_init() is None:
        pytest.skip("this host has no static init")
    done = guntainer("run", "--userns", "range", "--init", small_archive, "cat", "/proc/1/cmdline")
    assert done.stdout.startswith("init\0--\0cat\0"), done.stdout + done.stderr
