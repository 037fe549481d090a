"""From a folder to a tar: hostile names, deep trees, holes, links, and what changes while it is read."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guntainer import errors
from guntainer.archive.whole import Whole
from guntainer.archive.writing import Writer
from guntainer.export import names, walking
from guntainer.export.walking import Walk
from guntainer.store.remove import remove_tree


def written(folder: Path, **settings: Any) -> tuple[bytes, dict[str, int]]:
    fd = os.memfd_create("tar")
    writer = Writer(fd)
    try:
        counts = Walk(writer, **settings).run(str(folder))
        writer.close()
    finally:
        writer.free()
    data = os.pread(fd, 1 << 24, 0)
    os.close(fd)
    return data, counts


def tar_of(folder: Path, **settings: Any) -> tuple[tarfile.TarFile, dict[str, int]]:
    data, counts = written(folder, **settings)
    return tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape"), {**counts, "written": len(data)}


NAMES = [b"a\nb", b"\xff\xfe", b"x" * 255, "é".encode(), b"-rf", b" ", b"a\\b", b"*", b"\x01\x7f"]


def test_names_are_what_they_are(tmp_path: Path) -> None:
    for name in NAMES:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(name)
    tar, counts = tar_of(tmp_path)
    found = {os.fsencode(member.name): tar.extractfile(member) for member in tar if member.isfile()}
    assert {name: file.read() for name, file in found.items() if file is not None} == {name: name for name in NAMES}
    assert counts["entries"] == len(NAMES) + 1


def test_a_tree_deeper_than_descriptors_are_many(tmp_path: Path) -> None:
    """And than a path may be long."""
    depth = 1500
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.mkdir("after", dir_fd=here)
    os.close(here)
    (tmp_path / "e").mkdir()
    open_before = len(os.listdir("/proc/self/fd"))
    try:
        tar, counts = tar_of(tmp_path)
    finally:
        remove_tree(str(tmp_path / "d"))  # pytest could not
    found = [member.name for member in tar]
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert found[-2] == "/".join(["d"] * depth + ["after"])
    assert found[-1] == "e"
    assert counts["entries"] == depth + 3


def test_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"one")
    os.chmod(tmp_path / "a", 0o4711)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "l").symlink_to("../" * 30 + "etc/" + "y" * 200)
    os.mkfifo(tmp_path / "p", 0o600)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path may be longer than a socket's
        server.bind("s")
    os.utime(tmp_path / "a", ns=(0, 1_234_567_890_123_456_789))
    os.utime(tmp_path / "p", ns=(0, 5_000_000_000 * 10**9))
    tar, counts = tar_of(tmp_path)
    found = {member.name: member for member in tar}
    assert sorted(found) == [".", "a", "b", "l", "p"]
    assert (found["a"].mode, found["a"].pax_headers["mtime"]) == (0o4711, "1234567890.123456789")
    assert (found["b"].type, found["b"].linkname) == (tarfile.LNKTYPE, "a")
    assert found["l"].linkname == "../" * 30 + "etc/" + "y" * 200
    assert (found["p"].type, found["p"].mtime) == (tarfile.FIFOTYPE, 5_000_000_000)
    assert counts["sockets"] == 1


def test_the_same_tree_is_the_same_archive(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, order in ((one, NAMES), (other, NAMES[::-1])):
        folder.mkdir()
        for name in order:
            path = os.fsencode(folder) + b"/" + name
            with open(path, "wb") as file:
                file.write(name)
            os.utime(path, (1, 1))
        os.utime(folder, (1, 1))
    archives = [written(folder)[0] for folder in (one, other)]
    assert archives[0] == archives[1]


def test_holes_are_not_written(tmp_path: Path) -> None:
    size = 8 << 30
    with open(tmp_path / "disk", "wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"middle")
    with open(tmp_path / "empty", "wb") as file:
        file.truncate(size)
    with open(tmp_path / "end", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    tar, counts = tar_of(tmp_path)
    found = {member.name: member for member in tar}
    assert [found[name].size for name in ("disk", "empty", "end")] == [size, size, (1 << 20) + 3]
    middle = tar.extractfile(found["disk"])
    assert middle is not None
    middle.seek(size // 2)
    assert middle.read(8) == b"middle\0\0"
    assert counts["written"] < 1 << 20
    assert counts["size_bytes"] == 2 * size + (1 << 20) + 3


def test_xattrs_of_users_are_kept(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    try:
        os.setxattr(tmp_path / "f", "user.one", b"\0\xff=\n")
        os.setxattr(tmp_path, "user.root", b"r")
        os.setxattr(tmp_path / "f", "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("the file system here has no extended attributes")
    tar, _ = tar_of(tmp_path)
    found = {member.name: member.pax_headers for member in tar}
    kept = {name: [key for key in headers if key.startswith("SCHILY.xattr.")] for name, headers in found.items()}
    assert kept == {".": ["SCHILY.xattr.user.root"], "f": ["SCHILY.xattr.user.one"]}


def _grow(folder: Path) -> None:
    with open(folder / "b", "ab") as file:
        file.write(b"more")


def _touch(folder: Path) -> None:
    os.utime(folder / "b", ns=(0, time.time_ns() + 10**9))


def _shrink(folder: Path) -> None:
    os.truncate(folder / "b", 10)


def _vanish(folder: Path) -> None:
    (folder / "c").rename(folder.parent / "elsewhere")


def _move(folder: Path) -> None:
    (folder / "a").rename(folder / "c" / "a")


@pytest.mark.parametrize(("at", "change"), [("b", _grow), ("b", _touch), ("b", _shrink), ("b", _vanish), ("a/", _move)])
def test_what_changes_meanwhile(tmp_path: Path, at: str, change: Callable[[Path], None]) -> None:
    """Not half of it: an error."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"x" * (3 << 20))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "d").write_text("d")
    fd = os.memfd_create("tar")

    class Meddler(Writer):
        def begin(self, name: bytes, *words: Any, **settings: Any) -> None:
            super().begin(name, *words, **settings)
            if name == at.encode():
                change(tmp_path)

    writer = Meddler(fd)
    with pytest.raises(errors.GuntainerError, match="changed while it was written"):
        Walk(writer).run(str(tmp_path))
    writer.free()
    os.close(fd)


def test_mount_points_that_nothing_was_put_into(tmp_path: Path) -> None:
    for path in ("a/b/c", "a/d", "e", "f/g"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "used").write_text("x")
    points = frozenset({b"a/b", b"a/b/c", b"e", b"f", b"f/g", b"file", b"used", b"missing"})
    tar, _ = tar_of(tmp_path, points=points)
    assert [member.name for member in tar] == [".", "a", "a/d", "used"]


def test_marks_of_a_layer(tmp_path: Path) -> None:
    """A name that begins as a whiteout's does would hide another file."""
    (tmp_path / ".wh.etc").touch()
    (tmp_path / "fine").touch()
    tar, counts = tar_of(tmp_path, layer=True)
    assert ([member.name for member in tar], counts["marks"]) == ([".", "fine"], 1)
    tar, counts = tar_of(tmp_path)
    assert ([member.name for member in tar], counts["marks"]) == ([".", ".wh.etc", "fine"], 0)


def test_extents_without_holes_to_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that compresses has fewer blocks than bytes, and no holes."""
    (tmp_path / "f").write_bytes(b"x" * 100)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    assert list(walking._extents(fd, 100)) == [(0, 100)]
    os.close(fd)


# -- the file that it goes to


@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_is_there_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool) -> None:
    if not nameless:
        real = os.open

        def refused(path: str, flags: int, *words: Any, **settings: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "Operation not supported")
            return real(path, flags, *words, **settings)

        monkeypatch.setattr(os, "open", refused)
    out = tmp_path / ("o" * 251 + ".tar")
    out.write_text("before")
    with Whole(str(out)) as file:
        os.write(file.fd, b"half")
        assert out.read_text() == "before"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(out.name, "before")]
    (tmp_path / "link.tar").symlink_to(out)
    with Whole(str(tmp_path / "link.tar")) as file:
        os.write(file.fd, b"whole")
        file.keep()
    assert (out.read_text(), (tmp_path / "link.tar").is_symlink()) == ("whole", True)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_can_not_be_put_into_place(tmp_path: Path) -> None:
    (tmp_path / "out.tar").mkdir()
    with pytest.raises(IsADirectoryError) as caught, Whole(str(tmp_path / "out.tar")) as file:
        file.keep()
    assert caught.value.filename == str(tmp_path / "out.tar")
    assert [p.name for p in tmp_path.iterdir()] == ["out.tar"]


def test_where_an_archive_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.tar").mkdir()
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "shut").mkdir(mode=0o500)
    (tmp_path / "there.tar.gz").touch()
    assert [names.parse(f"o{suffix}").filter for suffix in (".tar", ".tgz", ".tar.zst")] == ["", "gzip", "zstd"]
    assert names.parse("there.tar.gz").path == "there.tar.gz"
    for text, told in {
        "o.zip": "unknown kind of archive; known are .tar, .tar.gz",
        ".tar": "unknown kind",
        "": "nothing: unknown kind",
        "no/o.tar": "does not exist",
        "folder.tar": "folder.tar is a folder: it is not replaced",
        "pipe.tar": "is there, and is no file: it is not replaced",
        "/dev/full.tar/o.tar": "does not exist",
    }.items():
        with pytest.raises(errors.UsageError, match=told):
            names.parse(text)
    if os.geteuid():
        with pytest.raises(errors.UsageError, match="can not be written"):
            names.parse("shut/o.tar")
