"""Sources of an archive's bytes: a part of a file, a download; what they must have for a digest, and who ends when."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import marshal
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Entry, tar, write

from guntainer import errors
from guntainer.archive import filters, worker
from guntainer.archive.source import Download, FilePart, open_source

SOME: tuple[Entry, ...] = (
    ("etc", "dir", {}),
    ("etc/hostname", "file", {"data": b"box\n"}),
    ("big", "file", {"data": bytes(range(256)) * 4096}),
    ("link", "sym", {"to": "etc/hostname"}),
)
Serve = Callable[..., None]
Run = Callable[..., dict[str, Any]]


class Stream:
    """What the download room gives: bytes in small pieces, and then a failure, or silence."""

    def __init__(self, data: bytes, *, size: int, failure: errors.GuntainerError | None, silent: bool) -> None:
        self._data = data
        self.size = size
        self._failure = failure
        self._silent = silent

    def read(self, n: int) -> bytes:
        piece, self._data = self._data[: min(n, 5000)], self._data[min(n, 5000) :]
        if not piece and self._failure is not None:
            raise self._failure
        while not piece and self._silent:
            time.sleep(0.1)
        return piece

    def close(self) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Say what a download brings: in a process that is forked from this one."""

    def bring(
        data: bytes, *, failure: errors.GuntainerError | None = None, known: bool = True, silent: bool = False
    ) -> None:
        module: Any = types.ModuleType("guntainer.remote.download")
        module.open_stream = lambda _request: Stream(
            data, size=len(data) if known else -1, failure=failure, silent=silent
        )
        monkeypatch.setitem(sys.modules, "guntainer.remote.download", module)

    return bring


@pytest.fixture
def run(home: Path) -> Run:
    """Unpack a source into a new folder: what the worker tells, `progress` among it; nothing of it lives afterwards."""

    def work(source: tuple[Any, ...], **task: Any) -> dict[str, Any]:
        folder = home / f"out-{len(os.listdir(home))}"
        folder.mkdir()
        pid, pipe = worker.fork(worker.Task(source, "it", str(folder), **{"hash_it": True, "limits": None, **task}))
        messages = [message for data in iter(lambda: os.read(pipe, 1 << 16), b"") for message in [data]]
        os.waitpid(pid, 0)
        os.close(pipe)
        told = worker.Pipe().feed(b"".join(messages))
        if told[-1][0] == "failed":
            _, kind, message, hint, _ = told[-1]
            raise getattr(errors, kind)(message, hint=hint)
        return {**told[-1][1], "folder": folder, "progress": told[:-1]}

    return work


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plain(home: Path) -> bytes:
    return tar(home / "plain", *SOME).read_bytes()


def packed(home: Path, how: str) -> bytes:
    if how == "plain":
        return plain(home)
    return write(
        home / f"packed-{how}", "zip" if how == "zip" else "gnutar", None if how == "zip" else how, *SOME
    ).read_bytes()


def check(facts: dict[str, Any]) -> None:
    tree = facts["folder"] / "tree"
    assert (tree / "etc" / "hostname").read_bytes() == b"box\n"
    assert digest((tree / "big").read_bytes()) == digest(bytes(range(256)) * 4096)
    assert os.readlink(tree / "link") == "etc/hostname"
    assert sorted(os.listdir(facts["folder"])) == ["tree"] and sorted(os.listdir(tree)) == ["big", "etc", "link"]


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "xz"])
def test_a_part_of_a_file(home: Path, run: Run, how: str) -> None:
    data = packed(home, how)
    (home / "all").write_bytes(b"x" * 1000 + data + b"garbage" * 1000)
    facts = run(("file", str(home / "all"), 1000, len(data)))
    check(facts)
    assert facts["digest"] == digest(data)


@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_a_part_that_is_cut(home: Path, run: Run, how: str) -> None:
    data = packed(home, how)
    (home / "all").write_bytes(b"x" * 1000 + data[:-3000])
    with pytest.raises(errors.ArchiveError, match="truncated"):
        run(("file", str(home / "all"), 1000, len(data)))


def test_the_size_of_a_whole_file_is_its_own(home: Path, run: Run) -> None:
    (home / "all").write_bytes(packed(home, "gzip"))
    check(run(("file", str(home / "all"), 0, 10)))


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "xz", "bzip2", "zip"])
@pytest.mark.parametrize("known", [True, False])
def test_a_download(home: Path, run: Run, serve: Serve, how: str, known: bool) -> None:
    data = packed(home, how)
    serve(data, known=known)
    facts = run(("remote", ("http", "somewhere")), hash_it=False, expect=digest(data))
    check(facts)
    assert facts["digest"] == digest(data) and facts["key"] == ()


def test_an_empty_download(run: Run, serve: Serve) -> None:
    serve(b"", known=False)
    with pytest.raises(errors.ArchiveError, match=r"^it: empty$"):
        run(("remote", ()))


@pytest.mark.parametrize("how", ["plain", "gzip", "xz"])
@pytest.mark.parametrize("after", [0, 2, 700, 20_000, -1])
def test_a_download_that_fails(home: Path, run: Run, serve: Serve, how: str, after: int) -> None:
    data = packed(home, how)
    serve(data if after < 0 else data[:after], failure=errors.HostError("it.example: gone away", hint="try later"))
    with pytest.raises(errors.HostError, match=r"^it\.example: gone away; try later$"):
        run(("remote", ()))


@pytest.mark.parametrize("how", ["plain", "gzip", "xz"])
def test_a_download_that_is_cut_or_has_more(home: Path, run: Run, serve: Serve, how: str) -> None:
    data = packed(home, how)
    serve(data[:-3000] if how == "plain" else data[:-9])
    with pytest.raises(errors.ArchiveError, match="truncated"):
        run(("remote", ()))
    serve(data + bytes(299_520))
    assert run(("remote", ()))["digest"] == digest(data + bytes(299_520))
    if how != "plain":
        serve(data + bytes(299_520) + b"more")
        with pytest.raises(errors.ArchiveError, match=r"it: (damaged|truncated)"):
            run(("remote", ()))


@pytest.mark.parametrize("where", ["file", "part", "remote"])
def test_another_digest_than_demanded(home: Path, run: Run, serve: Serve, where: str) -> None:
    data = packed(home, "gzip")
    (home / "all").write_bytes(b"x" + data if where == "part" else data)
    serve(data)
    source = ("remote", ()) if where == "remote" else ("file", str(home / "all"), int(where == "part"), len(data))
    assert run(source, expect=digest(data))["digest"] == digest(data)
    with pytest.raises(errors.RootfsError, match=f"^it: its sha256 is {digest(data)}, but {'0' * 64} was demanded"):
        run(source, expect="0" * 64)


@pytest.mark.parametrize("how", ["plain", "gzip", "xz"])
@pytest.mark.parametrize("where", ["file", "part", "remote"])
def test_another_content_than_demanded(home: Path, run: Run, serve: Serve, how: str, where: str) -> None:
    data = packed(home, how)
    (home / "all").write_bytes(b"x" + data if where == "part" else data)
    serve(data)
    source = ("remote", ()) if where == "remote" else ("file", str(home / "all"), int(where == "part"), len(data))
    content = digest(data if how == "plain" else {"gzip": gzip, "xz": lzma}[how].decompress(data))
    facts = run(source, hash_it=False, diff_id=content)
    assert facts["digest"] == digest(data)
    check(facts)
    with pytest.raises(errors.RootfsError, match=f"{content}, but {'1' * 64} was demanded"):
        run(source, diff_id="1" * 64)


def test_progress_of_a_download(home: Path, run: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_INTERVAL_S", 0.0)
    many: list[Entry] = [(f"f{n}", "file", {"data": os.urandom(900)}) for n in range(600)]
    data = gzip.compress(tar(home / "many", *many).read_bytes())
    for known in (True, False):
        serve(data, known=known)
        told = run(("remote", ()))["progress"]
        assert told and all(size == (len(data) if known else 0) and 0 < done <= len(data) for _, done, size in told)


def test_what_libarchive_read_ahead_is_looked_at() -> None:
    raw = os.urandom(200_000)
    for more, failure in ((b"", ""), (bytes(100_000), ""), (bytes(100_000) + b"x", "damaged (something else")):
        data = bz2.compress(raw) + more
        pieces = iter([data[at : at + 777] for at in range(0, len(data), 777)])
        out: list[bytes] = []
        assert filters.undo(lambda _n, pieces=pieces: next(pieces, b""), out_to(out)).startswith(failure)  # type: ignore[misc]
        assert b"".join(out) == raw


def out_to(out: list[bytes]) -> Callable[[memoryview], None]:
    return lambda view: out.append(bytes(view))


def test_what_reading_raises_comes_through_libarchive() -> None:
    pieces = [lzma.compress(os.urandom(200_000))[:100_000]]

    def read(_n: int) -> bytes:
        if pieces:
            return pieces.pop()
        raise errors.HostError("gone")

    with pytest.raises(errors.HostError, match="gone"):
        filters.undo(read, lambda _view: None)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_silent_server_holds_nobody(home: Path, serve: Serve) -> None:
    serve(b"", known=False, silent=True)
    folder = home / "out"
    folder.mkdir()
    pid, pipe = worker.fork(worker.Task(("remote", ()), "it", str(folder), hash_it=True, limits=None))
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (found := children.read_text().split()) or not (folder / "tree").exists():
        time.sleep(0.001)
    while b"prctl" in Path(f"/proc/{found[0]}/syscall").read_bytes():
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pipe)
    until = time.monotonic() + 5
    while state(int(found[0])) != "Z":
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_spawned_worker_is_told_in_secret(home: Path, traces: Any) -> None:
    secret = "hunter2" * 20_000  # more than a pipe takes
    folder = home / "out"
    folder.mkdir()
    pid, pipe = worker.spawn(worker.Task(("remote", ("none", secret)), "it", str(folder), hash_it=True, limits=None))
    seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    told = b"".join(iter(lambda: os.read(pipe, 1 << 16), b""))
    os.waitpid(pid, 0)
    os.close(pipe)
    assert b"hunter2" not in seen and b"hunter2" not in told
    assert worker.Pipe().feed(told)[-1][0] == "failed"


def test_a_part_reads_no_more_than_its_own(home: Path) -> None:
    (home / "f").write_bytes(bytes(range(100)))
    part = open_source(("file", str(home / "f"), 10, 20))
    assert isinstance(part, FilePart)
    try:
        assert part.peek(3) == b"\x0a\x0b\x0c" and not part.whole and part.size == 20
        assert part.read(15) == bytes(range(10, 25)) and part.consumed() == 15
        assert part.again(18, 9) == b"\x1c\x1d" and part.again(21, 9) == b""
        assert part.read(15) == bytes(range(25, 30)) and part.read(15) == b""
    finally:
        part.close()


def test_a_download_says_nothing_of_its_request() -> None:
    download = Download(("https", "token hunter2"))
    try:
        assert "hunter2" not in repr(download)
        assert marshal.dumps(("remote", ("https", "x")))
    finally:
        download.close()
