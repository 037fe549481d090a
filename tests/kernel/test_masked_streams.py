"""Streams with secrets: never a log of the container's own, always through a pump, whoever watches."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from guntainer.masking import Patterns
from guntainer.stdio import Stdio

SECRET = Patterns([b"hunter2!"])


async def spoken(stdio: Stdio, *chunks: bytes) -> None:
    """A container that writes to its stdout and ends."""
    out = os.dup(stdio.fds[1])
    stdio.launched()
    for chunk in chunks:
        os.write(out, chunk)
        await asyncio.sleep(0.01)
    os.close(out)
    await stdio.drain()
    stdio.close()


@pytest.mark.parametrize("watched", [True, False])
def test_the_log_and_the_watcher(tmp_path: Path, watched: bool) -> None:
    shown: list[bytes] = []

    async def sink(_name: str, data: bytes) -> None:
        shown.append(data)

    async def run() -> None:
        stdio = Stdio(None, str(tmp_path / "o"), str(tmp_path / "e"), sink if watched else None, SECRET)
        await spoken(stdio, b"a hunt", b"er2! b", b" hunter2")

    asyncio.run(run())
    assert (tmp_path / "o").read_bytes() == b"a *** b hunter2"
    assert b"".join(shown) == (b"a *** b hunter2" if watched else b"")


def test_the_container_never_has_the_log_itself(tmp_path: Path) -> None:
    async def run() -> None:
        stdio = Stdio(None, str(tmp_path / "o"), str(tmp_path / "o"), None, SECRET)
        assert all(os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") for fd in stdio.fds[1:])
        stdio.close()
        stdio = Stdio(None, str(tmp_path / "o"), str(tmp_path / "o"), None, Patterns(()))
        assert all(os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "o") for fd in stdio.fds[1:])
        stdio.close()

    asyncio.run(run())


def test_who_keeps_the_pipe_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was held back is in the log when the wait is over, and nothing of what comes later."""
    monkeypatch.setattr("guntainer.stdio.DRAIN_S", 0.1)

    async def run() -> None:
        stdio = Stdio(None, str(tmp_path / "o"), str(tmp_path / "e"), None, SECRET)
        out = os.dup(stdio.fds[1])
        stdio.launched()
        os.write(out, b"a hunter2! b hunter")
        await stdio.drain()
        os.write(out, b"2!")
        stdio.close()
        os.close(out)

    asyncio.run(run())
    assert (tmp_path / "o").read_bytes() == b"a *** b hunter"


def test_a_log_that_can_not_be_written(tmp_path: Path) -> None:
    async def run() -> str:
        stdio = Stdio(None, "/dev/full", str(tmp_path / "e"), None, SECRET)
        await spoken(stdio, b"a hunter2! b")
        return stdio.cut

    assert "No space left" in asyncio.run(run())
