"""Files that a command writes: whole or not at all, and never over another one unless that is wanted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from guntainer import errors
from guntainer.cli.files import write_whole


def test_a_new_one(tmp_path: Path) -> None:
    write_whole(str(tmp_path / "a"), "ä\udcff\n", replace=False)
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\xff\n"
    assert os.listdir(tmp_path) == ["a"]


def test_one_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(errors.UsageError, match="is there already"):
        write_whole(str(path), "new", replace=False)
    assert path.read_text() == "old"
    write_whole(str(path), "new", replace=True)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "link").symlink_to("a")
    write_whole(str(tmp_path / "link"), "new", replace=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "new"


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    write_whole(str(tmp_path / "a"), "new", replace=False)
    assert (tmp_path / "a").read_text() == "new"
    with pytest.raises(errors.UsageError, match="is there already"):
        write_whole(str(tmp_path / "a"), "newer", replace=False)
    assert (tmp_path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, errors.GuntainerError), (errno.EACCES, errors.UsageError), (0, KeyboardInterrupt)],
)
def test_what_goes_wrong_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool, number: int, kind: type[BaseException]
) -> None:
    path = tmp_path / "a"
    if replace:
        path.write_text("old")

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number)) if number else KeyboardInterrupt

    monkeypatch.setattr("guntainer.cli.files._write", fails)
    with pytest.raises(kind):
        write_whole(str(path), "new", replace=replace)
    assert os.listdir(tmp_path) == (["a"] if replace else [])
    assert not replace or path.read_text() == "old"


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    read, write = os.pipe()
    write_whole(f"/dev/fd/{write}", "text", replace=True)
    os.close(write)
    with open(read) as file:
        assert file.read() == "text"


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="Is a directory"):
        write_whole(str(tmp_path), "x", replace=True)
