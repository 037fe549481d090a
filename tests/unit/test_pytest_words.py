"""What a rootfs is called in the names of tests."""

from __future__ import annotations

import pytest

from guntainer.pytest_plugin import _name, _places


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("alpine.tar.gz", "alpine"),
        ("../images/alpine-minirootfs-3.20.3-x86_64.tar.gz", "alpine-minirootfs-3.20.3-x86_64"),
        ("/srv/debian-12.tar.zst", "debian-12"),
        ("rootfs/", "rootfs"),
        ("docker://alpine:3.20", "alpine:3.20"),
        ("docker://registry.example:5000/a/b@sha256:00", "b@sha256:00"),
        ("https://example.org/x/y.tar.xz", "y"),
        ("host", "host"),
        ("..", ".."),
        ("/", "rootfs"),
        (".tar.gz", "rootfs"),
    ],
)
def test_names(place: str, name: str) -> None:
    assert _name(place) == name


@pytest.mark.parametrize("given", [None, "", [], {}, 7, [7], ["a", ""], {1: "a"}, {"a": 7}, {"a": ""}, {"a": {}}])
def test_what_is_no_rootfs_is_refused(given: object) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"test_x: @pytest.mark.guntainer\(rootfs=.*\): expected a path"):
        _places(given, "test_x")


def test_tables_keep_their_names() -> None:
    assert _places({"a": "x.tar.gz", "b": {"source": "y"}}, "") == [("a", "x.tar.gz"), ("b", {"source": "y"})]
