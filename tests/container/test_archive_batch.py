"""Small files that are written many at a time: the same tree, or the same refusal, as one after the other."""

from __future__ import annotations

import _thread
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import Entry, tar, write

from guntainer.archive import batch, worker

Unpack = Callable[[Path], dict[str, Any] | str]

needs_machine_code = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="there is no machine code for this processor"
)


@pytest.fixture
def unpack(home: Path) -> Unpack:
    """What a worker makes of an archive: what it has unpacked, name by name, or the line that it is refused with."""

    def run(path: Path) -> dict[str, Any] | str:
        folder = home / "out"
        folder.mkdir()
        try:
            pid, pipe = worker.fork(
                worker.Task(("file", str(path), 0, 0), "it", str(folder), hash_it=False, limits=None)
            )
            told = b"".join(iter(lambda: os.read(pipe, 1 << 16), b""))
            os.close(pipe)
            os.waitpid(pid, 0)
            last = worker.Pipe().feed(told)[-1]
            return str(last[2]) if last[0] == "failed" else dict(look(folder / "tree"))
        finally:
            shutil.rmtree(folder)

    return run


def look(top: Path) -> Iterator[tuple[str, Any]]:
    for folder, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = Path(folder, name)
            status = path.lstat()
            content: Any = os.readlink(path) if path.is_symlink() else None
            if path.is_file() and not path.is_symlink():
                path.chmod(0o600)
                content = path.read_bytes()
            elif path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
            links = status.st_nlink if path.is_file() else 0
            # a folder without an entry has the time at which it was made
            mtime_ns = 0 if path.is_dir() and status.st_mtime_ns > 10**18 else status.st_mtime_ns
            yield str(path.relative_to(top)), (oct(status.st_mode), mtime_ns, links, content)


@pytest.fixture
def both(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> Unpack:
    """`unpack`, which must come to the same in both ways."""

    def run(path: Path) -> dict[str, Any] | str:
        batched = unpack(path)
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_machine", [None])
            assert unpack(path) == batched
        return batched

    return run


@needs_machine_code
def test_it_is_used(home: Path, unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(home / "a", ("f", "file", {"data": b"x"}))
    assert isinstance(unpack(path), dict)

    def fail(*_: object) -> None:
        raise ValueError("used")

    monkeypatch.setattr(batch.Batch, "add", fail)
    assert "used" in unpack(path)


def test_what_comes_out(home: Path, both: Unpack) -> None:
    entries: list[Entry] = [
        ("d", "dir", {"mode": 0o500}),
        ("d/empty", "file", {"mode": 0o000}),
        ("d/read-only", "file", {"data": b"1", "mode": 0o444}),
        ("d/early", "file", {"data": b"1", "mtime": -2.0}),
        ("d/late", "file", {"data": b"1", "mtime": 2**33 + 0.25}),
        ("d/setuid", "file", {"data": b"1", "mode": 0o4755}),
        ("e/f/g/implied", "file", {"data": b"2" * 300_000}),
        ("./e//f/./odd", "file", {"data": b"3" * 262_144, "mode": 0o777}),
        ("n" * 255, "file", {"data": b"4"}),
        ("e/\udcff\n", "file", {"data": b"5"}),
    ]
    found = both(tar(home / "a", *entries))
    assert isinstance(found, dict)
    assert found["d/read-only"] == ("0o100444", 1000 * 10**9, 1, b"1")
    assert found["d/early"][1] == -2_000_000_000 and found["d/setuid"][0] == "0o104755"
    assert found["e/f/odd"][3] == b"3" * 262_144 and found["n" * 255][3] == b"4"


@pytest.mark.parametrize("kind", ["cpio_newc", "zip", "7zip", "pax"])
def test_other_formats(home: Path, both: Unpack, kind: str) -> None:
    entries: list[Entry] = [(f"d/{number}", "file", {"data": os.urandom(number * 37)}) for number in range(600)]
    found = both(write(home / "a", kind, None, *entries))
    assert isinstance(found, dict) and found["d/599"][3] == entries[599][2]["data"]


def test_the_last_of_many_stays(home: Path, both: Unpack) -> None:
    entries: list[Entry] = [("d/f", "file", {"data": str(number).encode()}) for number in range(400)]
    found = both(tar(home / "a", *entries, ("g", "link", {"to": "d/f"})))
    assert isinstance(found, dict) and found["d/f"][2:] == (2, b"399")


NAMES = ["a", "b", "a/a", "a/b", "b/a", "a/a/a", "c", "./a", "a//b"]
KINDS = ["file"] * 6 + ["dir", "dir", "sym", "link", "fifo"]


@pytest.mark.parametrize("seed", range(80))
def test_names_that_meet(home: Path, both: Unpack, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Files in the place of folders, links in that of files, and what then lies below them, in any order."""
    chance = random.Random(seed)
    monkeypatch.setattr(batch, "_ROWS", chance.choice([1, 2, 3, 128]))

    def entry() -> Entry:
        kind = chance.choice(KINDS)
        more: dict[str, object] = {"to": chance.choice(NAMES)} if kind in ("sym", "link") else {}
        if kind == "file":
            more = {
                "data": chance.randbytes(chance.choice([0, 1, 50, 270_000])),
                "mode": chance.choice([0o644, 0o4755, 0]),
            }
        return (chance.choice(NAMES), kind, more)

    both(tar(home / "a", *(entry() for _ in range(chance.choice([3, 8, 20])))))


def test_sparse(home: Path, both: Unpack) -> None:
    hole = home / "hole"
    with hole.open("wb") as file:
        file.truncate(60_000)
        file.seek(30_000)
        file.write(b"xyz")
    subprocess.run(["tar", "--sparse", "-cf", home / "a", "-C", home, "hole"], check=True)
    found = both(home / "a")
    assert isinstance(found, dict) and found["hole"][3] == hole.read_bytes()


def test_where_no_thread_may_be(home: Path, unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    entries: list[Entry] = [(f"d/{number % 250}", "file", {"data": str(number).encode()}) for number in range(1000)]
    found = unpack(tar(home / "a", *entries))
    assert isinstance(found, dict) and len(found) == 251 and found["d/249"][3] == b"999"


def test_where_memory_may_not_be_executed(home: Path, unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    from guntainer.kernel import syscalls

    def refuse(_code: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(syscalls, "executable", refuse)
    monkeypatch.setattr(batch, "_machine", [])
    found = unpack(tar(home / "a", ("f", "file", {"data": b"x"})))
    assert isinstance(found, dict) and found["f"][3] == b"x"


def test_what_can_not_be_written_is_named(home: Path, unpack: Unpack) -> None:
    """RLIMIT_FSIZE: the kernel writes a part, and then refuses."""
    entries: list[Entry] = [(f"f{number}", "file", {"data": b"x"}) for number in range(5)]
    path = tar(home / "a", *entries, ("d/large", "file", {"data": b"x" * 50_000}), *entries)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        found = unpack(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found == "it: entry 'd/large': File too large"


def test_a_table_leaves_nothing_open(home: Path) -> None:
    goal = home / "goal"
    goal.mkdir()
    before = os.listdir("/proc/self/fd")
    written: list[bytes] = []
    mask = os.umask(0)
    try:
        made = batch.open_batch(
            fd := os.open(goal, os.O_RDONLY | os.O_DIRECTORY), lambda name, *_: written.append(name)
        )
        assert batch.open_batch(fd, lambda *_: None) is not None or made is None
    finally:
        os.umask(mask)
    os.close(fd)
    if made is None:
        pytest.skip("there is no machine code for this processor")
    for number in range(300):
        made.place(0)
        folder = os.open(goal, os.O_RDONLY | os.O_DIRECTORY)
        made.add(folder, b"%d" % (number // 2), b"%d" % number, b"%d" % number, 0o600, 0, None, 0)
        made.close_later(folder)
    made.flush()
    assert len(os.listdir(goal)) == 150 and written == [b"%d" % number for number in range(1, 300, 2)]
    made.place(0)
    made.add(-1, b"never", b"n", b"n", 0o600, 0, None, 0)
    made.end()
    assert os.listdir("/proc/self/fd") == before and len(os.listdir(goal)) == 150


def test_a_default_acl_is_not_batched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getxattr", lambda *_: b"")
    mask = os.umask(0)
    try:
        assert batch.open_batch(0, lambda *_: None) is None
    finally:
        os.umask(mask)
    assert batch.open_batch(0, lambda *_: None) is None  # nor with a umask
