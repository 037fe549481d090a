"""Parts of a build without a container: what Copy reads and writes, layers' marks, and a layout that fails on its way."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from guntainer import errors
from guntainer.builder import content, layers
from guntainer.builder.layers import Layer
from guntainer.export import helper, layout
from guntainer.export.layout import Layout
from guntainer.idmap import Ids
from guntainer.image.config import Config


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """What runs in a process of its own otherwise sets it for good."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def digest_of(path: Path) -> str:
    fd = content.open_source(str(path.parent), path.name)
    try:
        return content.Content(path.name).digest(fd)
    finally:
        os.close(fd)


def test_a_digest_is_of_all_that_is_copied(tmp_path: Path) -> None:
    """And of nothing else: times are not in it."""
    one = tmp_path / "one"
    (one / "sub").mkdir(parents=True)
    (one / "sub" / "f").write_text("x")
    (one / "link").symlink_to("f")
    seen = {digest_of(one)}
    os.utime(one / "sub" / "f", (1, 1))
    os.utime(one, (1, 1))
    assert digest_of(one) in seen
    for change in (
        lambda: (one / "sub" / "f").write_text("y"),
        lambda: (one / "sub" / "f").chmod(0o700),
        lambda: (one / "sub").chmod(0o700),
        lambda: (one / "sub" / "f").rename(one / "f"),
        lambda: ((one / "link").unlink(), (one / "link").symlink_to("g")),
        lambda: ((one / "link").unlink(), (one / "link").write_text("g")),
        (one / "empty").mkdir,
    ):
        change()  # type: ignore[no-untyped-call]
        found = digest_of(one)
        assert found not in seen
        seen.add(found)


def test_what_is_copied_deeper_than_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a" / "/".join(["d"] * 300)).mkdir(parents=True)
    with pytest.raises(errors.GuntainerError, match="a: folders in it are deeper than 200"):
        digest_of(tmp_path / "a")


def test_a_source_that_changes_meanwhile(tmp_path: Path) -> None:
    """What is kept under a key is what the key says."""
    (tmp_path / "f").write_text("now")
    (tmp_path / "root").mkdir()
    with pytest.raises(errors.GuntainerError, match="f: changed while it was copied"):
        content.copy(str(tmp_path), "f", str(tmp_path / "root"), "/f", "0" * 64)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("file", "/new", {"new"}),
        ("file", "/a/b/new", {"a", "a/b", "a/b/new"}),
        ("file", "/there", {"there/file"}),
        ("file", "/new/", {"new", "new/file"}),
        ("file", "/there/old", set()),
        ("folder", "/new", {"new", "new/f", "new/link"}),
        ("folder", "/there", {"there/f", "there/link"}),
        ("folder", "/", {"f", "link"}),
        ("file", "/way/x", {"there/x"}),
        ("folder", "/way", {"there/f", "there/link"}),
        ("file", "/../../x", {"x"}),
    ],
)
def test_where_it_is_copied_to(tmp_path: Path, source: str, target: str, expected: set[str]) -> None:
    base, root = tmp_path / "base", tmp_path / "root"
    (base / "folder").mkdir(parents=True)
    (base / "file").write_text("x")
    (base / "folder" / "f").write_text("y")
    (base / "folder" / "link").symlink_to("/etc/passwd")
    (root / "there").mkdir(parents=True)
    (root / "there" / "old").symlink_to("/etc/passwd")
    (root / "way").symlink_to("/there")
    before = {str(path.relative_to(root)) for path in root.rglob("*")}
    content.copy(str(base), source, str(root), target, digest_of(base / source))
    assert {str(path.relative_to(root)) for path in root.rglob("*")} - before == expected
    if target == "/there/old":  # a link is replaced, not followed
        assert (root / "there" / "old").read_text() == "x" and not (root / "there" / "old").is_symlink()


def test_marks_of_overlayfs_become_whiteouts_of_their_own(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    for path in ("a/b/c", "a/x", "d"):
        (upper / path).mkdir(parents=True)
    (upper / "a" / "f").write_text("four")
    (tmp_path / "work" / "work").mkdir(parents=True, mode=0o700)
    try:
        for path in ("a/b", "a/b/c", "d"):
            os.setxattr(upper / path, "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("the file system here has no extended attributes")
    with helper.Helper(Ids(), lambda _fd: layers.settle(str(tmp_path)), "x") as one:
        settled = one.finish()
        assert len(settled.pop("seal")) == 64
        assert settled == {"entries": 6, "size_bytes": 4, "opaque": True}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opaque", "tree"]
    marks = {str(path.relative_to(tmp_path / "opaque")): path for path in (tmp_path / "opaque").rglob("*")}
    assert sorted(marks) == ["a", "a/b", "d"]
    assert all(stat.S_ISCHR(marks[name].lstat().st_mode) and marks[name].lstat().st_rdev == 0 for name in ("a/b", "d"))
    assert os.listxattr(tmp_path / "tree" / "a" / "b") == []
    assert layers.opaques(Layer(folder=str(tmp_path), opaque=True)) == {b"a/b", b"d"}


def test_a_helper_that_dies(tmp_path: Path) -> None:
    with pytest.raises(errors.GuntainerError, match="x: the process that reads it has died"):
        helper.Helper(Ids(), _die, "x").finish()
    with pytest.raises(errors.HostError, match="why; do that"):
        helper.Helper(Ids(), _refuse, "x").finish()
    with pytest.raises(errors.GuntainerError, match="/no/such: No such file or directory"):
        helper.Helper(Ids(), lambda _fd: {"x": os.open("/no/such", 0)}, "x").finish()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _die(_fd: int) -> NoReturn:
    os._exit(3)


def _refuse(_fd: int) -> dict[str, object]:
    raise errors.HostError("why", hint="do that")


def test_no_process_for_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(errors.Exhausted, match="x: no more processes are allowed"):
        helper.Helper(Ids(), lambda _fd: {}, "x")
    assert len(os.listdir("/proc/self/fd")) == before


# -- a layout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    before = len(os.listdir("/proc/self/fd"))
    yield tmp_path
    assert len(os.listdir("/proc/self/fd")) == before


def _said(fd: int) -> dict[str, object]:
    os.write(fd, b"layer")
    return {}


CONFIG = {"architecture": "amd64", "os": "linux"}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("fault", ["layer", "mkdir", "replace", "index"])
def test_a_layout_that_fails_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, fault: str, there: bool
) -> None:
    path = place / "image"
    if there:
        with Layout(str(path), "old") as made:
            made.finish(CONFIG)
    before = {str(one): one.is_file() and one.read_bytes() for one in place.rglob("*")}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    calls = []
    real = os.replace

    def second(*words: object, **settings: object) -> None:
        calls.append(words)
        if len(calls) == 2:
            full()
        real(*words, **settings)  # type: ignore[arg-type]

    with pytest.raises(OSError, match="No space left"), Layout(str(path), "new") as made:
        if fault == "layer":
            monkeypatch.setattr(layout.Sink, "write", full)
        made.add(helper.Helper(Ids(), _said, "x"))
        if fault == "mkdir":
            monkeypatch.setattr(os, "replace" if there else "mkdir", full)
        elif fault == "replace":
            monkeypatch.setattr(os, "replace", second)
        else:
            monkeypatch.setattr(layout, "_tag_of" if there else "_descriptor", full)
        made.finish(CONFIG)
    monkeypatch.undo()
    assert {str(one): one.is_file() and one.read_bytes() for one in place.rglob("*")} == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_same_layer_twice_is_one_blob(place: Path) -> None:
    path = place / "image"
    with Layout(str(path), "") as made:
        made.add(helper.Helper(Ids(), _said, "x"))
        made.add(helper.Helper(Ids(), _said, "x"))
        digest = made.finish(CONFIG)
    assert len(list((path / "blobs" / "sha256").iterdir())) == 3
    manifest = json.loads((path / "blobs" / "sha256" / digest).read_text())
    assert len(manifest["layers"]) == 2 and manifest["layers"][0] == manifest["layers"][1]


def test_what_an_image_says_of_itself() -> None:
    config = Config(
        env=(("A", "b"), ("C", "d=e")), cmd=("x",), entrypoint=("y",), ports=("80/tcp",), labels=(("l", "m"),), user="1"
    )
    assert layout.described(config) == {
        "User": "1",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["A=b", "C=d=e"],
        "Entrypoint": ["y"],
        "Cmd": ["x"],
        "Labels": {"l": "m"},
    }
    assert layout.described(Config()) == {}
    assert [layout.architecture(name) for name in ("x86_64", "arm64", "i386")] == ["amd64", "arm64", "386"]
