"""What the tests share: a small rootfs made from this machine's programs, real distributions where there are some, and a
look at what a run has left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("here", database=None, deadline=None)
settings.load_profile("here")

PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = [
    "sh",
    "cat",
    "echo",
    "ls",
    "id",
    "env",
    "sleep",
    "head",
    "mkdir",
    "touch",
    "rm",
    "chmod",
    "chown",
    "grep",
    "ln",
    "stat",
    "true",
]
PROGRAMS += [
    "false",
    "hostname",
    "mount",
    "kill",
    "ps",
    "dd",
    "readlink",
    "seq",
    "uname",
    "pwd",
    "wc",
    "stty",
    "tty",
    "setsid",
]


def pytest_configure(config: pytest.Config) -> None:
    # The store and the run folders of a test session are its own; nothing of the user's is touched.
    os.environ.pop("GUNTAINER_STORE", None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything that the tests need is there, one that skips would be a check that can not fail."""
    told = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("GUNTAINER_NO_SKIP") and told is not None and told.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _user_namespaces() -> bool:
    done = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture(scope="session")
def user_namespaces() -> None:
    if not _user_namespaces():
        pytest.skip("this host does not let this user make user namespaces")


@pytest.fixture(scope="session")
def a_range() -> None:
    """A range of ids for this user."""
    from guntainer import errors, idmap

    try:
        ids = idmap.open_ids("range")
    except errors.HostError as error:
        pytest.skip(f"this user has no range of ids here: {error.message}")
    os.close(ids.namespace)


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .tar.gz of some programs of this machine and their libraries, made by `guntainer pack`."""
    from guntainer.pack import pack

    path = tmp_path_factory.mktemp("archives") / "small.tar.gz"
    pack([p for p in PROGRAMS if shutil.which(p)], str(path))
    return path


@pytest.fixture(scope="session")
def distributions() -> Path:
    """The folder of real rootfs archives."""
    given = os.environ.get("GUNTAINER_TEST_ROOTFS") or str(PROJECT.parent / "shared" / "rootfs")
    folder = Path(given)
    if not list(folder.glob("alpine-minirootfs-*-x86_64.tar.gz")):
        pytest.skip("no real distributions here: set GUNTAINER_TEST_ROOTFS to a folder of rootfs archives")
    return folder


@pytest.fixture(scope="session")
def alpine(distributions: Path) -> Path:
    return max(
        distributions.glob("alpine-minirootfs-*-x86_64.tar.gz"),
        key=lambda p: [int(x) for x in p.name.split("-")[2].split(".")],
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store and a folder for temporary files of this test's own."""
    from guntainer.store.remove import remove_tree

    for name in ("store", "tmp", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("GUNTAINER_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path
    for name in ("store", "tmp"):  # sub-ids may own what is in there, and pytest could not remove it
        remove_tree(str(tmp_path / name))


def host_rootfs(folder: Path, *more: str) -> list[str]:
    """Make an empty rootfs, and return the volumes with which this machine's programs run in it, read-only."""
    for name in ("etc", "tmp", "usr", *more):
        (folder / name).mkdir(parents=True)
    places = ["/usr"]
    for name in ("bin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (folder / name).symlink_to(f"usr/{name}")
        elif name != "bin" and os.path.isdir(f"/{name}"):
            places.append(f"/{name}")
    if not sys.base_prefix.startswith("/usr"):
        places.append(sys.base_prefix)
    return [f"{place}:{place}:ro" for place in places]


def ended_jobs(lines: str) -> list[dict[str, Any]]:
    """What the lines of `batch --json` say of the jobs that have ended, in the order of their ends; other output is skipped."""
    found = [json.loads(line) for line in lines.splitlines() if line.startswith('{"event"')]
    return [one for one in found if one["event"] == "job-finished"]


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def guntainer(home: Path, user_namespaces: None) -> Run:
    """Run the command line in a process of its own, with a time-out."""

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL}
        settings.update(options)
        if "input" in settings:
            settings.pop("stdin")
        return subprocess.run([sys.executable, "-m", "guntainer", *map(str, words)], **settings)  # type: ignore[call-overload,no-any-return]

    return run


class Traces:
    """What a run may leave behind: processes below us, mounts, folders, descriptors."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._before = self._now()

    def _now(self) -> dict[str, object]:
        return {
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "descriptors": sorted(os.listdir("/proc/self/fd")),
        }

    def processes(self) -> list[str]:
        """Command lines of live processes that run on this test's folders, or as a fork helper of this test's."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environment = (entry / "environ").read_bytes()
                mounts = (entry / "mountinfo").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            mark = str(self._home).encode()
            if state not in "ZX" and (mark in environment or mark in mounts):
                found.append(line)
        return found

    def folders(self) -> list[str]:
        """Everything in the folder for temporary files."""
        return sorted(str(p.relative_to(self._home)) for p in (self._home / "tmp").rglob("*"))

    def incoming(self) -> list[str]:
        """What half unpacked archives have left in the store."""
        place = self._home / "store" / "incoming"
        return sorted(p.name for p in place.iterdir() if not p.name.endswith(".lock")) if place.is_dir() else []

    def check(self) -> None:
        assert self.processes() == []
        assert self.folders() == []
        assert self.incoming() == []
        assert self._now() == self._before


@pytest.fixture
def traces(home: Path) -> Iterator[Traces]:
    yield Traces(home)
