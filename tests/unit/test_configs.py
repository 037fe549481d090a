"""Every example in configs/ is a valid job file."""

from __future__ import annotations

from pathlib import Path

import pytest

from guntainer.jobs.load import load

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda p: p.name)
def test_is_valid(path: Path) -> None:
    file = load(path.read_bytes(), path=str(path), base=str(CONFIGS))
    assert file.jobs
    assert file.warnings == ()


def test_the_matrix_has_nine_cells() -> None:
    path = CONFIGS / "alpine-matrix.toml"
    jobs = load(path.read_bytes(), path=str(path), base=str(CONFIGS)).jobs
    assert len([job for job in jobs if job.key == "release"]) == 9
