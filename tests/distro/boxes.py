"""Containers of one rootfs under one kind of ids, and a store that all tests of a file share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import PROJECT, Run

KINDS = ("single", "range")


class Box:
    """Runs scripts, each in a container of its own."""

    def __init__(self, run: Run, rootfs: Path, userns: str) -> None:
        self.userns = userns
        self._run = run
        self._rootfs = rootfs

    def try_sh(self, script: str, *options: object) -> subprocess.CompletedProcess[str]:
        line = ["run", "--userns", self.userns, *options, self._rootfs, "sh", "-euc", script]
        return self._run(*line)

    def sh(self, script: str, *options: object) -> list[str]:
        """The lines that a script writes; it must succeed."""
        done = self.try_sh(script, *options)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.splitlines()

    def either(self, single: str, a_range: str) -> str:
        return single if self.userns == "single" else a_range


@contextmanager
def shared_store(folder: Path) -> Iterator[Path]:
    """A folder for a store; emptied at the end, which only guntainer can where sub-ids own things."""
    yield folder
    line = [sys.executable, "-m", "guntainer", "store", "prune", "--all", "--store", str(folder)]
    done = subprocess.run(
        line, env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
