"""What only the throw-away kernel has: a delegated cgroup v2, in which each test gets a control group of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ended_jobs

CGROUPS = Path("/sys/fs/cgroup")


class Scope:
    """A delegated control group, as systemd makes one for a command: programs are started in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, *words: object, **options: object) -> subprocess.Popen[str]:
        """Start guntainer with these arguments in it, alone."""
        return self.start_program(sys.executable, "-m", "guntainer", *words, **options)

    def start_program(self, *words: object, **options: object) -> subprocess.Popen[str]:
        settings: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": -1, "stderr": -1, "text": True}
        settings.update(options)
        before = lambda: (self.path / "cgroup.procs").write_text("0")  # noqa: E731
        return subprocess.Popen([str(word) for word in words], preexec_fn=before, **settings)  # type: ignore[call-overload,no-any-return]

    def run(self, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    @property
    def groups(self) -> list[str]:
        """What is below it."""
        return sorted(str(Path(folder).relative_to(self.path)) for folder, _, _ in os.walk(self.path))[1:]

    @property
    def controllers(self) -> str:
        """What it gives to those below."""
        return (self.path / "cgroup.subtree_control").read_text().strip()

    def is_as_found(self) -> bool:
        return self.groups == [] and self.controllers == ""

    def wait_for(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline, (self.groups, self.controllers)
            time.sleep(0.02)


def batch(scope: Scope, home: Path, archive: Path, text: str, *words: str) -> dict[str, dict[str, object]]:
    """The results of a batch of this job file by job, each with what was told on stderr."""
    (home / "work" / "jobs.toml").write_text(text.replace("ARCHIVE", str(archive)))
    done = scope.run("batch", "--json", home / "work" / "out", *words)
    lines = (home / "work" / "out").read_text()
    return {one["id"]: {**one, "stderr": done.stderr} for one in ended_jobs(lines)}


def own_group() -> Path:
    line = next(text for text in Path("/proc/self/cgroup").read_text().splitlines() if text.startswith("0::"))
    return CGROUPS / line[len("0::/") :]


@pytest.fixture(scope="session")
def delegated() -> Path:
    """A control group in which others may be made."""
    if not os.environ.get("GUNTAINER_VM"):
        pytest.skip("no delegated cgroup v2 here: see `make test-vm`")
    folder = own_group().parent
    assert os.access(folder, os.W_OK)
    return folder


def _made(path: Path) -> Iterator[Scope]:
    made = Scope(path)
    made.path.mkdir()
    yield made
    assert made.is_as_found(), (made.groups, made.controllers)
    made.path.rmdir()


@pytest.fixture
def scope(delegated: Path, home: Path) -> Iterator[Scope]:
    """One of this test's own, which must be left as it was found."""
    yield from _made(delegated / f"{home.name}.scope")


@pytest.fixture
def other_scope(delegated: Path, home: Path) -> Iterator[Scope]:
    yield from _made(delegated / f"{home.name}-other.scope")
