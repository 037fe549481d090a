"""A run's folder goes with the run, whatever was written to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from guntainer import runfolder
from guntainer.runfolder import RunFolder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_layers_to_which_nothing_was_written_go_without_a_walk(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As most: the walk, and the import of it, would be a part of the cost of every warm run."""
    monkeypatch.setattr(runfolder, "remove_layer", lambda folder: pytest.fail(f"walked: {folder}"))
    with RunFolder() as folder:
        layers = [Path(folder.layer()), Path(folder.layer())]
        (layers[0] / "work" / "work").mkdir(mode=0)  # as overlayfs leaves it
    assert not list(temporary.iterdir())


def test_what_was_written_goes_as_well(temporary: Path) -> None:
    with RunFolder() as folder:
        (Path(folder.layer()) / "upper" / "file").write_text("x")
        folder.layer()
        (Path(folder.path) / "log-1").write_text("x")
    assert not list(temporary.iterdir())


def test_a_folder_without_layers_goes(temporary: Path) -> None:
    with RunFolder() as folder:
        assert Path(folder.path).is_dir()
    assert not list(temporary.iterdir())
