"""Callers that leave hundreds of descriptors open for us, or ignore a signal that we wait for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

COUNT = 300


@pytest.fixture
def inherited(home: Path) -> Iterator[list[int]]:
    """Descriptors of a file that is nobody's business, up to numbers above those that a launch uses."""
    (home / "secret").write_text("secret")
    fds = [os.open(home / "secret", os.O_RDWR) for _ in range(COUNT)]
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("options", [[], ["--init"], ["--network", "none"], ["-v", ".:/src"]], ids=" ".join)
def test_run(guntainer: Run, small_archive: Path, inherited: list[int], traces: Traces, options: list[str]) -> None:
    done = guntainer("run", *options, small_archive, "sh", "-c", "echo /proc/self/fd/*", pass_fds=inherited)
    assert (done.returncode, done.stderr) == (0, "")
    assert {int(word.rpartition("/")[2]) for word in done.stdout.split()} <= {0, 1, 2, 3}
    traces.check()


def test_batch(home: Path, guntainer: Run, small_archive: Path, inherited: list[int], traces: Traces) -> None:
    job = {"rootfs": str(small_archive), "command": ["sh", "-c", "echo /proc/self/fd/*"], "init": True, "repeat": 3}
    (home / "jobs.json").write_text(json.dumps({"jobs": {"one": job}}))
    done = guntainer("batch", home / "jobs.json", pass_fds=inherited)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/fd/4" not in done.stdout and "/fd/0" in done.stdout
    traces.check()


def test_one_that_the_command_line_names_is_read(
    home: Path, guntainer: Run, small_archive: Path, inherited: list[int]
) -> None:
    """As a shell's `--env-file <(…)` has it."""
    (home / "variables").write_text("SEEN=yes\n")
    with open(home / "variables", "rb") as file:
        fds = [*inherited, file.fileno()]
        words = ["--env-file", f"/dev/fd/{file.fileno()}", small_archive, "sh", "-c", "echo $SEEN"]
        done = guntainer("run", *words, pass_fds=fds)
    assert (done.returncode, done.stdout) == (0, "yes\n"), done.stderr


def test_a_library_that_has_many_open(home: Path, small_archive: Path, inherited: list[int]) -> None:
    """A server's descriptors are not inherited, and its own numbers are no obstacle."""
    code = (
        "import os, sys, anyio\n"
        "kept = [os.open('/dev/null', os.O_RDONLY) for _ in range(300)]\n"
        "from guntainer import Job, Supervisor\n"
        "from guntainer.jobs.model import Source\n"
        "async def main():\n"
        "    async with Supervisor() as supervisor:\n"
        "        source = Source(location=sys.argv[1], name='small')\n"
        "        result = await supervisor.run([Job(id='one', rootfs=source, command=('true',))])\n"
        "        print(result.results[0].outcome)\n"
        "anyio.run(main)\n"
    )
    line = [sys.executable, "-c", code, str(small_archive)]
    done = subprocess.run(line, pass_fds=inherited, capture_output=True, text=True, timeout=60)
    assert done.stdout == "ok\n", done.stderr


@pytest.mark.parametrize("command", ["run", "batch"])
def test_a_caller_that_waits_for_no_child(
    home: Path, guntainer: Run, small_archive: Path, traces: Traces, command: str
) -> None:
    """SIGCHLD, where it is ignored, stays so over an execve(2), and children end without a trace."""
    (home / "jobs.json").write_text(json.dumps({"jobs": {"one": {"rootfs": str(small_archive), "run": "exit 3"}}}))
    words = {"run": ["run", small_archive, "sh", "-c", "exit 3"], "batch": ["batch", home / "jobs.json"]}[command]
    done = guntainer(*words, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert done.returncode == {"run": 3, "batch": 1}[command], done.stderr
    traces.check()
