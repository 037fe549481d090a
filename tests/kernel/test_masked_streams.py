"""Streams with secrets: never a log of the container's own, always through a pump, whoever watches."""

from __future__ import annotations

import asyncio
import base64
import os
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from guntainer.masking import Patterns
from guntainer.services.readiness import last_lines
from guntainer.services.tried import KEPT_BYTES, Said
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


# -- what a readiness command prints


def said(text: bytes, *secrets: bytes) -> bytes:
    """The end of a text that a command has printed, as it is kept."""

    async def run() -> bytes:
        one = Said(Patterns(secrets) if secrets else None)
        write = one.handed_over()
        try:
            writing = asyncio.to_thread(os.write, write, text)
            await asyncio.wait_for(writing, 20)
            kept = one.end()
            for _ in range(20):  # a pipe holds more than is taken at once
                kept = one.end()
            return kept
        finally:
            os.close(write)
            one.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "encode", [lambda text: text, base64.b64encode, lambda text: urllib.parse.quote(text).encode()]
)
@pytest.mark.parametrize("after", [0, 5, 250, 299, 4000, 4090, 5000])
def test_a_secret_is_masked_before_anything_is_cut_off(encode: Callable[[bytes], bytes], after: int) -> None:
    """However long the form of it is that was printed."""
    token = "".join(f"{number:03}/\u00e4&" for number in range(5000)).encode()
    shown = said(b"could not connect: " + encode(token) + b"." * after, token)
    assert shown == (b"could not connect: ***" + b"." * after)[-KEPT_BYTES:]


def test_what_is_shown_of_it() -> None:
    assert last_lines(said(b"two  spaces\xff in it\n", b"two  spaces"), 1) == "***\ufffd in it"
    assert last_lines(said(b"one\n" + b"x" * (1 << 20) + b"\nlast\n"), 1) == "last"
    assert said(b"") == b""
