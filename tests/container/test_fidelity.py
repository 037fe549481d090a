"""The tree is what GNU tar makes of the same archive, entry by entry: what it is, and everything that stat(2) says of it."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import unpacking
from likeness import Both

from guntainer import idmap
from guntainer.archive import worker
from guntainer.store.remove import remove_tree


@pytest.fixture(params=["range", "single"])
def both(home: Path, request: pytest.FixtureRequest) -> Iterator[Both]:
    if request.param == "range":
        request.getfixturevalue("a_range")
    ids = idmap.open_ids(request.param)
    try:
        yield Both(home, ids)
    finally:
        for name in ("ours", "theirs"):
            remove_tree(str(home / name))
        if ids.namespace >= 0:
            os.close(ids.namespace)


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1000
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def write(path: Path, *entries: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format_) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


DIR, SYM, LNK, FIFO = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE
TIMES = [0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**33, -(2**31), -86400, 4102444800, 253402300799]
FRACTIONS = [
    "1.5",
    "1.123456789",
    "1.1234567899999",
    "1700000000.000000001",
    "0.999999999",
    "-1.5",
    "-1.000000001",
    "-86400.25",
]
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep

ODDITIES: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "times": [entry(f"t{at}", mtime=at) for at in TIMES] + [entry(f"d{at}", DIR, mtime=at) for at in TIMES],
    "times of links": [entry(f"l{at}", SYM, mtime=at, linkname="x") for at in TIMES],
    "fractions": [entry(f"t{n}", pax_headers={"mtime": text}) for n, text in enumerate(FRACTIONS)]
    + [entry(f"d{n}", DIR, pax_headers={"mtime": text}) for n, text in enumerate(FRACTIONS)]
    + [entry(f"large{n}", data=b"x" * 100_000, pax_headers={"mtime": text}) for n, text in enumerate(FRACTIONS)],
    "modes": [entry(f"f{mode:o}", mode=mode, data=b"x") for mode in (0, 0o4755, 0o2755, 0o1644, 0o7777, 0o111, 0o444)]
    + [entry(f"d{mode:o}", DIR, mode=mode) for mode in (0o1777, 0o2775, 0o4755, 0o700, 0o555)],
    "folders of no mode": [entry("d", DIR, mode=0), entry("e", DIR, mode=0o111), entry("f", data=b"x", mode=0)],
    "owners": [
        entry("root", uid=0, gid=0, uname="nobody", gname="nogroup"),
        entry("one", uid=1, gid=65533, uname="root", gname="root", data=b"x"),
        entry("setuid", uid=7, gid=8, mode=0o6755, data=b"x"),
        entry("large", uid=9, gid=9, mode=0o6755, data=b"x" * 100_000),
        entry("folder", DIR, uid=33, gid=33, mode=0o2770),
        entry("link", SYM, uid=5, gid=5, linkname="one"),
        entry("pipe", FIFO, uid=6, gid=6),
        entry("hard", LNK, uid=99, gid=99, linkname="one"),
    ],
    "links": [
        entry("d", DIR),
        entry("d/a", data=b"content", mtime=7),
        entry("d/b", LNK, linkname="d/a", mtime=9, mode=0o600),
        entry("c", LNK, linkname="./d/a"),
        entry("s", SYM, linkname="d/a"),
        entry("hard-to-s", LNK, linkname="s"),
        entry("dangling", SYM, linkname="../../nowhere/" + "x" * 200),
        entry("pipe", FIFO, mode=0o620),
        entry("pipe2", LNK, linkname="pipe"),
    ],
    "names": [
        entry(name, data=name.encode(errors="surrogateescape"))
        for name in ("n" * 255, "späße", "new\nline", " ", "-rf", "*", "back\\slash", "tab\t", "\x7f", "'quote\"")
    ]
    + [entry("d", DIR), entry("d/" + "m" * 250, DIR), entry("d/" + "m" * 250 + "/" + "o" * 250, data=b"long")],
    "later ones replace": [
        entry("a", data=b"old"),
        entry("a", data=b"new", mode=0o600, mtime=5),
        entry("d", DIR, mode=0o700),
        entry("d/f", data=b"x"),
        entry("d", DIR, mode=0o711, mtime=77),
        entry("l", SYM, linkname="a"),
        entry("l", data=b"no link"),
    ],
    "attributes": [
        entry("f", data=b"x", pax_headers={"SCHILY.xattr.user.one": "1", "SCHILY.xattr.user.two": "zwei"}),
        entry("large", data=b"x" * 100_000, pax_headers={"SCHILY.xattr.user.one": "1"}),
        entry("empty", pax_headers={"SCHILY.xattr.user.empty": ""}),
        entry("d", DIR, mode=0o700, pax_headers={"SCHILY.xattr.user.of": "a folder"}),
    ],
}


def test_attributes_of_what_is_closed(home: Path) -> None:
    """GNU tar can not set them, as an ordinary user."""
    headers = {"SCHILY.xattr.user.x": "y"}
    write(home / "a.tar", entry("f", mode=0o400, pax_headers=headers), entry("d", DIR, mode=0o500, pax_headers=headers))
    out = Path(unpacking.unpack(str(home / "a.tar"), str(home / "ours")))
    assert [os.getxattr(out / name, "user.x") for name in "fd"] == [b"y", b"y"]
    assert [oct((out / name).stat().st_mode) for name in "fd"] == ["0o100400", "0o40500"]


@pytest.mark.parametrize("case", ODDITIES)
@pytest.mark.root
def test_oddities(both: Both, home: Path, case: str) -> None:
    entries = ODDITIES[case]
    both.compare(write(home / "a.tar", *entries))


@pytest.mark.parametrize("case", ["times", "links", "names", "modes", "later ones replace"])
@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT])
def test_oddities_in_gnus_format(both: Both, home: Path, case: str, format_: int) -> None:
    both.compare(write(home / "a.tar", *ODDITIES[case], format_=format_))


FORMS = ["v7", "oldgnu", "gnu", "ustar", "posix"]


@pytest.mark.parametrize(
    ("form", "sparse"), [*((form, "") for form in FORMS), *((form, "--sparse") for form in ("oldgnu", "gnu", "posix"))]
)
def test_what_tar_packs(both: Both, home: Path, form: str, sparse: str) -> None:
    """A folder of files, in each of GNU tar's formats."""
    root = home / "packed"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "f").write_bytes(os.urandom(5000))
    (root / "d" / "g").hardlink_to(root / "d" / "f")
    (root / "l").symlink_to("d/f")
    (root / "d" / "e" / ("n" * 80)).write_text("x")
    (root / "empty").touch(mode=0o600)
    (root / "d").chmod(0o2751)
    if form != "v7":
        os.mkfifo(root / "pipe")
    with open(root / "holes", "wb") as file:
        for at in (0, 1 << 20, 5 << 20):
            file.seek(at)
            file.write(b"bytes" * 1000)
        file.truncate(9 << 20)
    with open(root / "hole", "wb") as file:
        file.truncate(3 << 20)
    os.utime(root / "l", ns=(5, 123456789123456789), follow_symlinks=False)
    os.utime(root / "d" / "f", ns=(5, 1_700_000_000_123_456_789))
    words = ["tar", f"--format={form}", *([sparse] if sparse else []), "-C", root, "-cf", home / "a.tar", "."]
    subprocess.run(words, check=True)
    both.compare(home / "a.tar")


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_of_pax(both: Both, home: Path, version: str) -> None:
    root = home / "packed"
    root.mkdir()
    for name, size, at in (("end", 4 << 20, 4 << 20), ("middle", 4 << 20, 1 << 20), ("none", 1 << 20, 0)):
        with open(root / name, "wb") as file:
            file.seek(at)
            file.write(b"data" * 2000 if name != "end" else b"")
            file.truncate(size)
    subprocess.run(
        ["tar", "--format=posix", f"--sparse-version={version}", "--sparse", "-C", root, "-cf", home / "a.tar", "."],
        check=True,
    )
    both.compare(home / "a.tar")


def test_hard_links_before_their_targets(home: Path) -> None:
    """GNU tar can not; what was packed from is what comes out."""
    write(
        home / "a.tar",
        entry("b", LNK, linkname="a"),
        entry("c", LNK, linkname="b"),
        entry("a", data=b"x", mtime=7, mode=0o640),
    )
    out = Path(unpacking.unpack(str(home / "a.tar"), str(home / "ours")))
    assert {(p.stat().st_ino, p.stat().st_mode, p.stat().st_mtime) for p in out.iterdir()} == {
        ((out / "a").stat().st_ino, 0o100640, 7)
    }
    assert len(list(out.iterdir())) == (out / "a").stat().st_nlink == 3


def test_capabilities_in_a_range(home: Path, a_range: None) -> None:
    """Kept, and bound to the range's root: user_namespaces(7), capabilities(7) "Namespaced file capabilities"."""
    ids = idmap.open_ids("range")
    try:
        text = CAPABILITY.decode("latin-1")
        info = entry("f", data=b"x", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": text})
        write(home / "a.tar", info)
        into = str(home / "ours")
        os.mkdir(into)
        source = ("file", str(home / "a.tar"), 0, 0)
        task = worker.Task(source, "a", into, hash_it=False, limits=None, ids=idmap.COUNT, namespace=ids.namespace)
        facts = unpacking.work(task)
        assert facts["xattrs"] == 0
        value = os.getxattr(f"{into}/tree/f", "security.capability")
        # seen from outside it has the id of its root, vfs_ns_cap_data of linux/capability.h
        assert struct.unpack_from("<I", value)[0] >> 24 in (2, 3) and value[4:8] == CAPABILITY[4:8]
    finally:
        os.close(ids.namespace)
        remove_tree(str(home / "ours"))


def test_what_is_left_out_is_counted(home: Path) -> None:
    headers = {
        "SCHILY.xattr.trusted.x": "1",
        "SCHILY.xattr.security.selinux": "2",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    acl = {"SCHILY.acl.access": "user::rw-,user:7:r--,group::r--,mask::r--,other::r--"}
    write(
        home / "a.tar", entry("f", data=b"x", pax_headers=headers), entry("g", pax_headers=acl), entry("h", data=b"y")
    )
    (home / "ours").mkdir()
    source = ("file", str(home / "a.tar"), 0, 0)
    task = worker.Task(source, "a", str(home / "ours"), hash_it=False, limits=None)
    facts = unpacking.work(task)
    assert (facts["xattrs"], facts["acls"]) == (3, 1)
    assert os.listxattr(home / "ours" / "tree" / "f") == []


def test_alpine(both: Both, alpine: Path) -> None:
    found = both.compare(alpine)
    assert len(found) > 400
