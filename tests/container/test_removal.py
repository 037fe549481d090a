"""A large tree is removed by two threads: all of it, and nothing else."""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guntainer.store import remove


@pytest.fixture
def wide(home: Path) -> Path:
    """More folders side by side than one thread is given, some closed, some deep, some with links out of it."""
    top = home / "wide"
    for number in range(remove._WIDE * 3):
        folder = top / f"{number % 5}" / f"{number}" / "a" / "b"
        folder.mkdir(parents=True)
        for name in range(20):
            (folder / f"{name}").write_bytes(b"x")
        (folder / "out").symlink_to(home / "kept")
        if number % 7 == 0:
            folder.chmod(0)
        if number % 11 == 0:
            (folder.parent).chmod(0o500)
    (home / "kept").mkdir()
    (home / "kept" / "file").write_bytes(b"kept")
    return top


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before  # what another test has left may be closed meanwhile


@pytest.mark.root
def test_all_of_it_goes(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    others = threading.active_count()
    unlink = os.unlink

    def noted(*arguments: object, **more: object) -> None:
        threads.add(_thread.get_ident())
        unlink(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", noted)
    remove.remove_tree(str(wide))
    assert not wide.exists() and (wide.parent / "kept" / "file").read_bytes() == b"kept"
    assert len(threads) == 2 and threading.active_count() == others


def test_where_no_thread_may_be(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    remove.remove_tree(str(wide))
    assert not wide.exists()


@pytest.mark.parametrize("which", ["mine", "the other's"])
def test_what_one_of_them_fails_with_is_raised(wide: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    unlink = os.unlink
    own = _thread.get_ident()

    def fail(name: str, *, dir_fd: int) -> None:
        if (_thread.get_ident() == own) == (which == "mine"):
            raise OSError(5, "Input/output error")
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        with pytest.raises(OSError, match="Input/output error"):
            remove.remove_tree(str(wide))
    remove.remove_tree(str(wide))
    assert not wide.exists()
