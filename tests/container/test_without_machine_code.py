"""The same containers where the set-up is made from Python: other processors, and policies against executable memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")
CODE = (
    "from guntainer.kernel import program; program._entry = None\n"
    "from guntainer.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize(
    ("command", "code", "out"),
    [
        (["echo", "hi"], 0, "hi\n"),
        (["sh", "-c", "exit 7"], 7, ""),
        (["nosuch"], 127, ""),
        (["/etc"], 126, ""),
    ],
)
def test_run(small_archive: Path, guntainer: Run, traces: Traces, command: list[str], code: int, out: str) -> None:
    line = [sys.executable, "-c", CODE, "run", "-v", "/etc:/deep/er/etc:ro", str(small_archive), *command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    traces.check()


def test_a_batch_of_them(small_archive: Path, home: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    import guntainer as api
    from guntainer.launcher import spawn

    changed = spawn._CODE.replace(
        "main({socket}", "from guntainer.kernel import program; program._entry = None; main({socket}"
    )
    monkeypatch.setattr(spawn, "_CODE", changed)
    source = api.Source(location=str(small_archive))
    jobs = [api.Job(id=f"j{n}", rootfs=source, command=("sh", "-c", f"exit {n % 3}")) for n in range(12)]

    async def main() -> list[int]:
        async with api.Supervisor(parallel=4) as supervisor:
            return [result.exit.code for result in (await supervisor.run(jobs)).results]

    assert anyio.run(main) == [n % 3 for n in range(12)]
    traces.check()
