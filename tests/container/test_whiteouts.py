"""Layers of images: stacked by overlayfs, they are what comes of applying them one after the other onto one folder."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from archives import Entry, tar
from unpacking import unpack, work

from guntainer import errors
from guntainer.archive import worker

Layers = list[list[Entry]]


def d(name: str, mode: int = 0o755) -> Entry:
    return (name, "dir", {"mode": mode})


def f(name: str, data: bytes = b"x", mode: int = 0o644) -> Entry:
    return (name, "file", {"data": data, "mode": mode})


def w(name: str) -> Entry:
    return (name, "file", {})


BASE = [d("a", 0o750), f("a/1"), f("a/2"), d("a/b"), f("a/b/3"), d("c"), f("c/4"), ("l", "sym", {"to": "a"}), f("top")]

STACKS: dict[str, Layers] = {
    "a file": [BASE, [d("a", 0o700), w("a/.wh.1")]],
    "a file at the top": [BASE, [w(".wh.top")]],
    "a folder": [BASE, [w(".wh.a")]],
    "a link, not what it leads to": [BASE, [w(".wh.l")]],
    "what is not there": [BASE, [w(".wh.never"), d("c"), w("c/.wh.never")]],
    "where there is nothing at all": [BASE, [d("new/deep"), w("new/deep/.wh.x"), f("new/deep/y")]],
    "in the lowest layer": [[d("a"), f("a/1"), w("a/.wh.2"), w(".wh.top"), d("e"), w("e/.wh..wh..opq")]],
    "opaque": [BASE, [d("a", 0o711), f("a/new"), w("a/.wh..wh..opq")]],
    "opaque, told first": [BASE, [d("a", 0o711), w("a/.wh..wh..opq"), f("a/new"), d("a/b"), f("a/b/new")]],
    "opaque, and empty": [BASE, [d("a"), w("a/.wh..wh..opq")]],
    "opaque below opaque": [BASE, [d("a"), w("a/.wh..wh..opq"), d("a/b"), w("a/b/.wh..wh..opq"), f("a/b/new")]],
    "opaque in a plain folder": [BASE, [d("a", 0o750), d("a/b"), f("a/b/new"), w("a/b/.wh..wh..opq")]],
    "whiteout and opaque in one": [BASE, [d("a"), w("a/.wh..wh..opq"), w("a/.wh.1"), w("a/.wh.never"), f("a/2", b"2")]],
    "opaque over nothing": [BASE, [d("n"), w("n/.wh..wh..opq"), f("n/x")]],
    "all of it": [BASE, [w(".wh..wh..opq"), f("only")], [f("more")]],
    "whiteout and file of one name": [BASE, [d("a", 0o750), w("a/.wh.1"), f("a/1", b"new")]],
    "file and whiteout of one name": [BASE, [d("a", 0o750), f("a/1", b"new"), w("a/.wh.1")]],
    "whiteout and folder of one name": [BASE, [w(".wh.a"), d("a"), f("a/new")]],
    "folder and whiteout of one name": [BASE, [d("a"), f("a/new"), w(".wh.a")]],
    "a file for a folder": [BASE, [f("a", b"now a file")]],
    "a folder for a file": [BASE, [d("top"), f("top/x")]],
    "a folder for a link": [BASE, [d("l"), f("l/x")]],
    "a file and then a folder for a folder": [BASE, [f("a", b"now a file"), d("a"), f("a/new")]],
    "a whiteout in a folder that is replaced": [BASE, [d("c"), w("c/.wh.4"), f("c", b"now a file")]],
    "removed, and there again": [BASE, [w(".wh.a")], [d("a"), f("a/again")], [d("a"), w("a/.wh.again"), f("a/5")]],
    "opaque in the middle": [BASE, [d("a"), w("a/.wh..wh..opq"), f("a/m")], [d("a"), f("a/n"), w("a/.wh.m")]],
    "over a removed folder's whiteouts": [
        BASE,
        [d("a"), w("a/.wh.b")],
        [d("a"), d("a/b"), f("a/b/new"), w("a/b/.wh.3")],
    ],
    "aufs's own": [BASE, [d(".wh..wh.plnk"), f(".wh..wh.plnk/1.2"), f(".wh..wh.aufs"), w(".wh.top")]],
    "names with dots": [[f(".hidden"), f("..."), f(".x")], [w(".wh..hidden"), w(".wh.....")]],
    "a name to the byte": [[f("new\nline"), f("é" * 100)], [w(".wh.new\nline"), w(".wh." + "é" * 100)]],
    "an empty layer between": [BASE, [], [w(".wh.top")]],
    "a folder without permissions": [BASE, [d("c", 0), w("c/.wh.4"), f("c/5")]],
    "a hard link": [BASE, [d("c"), f("c/x"), ("c/y", "link", {"to": "c/x"}), w("c/.wh.4")]],
    "a link that is no whiteout's": [BASE, [("s", "sym", {"to": ".wh.top"}), ("k", "sym", {"to": "/etc"}), w(".wh.l")]],
    "folders by the way": [
        [d("tmp", 0o1777), d("a", 0o700), d("a/b", 0o2750), f("a/b/c")],
        [f("tmp/x"), f("a/b/d"), f("new/e/f"), w("a/b/.wh.c")],
        [f("tmp/y"), d("a/b", 0o711), f("a/b/e"), f("new/e/g")],
    ],
    "folders by the way, over what is gone": [
        [d("a", 0o700), d("b", 0o700), f("b/1"), d("c", 0o700), f("c/1")],
        [w(".wh.a"), f("b"), d("c", 0o711), w("c/.wh..wh..opq")],
        [f("a/x"), w(".wh.b"), f("c/x")],
        [f("b/x"), f("c/y")],
    ],
    "many": [[f(f"{n}") for n in range(30)], *[[w(f".wh.{n}"), f(f"{n}b")] for n in range(30)]],
}

# argv: the folder to work in, whether a tmpfs is to be mounted there, archives, the lowest first
STACK = """
import json, os, stat, sys
from guntainer.archive import worker
from guntainer.store import fill, implied
place, memory, *archives = sys.argv[1:]
if memory == "memory":
    assert os.system(f"mount -t tmpfs none {place}") == 0
stack = []
for number, archive in enumerate(archives):
    folder = f"{place}/layer-{number}"
    os.mkdir(folder)
    task = worker.Task(("file", archive, 0, 0), archive, folder, hash_it=False, limits=None, layer=True)
    working = fill.Working(task)
    while (facts := working.more()) is None:
        pass
    if facts["cut"]:
        stack = []
    tree = implied.Lower(path=f"{folder}/tree", implied=frozenset(facts["implied"]))
    stack[:0] = [tree] + [implied.Lower(path=f"{folder}/opaque", plain=False)] * facts["opaque"]
    assert facts["opaque"] == os.path.isdir(f"{folder}/opaque")
for name in ("upper", "work", "merged"):
    os.mkdir(f"{place}/{name}")
os.chdir(place)
lowers = ["top"] * implied.write("top", stack) + [os.path.relpath(lower.path) for lower in stack]
options = f"lowerdir={':'.join(lowers)},upperdir=upper,workdir=work,userxattr"
assert os.system(f"mount -t overlay none merged -o {options}") == 0
found = {}
for folder, folders, files in os.walk("merged"):
    for name in folders + files:
        path = f"{folder}/{name}"
        status = os.lstat(path)
        what = None
        if stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            what = open(path).read()
        found[path.removeprefix("merged/")] = [oct(status.st_mode), what]
print(json.dumps(found))
"""


def applied(layers: Layers, root: Path) -> dict[str, list[object]]:
    """Apply layers onto one folder, as the image specification has it: what a layer removes first, then what it brings."""
    root.mkdir()
    for entries in layers:
        for name, _, _ in entries:
            above, last = os.path.split(name)
            if last == ".wh..wh..opq":
                for path in (root / above).iterdir() if (root / above).is_dir() else ():
                    remove(path)
            elif last.startswith(".wh.") and not last.startswith(".wh..wh."):
                remove(root / above / last.removeprefix(".wh."))
        for entry in entries:
            if ".wh." not in entry[0]:
                bring(root, *entry)
            elif ".wh..wh." not in entry[0]:
                (root / entry[0]).parent.mkdir(parents=True, exist_ok=True)
        for name, kind, more in entries:
            if kind == "dir" and (root / name).is_dir() and ".wh." not in name:
                (root / name).chmod(int(str(more["mode"])) | 0o700)
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else None
        found[str(path.relative_to(root))] = [oct(status.st_mode), what]
    return found


def remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def bring(root: Path, name: str, kind: str, more: dict[str, Any]) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind != "dir" or not path.is_dir() or path.is_symlink():
        remove(path)
    if kind == "dir":
        path.mkdir(exist_ok=True)
    elif kind == "sym":
        path.symlink_to(more["to"])
    elif kind == "link":
        path.hardlink_to(root / more["to"])
    else:
        path.write_bytes(more.get("data", b""))
        path.chmod(more.get("mode", 0o644))


@pytest.mark.parametrize("place", ["disk", "memory"])
@pytest.mark.parametrize("case", STACKS)
@pytest.mark.root
def test_a_stack_equals_layers_applied(home: Path, user_namespaces: None, case: str, place: str) -> None:
    layers = STACKS[case]
    archives = [tar(home / f"{number}.tar", *entries) for number, entries in enumerate(layers)]
    (home / "here").mkdir()
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", STACK, home / "here", place, *archives],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wanted = applied(layers, home / "plain")
    found = json.loads(done.stdout)
    # what is closed to its owner is opened for the look at it on both sides
    for tree in (wanted, found):
        for row in tree.values():
            if stat.S_ISDIR(int(row[0], 8)):
                row[0] = oct(int(row[0], 8) | 0o700)
    assert found == wanted


def facts_of(home: Path, *entries: Entry) -> dict[str, Any]:
    path = tar(home / "a.tar", *entries)
    (home / "layer").mkdir()
    task = worker.Task(("file", str(path), 0, 0), "a.tar", str(home / "layer"), hash_it=False, limits=None, layer=True)
    return work(task)


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ([], (False, False, 0)),
        ([f("x")], (False, False, 0)),
        ([w(".wh.x")], (False, False, 1)),
        ([d("a"), w("a/.wh.x")], (True, False, 1)),
        ([d("a"), w("a/.wh..wh..opq")], (True, False, 1)),
        ([d("a"), w("a/.wh..wh..opq"), w("a/.wh.x")], (True, False, 1)),
        ([w(".wh..wh..opq"), w(".wh.x"), d("a"), w("a/.wh..wh..opq")], (False, True, 0)),
        ([w(".wh.a"), f("a")], (False, False, 0)),
    ],
)
def test_what_a_layer_is_said_to_be(home: Path, entries: list[Entry], wanted: tuple[bool, bool, int]) -> None:
    facts = facts_of(home, *entries)
    assert (facts["opaque"], facts["cut"], facts["whiteouts"]) == wanted
    assert facts["entries"] == len(entries) and facts["tree"] == "tree"
    assert (home / "layer" / "opaque").exists() == wanted[0]


def test_a_layer_is_no_rootfs(home: Path) -> None:
    """One folder at its top is not what it is about, and an image's files are files."""
    assert facts_of(home, d("top"), d("top/bin"), f("top/oci-layout"))["tree"] == "tree"
    assert (home / "layer" / "tree" / "top" / "bin").is_dir()


REFUSED: dict[str, tuple[list[Entry], str]] = {
    "of nothing": ([d("a"), w("a/.wh.")], "whiteout 'a/.wh.' is of nothing"),
    "of the folder itself": ([d("a"), w("a/.wh..")], "whiteout 'a/.wh..' is of nothing"),
    "of the folder above": ([d("a"), w("a/.wh...")], "whiteout 'a/.wh...' is of nothing"),
    "out": ([w("../.wh.x")], "entry '../.wh.x' leads out"),
    "out by way of a folder": ([w("a/../../.wh.x")], "leads out"),
    "absolute": ([w("/etc/.wh.passwd")], "absolute"),
    "through a link": ([("a", "sym", {"to": ".."}), w("a/.wh.x")], "entry 'a/.wh.x' goes through a symbolic link"),
    "opaque through a link": ([("a", "sym", {"to": "/tmp"}), w("a/.wh..wh..opq")], "goes through a symbolic link"),
    "through a file": ([f("a"), w("a/.wh.x")], "entry 'a/.wh.x' goes through a file"),
    "in a whiteout": ([w(".wh.a/x")], "entry '.wh.a/x' lies in a whiteout"),
    "a hard link to it": (
        [w(".wh.a"), ("b", "link", {"to": ".wh.a"})],
        "hard link 'b' to '.wh.a', which is not in this layer",
    ),
    "a hard link to a layer below": (
        [("b", "link", {"to": "below"})],
        "hard link 'b' to 'below', which is not in this layer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_whiteouts(home: Path, case: str) -> None:
    entries, words = REFUSED[case]
    before = sorted(p for p in home.rglob("*"))
    with pytest.raises(errors.ArchiveRefused) as caught:
        facts_of(home, *entries)
    assert words in str(caught.value) and str(caught.value).startswith("a.tar: ")
    assert {p.parts[len(home.parts)] for p in home.rglob("*") if p not in before} <= {"a.tar", "layer"}


def test_in_a_plain_archive_they_are_files(home: Path) -> None:
    path = tar(home / "a.tar", d("a"), f("a/.wh.x"), f("a/.wh..wh..opq"), f(".wh."), f(".wh.x/y"))
    out = Path(unpack(str(path), str(home / "out")))
    names = sorted(str(p.relative_to(out)) for p in out.rglob("*"))
    assert names == [".wh.", ".wh.x", ".wh.x/y", "a", "a/.wh..wh..opq", "a/.wh.x"]


@pytest.mark.parametrize("mode", ["char", "block"])
def test_a_device_of_an_archive_is_no_whiteout(home: Path, mode: str) -> None:
    """0:0 would hide what other layers have; whatever its numbers, it is left out."""
    facts = facts_of(home, ("x", mode, {}), w(".wh.y"))
    assert os.listdir(home / "layer" / "tree") == ["y"] and facts["devices"] == 1
    status = (home / "layer" / "tree" / "y").lstat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def test_whiteouts_that_can_not_be_made_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", refuse)  # the worker is forked from here
    with pytest.raises(errors.HostError, match=r"a whiteout of 'a/x' can not be made: Operation not permitted"):
        facts_of(home, d("a"), w("a/.wh.x"))
