"""What the tests of tools that are too old, or odd, share: the tools themselves behind scripts that answer in their place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import networks
import pytest
from networks import fake

OLD = {"pasta": "2022_08_29.0cb795e", "slirp4netns": "version 0.3.0"}
LEAST = {"pasta": "2023_02_27", "slirp4netns": "0.4.2"}


def too_old(path: Path) -> str:
    return f"{path.name}: {path}: too old: {OLD[path.name]}, at least {LEAST[path.name]} is needed"


REAL: dict[str, str] = {}


def real(folder: Path, name: str, *, before: str = "", version: str = "") -> Path:
    """The tool itself, where `before` has not answered in its place."""
    return fake(folder, name, f'{before}\nexec {REAL[name]} "$@"', version)


def alive(folder: Path) -> list[str]:
    """Live processes that were started from a folder, other than our own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and networks.alive(int(entry.name)):
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(word.startswith(f"{folder}/") for word in words[:2]):
                found.append(" ".join(words))
    return found


LACKING = {"pasta": "--config-net", "slirp4netns": "--enable-seccomp"}
ODD = {
    "lacks": '[ "$1" = --help ] && {{ {real} --help 2>&1 | while read -r l; do case "$l" in *{option}*);; *) echo "$l";; esac; '
    'done; exit; }}\n[ "$1" = --version ] && echo {name} unknown version && exit',
    "garbage": 'case "$1" in --version|--help) echo "$0"; exec /bin/cat /bin/sh;; esac',
    "huge": 'case "$1" in --version|--help) while :; do echo "{name} {name}"; done;; esac',
    "silent": 'case "$1" in --version|--help) exit 1;; esac',
}
"""What stands before the tool itself, by what is odd about it."""


def odd(folder: Path, name: str, kind: str) -> Path:
    return real(folder, name, before=ODD[kind].format(real=REAL[name], name=name, option=LACKING[name]))


@pytest.fixture(scope="session")
def two_tools() -> None:
    for name in networks.TOOLS:
        path = shutil.which(name)
        if path is None:
            pytest.skip("both pasta and slirp4netns are needed")
        REAL[name] = path


@pytest.fixture
def place(home: Path, two_tools: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in PATH where a tool may be; nothing that was started from it may be left."""
    folder, beside = home / "bin", home / "else"
    for path in (folder, beside):
        path.mkdir()
    (folder / "nap").symlink_to(str(shutil.which("sleep")))
    for name in ("setpriv", "newuidmap", "newgidmap"):
        if found := shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"):
            (beside / name).symlink_to(found)
    monkeypatch.setenv("PATH", f"{folder}:{beside}")
    yield folder
    assert alive(folder) == []
