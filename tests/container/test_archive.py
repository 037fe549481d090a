"""Archive → tree: the same as tar makes it, or a refusal that names the entry; nothing outside is ever touched."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import unpacking
from archives import Entry, listing, newc, tar

from guntainer import errors
from guntainer.archive import inspection, worker
from guntainer.store.filling import wanted_archive
from guntainer.store.lookup import open_store
from guntainer.store.remove import remove_tree


@pytest.fixture
def unpack(home: Path) -> Callable[[Path], Path]:
    def run(path: Path) -> Path:
        return Path(unpacking.unpack(str(path), str(home / "out")))

    return run


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
    "hard link to nothing": [("b", "link", {"to": "never"}), ("later", "file", {})],
    "hard links in a circle": [("a", "link", {"to": "b"}), ("b", "link", {"to": "a"})],
    "late hard link through a link": [("b", "link", {"to": "a/passwd"}), ("a", "sym", {"to": "/etc"})],
    "late hard link to a folder": [("b", "link", {"to": "d"}), ("d", "dir", {})],
    "hard link with bytes to a fifo": [("p", "fifo", {}), ("q", "link", {"to": "p", "data": b"x"})],
    "hard link with bytes to nothing": [("q", "link", {"to": "p", "data": b"x"})],
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
        unpacking.lease(store, str(path))
    assert str(caught.value).startswith(f"{path}: ") and "'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
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


def test_hard_links_before_their_targets(home: Path, unpack: Callable[[Path], Path]) -> None:
    out = unpack(
        tar(
            home / "a.tar",
            ("d/a", "link", {"to": "d/b"}),
            ("d/b", "link", {"to": "later/c"}),
            ("taken", "link", {"to": "later/c"}),
            ("taken", "file", {"data": b"mine"}),
            ("later/c", "file", {"data": b"c", "mode": 0o444}),
        )
    )
    assert (out / "d" / "a").read_bytes() == b"c" and (out / "later" / "c").stat().st_nlink == 3
    assert (out / "taken").read_bytes() == b"mine"


def test_the_last_of_several_links_brings_the_bytes(home: Path, unpack: Callable[[Path], Path]) -> None:
    """So it is in cpio's newc, and the first may be unwritable by then."""
    mode = stat.S_IFREG | 0o4555
    (home / "a.cpio").write_bytes(newc(("a", 7, mode, 3, b""), ("b", 7, mode, 3, b""), ("c", 7, mode, 3, b"bytes")))
    out = unpack(home / "a.cpio")
    status = (out / "a").stat()
    assert (out / "a").read_bytes() == b"bytes" and status.st_nlink == 3
    assert status.st_mode == mode and status.st_mtime == 1000


@pytest.mark.parametrize("mode", [0, 0o111, 0o555])
@pytest.mark.parametrize("top", ["./", "top/"])
def test_the_rootfs_can_be_entered_whatever_its_mode(
    home: Path, unpack: Callable[[Path], Path], top: str, mode: int
) -> None:
    out = unpack(tar(home / "a.tar", (top, "dir", {"mode": mode}), (f"{top}bin/x", "file", {})))
    assert stat.S_IMODE(out.stat().st_mode) == mode | 0o700
    assert os.listdir(out) == ["bin"]


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_are_kept_to_the_byte(home: Path, unpack: Callable[[Path], Path], format_: int) -> None:
    names = ["new\nline", "x" * 255, "späße", "tab\t", "back\\slash", " ", "[a]*", "\x7f\x1b"]
    if format_ == tarfile.GNU_FORMAT:
        names.append(os.fsdecode(b"latin-1 \xe4\xff"))
    path = tar(home / "a.tar", *[(name, "file", {}) for name in names], format_=format_)
    out = unpack(path)
    assert sorted(os.listdir(out)) == sorted(names)


def test_a_name_that_the_file_system_does_not_take(home: Path, unpack: Callable[[Path], Path]) -> None:
    path = tar(home / "a.tar", ("line\nbreak" + "x" * 255, "file", {}))
    with pytest.raises(errors.ArchiveError) as caught:
        unpack(path)
    assert str(caught.value).startswith(f"{path}: entry 'line\\nbreakx") and "too long" in str(caught.value)


def test_a_deep_name(home: Path, unpack: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.chdir(unpack(tar(home / "a.tar", ("d/" * 1900 + "f", "file", {"data": b"x"}))))
        assert Path("d/" * 1900 + "f").read_bytes() == b"x"
    finally:
        remove_tree(str(home / "out"))  # pytest's own clean-up does not get so deep
    assert not (home / "out").exists()


def test_devices_are_skipped_and_counted(home: Path) -> None:
    link = ("also", "link", {"to": "null"})  # to what was left out, so it is left out as well
    path = tar(home / "a.tar", ("null", "char", {}), ("sda", "block", {}), link, ("f", "file", {}))
    facts = unpacking.work(
        worker.Task(("file", str(path), 0, 0), "a", str(make(home / "o")), hash_it=False, limits=None)
    )
    assert (facts["devices"], facts["entries"]) == (3, 4)
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


def test_a_bomb_is_stopped(home: Path) -> None:
    path = tar(home / "a.tar.gz", ("zeros", "file", {"data": bytes(8 << 20)}), mode="w:gz")
    store = open_store()
    with pytest.raises(errors.ArchiveRefused, match="more than 1 MiB"):
        unpacking.lease(store, str(path), limits=(1 << 20, 100))
    many = tar(home / "b.tar", *[(f"f{n}", "file", {}) for n in range(50)])
    with pytest.raises(errors.ArchiveRefused, match="more than 10 entries"):
        unpacking.lease(store, str(many), limits=(1 << 20, 10))
    assert os.listdir(home / "store" / "incoming") == []


def test_one_top_folder_is_the_rootfs(home: Path, unpack: Callable[[Path], Path]) -> None:
    out = unpack(tar(home / "a.tar", ("top/bin/x", "file", {}), ("top/etc", "dir", {})))
    assert sorted(os.listdir(out)) == ["bin", "etc"]


@pytest.mark.parametrize("names", [["oci-layout", "index.json", "blobs/sha256/a"], ["manifest.json", "x/layer.tar"]])
@pytest.mark.parametrize("top", ["", "image/"])
def test_an_image_is_recognised(home: Path, top: str, names: list[str]) -> None:
    path = tar(home / "a.tar", *[(top + name, "file", {"data": b'[{"Layers": []}]'}) for name in names])
    facts = unpacking.work(unpacking.task_for(wanted_archive(str(path)), str(home / "out")))
    assert facts["image"] == f"tree/{top}".rstrip("/")


def test_a_manifest_of_something_else_makes_no_image(home: Path, unpack: Callable[[Path], Path]) -> None:
    """A web application has a manifest.json too."""
    out = unpack(tar(home / "a.tar", ("manifest.json", "file", {"data": b'{"name": "app"}'}), ("app", "file", {})))
    assert sorted(os.listdir(out)) == ["app", "manifest.json"]


def test_a_rootfs_with_an_images_file_is_one() -> None:
    assert inspection.is_image(["oci-layout", "blobs"]) and not inspection.is_image(["manifest.json", "etc"])


def test_a_real_image_is_recognised(home: Path, distributions: Path) -> None:
    image = next(distributions.glob("docker-*.tar"), None)
    if image is None:
        pytest.skip("no real distributions here: set GUNTAINER_TEST_ROOTFS to a folder of rootfs archives")
    facts = unpacking.work(unpacking.task_for(wanted_archive(str(image)), str(home / "out")))
    assert facts["image"] == "tree"


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


def test_remove_a_deep_tree_without_permissions(home: Path) -> None:
    """Deeper than can be held open: its lower part is moved, among names that are taken."""
    root = deep = home / "tree"
    root.mkdir()
    made = []
    for _ in range(460):
        deep = deep / "d"
        deep.mkdir()
        made.append(deep)
        if len(made) < 210:
            (deep / ".moved-1").mkdir()
    (deep / "file").write_text("x")
    for folder in reversed(made):
        folder.chmod(0o555)
    (root / ".moved-1").mkdir()
    (root / ".moved-1" / "full").mkdir()
    remove_tree(str(root))
    assert not root.exists()
