"""The examples of the documentation are run: those below, which are in it, and whatever else of Python stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

SCRIPT = """\
import sys
from pathlib import Path
import guntainer

report = guntainer.batch("jobs.toml", parallel=4, only=["test*"], results="out")
for result in report.results:
    print(result.id, result.verdict, f"{result.wall_ns / 1e9:.2f} s")
failure = report.first_failure
if failure is not None and failure.stdout is not None:
    print(Path(failure.stdout).read_text())
sys.exit(report.exit_code)
"""

MAPPING = """\
import guntainer

report = guntainer.batch({
    "rootfs": {"alpine": {"source": "alpine.tar.gz"}},
    "jobs": {
        "hello": {
            "rootfs": "alpine",
            "run": "echo hello from ${{ matrix.n }}",
            "matrix": {"n": [1, 2, 3]},
            "timeout": "1m",
        },
    },
}, on_event=print)
assert report.exit_code == 0
"""

EVENTS = """\
import asyncio
import guntainer


async def main() -> None:
    async with guntainer.open_batch("jobs.toml") as stream:
        async for event in stream:
            match event:
                case guntainer.JobStarted(id=job, at_ns=at_ns):
                    print(f"{at_ns / 1e9:6.2f} s: {job} runs")
                case guntainer.JobOutput(id=job, stream=name, data=data):
                    print(job, name, data)
                case guntainer.JobFinished(result=result):
                    print(result.id, result.verdict)
                    if result.bad:
                        break  # the block is left, and everything that still runs is stopped


asyncio.run(main())
"""

LINES = """\
import json
import subprocess

with subprocess.Popen(["guntainer", "batch", "--json", "-", "jobs.toml"], stdout=subprocess.PIPE) as batch:
    for line in batch.stdout:
        event = json.loads(line)
        if event["event"] == "job-finished":
            print(event["id"], event["outcome"], event["wall_ns"])
        elif event["event"] == "batch-finished":
            print("exit code", event["exit_code"])
"""

JOBS = """\
[rootfs.alpine]
source = "alpine.tar.gz"
[defaults]
rootfs = "alpine"
[jobs.test-a]
run = "echo works"
[jobs.test-b]
run = "echo fails; exit 3"
needs = "test-a"
"""


@pytest.fixture
def folder(home: Path, small_archive: Path) -> Path:
    work = home / "work"
    (work / "alpine.tar.gz").symlink_to(small_archive)
    (work / "jobs.toml").write_text(JOBS)
    return work


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    text = text.replace('"guntainer", "batch"', f'{sys.executable!r}, "-m", "guntainer", "batch"')
    path = folder / "example.py"
    path.write_text(text.replace("/srv/rootfs/alpine.tar.gz", str(folder / "alpine.tar.gz")))
    return subprocess.run([sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=60)


def test_script(folder: Path, traces: Traces) -> None:
    done = run(folder, SCRIPT)
    assert done.returncode == 1 and done.stderr == ""
    assert re.sub(r"\d+\.\d+ s", "T", done.stdout) == "test-a ok T\ntest-b failed T\nfails\n\n"
    traces.check()


def test_mapping(folder: Path, traces: Traces) -> None:
    done = run(folder, MAPPING)
    assert done.returncode == 0, done.stderr
    assert "JobOutput(" in done.stdout and "b'hello from 3\\n'" in done.stdout
    traces.check()


def test_events(folder: Path, traces: Traces) -> None:
    done = run(folder, EVENTS)
    assert done.returncode == 0, done.stderr
    shown = re.sub(r" +\d+\.\d+ s", "T", done.stdout).splitlines()
    assert shown == [
        "T: test-a runs", "test-a stdout b'works\\n'", "test-a ok",
        "T: test-b runs", "test-b stdout b'fails\\n'", "test-b failed",
    ]  # fmt: skip
    traces.check()


def test_lines(folder: Path, traces: Traces) -> None:
    done = run(folder, LINES)
    assert re.sub(r" \d{4,}", " T", done.stdout) == "test-a ok T\ntest-b failed T\nexit code 1\n", done.stderr
    traces.check()


def _blocks() -> list[object]:
    found = []
    for name in ("README.md", "BATCH.md"):
        path = PROJECT / name
        texts = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M) if path.exists() else []
        found += [
            pytest.param(text, id=f"{name} {number}")
            for number, text in enumerate(texts, 1)
            if "import guntainer\n" in text and text not in (SCRIPT, MAPPING, EVENTS, LINES)
        ]
    return found


@pytest.mark.parametrize("text", _blocks())
def test_the_documentation(folder: Path, traces: Traces, text: str) -> None:
    done = run(folder, text)
    assert done.returncode == 0, done.stderr
    traces.check()
