"""What is open in a process that is about to execute the command: nothing that a path of the rootfs's or of a job's could reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces, ended_jobs, host_rootfs

from guntainer.init import FAULTS, INIT, child
from guntainer.kernel.program import HEADER_WORDS

pytestmark = [pytest.mark.usefixtures("user_namespaces"), pytest.mark.root]

HIGHEST = 260
USERNS = ["auto", "single"]
INITS: list[list[str]] = [[], ["--init"]]


@pytest.fixture
def rootfs(home: Path, small_archive: Path, guntainer: Run) -> Path:
    tree = guntainer("store", "path", small_archive).stdout.strip()
    subprocess.run(["cp", "-a", tree, home / "rootfs"], check=True)
    (home / "secret").write_text("secret of the host")
    (home / "secret").chmod(0o600)
    return home / "rootfs"


def every_descriptor() -> list[str]:
    return [f"/proc/self/fd/{number}" for number in range(3, HIGHEST)]


@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize("init", INITS, ids=["pid 1", "under an init"])
@pytest.mark.parametrize("how", ["option", "link"])
def test_no_workdir_leads_outside(
    home: Path, rootfs: Path, guntainer: Run, userns: str, init: list[str], how: str
) -> None:
    """By every number that a descriptor may have: in one batch, for there are many."""
    jobs = {}
    for number, place in enumerate(every_descriptor()):
        workdir = place
        if how == "link":
            (rootfs / f"at-{number}").symlink_to(place)
            workdir = f"/at-{number}"
        jobs[f"j{number}"] = {
            "rootfs": str(rootfs),
            "workdir": workdir,
            "init": bool(init),
            "command": ["cat", str(home / "secret").lstrip("/")],
        }
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    done = guntainer("batch", "--userns", userns, "--json", home / "report", home / "jobs.json", timeout=120)
    assert "secret of the host" not in done.stdout
    results = ended_jobs((home / "report").read_text())
    assert {result["reason"] for result in results} == {"setup"}, done.stdout[-400:]
    # and in the foreground, whose descriptors are others
    for place in [
        *every_descriptor()[::16],
        "/proc/self/fd/190",
        "/proc/self/fd/188",
        "/proc/self/cwd",
        "/proc/1/root",
    ]:
        one = guntainer("run", "--userns", userns, *init, "-w", place, rootfs, "cat", str(home / "secret").lstrip("/"))
        assert one.returncode == 125 and "workdir" in one.stderr, (place, one.stdout)


@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize("init", INITS, ids=["pid 1", "under an init"])
def test_no_command_leads_outside(home: Path, rootfs: Path, guntainer: Run, userns: str, init: list[str]) -> None:
    """As the command itself, by PATH, as a link, and as the interpreter of a script."""
    outside = home / "tools"
    outside.mkdir()
    shutil.copy("/bin/true", outside / "tool")
    inside = str(outside).lstrip("/")
    jobs: dict[str, object] = {}
    for number, place in enumerate(every_descriptor()):
        (rootfs / f"link-{number}").symlink_to(f"{place}/{inside}/tool")
        (rootfs / f"script-{number}").write_text(f"#!{place}/{inside}/tool\n")
        (rootfs / f"script-{number}").chmod(0o755)
        common = {"rootfs": str(rootfs), "init": bool(init)}
        jobs |= {
            f"direct{number}": {**common, "command": [f"{place}/{inside}/tool"]},
            f"link{number}": {**common, "command": [f"/link-{number}"]},
            f"script{number}": {**common, "command": [f"/script-{number}"]},
        }
    path = ":".join(f"{place}/{inside}" for place in [*every_descriptor()[::20], "/proc/self/fd/190"])
    jobs["path"] = {"rootfs": str(rootfs), "env": {"PATH": path}, "command": ["tool"], "init": bool(init)}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    line = ["batch", "--userns", userns, "--output", "quiet", "--json", home / "report", home / "jobs.json"]
    guntainer(*line, timeout=120)
    results = ended_jobs((home / "report").read_text())
    assert [result["id"] for result in results if result["outcome"] == "ok"] == []
    assert len(results) == len(jobs)


@pytest.mark.parametrize("link", ["/proc/self/exe", "/proc/1/exe", "/proc/self/root/bin/true"])
@pytest.mark.parametrize("init", INITS, ids=["pid 1", "under an init"])
def test_a_command_that_is_a_magic_link(rootfs: Path, guntainer: Run, init: list[str], link: str) -> None:
    (rootfs / "tool").symlink_to(link)
    for command in ("/tool", link):
        done = guntainer("run", *init, rootfs, command)
        assert done.returncode == 126 and "symbolic link" in done.stderr, done.stderr


@pytest.mark.parametrize("init", ["", "3", "reaper", "subreaper"])
def test_the_seal_comes_before_every_path_of_the_rootfs(init: str) -> None:
    """In the compiled program: what is called after the second close_range that really closes."""
    plan = (0, (("seal",), ("workdir", "/work")), ("tool",), {"PATH": "/bin"}, init)
    words = child.compile_plan(plan, ()).words
    numbers = words[HEADER_WORDS::12]
    from guntainer.kernel import abi

    close, first_path = abi.SYSCALLS["close_range"], abi.SYSCALLS["openat2"]
    assert numbers.index(first_path) > numbers.index(close) + 1
    kept = {FAULTS} | ({INIT} if init in ("3", "subreaper") else set())
    calls = [at for at in range(HEADER_WORDS, len(words), 12) if words[at] == close and words[at + 3] == 0]
    closed = [(words[at + 1], words[at + 2]) for at in calls]
    assert closed == [(3, min(kept) - 1), (max(kept) + 1, 0xFFFF_FFFF)]


def test_a_device_keeps_its_mode(guntainer: Run, small_archive: Path, traces: Traces) -> None:
    """Root's container has the host's own devices: their modes are not its to change, and they can be written to."""
    before = os.stat("/dev/full").st_mode
    done = guntainer("run", small_archive, "sh", "-c", "chmod 600 /dev/full || echo no; echo x > /dev/null && echo yes")
    assert done.stdout.split() == ["no", "yes"]
    assert os.stat("/dev/full").st_mode == before
    traces.check()


def test_who_can_take_mounts_away_sees_nothing_of_the_hosts_groups(guntainer: Run, small_archive: Path) -> None:
    if os.geteuid() == 0:
        done = guntainer("run", "--privileged", small_archive, "true")
        assert done.returncode == 125 and "host's root" in done.stderr and len(done.stderr.splitlines()) == 1
        return
    for option in ("--privileged", "--cap-add=SYS_ADMIN"):
        done = guntainer("run", option, small_archive, "sh", "-c", "ls -A /sys; cat /proc/mounts")
        assert done.returncode == 0 and " /sys" not in done.stdout, done.stdout


def test_a_profile_need_not_allow_what_the_launch_does(home: Path, rootfs: Path, guntainer: Run) -> None:
    """An old profile knows neither openat2(2) nor close_range(2)."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["openat2", "close_range", "prctl", "setresuid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
        ],
    }
    (home / "profile").write_text(json.dumps(profile))
    line = ["run", "--security-opt", f"seccomp={home}/profile"]
    assert guntainer(*line, "-u", "5", rootfs, "echo", "fine").stdout == "fine\n"
    (rootfs / "tool").symlink_to("/proc/self/exe")
    assert guntainer(*line, rootfs, "/tool").returncode == 126


def test_few_descriptors_do_not_switch_the_check_off(rootfs: Path, guntainer: Run) -> None:
    (rootfs / "tool").symlink_to("/proc/self/exe")
    line = ["run", "--ulimit", "nofile=3", "-w", "/tmp", rootfs]
    assert "workdir" not in guntainer(*line, "pwd").stderr  # a program may want one for its libraries
    for init in INITS:
        assert guntainer("run", *init, *line[1:], "/tool").returncode == 126


def test_an_init_that_is_the_callers_own_is_not_handed_in(tmp_path: Path) -> None:
    from guntainer import assembly, exeseal

    own = tmp_path / "tini"
    own.write_bytes(b"")
    assert exeseal.is_exposed(str(own)) and exeseal.is_exposed(str(tmp_path / "missing"))
    assert (assembly.find_init() is None) or os.geteuid() != 0


# -- the interpreter that the container's process executes until it executes the command

INTERPRETER = """#!/proc/self/exe -IS
import os
fd = os.open("/proc/self/exe", os.O_RDONLY)
print(os.readlink("/proc/self/exe"))
os.fchmod(fd, 0o777)
"""
WRITES = """
import os
print(os.readlink("/proc/self/exe"))
for how in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
    try:
        os.write(os.open("/proc/self/exe", how), b"x")
        print("got in")
    except OSError:
        print("refused")
"""
WITHOUT_THE_SEAL = """
import os, sys
from guntainer import descriptors, exeseal
from guntainer.launcher import spawn
exeseal.reexecute = lambda: None
def start(words, places):
    return spawn._posix_spawn(sys.executable, [sys.executable, *words], descriptors.to_places(places))
spawn._start = start
from guntainer.cli import entry
entry()
"""


class Owned:
    """A Python of the caller's own, and a rootfs in which it could run as the interpreter of a script."""

    def __init__(self, home: Path) -> None:
        (home / "bin").mkdir()
        self.file = home / "bin" / "python3"
        shutil.copy(os.path.realpath(sys.executable), self.file)
        self.file.chmod(0o755)
        self.rootfs = home / "snake"
        self.volumes = host_rootfs(self.rootfs)
        (self.rootfs / "script").write_text(INTERPRETER)
        (self.rootfs / "script").chmod(0o755)
        libraries = os.pathsep.join([*filter(None, sys.path), os.environ["PYTHONPATH"]])
        self.environment = {**os.environ, "PYTHONPATH": libraries, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, words: list[str], driver: str = "") -> subprocess.CompletedProcess[str]:
        start = ["-c", driver] if driver else ["-m", "guntainer"]
        return subprocess.run(
            [self.file, *start, *words], env=self.environment, capture_output=True, text=True, timeout=60
        )

    def line(self, how: str, home: Path, userns: str) -> list[str]:
        if how == "run":
            binds = [word for text in self.volumes for word in ("-v", text)]
            return ["run", "--userns", userns, *binds, str(self.rootfs), "/script"]
        job = {"rootfs": str(self.rootfs), "command": ["/script"], "volumes": self.volumes}
        (home / "jobs.json").write_text(json.dumps({"jobs": {"one": job}}))
        return ["batch", "--userns", userns, str(home / "jobs.json")]

    def was_changed(self) -> bool:
        return self.file.stat().st_mode & 0o7777 != 0o755


@pytest.fixture
def owned(home: Path) -> Owned:
    return Owned(home)


@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize("how", ["run", "batch"])
def test_a_script_does_not_get_at_the_hosts_interpreter(
    home: Path, owned: Owned, traces: Traces, how: str, userns: str
) -> None:
    done = owned.run(owned.line(how, home, userns))
    assert done.returncode not in (0, 125), done.stderr
    assert (
        "cannot open shared object file" in done.stdout + done.stderr
    )  # what runs is the loader, and "-IS" is no program
    assert not owned.was_changed()
    assert owned.run([*owned.line("run", home, userns)[:-1], "/bin/echo", "fine"]).stdout == "fine\n"
    traces.check()


@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize("how", ["run", "batch"])
def test_the_loader_is_of_no_use(home: Path, owned: Owned, how: str, userns: str) -> None:
    """A script that gives it a program to load has that program run as if it were the sealed file: which stays as it is."""
    inside = os.path.realpath(sys.executable)
    (owned.rootfs / "script").write_text(f"#!/proc/self/exe {inside}\n{WRITES}")
    done = owned.run(owned.line(how, home, userns))
    assert "memfd:guntainer" in done.stdout and "got in" not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("refused") == 2
    assert not owned.was_changed()


@pytest.mark.parametrize("how", ["run", "batch"])
def test_without_the_seal_it_would(home: Path, owned: Owned, how: str) -> None:
    """The attack of the test before is one."""
    done = owned.run(owned.line(how, home, "auto"), WITHOUT_THE_SEAL)
    assert owned.was_changed(), done.stdout + done.stderr


@pytest.mark.parametrize("how", ["run", "batch"])
def test_an_interpreter_that_can_not_be_sealed(home: Path, owned: Owned, traces: Traces, how: str) -> None:
    """Where memfd_create(2) is refused: what could be changed launches nothing."""
    refuse = (
        "from guntainer import exeseal\n"
        "def refused(*_): raise PermissionError(13, 'Permission denied')\n"
        "exeseal._memfd = refused\n"
        "from guntainer.cli import entry\nentry()\n"
    )
    done = owned.run(owned.line(how, home, "auto"), refuse)
    assert done.returncode == 125 and not owned.was_changed()
    assert "vm.memfd_noexec" in done.stderr and "guntainer doctor python" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    traces.check()


def test_a_process_that_has_begun_again(home: Path, owned: Owned) -> None:
    """It is known by its own name, and its environment, words and flags are those that it was given."""
    code = (
        "import os, sys\nfrom guntainer import exeseal\nexeseal.reexecute()\n"
        "print(exeseal.is_sealed(), open('/proc/self/comm').read().strip(), sys.argv[1:], sys.flags.dont_write_bytecode,"
        " sys.executable, os.environ['MARK'], sorted(map(int, os.listdir('/proc/self/fd'))))\n"
    )
    owned.environment["MARK"] = "seen"
    done = owned.run(["a b", ""], code)
    assert done.stdout == f"True guntainer ['a b', ''] 1 {owned.file} seen [0, 1, 2, 3]\n", done.stderr
