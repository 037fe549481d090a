"""Ranges of sub-ids, as the files and directory services have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from guntainer import errors, idmap

LINES = """\
# a comment
anna:100000:65536
1000:300000:1000
bert:200000:65536
anna:broken
anna:5:0
anna:400000:65536:more
"""


def test_by_name_and_by_number(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text(LINES)
    path = str(tmp_path / "subuid")
    assert list(idmap.ranges_of(path, "anna", 1000)) == [(100000, 65536), (300000, 1000)]
    assert list(idmap.ranges_of(path, "bert", 1001)) == [(200000, 65536)]
    assert list(idmap.ranges_of(path, "1000", 1000)) == [(300000, 1000)]
    assert list(idmap.ranges_of(str(tmp_path / "missing"), "anna", 1000)) == []


def test_several_ranges_are_one_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmap, "_login", lambda: "anna")
    path = tmp_path / "subuid"
    path.write_text("anna:100000:30000\nanna:500000:90000\n")
    assert idmap._map(str(path), 1000) == ((0, 1000, 1), (1, 100000, 30000), (30001, 500000, 35535))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no range for anna"),
        ("anna:1:65535\n", "has 65535 ids, and 65536 are needed"),
        ("anna:1:1\n", "has 1 id, and 65536 are needed"),
    ],
)
def test_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str) -> None:
    monkeypatch.setattr(idmap, "_login", lambda: "anna")
    (tmp_path / "subuid").write_text(text)
    with pytest.raises(errors.HostError, match=why):
        idmap._map(str(tmp_path / "subuid"), 1000)


def test_a_helper_needs_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmap, "_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.HostError, match="newuidmap is not installed"):
        idmap.helper("newuidmap")
    (tmp_path / "newuidmap").write_text("")
    (tmp_path / "newuidmap").chmod(0o755)
    with pytest.raises(errors.HostError, match="not setuid root"):
        idmap.helper("newuidmap")
    (tmp_path / "newuidmap").chmod(0o4755)
    assert idmap.helper("newuidmap") == f"{tmp_path}/newuidmap"


def test_keys_tell_maps_apart() -> None:
    first = idmap.Ids(kind="range", uids=((0, 1, 1),), gids=((0, 1, 1),))
    assert first.key != first.replace(gids=((0, 2, 1),)).key
    assert idmap.Ids().key == ""
