"""Where overlayfs is refused, a stack is copied: what comes of that is what overlayfs shows of the same stack."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import image_builder as make
import pytest
from archives import tar
from test_whiteouts import BASE, STACKS, d, f, w

from guntainer import idmap
from guntainer.idmap import Ids
from guntainer.store import filedata, flatten

pytestmark = pytest.mark.usefixtures("user_namespaces")

OWNED = {
    "owners and odd modes": [
        [
            ("a", "dir", {"mode": 0o2750, "uid": 7, "gid": 8, "mtime": 5}),
            ("a/suid", "file", {"data": b"s", "mode": 0o4755, "uid": 0, "gid": 9}),
            ("a/closed", "file", {"data": b"c", "mode": 0, "uid": 7}),
            ("a/link", "sym", {"to": "/etc/passwd", "uid": 7, "gid": 7, "mtime": 6}),
            ("a/pipe", "fifo", {"mode": 0o622, "uid": 5}),
            ("a/one", "file", {"data": b"1" * 5000, "uid": 5, "pax": {"SCHILY.xattr.user.note": "of one"}}),
            ("a/two", "link", {"to": "a/one"}),
            ("b", "dir", {"mode": 0, "uid": 3, "pax": {"SCHILY.xattr.user.note": "of b"}}),
            ("b/in", "file", {"data": b"in"}),
        ],
        [
            ("a/by/the/way", "file", {"data": b"w"}),
            ("b", "dir", {"mode": 0o1777, "uid": 4, "mtime": 9}),
            ("b/two", "file", {"data": b"t", "uid": 4}),
            ("b/three", "link", {"to": "b/two"}),
        ],
    ],
    "names of one file, some of them gone": [
        [("x/1", "file", {"data": b"x"}), *((f"x/{n}", "link", {"to": "x/1"}) for n in range(2, 6))],
        [("x", "dir", {}), make.whiteout("x/1"), make.whiteout("x/3"), ("x/4", "file", {"data": b"own"})],
    ],
}
MORE = {
    "a link out, for a folder": [BASE, [("a", "sym", {"to": "/"})]],
    "a folder for a link out": [[("a", "sym", {"to": "/"})], [d("a"), f("a/x"), w("a/.wh.etc")]],
    "a link out below two folders": [[("a", "sym", {"to": "/"})], [d("a"), f("a/x")], [d("a"), f("a/y")]],
}

# argv: the folder to work in, how many ids are mapped, a stack's archives by its name, as JSON. What overlayfs shows of each, and
# what is copied of it. Times of folders without an entry of their own are those of the unpacking: the same in both.
COMPARE = """
import hashlib, json, os, stat, subprocess, sys
from guntainer.archive import worker
from guntainer.store import fill, flatten, implied

def listing(root):
    found, names = {}, {}
    for folder, folders, files in os.walk(root):
        for name in ["."] * (folder == root) + sorted(folders) + sorted(files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            row = [oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns]
            row.append([[one, os.getxattr(path, one, follow_symlinks=False).hex()]
                for one in sorted(os.listxattr(path, follow_symlinks=False)) if one.startswith("user.")])
            if stat.S_ISLNK(status.st_mode):
                row.append(os.readlink(path))
            if stat.S_ISREG(status.st_mode):
                row += [status.st_size, hashlib.file_digest(open(path, "rb"), "sha256").hexdigest()]
            if not stat.S_ISDIR(status.st_mode):
                row.append(os.path.relpath(names.setdefault(status.st_ino, path), root))
            found[os.path.relpath(path, root)] = row
    return found

place, ids, stacks = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
result = {}
for case, (name, archives) in enumerate(stacks.items()):
    os.mkdir(f"{place}/{case}")
    os.chdir(f"{place}/{case}")
    stack = []
    for number, archive in enumerate(archives):
        os.mkdir(str(number))
        task = worker.Task(("file", archive, 0, 0), archive, str(number), hash_it=False, limits=None, layer=True, ids=ids)
        working = fill.Working(task)
        while (facts := working.more()) is None:
            pass
        if facts["cut"]:
            stack = []
        tree = implied.Lower(path=f"{number}/tree", implied=frozenset(facts["implied"]))
        stack[:0] = [tree] + [implied.Lower(path=f"{number}/opaque", plain=False)] * facts["opaque"]
    lowers = ["top"] * implied.write("top", stack) + [lower.path for lower in stack]
    os.mkdir("merged")
    os.mkdir("copy")
    os.mkdir("empty")
    options = ":".join(lowers + ["empty"] * (len(lowers) == 1))
    subprocess.run(["mount", "-t", "overlay", "none", "merged", "-o", f"lowerdir={options},userxattr"], check=True)
    line = flatten.line([os.path.abspath(one) for one in lowers], os.path.abspath("copy"), bare=0, namespace=-1, single=not ids)
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout in ("copy", "reflink copy"), done
    result[name] = [listing("merged"), listing("copy")]
    subprocess.run(["umount", "merged"], check=True)
print(json.dumps(result))
"""


def inside(ids: Ids, *words: object, timeout: int = 100) -> subprocess.CompletedProcess[str]:
    """In the namespace of a range, or as the root of one id; with a mount namespace of its own."""
    line, fds = [*map(str, words)], ()
    line = ["unshare", "-m", "--propagation", "private", *line]
    if ids.namespace >= 0:
        line, fds = idmap.inside(ids, line), (ids.namespace,)
    else:
        line[1:2] = ["-Urm"]
    return subprocess.run(line, pass_fds=fds, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.fixture(params=["single", "range"])
def ids(request: pytest.FixtureRequest) -> Iterator[Ids]:
    if request.param == "single":
        yield Ids()
        return
    request.getfixturevalue("a_range")
    found = idmap.open_ids("range")
    os.set_inheritable(found.namespace, True)
    yield found
    os.close(found.namespace)


@pytest.mark.root
def test_a_copy_is_what_overlayfs_shows(home: Path, ids: Ids) -> None:
    archives: dict[str, list[str]] = {}
    for case, layers in {**STACKS, **MORE, **OWNED}.items():
        for number, entries in enumerate(layers):
            path = home / f"{len(archives)}-{number}.tar"
            if case in OWNED:
                path.write_bytes(make.tar_of(entries))
            else:
                tar(path, *entries)
            archives.setdefault(case, []).append(str(path))
    (home / "tmp" / "here").mkdir()
    count = idmap.COUNT if ids.namespace >= 0 else 0
    done = inside(ids, sys.executable, "-c", COMPARE, home / "tmp" / "here", count, json.dumps(archives))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == list(archives)
    for case, (shown, copied) in found.items():
        assert shown == copied, case
    whole = found["owners and odd modes"][1]
    assert {whole["a/suid"][0], whole["a/pipe"][0], whole["b"][0]} == {"0o104755", "0o10622", "0o41777"}
    assert whole["a"][1:3] == ([7, 8] if count else [0, 0])
    assert whole["a/two"][-1] == "a/one"


def copied(home: Path, *folders: Path, bare: int = 0) -> subprocess.CompletedProcess[str]:
    """Into a new folder `copy`, by the caller's one id."""
    (home / "copy").mkdir()
    line = flatten.line([*map(str, folders)], str(home / "copy"), bare=bare, namespace=-1, single=True)
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_what_its_owner_may_not_look_into(home: Path) -> None:
    """A container's root may: so may the copy, and it is as closed."""
    tree = home / "tmp" / "tree"
    (tree / "closed" / "in").mkdir(parents=True)
    (tree / "closed" / "in" / "file").write_text("x")
    (tree / "closed" / "in" / "file").chmod(0)
    (tree / "closed").chmod(0)
    assert copied(home, tree).returncode == 0
    made = home / "copy" / "closed"
    assert made.stat().st_mode & 0o7777 == 0
    for path in (made, tree / "closed"):
        path.chmod(0o700)
    assert (made / "in" / "file").stat().st_mode & 0o7777 == 0
    (made / "in" / "file").chmod(0o600)
    assert (made / "in" / "file").read_text() == "x"


def test_deeper_than_a_path_may_be_long(home: Path) -> None:
    """And names of one file on both ends of that."""
    script = """
import os, sys
from guntainer.store.remove import remove_tree
root, mode = sys.argv[1:]
os.chdir(root)
top = os.open(".", os.O_RDONLY)
for n in range(60):
    if mode == "make":
        os.mkdir("n" * 200)
    os.chdir("n" * 200)
if mode == "make":
    open("low", "w").write("deep")
    os.link("low", "high", dst_dir_fd=top)
    os.link("low", "low2")
else:
    print(open("low").read(), os.path.samestat(os.stat("low"), os.stat("high", dir_fd=top)), os.stat("low2").st_nlink)
    os.chdir("/")
    remove_tree(root)
"""
    tree = home / "tmp" / "tree"
    tree.mkdir()
    subprocess.run([sys.executable, "-c", script, tree, "make"], check=True)
    done = copied(home, tree)
    assert (done.returncode, done.stdout) == (0, "copy"), done.stderr
    for path in (tree, home / "copy"):
        look = subprocess.run([sys.executable, "-c", script, path, "look"], capture_output=True, text=True, check=True)
        assert look.stdout == "deep True 3\n"


def test_holes_stay_holes(home: Path) -> None:
    tree = home / "tmp" / "tree"
    tree.mkdir()
    with open(tree / "sparse", "wb") as file:
        for at in (0, 3 << 20, 40 << 20):
            file.seek(at)
            file.write(b"data")
        file.truncate(64 << 20)
    (tree / "nothing but a hole").touch()
    os.truncate(tree / "nothing but a hole", 1 << 30)
    assert copied(home, tree).returncode == 0
    for name in ("sparse", "nothing but a hole"):
        was, made = (tree / name).stat(), (home / "copy" / name).stat()
        assert made.st_size == was.st_size and made.st_blocks <= was.st_blocks + 8
    assert (home / "copy" / "sparse").read_bytes() == (tree / "sparse").read_bytes()


def test_what_is_no_file(home: Path) -> None:
    """Pipes and sockets are made; devices, of which no container can use its own, stay out, as what is mounted somewhere."""
    script = """
cd $1
mkdir tree tree/mounted copy
mknod tree/gone c 0 0
mkfifo -m 640 tree/pipe
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("tree/socket")'
touch tree/mounted/under
mount -t tmpfs none tree/mounted
touch tree/mounted/over
exec "$2" -c 'import subprocess, sys; from guntainer.store import flatten; \
sys.exit(subprocess.run(flatten.line(["tree"], "copy", bare=0, namespace=-1, single=True)).returncode)'
"""
    done = inside(Ids(), "sh", "-ec", script.replace("python3", sys.executable), "sh", home / "tmp", sys.executable)
    assert (done.returncode, done.stdout) == (0, "copy"), done.stderr
    made = home / "tmp" / "copy"
    assert sorted(one.name for one in made.iterdir()) == ["mounted", "pipe", "socket"]
    assert (made / "pipe").is_fifo() and (made / "pipe").stat().st_mode & 0o7777 == 0o640
    assert (made / "socket").is_socket()
    assert list((made / "mounted").iterdir()) == []


def test_folders_that_say_nothing_of_themselves(home: Path) -> None:
    """Those of the skeleton: how they look is the rootfs's, where it has them."""
    for name, mode in (("skeleton", 0o755), ("tree", 0o711)):
        (home / "tmp" / name / "etc").mkdir(parents=True)
        (home / "tmp" / name / "etc" / "hosts").write_text(name)
        (home / "tmp" / name / "etc").chmod(mode)
        (home / "tmp" / name).chmod(mode)
    (home / "tmp" / "skeleton" / "proc").mkdir(0o700)
    assert copied(home, home / "tmp" / "skeleton", home / "tmp" / "tree", bare=1).returncode == 0
    assert (home / "copy").stat().st_mode & 0o7777 == 0o711
    assert (home / "copy" / "etc").stat().st_mode & 0o7777 == 0o711
    assert (home / "copy" / "proc").stat().st_mode & 0o7777 == 0o700
    assert (home / "copy" / "etc" / "hosts").read_text() == "skeleton"


# -- how bytes are copied


def refused(number: int) -> Callable[..., int]:
    def call(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def data_of(home: Path, data: filedata.Data, text: bytes = b"bytes" * 1000) -> bytes:
    """What comes of a file with these bytes, then a hole, then one more."""
    source, made = home / "source", home / "made"
    with open(source, "wb") as file:
        file.write(text)
        file.seek(1 << 20)
        file.write(b"!")
    with open(source, "rb") as one, open(made, "wb") as other:
        data.copy(one.fileno(), other.fileno(), os.fstat(one.fileno()))
    assert made.read_bytes() == source.read_bytes()
    return made.read_bytes()


def test_reflinks_are_told_from_copies(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the file system's own, which gives the same bytes."""
    data = filedata.Data()
    asked = []

    def clone(source: int, fd: int) -> None:
        asked.append(source)
        os.pwrite(fd, os.pread(source, 1 << 21, 0), 0)

    monkeypatch.setattr(filedata, "clone", clone)
    data_of(home, data)
    assert (data.kind, len(asked)) == ("reflink copy", 1)
    # one file that has no reflinks says nothing of the next one
    monkeypatch.setattr(filedata, "clone", refused(errno.EINVAL))
    data_of(home, data)
    monkeypatch.setattr(filedata, "clone", clone)
    data_of(home, data)
    assert (data.kind, len(asked)) == ("reflink copy", 2)
    # a file system without any is asked once
    monkeypatch.setattr(filedata, "clone", refused(errno.EOPNOTSUPP))
    data_of(home, data)
    monkeypatch.setattr(filedata, "clone", clone)
    data_of(home, data)
    assert (data.kind, len(asked)) == ("copy", 2)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_the_kernel_does_not_copy(home: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(filedata, "clone", refused(errno.EXDEV))
    monkeypatch.setattr(os, "copy_file_range", refused(number))
    data = filedata.Data()
    data_of(home, data)
    assert data.kind == "copy"


def test_a_file_system_that_says_nothing_was_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filedata, "clone", refused(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    data_of(home, filedata.Data())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_no_room_is_no_reason_to_try_another_way(home: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(filedata, "clone", refused(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        data_of(home, filedata.Data())
    monkeypatch.setattr(filedata, "clone", refused(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "copy_file_range", refused(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        data_of(home, filedata.Data())
