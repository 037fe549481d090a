"""Archive → tree: the same as tar makes it, or a refusal that names the entry; nothing outside is ever touched."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from guntainer import errors
from guntainer.archive import worker
from guntainer.store import fill
from guntainer.store.lookup import open_store
from guntainer.store.remove import remove_tree

Entry = tuple[str, str, dict[str, object]]


def tar(path: Path, *entries: Entry, mode: str = "w", format_: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=format_) as archive:  # type: ignore[call-overload]
        for name, kind, more in entries:
            info = tarfile.TarInfo(name)
            data = more.get("data", b"")
            assert isinstance(data, bytes)
            kinds = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "sym": tarfile.SYMTYPE, "link": tarfile.LNKTYPE}
            kinds |= {"fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE}
            info.type = kinds[kind]
            info.size = len(data)
            info.mode = int(more.get("mode", 0o755 if kind == "dir" else 0o644))  # type: ignore[call-overload]
            info.mtime = float(more.get("mtime", 1000))  # type: ignore[arg-type]
            info.linkname = str(more.get("to", ""))
            info.devmajor, info.devminor = 1, 3
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def unpack(home: Path) -> Callable[[Path], Path]:
    def run(path: Path) -> Path:
        return Path(fill.unpack_temporary(str(path), str(home / "out")))

    return run


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            status = path.lstat()
            what: object = None
            if path.is_symlink():
                what = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                what = path.read_bytes()
            times = None if path.is_symlink() else status.st_mtime_ns
            found[str(path.relative_to(root))] = (
                oct(status.st_mode),
                what,
                times,
                status.st_nlink if stat.S_ISREG(status.st_mode) else 0,
            )
    return found


GOOD: list[Entry] = [
    ("./", "dir", {}),
    ("etc/", "dir", {"mode": 0o750}),
    ("etc/a", "file", {"data": b"a" * 5000, "mode": 0o4755, "mtime": 12345.5}),
    ("etc/b", "sym", {"to": "/etc/a"}),
    ("etc/up", "sym", {"to": "../../../../x"}),
    ("etc/c", "link", {"to": "etc/a"}),
    ("etc/empty", "file", {"mode": 0}),
    ("deep/er/and/deeper", "file", {"data": b"x"}),
    ("pipe", "fifo", {}),
    ("n" * 200 + "/" + "m" * 200, "file", {"data": b"long"}),
    ("späße", "file", {"data": b"utf-8"}),
    ("new\nline", "file", {"data": b"n"}),
    ("closed", "dir", {"mode": 0}),
    ("closed/in", "file", {"data": b"in"}),
]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.root
def test_equals_tar(home: Path, unpack: Callable[[Path], Path], mode: str, format_: int) -> None:
    path = tar(home / "a.tar", *GOOD, mode=mode, format_=format_)
    out = unpack(path)
    (home / "gnu").mkdir()
    done = subprocess.run(
        ["tar", "-xpf", path, "-C", home / "gnu", "--no-same-owner", "--delay-directory-restore"],
        capture_output=True,
        check=False,
    )
    for root in (out, home / "gnu"):
        assert stat.S_IMODE((root / "closed").lstat().st_mode) == 0
        (root / "closed").chmod(0o700)
        (root / "etc" / "empty").chmod(0o600)
    assert done.returncode == 0
    ours, theirs = listing(out), listing(home / "gnu")
    for made_by_the_way in ("deep", "deep/er", "deep/er/and", "n" * 200):
        ours.pop(made_by_the_way), theirs.pop(made_by_the_way)
    assert ours == theirs


OUTSIDE: dict[str, list[Entry]] = {
    "dots": [("../evil", "file", {"data": b"x"})],
    "dots inside": [("a/../../evil", "file", {"data": b"x"})],
    "absolute": [("/tmp/evil", "file", {"data": b"x"})],
    "through a link": [("a", "sym", {"to": "/tmp"}), ("a/evil", "file", {"data": b"x"})],
    "through a link in": [("d", "dir", {}), ("a", "sym", {"to": "d"}), ("a/evil", "file", {"data": b"x"})],
    "through two links": [
        ("a", "sym", {"to": "."}),
        ("a/b", "sym", {"to": ".."}),
        ("a/b/evil", "file", {"data": b"x"}),
    ],
    "folder through a link": [("a", "sym", {"to": ".."}), ("a/evil", "dir", {})],
    "link through a link": [("a", "sym", {"to": ".."}), ("a/evil", "sym", {"to": "x"})],
    "fifo through a link": [("a", "sym", {"to": ".."}), ("a/evil", "fifo", {})],
    "hard link out": [("a", "link", {"to": "../../etc/passwd"})],
    "hard link absolute": [("a", "link", {"to": "/etc/passwd"})],
    "hard link through a link": [("a", "sym", {"to": "/etc"}), ("b", "link", {"to": "a/passwd"})],
    "hard link to nothing": [("b", "link", {"to": "later"}), ("later", "file", {})],
    "hard link to a folder": [("d", "dir", {}), ("b", "link", {"to": "d"})],
    "through a file": [("f", "file", {"data": b"x"}), ("f/g", "file", {"data": b"x"})],
}


@pytest.mark.parametrize("case", OUTSIDE)
@pytest.mark.root
def test_refused_by_name(home: Path, case: str) -> None:
    entries = OUTSIDE[case]
    path = tar(home / "work" / "a.tar", *entries)
    store = open_store()
    before = sorted(p for p in home.rglob("*") if "store" not in str(p))
    with pytest.raises(errors.ArchiveRefused) as caught:
        fill.lease(store, str(path))
    assert "'" in str(caught.value)
    assert sorted(p for p in home.rglob("*") if "store" not in str(p)) == before
    assert os.listdir(home / "store" / "rootfs") == os.listdir(home / "store" / "incoming") == []
    assert not Path("/tmp/evil").exists()


def test_a_link_that_was_written_through_is_replaced(home: Path, unpack: Callable[[Path], Path]) -> None:
    """A later entry of the same name replaces a link; it is not written through it."""
    target = home / "target"
    target.write_text("mine")
    out = unpack(tar(home / "a.tar", ("a", "sym", {"to": str(target)}), ("a", "file", {"data": b"new"})))
    assert target.read_text() == "mine"
    assert not (out / "a").is_symlink() and (out / "a").read_text() == "new"


def test_later_entries_replace_earlier_ones(home: Path, unpack: Callable[[Path], Path]) -> None:
    out = unpack(
        tar(
            home / "a.tar",
            ("f", "file", {"data": b"1"}),
            ("f", "file", {"data": b"22"}),
            ("d/x", "file", {"data": b"x"}),
            ("d", "file", {"data": b"now a file"}),
            ("g", "file", {}),
            ("g", "dir", {}),
            ("g/h", "file", {"data": b"h"}),
        )
    )
    assert (out / "f").read_bytes() == b"22"
    assert (out / "d").read_bytes() == b"now a file"
    assert (out / "g" / "h").read_bytes() == b"h"


def test_devices_are_skipped_and_counted(home: Path) -> None:
    path = tar(home / "a.tar", ("null", "char", {}), ("sda", "block", {}), ("f", "file", {}))
    facts = fill._work(worker.Task(str(path), "a", str(make(home / "o")), hash_it=False, limits=None), None)
    assert (facts["devices"], facts["entries"]) == (2, 3)
    assert os.listdir(home / "o" / "tree") == ["f"]


def make(path: Path) -> Path:
    path.mkdir()
    return path


def test_sparse_files_stay_sparse(home: Path, unpack: Callable[[Path], Path]) -> None:
    with open(home / "work" / "sparse", "wb") as file:
        file.write(b"head")
        file.seek(50 << 20)
        file.write(b"tail")
        file.truncate(60 << 20)
    subprocess.run(["tar", "-C", home / "work", "-cSf", home / "a.tar", "sparse"], check=True)
    out = unpack(home / "a.tar") / "sparse"
    status = out.stat()
    assert status.st_size == 60 << 20 and status.st_blocks * 512 < 4 << 20
    with open(out, "rb") as file:
        assert file.read(4) == b"head"
        file.seek(50 << 20)
        assert file.read(4) == b"tail"


def test_zip_and_cpio(home: Path, unpack: Callable[[Path], Path]) -> None:
    with zipfile.ZipFile(home / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/f", "text")
    assert (unpack(home / "a.zip") / "d" / "f").read_text() == "text"
    with zipfile.ZipFile(home / "b.zip", "w") as archive:
        archive.writestr("../evil", "text")
    remove_tree(str(home / "out"))
    with pytest.raises(errors.ArchiveRefused):
        unpack(home / "b.zip")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_cut_anywhere_is_never_kept(home: Path, mode: str) -> None:
    entries = [(f"f{n}", "file", {"data": os.urandom(700)}) for n in range(6)]
    whole = tar(home / "whole", *entries, mode=mode).read_bytes()  # type: ignore[arg-type]
    end = len(whole.rstrip(b"\0")) if mode == "w" else len(whole)
    store = open_store()
    path = home / "work" / "cut"
    for length in range(0, end, max(1, end // 25)):
        path.write_bytes(whole[:length])
        with pytest.raises(errors.ArchiveError) as caught:
            fill.lease(store, str(path))
        assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(home / "store" / "rootfs") == os.listdir(home / "store" / "incoming") == []


def test_a_wrong_checksum_is_seen(home: Path, unpack: Callable[[Path], Path]) -> None:
    raw = tar(home / "raw", ("f", "file", {"data": os.urandom(5000)})).read_bytes()
    data = bytearray(gzip.compress(raw))
    data[-6] ^= 1
    (home / "a.tar.gz").write_bytes(data)
    with pytest.raises(errors.ArchiveError, match="damaged"):
        unpack(home / "a.tar.gz")


@pytest.mark.parametrize(
    ("content", "say"), [(b"", "empty"), (b"hello", "not an archive"), (os.urandom(3000), "not an archive")]
)
def test_not_an_archive(home: Path, unpack: Callable[[Path], Path], content: bytes, say: str) -> None:
    (home / "a").write_bytes(content)
    with pytest.raises(errors.ArchiveError, match=say):
        unpack(home / "a")


def test_a_bomb_is_stopped(home: Path) -> None:
    path = tar(home / "a.tar.gz", ("zeros", "file", {"data": bytes(8 << 20)}), mode="w:gz")
    store = open_store()
    with pytest.raises(errors.ArchiveRefused, match="more than 1 MiB"):
        fill.lease(store, str(path), limits=(1 << 20, 100))
    many = tar(home / "b.tar", *[(f"f{n}", "file", {}) for n in range(50)])
    with pytest.raises(errors.ArchiveRefused, match="more than 10 entries"):
        fill.lease(store, str(many), limits=(1 << 20, 10))
    assert os.listdir(home / "store" / "incoming") == []


def test_one_top_folder_is_the_rootfs(home: Path, unpack: Callable[[Path], Path]) -> None:
    out = unpack(tar(home / "a.tar", ("top/bin/x", "file", {}), ("top/etc", "dir", {})))
    assert sorted(os.listdir(out)) == ["bin", "etc"]


def test_an_image_is_recognised(home: Path, unpack: Callable[[Path], Path], distributions: Path) -> None:
    image = next(distributions.glob("docker-*.tar"), None)
    if image is None:
        pytest.skip("no real distributions here: set GUNTAINER_TEST_ROOTFS to a folder of rootfs archives")
    with pytest.raises(errors.RootfsError, match="container image"):
        unpack(image)


def test_alpine_equals_tar(home: Path, alpine: Path, unpack: Callable[[Path], Path]) -> None:
    out = unpack(alpine)
    (home / "gnu").mkdir()
    subprocess.run(["tar", "-xpf", alpine, "-C", home / "gnu", "--no-same-owner"], check=True)
    assert listing(out) == listing(home / "gnu")


def test_remove_tree(home: Path) -> None:
    root = home / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("x")
    (root / "out").symlink_to(home / "work")
    (home / "work" / "keep").write_text("kept")
    (root / "a").chmod(0)
    deep = root
    for _ in range(500):
        deep = deep / "d"
        os.mkdir(deep)
    remove_tree(str(root))
    assert not root.exists() and (home / "work" / "keep").exists()
    remove_tree(str(root))
