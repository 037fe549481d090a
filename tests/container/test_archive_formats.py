"""Formats and compressions: whole archives come out the same, damaged ones never, and nobody is left at work."""

from __future__ import annotations

import bz2
import gzip
import io
import locale
import lzma
import os
import shutil
import signal
import stat
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import unpacking
from archives import Entry, newc, tar, write

from guntainer import errors, pack
from guntainer.archive import worker
from guntainer.archive.feeder import Feeder, Limits
from guntainer.archive.reading import Reader
from guntainer.archive.source import FilePart
from guntainer.store.lookup import open_store

FILTERS = ["gzip", "bzip2", "xz", "zstd", "lz4", "lzip", "lzma", "compress"]
KINDS = [("gnutar", None), ("pax", None), *(("gnutar", f) for f in FILTERS)]
KINDS += [("cpio_newc", None), ("cpio_newc", "lz4"), ("zip", None), ("zip", "xz"), ("7zip", None), ("7zip", "gzip")]
CHECKED = {"gzip", "bzip2", "xz", "lz4", "lzip"}  # the compressions that libarchive writes a checksum with


@pytest.fixture
def unpack(home: Path) -> Callable[[Path], Path]:
    def run(path: Path) -> Path:
        return Path(unpacking.unpack(str(path), str(home / f"out-{len(os.listdir(home))}")))

    return run


@pytest.fixture
def refused(home: Path) -> Callable[[bytes], str]:
    """Give bytes as an archive to the store: the one line that it is refused with; nothing is kept or left behind."""
    store = open_store()
    path = home / "work" / "archive"

    def run(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(errors.ArchiveError) as caught:
            unpacking.lease(store, str(path))
        assert os.listdir(home / "store" / "rootfs") == os.listdir(home / "store" / "incoming") == []
        text = str(caught.value)
        assert text.startswith(f"{path}: ") and len(text.splitlines()) == 1
        return text.removeprefix(f"{path}: ")

    return run


def some(count: int = 6, size: int = 700) -> list[Entry]:
    return [(f"f{n}", "file", {"data": os.urandom(size)}) for n in range(count)]


@pytest.mark.parametrize(("kind", "compression"), KINDS)
@pytest.mark.root
def test_round_trip(home: Path, unpack: Callable[[Path], Path], kind: str, compression: str | None) -> None:
    big = os.urandom(3 << 20)
    out = unpack(
        write(
            home / "a",
            kind,
            compression,
            ("d", "dir", {"mode": 0o750}),
            ("d/big", "file", {"data": big, "mode": 0o4755, "mtime": 12345}),
            ("d/späße", "file", {"data": b"x", "mode": 0o600}),
            ("empty", "file", {}),
            ("link", "sym", {"to": "d/big"}),
        )
    )
    assert (out / "d" / "big").read_bytes() == big and (out / "empty").read_bytes() == b""
    assert (out / "d" / "späße").read_bytes() == b"x" and os.readlink(out / "link") == "d/big"
    status = (out / "d" / "big").stat()
    assert status.st_mtime == 12345
    assert stat.S_IMODE(status.st_mode) == 0o4755 and stat.S_IMODE((out / "d").stat().st_mode) == 0o750


@pytest.mark.parametrize("kind", ["zip", "7zip", "pax"])
def test_names_do_not_depend_on_the_locale(home: Path, unpack: Callable[[Path], Path], kind: str) -> None:
    path = write(home / "a", kind, None, ("späße", "file", {}))
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        assert os.listdir(unpack(path)) == ["späße"]
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.parametrize(("kind", "compression"), KINDS)
def test_cut_anywhere_is_never_kept(
    home: Path, refused: Callable[[bytes], str], kind: str, compression: str | None
) -> None:
    whole = write(home / "whole", kind, compression, *some()).read_bytes()
    # without the pad behind it, and the second of a tar's two end marks, which nobody misses
    end = len(whole.rstrip(b"\0")) if compression is None else len(whole)
    for length in sorted({*range(0, end, max(1, end // 25)), end - 1, end - 6, end // 512 * 512}):
        said = refused(whole[:length])
        if length > 16 and length < end - 16:
            # a 7z's table is at its end, and what stands there instead may look like a damaged one
            words = ("truncated", "not an archive", *(["damaged"] if kind == "7zip" else []))
            assert any(word in said for word in words), (length, said)


@pytest.mark.parametrize(
    ("kind", "compression"), [(k, c) for k, c in KINDS if c in CHECKED or (c is None and k in ("zip", "7zip"))]
)
def test_a_changed_byte_is_seen(home: Path, refused: Callable[[bytes], str], kind: str, compression: str) -> None:
    whole = write(home / "whole", kind, compression, *some(size=5000)).read_bytes()
    for number in range(1, 20):
        data = bytearray(whole)
        data[len(whole) * number // 20] ^= 0x20
        refused(bytes(data))


def test_a_changed_byte_in_zstd_is_seen(home: Path, refused: Callable[[bytes], str]) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("no zstd here, and libarchive's own writer leaves the checksum out")
    path = tar(home / "a.tar", *some(size=5000))
    data = bytearray(subprocess.run(["zstd", "-qc", path], check=True, capture_output=True).stdout)
    data[len(data) // 2] ^= 1
    refused(bytes(data))


def test_a_changed_byte_in_gzips_checksum_is_seen(home: Path, refused: Callable[[bytes], str]) -> None:
    data = bytearray(gzip.compress(tar(home / "raw", *some()).read_bytes()))
    data[-6] ^= 1
    assert "damaged" in refused(bytes(data))


def test_lost_headers_are_seen(home: Path, refused: Callable[[bytes], str]) -> None:
    """In a tar zeros look like its end, and over a bad header of a cpio libarchive's reader passes with a warning."""
    whole = bytearray(tar(home / "raw", *some(), format_=tarfile.USTAR_FORMAT).read_bytes())
    whole[1536 : 1536 + 512] = bytes(512)
    assert "damaged after 1 entries" in refused(bytes(whole))
    cpio = bytearray(newc(*((f"f{n}", n, 0o100644, 1, b"x" * 500) for n in range(4))))
    cpio[cpio.index(b"f2") - 110] ^= 1
    refused(bytes(cpio))


@pytest.mark.parametrize("content", [b"", b"hello", os.urandom(3000), gzip.compress(b""), gzip.compress(b"hello")])
def test_not_an_archive(refused: Callable[[bytes], str], content: bytes) -> None:
    assert refused(content) == ("not an archive that libarchive knows" if content else "empty")


def test_without_any_entry(home: Path, refused: Callable[[bytes], str]) -> None:
    with zipfile.ZipFile(home / "a.zip", "w"):
        pass
    for content in (bytes(10240), gzip.compress(bytes(10240)), (home / "a.zip").read_bytes(), newc()):
        assert refused(content) == "holds no files"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_zip_in_a_compression(home: Path, unpack: Callable[[Path], Path], compress: Callable[[bytes], bytes]) -> None:
    """Written to a pipe, it has its files' sizes behind them."""
    data = os.urandom(2 << 20)

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, piece: bytes) -> int:  # type: ignore[override]
            self.data += piece
            return len(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        archive.writestr("d/f", data)
        archive.writestr("g", "text")
    (home / "a").write_bytes(compress(pipe.data))
    out = unpack(home / "a")
    assert (out / "d" / "f").read_bytes() == data and (out / "g").read_text() == "text"


def test_a_zip_that_leads_out(home: Path, unpack: Callable[[Path], Path]) -> None:
    with zipfile.ZipFile(home / "b.zip", "w") as archive:
        archive.writestr("../evil", "text")
    with pytest.raises(errors.ArchiveRefused, match=r"b\.zip: entry '\.\./evil' leads out"):
        unpack(home / "b.zip")


def test_several_members_and_what_follows_them(
    home: Path, unpack: Callable[[Path], Path], refused: Callable[[bytes], str]
) -> None:
    raw = tar(home / "raw", *some()).read_bytes()
    path = home / "a"
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        parts = compress(raw[:3000]) + compress(raw[3000:])
        path.write_bytes(parts)
        assert len(os.listdir(unpack(path))) == 6
        assert "something else follows" in refused(parts + b"garbage") or compress is lzma.compress
    path.write_bytes(gzip.compress(raw) + bytes(1000))  # a pad, as of a tape
    assert len(os.listdir(unpack(path))) == 6


def test_compressed_twice(home: Path, unpack: Callable[[Path], Path], refused: Callable[[bytes], str]) -> None:
    raw = tar(home / "raw", *some()).read_bytes()
    for compress in (gzip.compress, lzma.compress):
        (home / "a").write_bytes(gzip.compress(compress(raw)))
        assert len(os.listdir(unpack(home / "a"))) == 6
    assert "truncated" in refused(gzip.compress(lzma.compress(raw)[:-6]))


def test_two_tars_in_one(home: Path, unpack: Callable[[Path], Path]) -> None:
    one, two = tar(home / "1", ("a", "file", {})), tar(home / "2", ("b", "file", {}))
    (home / "a").write_bytes(gzip.compress(one.read_bytes() + two.read_bytes()))
    assert sorted(os.listdir(unpack(home / "a"))) == ["a", "b"]


def read(path: Path, tree: Path, limits: Limits) -> int:
    """Unpack in this process; returns how much of the archive was read when it was refused."""
    fd, root = os.open(path, os.O_RDONLY), os.open(tree, os.O_RDONLY)
    feeder = Feeder(FilePart(fd), "a", hash_it=True, limits=limits)
    try:
        with pytest.raises(errors.RootfsError):
            Reader(fd, "a", feeder, root, limits, lambda _: None).unpack()
    finally:
        feeder.close()
        done = os.lseek(fd, 0, os.SEEK_CUR)
        os.close(fd), os.close(root)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    return done


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_is_refused_is_not_read_on(home: Path, compression: str) -> None:
    rest = os.urandom(24 << 20)
    path = write(home / "a", "gnutar", compression, ("../evil", "file", {}), ("rest", "file", {"data": rest}))
    assert read(path, home / "work", Limits()) < 6 << 20
    path = write(home / "b", "gnutar", compression, ("rest", "file", {"data": rest}))
    assert read(path, home / "work", Limits(size_bytes=1 << 20, entries=10)) < 6 << 20


def test_a_bomb_behind_the_end_of_a_tar(home: Path, refused: Callable[[bytes], str]) -> None:
    raw = tar(home / "raw", ("f", "file", {})).read_bytes()
    (home / "a").write_bytes(gzip.compress(raw + bytes(32 << 20)))
    with pytest.raises(errors.ArchiveError, match="decompresses to more than"):
        unpacking.lease(open_store(), str(home / "a"), limits=(1 << 20, 100))
    assert os.listdir(home / "store" / "incoming") == []


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def stopped(path: Path, folder: Path) -> tuple[int, int, int]:
    """An unpacker that has a feeder, and is stopped: (its pid, its pipe, the feeder's pid)."""
    folder.mkdir()
    pid, pipe = worker.fork(worker.Task(("file", str(path), 0, 0), "a.tar", str(folder), hash_it=True, limits=None))
    while not children(pid):
        time.sleep(0.0005)
    os.kill(pid, signal.SIGSTOP)
    return pid, pipe, children(pid)[0]


def large(path: Path, kind: str) -> Path:
    if kind == "hash":
        # nothing to decompress, and seconds to hash
        with open(tar(path, ("f", "file", {})), "ab") as file:
            file.truncate(1 << 30)
        return path
    return write(path, "gnutar", kind, ("f", "file", {"data": os.urandom(32 << 20)}))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "hash"])
def test_the_feeder_ends_with_its_unpacker(home: Path, kind: str) -> None:
    pid, pipe, feeder = stopped(large(home / "a", kind), home / "out")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until = time.monotonic() + 3
    while state(feeder) != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert os.read(pipe, 100) == b""
    os.close(pipe)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("kind", ["gzip", "zstd", "hash"])
def test_a_killed_feeder_is_named(home: Path, kind: str) -> None:
    pid, pipe, feeder = stopped(large(home / "a", kind), home / "out")
    os.kill(feeder, signal.SIGKILL)
    os.kill(pid, signal.SIGCONT)
    data = b""
    while piece := os.read(pipe, 1 << 16):
        data += piece
    os.close(pipe)
    os.waitpid(pid, 0)
    kind_, name, text = worker.Pipe().feed(data)[-1][:3]
    assert (kind_, name) == ("failed", "ArchiveError")
    assert text == "a.tar: the process that decompresses and hashes it has died"


def test_pack_says_why_it_can_not_write(home: Path) -> None:
    with pytest.raises(errors.GuntainerError, match=r"x\.tar: the folder .*nope does not exist"):
        pack.pack(["sh"], str(home / "nope" / "x.tar"))
    (home / "shut").mkdir(mode=0o555)
    (home / "folder.tar").mkdir()
    for output in (home / "shut" / "x.tar.gz", home / "folder.tar"):
        if os.geteuid() or output.is_dir():
            with pytest.raises(errors.GuntainerError, match=r"pack: .*(denied|directory)") as caught:
                pack.pack(["sh"], str(output))
            assert len(str(caught.value).splitlines()) == 1 and ".new" not in str(caught.value)
    assert not list(home.rglob("*.new"))
