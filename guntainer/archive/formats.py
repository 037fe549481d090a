"""The names of archives that are written."""

from __future__ import annotations

TARS = {
    ".tar": "",
    ".tar.gz": "gzip",
    ".tgz": "gzip",
    ".tar.bz2": "bzip2",
    ".tar.xz": "xz",
    ".txz": "xz",
    ".tar.zst": "zstd",
    ".tar.lz4": "lz4",
}
"""Suffix → libarchive's filter, "" none."""


def filter_of(name: str) -> str | None:
    """What a tar of this name is compressed with; None where it is no name of one."""
    return next((TARS[suffix] for suffix in TARS if name.endswith(suffix) and len(name) > len(suffix)), None)
