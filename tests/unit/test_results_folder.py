"""The results folder as an open thing: whose modes are whose, and what is written into it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guntainer import wholefile
from guntainer.resultsfolder import ResultsFolder


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_after(path: Path, mode: int) -> int:
    """That of a job's folder when its job has ended, in a results folder with this mode."""
    path.mkdir()
    path.chmod(mode)
    folder = ResultsFolder(str(path))
    folder.begin("a")
    assert (path / "a").stat().st_mode & 0o777 == 0o700
    fd = folder.below("a")
    folder.end(fd)
    os.close(fd)
    folder.close()
    return (path / "a").stat().st_mode & 0o7777


@pytest.mark.parametrize(
    ("mode", "after"),
    [(0o755, 0o755), (0o700, 0o700), (0o1777, 0o755), (0o777, 0o755), (0o775, 0o755), (0o2750, 0o2750)],
)
def test_others_may_look_into_it_and_write_nothing(tmp_path: Path, umask: None, mode: int, after: int) -> None:
    assert mode_after(tmp_path / "r", mode) == after


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mode is not ours to change; what can be written there is written."""
    (tmp_path / "a").mkdir(mode=0o755)
    folder = ResultsFolder(str(tmp_path))

    def refused(path: str, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    monkeypatch.setattr(os, "chmod", refused)
    folder.begin("a")
    fd = folder.below("a")
    folder.end(fd)
    wholefile.write(fd, "result.json", (b"{}",))
    os.close(fd)
    folder.close()
    assert (tmp_path / "a" / "result.json").read_text() == "{}"


def test_what_is_no_folder_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    folder = ResultsFolder(str(tmp_path))
    for name, why in (("file", "Not a directory"), ("link", "is a link")):
        with pytest.raises(NotADirectoryError, match=why) as caught:
            folder.begin(name)
        assert caught.value.filename == f"{tmp_path}/{name}"
    folder.close()
    assert folder.fd == folder.lock == -1
