"""`guntainer doctor` on this host, and on hosts that lack something: each fault turns its own probe, and the run that fails for
it names that probe."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, Traces

from guntainer.doctor.probes import PROBES

pytestmark = pytest.mark.usefixtures("user_namespaces")

ALONE = ["unshare", "-Ur"]
HIDDEN = ["unshare", "-Urmpf", "--mount-proc", "--propagation", "private"]
NO_OVERLAY = """
mount -t tmpfs none {0}
mkdir {0}/l {0}/u {0}/w {0}/m
mount -t overlay -o lowerdir={0}/l,upperdir={0}/u,workdir={0}/w,userxattr none {0}/m
export TMPDIR={0}/m
"""


def confined(around: list[str], script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The program in namespaces that `script` has worked over; a script's last line may end with a program to run it by."""
    program = shlex.join([sys.executable, "-m", "guntainer", *map(str, words)])
    line = [*around, "sh", "-ec", f"{script} {program}" if script.endswith(" ") else f"{script}\n{program}"]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False)


def not_ok(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """The probes that are not ok, by id."""
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    return {one["id"]: one for one in found["probes"] if one["status"] != "ok"}


def turned(around: list[str], script: str) -> dict[str, str]:
    """The probes that a fault turns by itself, with their status: those that are well in the same namespaces without it."""
    before = not_ok(confined(around, "", "doctor", "--json"))
    after = not_ok(confined(around, script, "doctor", "--json"))
    return {name: str(one["status"]) for name, one in after.items() if name not in before and not one["because"]}


def named(done: subprocess.CompletedProcess[str]) -> str:
    """The probe that a failed run names, in its last line."""
    assert done.returncode == 125, (done.stdout, done.stderr)
    last = done.stderr.splitlines()[-1]
    assert last.endswith(")") and "(guntainer doctor " in last, last
    return last.rpartition("(guntainer doctor ")[2][:-1]


@pytest.fixture
def warm(home: Path, small_archive: Path, guntainer: Run) -> Path:
    assert guntainer("run", small_archive, "true").returncode == 0
    return small_archive


# -- on this host


def test_here(guntainer: Run, home: Path, traces: Traces) -> None:
    """Containers are run by the other tests, so they can be run here; and nothing stays, not even an empty store."""
    (home / "store").rmdir()
    done = guntainer("doctor")
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines[:-1]] == list(PROBES)
    assert len({line.index(line.split()[1], len(line.split()[0])) for line in lines[:-1]}) == 1
    assert lines[-1].startswith(f"{len(PROBES)} probes: ") and lines[-1].endswith("; containers can be run here")
    assert "\x1b" not in done.stdout and done.stderr == ""
    assert not (home / "store").exists()
    traces.check()


def test_json(guntainer: Run) -> None:
    done = guntainer("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["ok"] and done.returncode == 0
    assert [one["id"] for one in found["probes"]] == list(PROBES)
    assert {one["status"] for one in found["probes"]} <= {"ok", "degraded", "missing"}
    for one in found["probes"]:
        assert one["found"] and "\n" not in one["found"]
        assert one["because"] in ("", *PROBES)
        if one["status"] != "ok" and not one["because"]:
            assert one["remedy"], one


def test_some_of_them(guntainer: Run, traces: Traces) -> None:
    done = guntainer("doctor", "overlay-disk", "python")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["python", "overlay-disk", "2"]
    assert guntainer("doctor", "-q", "python").stdout == ""
    traces.check()


def test_a_store_that_is_there(warm: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    before = sorted(os.listdir(home / "store"))
    done = guntainer("doctor", "store", "overlay-disk", "overlay-memory")
    assert done.returncode == 0 and f"{home}/store" in done.stdout
    assert sorted(os.listdir(home / "store")) == before
    other = home / "work" / "no" / "store"
    assert str(other) in guntainer("doctor", "--store", other, "store").stdout
    assert not other.parent.exists()
    traces.check()


def test_names_of_probes(guntainer: Run) -> None:
    done = guntainer("doctor", "overlay-disc")
    assert done.returncode == 2 and 'did you mean "overlay-disk"?' in done.stderr
    done = guntainer("doctor", "--jsn")
    assert done.returncode == 2 and "did you mean --json?" in done.stderr
    listed = guntainer("doctor", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(PROBES)
    assert "exit codes" in guntainer("doctor", "--help").stdout
    assert "doctor" in guntainer("--help").stdout
    assert "doctor" in guntainer("completion", "bash").stdout


def test_a_closed_stdout(home: Path, traces: Traces) -> None:
    for words in (["doctor"], ["doctor", "--json", "init"]):
        line = f'exec "$0" -m guntainer {shlex.join(words)} >&-'
        done = subprocess.run(
            ["sh", "-c", line, sys.executable], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (125, "guntainer: error: standard output: Bad file descriptor\n")


def test_colour_on_a_terminal_alone(home: Path) -> None:
    import pty

    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        ours, theirs = pty.openpty()
        line = [sys.executable, "-m", "guntainer", "doctor", "python"]
        subprocess.run(line, stdout=theirs, env={**os.environ, **variables}, check=True, timeout=60)
        os.close(theirs)
        assert (b"\x1b[32m" in os.read(ours, 4096)) is coloured
        os.close(ours)


# -- on hosts that lack something


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("user", "missing", 1),
        ("mnt", "missing", 1),
        ("uts", "missing", 1),
        ("ipc", "missing", 1),
        ("cgroup", "missing", 1),
    ],
)
def test_no_namespaces_of_a_kind(warm: Path, traces: Traces, kind: str, status: str, code: int) -> None:
    script = f"echo 0 > /proc/sys/user/max_{kind}_namespaces"
    assert turned(ALONE, script) == {"namespace-limits": status}
    done = confined(ALONE, script, "doctor")
    assert done.returncode == code and "containers can not be run here: namespace-limits" in done.stdout
    assert f"sysctl -w user.max_{kind}_namespaces=" in done.stdout
    assert named(confined(ALONE, script, "run", warm, "true")) == "namespace-limits"
    traces.check()


def test_no_pid_namespaces(warm: Path, traces: Traces) -> None:
    script = "echo 0 > /proc/sys/user/max_pid_namespaces"
    assert turned(ALONE, script) == {"namespace-limits": "degraded"}
    found = not_ok(confined(ALONE, script, "doctor", "--json", "pid-namespace"))
    assert found["pid-namespace"]["status"] == "degraded" and found["pid-namespace"]["because"] == "namespace-limits"
    assert named(confined(ALONE, script, "run", "--require-isolation", "full", warm, "true")) == "namespace-limits"
    traces.check()


def test_no_network_namespaces(warm: Path, traces: Traces) -> None:
    script = "echo 0 > /proc/sys/user/max_net_namespaces"
    assert turned(ALONE, script) == {"namespace-limits": "degraded"}
    assert named(confined(ALONE, script, "run", "--network", "none", warm, "true")) == "namespace-limits"


def test_few_namespaces(home: Path) -> None:
    assert turned(ALONE, "echo 20 > /proc/sys/user/max_uts_namespaces") == {"namespace-limits": "degraded"}


def test_a_masked_proc(warm: Path, traces: Traces) -> None:
    script = "mount -t tmpfs -o ro none /proc/scsi 2>/dev/null || mount --bind -o ro /dev/null /proc/timer_list"
    if confined(HIDDEN, script, "--version").returncode:
        pytest.skip("a part of /proc can not be masked here")
    assert turned(HIDDEN, script) == {"proc-mount": "degraded"}
    assert named(confined(HIDDEN, script, "run", "--require-isolation", "full", warm, "true")) == "proc-mount"
    traces.check()


def test_no_overlay(warm: Path, home: Path) -> None:
    script = NO_OVERLAY.format(home / "work")
    assert turned(HIDDEN, script) == {"overlay-disk": "degraded"}
    small = script.replace("mount -t tmpfs none", "mount -t tmpfs -o size=2m none")
    assert named(confined(HIDDEN, small, "run", warm, "true")) == "overlay-disk"


def test_no_overlay_and_a_copy_that_can_not_be_executed(warm: Path, home: Path) -> None:
    script = NO_OVERLAY.format(home / "work") + f"mount -o remount,bind,noexec {home / 'work' / 'm'}\n"
    assert turned(HIDDEN, script) == {"overlay-disk": "missing"}
    done = confined(HIDDEN, script, "run", warm, "true")
    assert named(done) == "overlay-disk" and "noexec" in done.stderr


def test_a_tmpdir_that_nothing_can_be_executed_in_is_good_enough(warm: Path, home: Path) -> None:
    script = f"mount -t tmpfs -o noexec,nosuid none {home}/tmp"
    assert turned(HIDDEN, script) == {}
    done = confined(HIDDEN, script, "run", warm, "sh", "-c", "cat /bin/true > /x; chmod +x /x; /x && echo executed")
    assert done.stdout == "executed\n", done.stderr
    assert "noexec, nosuid" in confined(HIDDEN, script, "doctor", "tmpdir").stdout


def test_a_full_tmpdir(warm: Path, home: Path) -> None:
    script = f"mount -t tmpfs -o nr_inodes=1 none {home}/tmp"
    assert turned(HIDDEN, script) == {"tmpdir": "missing"}
    assert named(confined(HIDDEN, script, "run", warm, "true")) == "tmpdir"
    script = f"mount -t tmpfs -o size=512k none {home}/tmp"
    assert turned(HIDDEN, script) == {"tmpdir": "missing"}
    script = f"mount -t tmpfs -o size=8m none {home}/tmp"
    assert turned(HIDDEN, script) == {"tmpdir": "degraded"}


def test_no_home_and_no_folder_for_temporary_files(home: Path) -> None:
    """One line for each, and no store is looked for."""
    hidden = "from guntainer import runfolder; real = os.access; os.access = lambda p, *a, **k: p == sys.executable"
    code = f"{hidden}; [os.environ.pop(k, None) for k in ('HOME', 'GUNTAINER_STORE', 'XDG_CACHE_HOME')]"
    done = patched(code, "doctor", "--json", "tmpdir", "store", "overlay-disk")
    assert done.returncode == 1, done.stderr
    found = not_ok(done)
    assert {name: one["because"] for name, one in found.items()} == {
        "tmpdir": "",
        "store": "",
        "overlay-disk": "tmpdir",
    }


@pytest.mark.parametrize(
    "script",
    ["export GUNTAINER_STORE=/proc/store", "touch {0}/file; export GUNTAINER_STORE={0}/file", "chmod 777 {0}; export GUNTAINER_STORE={0}"],
)  # fmt: skip
def test_a_store_that_can_not_be_used(warm: Path, home: Path, script: str) -> None:
    script = script.format(home / "work")
    assert turned(ALONE, script) == {"store": "missing"}
    assert named(confined(ALONE, script, "run", warm, "true")) == "store"


def test_few_descriptors(warm: Path, guntainer: Run, home: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    before = not_ok(guntainer("doctor", "--json"))
    done = guntainer("doctor", "--json", preexec_fn=few)
    assert done.returncode == 1
    assert {name for name, one in not_ok(done).items() if not one["because"]} - set(before) == {"nofile"}
    assert named(guntainer("run", warm, "true", preexec_fn=few)) == "nofile"


def test_few_processes(warm: Path, home: Path) -> None:
    """In a user namespace of its own, whose processes the kernel counts apart since Linux 5.14."""
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit of util-linux is not here")
    if os.geteuid() == 0:
        pytest.skip("RLIMIT_NPROC does not hold for root")
    script = "exec prlimit --nproc=40:40 "
    assert turned(ALONE, script) == {"nproc": "degraded"}
    script = "exec prlimit --nproc=1:1 "
    done = confined(ALONE, script, "doctor", "--json")
    found = not_ok(done)
    assert done.returncode == 1
    assert {name for name, one in found.items() if not one["because"] and one["status"] == "missing"} >= {"nproc"}
    assert found["user-namespace"]["because"] == "nproc"
    assert named(confined(ALONE, script, "run", warm, "true")) == "nproc"


@pytest.mark.parametrize(
    "calls",
    [
        "clone3=ENOSYS",
        "clone3=EPERM",
        "mount=EPERM",
        "pivot_root=EPERM",
        "move_mount=EPERM,open_tree=EPERM",
        "umount2=EPERM",
        "sethostname=EPERM",
    ],
)
def test_a_filter_around_us(warm: Path, calls: str, traces: Traces) -> None:
    script = f"exec {sys.executable} {Path(__file__).parent}/filtered.py {calls} "
    assert turned(ALONE, script) == {"seccomp-outer": "missing"}
    words = ["run", "-v", "/:/host:ro", warm, "true"] if "open_tree" in calls else ["run", warm, "true"]
    assert named(confined(ALONE, script, *words)) == "seccomp-outer"
    traces.check()


def test_a_filter_of_nothing_that_is_needed(home: Path) -> None:
    script = f"exec {sys.executable} {Path(__file__).parent}/filtered.py execveat=EPERM "
    done = confined(ALONE, script, "doctor", "--json", "seccomp-outer")
    assert done.returncode == 0 and json.loads(done.stdout)["probes"][0]["found"] != "no filter"


NETWORK_TOOLS = {"pasta", "slirp4netns", "network-tool"}
"""Looked for in PATH."""
PATCHED = "import os, sys; sys.argv = ['guntainer', *sys.argv[1:]]; {0}; from guntainer.cli import entry; entry()"


def patched(code: str, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The program after a line of Python of the test's."""
    line = [sys.executable, "-c", PATCHED.format(code), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=100, **options)  # type: ignore[call-overload,no-any-return]


def turned_by(code: str) -> dict[str, dict[str, object]]:
    before = not_ok(patched("pass", "doctor", "--json"))
    return {name: one for name, one in not_ok(patched(code, "doctor", "--json")).items() if name not in before}


def test_no_helper_for_a_range(warm: Path, home: Path) -> None:
    if os.geteuid() == 0 or not_ok(patched("pass", "doctor", "--json", "subid")):
        pytest.skip("this user has no range of ids by helpers")
    code = "from guntainer import idmap; idmap._FOLDERS = (); os.environ['PATH'] = '/nowhere'"
    found = turned_by(code)
    assert {name for name, one in found.items() if not one["because"]} - NETWORK_TOOLS == {"subid"}
    assert any("uidmap" in str(line) or "shadow" in str(line) for line in found["subid"]["remedy"])  # type: ignore[attr-defined]
    assert named(patched(code, "run", "--userns", "range", warm, "true")) == "subid"


def test_helpers_without_rights(warm: Path, home: Path) -> None:
    if os.geteuid() == 0 or not_ok(patched("pass", "doctor", "--json", "subid")):
        pytest.skip("this user has no range of ids by helpers")
    for name in ("newuidmap", "newgidmap"):
        (home / "work" / name).write_text("#!/bin/sh\nexit 1\n")
        (home / "work" / name).chmod(0o755)
    code = f"os.environ['PATH'] = '{home}/work:' + os.environ['PATH']"
    found = turned_by(code)
    assert set(found) == {"subid"} and found["subid"]["status"] == "degraded"
    assert any(f"chmod u+s {home / 'work' / 'newuidmap'}" in str(line) for line in found["subid"]["remedy"])  # type: ignore[attr-defined]
    assert named(patched(code, "run", "--userns", "range", warm, "true")) == "subid"


def test_a_range_that_is_too_small(warm: Path, home: Path) -> None:
    if os.geteuid() == 0 or not_ok(patched("pass", "doctor", "--json", "subid")):
        pytest.skip("this user has no range of ids by helpers")
    code = "from guntainer import idmap; idmap.ranges_of = lambda *_: [(100000, 1000)]"
    found = turned_by(code)
    assert set(found) == {"subid"} and "1000 ids" in str(found["subid"]["found"])
    assert any("usermod --add-subuids" in str(line) for line in found["subid"]["remedy"])  # type: ignore[attr-defined]
    assert named(patched(code, "run", "--userns", "range", warm, "true")) == "subid"


def test_no_libarchive(home: Path, small_archive: Path) -> None:
    found = turned_by(_no_library("archive"))
    assert {name for name, one in found.items() if not one["because"]} == {"libarchive"}
    assert named(patched(_no_library("archive"), "run", small_archive, "true")) == "libarchive"


def _no_library(name: str) -> str:
    """Code after which a shared library is not found."""
    return (
        "import ctypes, ctypes.util; real = ctypes.CDLL; "
        f"ctypes.CDLL = lambda path, *a, **k: real('/nowhere' if path and 'lib{name}' in str(path) else path, *a, **k); "
        "ctypes.util.find_library = lambda _: None; ctypes.cdll._dlltype = ctypes.CDLL"
    )


def test_no_libseccomp(small_archive: Path, home: Path) -> None:
    """A filter that was compiled before needs it no more, so the store is new."""
    found = turned_by(_no_library("seccomp"))
    assert {name for name, one in found.items() if not one["because"]} == {"seccomp"}
    assert named(patched(_no_library("seccomp"), "run", small_archive, "true")) == "seccomp"


def test_no_init(home: Path) -> None:
    found = turned_by("from guntainer import assembly; assembly.find_init = lambda *_: None")
    assert {name: one["status"] for name, one in found.items()} == {"init": "degraded"}


# -- nothing is left behind


HANGS = """\
from guntainer.doctor import kernel, examine; import subprocess, time
def hangs(around): STARTED; print('hangs', flush=True); time.sleep(60)
kernel.apparmor = hangs"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_examination_that_is_interrupted(home: Path, traces: Traces, number: signal.Signals, guntainer: Run) -> None:
    started = "None" if number == signal.SIGKILL else "subprocess.Popen(['setsid', 'sleep', '60'])"
    code = f"exec({HANGS.replace('STARTED', started)!r})"
    line = [sys.executable, "-c", PATCHED.format(code), "doctor"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "hangs" not in process.stdout.readline():
        pass
    process.send_signal(number)
    process.wait(20)
    process.stdout.close()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number == signal.SIGKILL:
        assert guntainer("doctor", "tmpdir").returncode == 0  # whoever starts next removes what it has left
    deadline = time.monotonic() + 10
    while traces.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    traces.check()
    assert not [name for name in os.listdir(home / "store") if name.startswith(".")]
