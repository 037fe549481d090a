"""Which entries a name stands for, and what a seal sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guntainer import errors
from guntainer.archive.seal import seal
from guntainer.store.choosing import choose
from guntainer.store.entries import Entry, total

A, B = "a1" * 32, "a1" + "b2" * 31
FOUND = [
    Entry(name=A, digest=A, size_bytes=5, sources=("/x/a.tar",)),
    Entry(name=f"{A}.12345678", digest=A, size_bytes=5, sources=("/x/a.tar",)),
    Entry(kind="images", name=B, digest=B, size_bytes=7, references=("refs/docker%3A%2F%2Fr%2Fx%3A1", "index/1-2")),
    Entry(kind="layers", name="c" * 64, digest="c" * 64, size_bytes=7, images=(B,)),
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (A, FOUND[:2]),
        ("a1a", FOUND[:2]),
        ("A1A1", FOUND[:2]),
        (f"sha256:{B}", FOUND[2:3]),
        ("/x/a.tar", FOUND[:2]),
        ("/x/../x/a.tar", FOUND[:2]),
        ("docker://r/x:1", FOUND[2:3]),
        ("c", FOUND[3:]),
    ],
)
def test_chosen(name: str, meant: list[Entry]) -> None:
    assert choose(FOUND, name) == meant


@pytest.mark.parametrize("name", ["", "d", "g", A + "0", "a.tar", "/x/A.tar", "a\n1"])
def test_nothing_of_that_name(name: str) -> None:
    with pytest.raises(errors.UsageError, match="nothing in the store is called"):
        choose(FOUND, name)


def test_this_or_that() -> None:
    with pytest.raises(errors.UsageError, match=f"images/{B[:12]}, rootfs/{A[:12]}") as caught:
        choose(FOUND, "a1")
    assert "\n" not in str(caught.value)


def test_an_image_is_but_its_layers() -> None:
    assert total(FOUND) == 17


def test_a_seal_does_not_depend_on_where_a_tree_is(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "d" / "e").mkdir(parents=True)
        (tmp_path / name / "d" / "f").write_text("x")
        os.utime(tmp_path / name / "d" / "f", (1, 1))
        os.symlink("f", tmp_path / name / "d" / "\udcff")
        os.utime(tmp_path / name / "d" / "\udcff", (1, 1), follow_symlinks=False)
    one = seal(str(tmp_path / "a"))
    assert one == seal(str(tmp_path / "b"))
    assert one != seal(str(tmp_path / "a"), str(tmp_path / "b"))
    (tmp_path / "a" / "d" / "e").rename(tmp_path / "a" / "e")
    assert one != seal(str(tmp_path / "a"))


def test_a_seal_of_a_deep_tree(tmp_path: Path) -> None:
    """Deeper than one path may be long."""
    above = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        before = seal(str(tmp_path))
        Path("f").write_text("")
        assert seal(str(tmp_path)) != before
    finally:
        os.chdir(above)
        from guntainer.store.remove import remove_tree

        remove_tree(str(tmp_path / ("d" * 200)))
