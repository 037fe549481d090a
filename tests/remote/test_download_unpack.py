"""Archives that are unpacked while they are downloaded, by a worker as the store starts it."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty
import image_builder as build
import pytest
from faulty import Faulty, reply, served

from guntainer.archive import worker
from guntainer.archive.worker import Pipe, Task
from guntainer.remote import download

NUMBERS = random.Random(7)
FILES = {f"usr/{name}": NUMBERS.randbytes(400_000) for name in "abcdef"}
ARCHIVE = build.layer(
    ("bin", "dir", {}),
    ("bin/sh", "file", {"mode": 0o755}),
    *((name, "file", {"data": data}) for name, data in FILES.items()),
).data
SECRET = "a-very-secret-word"


@pytest.fixture
def server() -> Iterator[Faulty]:
    with Faulty() as one:
        yield one


def task(url: str, folder: Path, **more: Any) -> Task:
    folder.mkdir()
    return Task(
        ("remote", download.request(url, environ={})), "the archive", str(folder), hash_it=True, limits=None, **more
    )


def answers(pid: int, read: int) -> list[tuple[Any, ...]]:
    """All that a worker says until it ends."""
    pipe, found = Pipe(), []
    with open(read, "rb") as file:
        while data := file.read1(1 << 16):
            found += pipe.feed(data)
    os.waitpid(pid, 0)
    return found


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else ["", "0"]
        except OSError:
            continue
        if int(words[1]) == pid:
            found.append(int(entry.name))
    return found


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_cut_off_and_resumed(server: Faulty, tmp_path: Path) -> None:
    server.plan("/a.tar.gz", served(ARCHIVE, cut=1_000_000), served(ARCHIVE))
    said = answers(*worker.spawn(task(server.url("/a.tar.gz"), tmp_path / "into")))
    kind, facts = said[-1]
    assert kind == "done"
    assert facts["digest"] == hashlib.sha256(ARCHIVE).hexdigest()
    for name, data in FILES.items():
        assert (tmp_path / "into" / "tree" / name).read_bytes() == data
    assert [seen.headers.get("range") for seen in server.seen["/a.tar.gz"]] == [None, "bytes=1000000-"]


def test_it_is_unpacked_while_it_comes(server: Faulty, tmp_path: Path) -> None:
    """The second half is not sent before a file of the first is there."""
    unpacked = threading.Event()

    def halves(_: faulty.Seen, connection: Any, over: threading.Event) -> None:
        half = len(ARCHIVE) // 2
        connection.sendall(faulty.head(200, [("Content-Length", len(ARCHIVE))]) + ARCHIVE[:half])
        if unpacked.wait(30):
            connection.sendall(ARCHIVE[half:])

    server.plan("/a.tar.gz", halves)
    pid, read = worker.spawn(task(server.url("/a.tar.gz"), tmp_path / "into"))
    until((tmp_path / "into" / "tree" / "usr" / "a").exists)
    unpacked.set()
    assert answers(pid, read)[-1][0] == "done"


def test_an_answer_that_is_none(server: Faulty, tmp_path: Path) -> None:
    server.plan("/a", reply(status=404))
    said = answers(*worker.spawn(task(server.url(f"/a?{SECRET}"), tmp_path / "into")))
    kind, name, text, hint, _ = said[-1]
    assert (kind, name, hint) == ("failed", "RemoteError", "check its name")
    assert "answered 404: is not there" in text
    assert SECRET not in text


def test_secrets_are_where_nobody_else_sees_them_and_a_killed_worker_takes_its_feeder_along(
    server: Faulty, tmp_path: Path
) -> None:
    server.plan("/a.tar.gz", served(ARCHIVE, cut=1_000_000, stall=True))
    url = server.url(f"/a.tar.gz?signature={SECRET}", user=f"me:{SECRET}@")
    pid, read = worker.spawn(task(url, tmp_path / "into"))
    try:
        until((tmp_path / "into" / "tree" / "usr" / "a").exists)
        (feeder,) = children(pid)
        for process in (pid, feeder):
            for name in ("cmdline", "environ", "comm"):
                assert SECRET.encode() not in Path(f"/proc/{process}/{name}").read_bytes()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(read)
    until(
        lambda: (
            not Path(f"/proc/{feeder}").exists() or "Z" in Path(f"/proc/{feeder}/stat").read_text().rpartition(")")[2]
        )
    )


def test_only_a_remote_source_loads_it(tmp_path: Path) -> None:
    """A plain archive's worker has no use for http."""
    import subprocess

    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import guntainer.cli.run, guntainer.store.acquire, guntainer.archive.worker\n"
        "print([name for name in sys.modules if name.startswith(('http', 'ssl', 'urllib', 'guntainer.remote.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
