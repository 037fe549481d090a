"""`guntainer store`: what it shows, what it removes, what it finds changed."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import image_builder as make
import pytest
from conftest import Run, Traces

from guntainer.store.lookup import VERSION, open_store

pytestmark = [pytest.mark.usefixtures("user_namespaces"), pytest.mark.root]


@pytest.fixture
def base(small_archive: Path) -> make.Layer:
    return make.layer_of(gzip.decompress(small_archive.read_bytes()))


def archive(path: Path, size: int = 1000) -> Path:
    """A small one, whose contents are its own."""
    data = os.urandom(size)
    path.write_bytes(
        make.tar_of([("etc", "dir", {}), ("etc/f", "file", {"data": data}), ("l", "sym", {"to": "etc/f"})])
    )
    return path


@pytest.fixture
def two_images(guntainer: Run, home: Path) -> tuple[Path, Path]:
    """Two images of a common layer of 300 kB, with one of their own each, in the store."""
    common = make.layer(("common", "file", {"data": os.urandom(300_000)}))
    found = []
    for name in ("one", "two"):
        own = make.layer((name, "file", {"data": os.urandom(100_000)}))
        found.append(make.oci_folder(home / name, {"1": make.image(common, own)}))
    done = guntainer("pull", *found)
    assert done.returncode == 0, done.stderr
    return found[0], found[1]


def facts(guntainer: Run, *words: object) -> list[dict[str, Any]]:
    done = guntainer("store", "ls", "--json", *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["entries"]
    return found


def digests(guntainer: Run, *words: object) -> set[str]:
    return {entry["digest"] for entry in facts(guntainer, *words)}


@contextmanager
def leased(home: Path, place: str) -> Iterator[None]:
    """As somebody who runs on it holds it."""
    with open(home / "store" / place / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def set_used(home: Path, place: str, ago_s: float) -> None:
    path = home / "store" / place / "lock"
    at = path.stat().st_mtime - ago_s
    os.utime(path, (at, at))


# -- ls, path, import


def test_ls_shows_every_kind(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    guntainer("store", "import", archive(home / "a.tar"))
    rows = [line.split() for line in guntainer("store", "ls").stdout.splitlines()]
    assert rows[0] == ["KIND", "DIGEST", "IDS", "SIZE", "LAST", "USED", "SOURCE"]
    assert sorted(row[0] for row in rows[1:]) == ["image", "image", "rootfs"]
    assert {row[-1] for row in rows[1:]} == {str(home / "a.tar"), *map(str, two_images)}
    assert "390.6 KiB" in guntainer("store", "ls").stdout
    shown = facts(guntainer, "--layers")
    assert sorted(entry["kind"] for entry in shown) == ["image", "image", "layer", "layer", "layer", "rootfs"]
    assert all(entry["sealed"] for entry in shown if entry["kind"] != "image")
    assert all(entry["whole"] and not entry["in_use"] for entry in shown)
    with leased(home, next(entry["path"] for entry in shown if entry["kind"] == "image")):
        used = [entry for entry in facts(guntainer, "--layers") if entry["in_use"]]
        assert sorted(entry["kind"] for entry in used) == ["image", "layer", "layer"]


def test_path_prints_every_folder(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    lines = guntainer("store", "path", two_images[0]).stdout.splitlines()
    assert [sorted(os.listdir(line)) for line in lines] == [["one"], ["common"]]
    (line,) = guntainer("store", "path", archive(home / "a.tar")).stdout.splitlines()
    assert sorted(os.listdir(line)) == ["etc", "l"]
    done = guntainer("store", "path", home / "missing.tar")
    assert done.returncode == 125 and len(done.stderr.splitlines()) == 1


# -- du


def test_du_counts_a_shared_layer_once(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    told = json.loads(guntainer("store", "du", "--json").stdout)
    images = [entry for entry in told["entries"] if entry["kind"] == "image"]
    layers = [entry for entry in told["entries"] if entry["kind"] == "layer"]
    assert sorted(entry["images"] for entry in layers) == [1, 1, 2]
    for entry in images:
        assert 300_000 <= entry["shared_bytes"] < 350_000 and 100_000 <= entry["own_bytes"] < 150_000
    assert 500_000 <= told["total_bytes"] < 650_000
    rows = guntainer("store", "du").stdout.splitlines()
    assert [row.split()[0] for row in rows[1:3]] == ["image", "image"] and rows[-1].split()[0] == "total"
    assert "1 layers that several images share" in "".join(rows)


def test_du_counts_blocks_and_names_once(guntainer: Run, home: Path) -> None:
    with tarfile.open(home / "a.tar", "w") as made:
        info = tarfile.TarInfo("a")
        info.size = 400_000
        made.addfile(info, io.BytesIO(os.urandom(400_000)))
        info = tarfile.TarInfo("b")
        info.type, info.linkname = tarfile.LNKTYPE, "a"
        made.addfile(info)
    guntainer("pull", home / "a.tar")
    before = json.loads(guntainer("store", "du", "--json").stdout)
    assert 400_000 <= before["entries"][0]["own_bytes"] < 450_000
    (home / "store" / "incoming" / "dead").write_bytes(bytes(50_000))
    after = json.loads(guntainer("store", "du", "--json").stdout)
    assert after["other"]["incoming"] - before["other"].get("incoming", 0) >= 50_000


# -- prune


def test_keep_size_removes_the_longest_unused(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    guntainer("pull", archive(home / "a.tar", 200_000))
    by_source = {entry["sources"][0]: entry for entry in facts(guntainer)}
    for source, ago in ((two_images[0], 300), (home / "a.tar", 200), (two_images[1], 100)):
        set_used(home, by_source[str(source)]["path"], ago)
    # 700 kB: an image of 100 kB of its own goes first, then the archive of 200 kB
    dry = guntainer("store", "prune", "--keep-size", "560k", "--dry-run")
    assert [line.split()[:3] for line in dry.stdout.splitlines()] == [
        ["would", "remove", "image"],
        ["would", "remove", "layer"],
        ["would", "remove", "rootfs"],
    ]
    assert dry.stderr.startswith("would remove 3, and free ")
    assert len(digests(guntainer, "--layers")) == 6
    done = guntainer("store", "prune", "--keep-size", "560k")
    assert done.stdout == dry.stdout.replace("would remove", "removed")
    assert [entry["sources"] for entry in facts(guntainer)] == [[str(two_images[1])]]
    assert len(digests(guntainer, "--layers")) == 3
    assert guntainer("store", "prune", "--keep-size", "1m").stdout == ""
    assert guntainer("store", "verify").returncode == 0


def test_keep_size_counts_what_it_takes_of_the_disk(guntainer: Run, home: Path) -> None:
    """Small files take a block each; and folders that are closed to all but a sub-id are looked into."""
    files: list[make.Entry] = [("d", "dir", {"uid": 7, "mode": 0o700})]
    files += [(f"d/{number}", "file", {"uid": 7, "data": b"x"}) for number in range(500)]
    (home / "many.tar").write_bytes(make.tar_of(files))
    guntainer("pull", home / "many.tar", archive(home / "a.tar"))
    kept, gone = sorted(facts(guntainer), key=lambda entry: entry["size_bytes"])[::-1]
    set_used(home, gone["path"], 100)
    assert gone["size_bytes"] == 500 and gone["sources"] == [str(home / "many.tar")]
    assert guntainer("store", "prune", "--keep-size", "100m").stdout == ""
    done = guntainer("store", "prune", "--keep-size", "1m")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1, done.stderr
    assert digests(guntainer) == {kept["digest"]}


def test_a_store_on_a_read_only_disk_serves(guntainer: Run, home: Path, small_archive: Path) -> None:
    """Also with something in it that a dead unpacker has left."""
    assert guntainer("run", "--userns", "single", small_archive, "true").returncode == 0
    (home / "store" / "incoming" / "dead").mkdir()
    (home / "store" / "incoming" / "dead.lock").touch()
    words = ["run", "--userns", "single", str(small_archive), "echo", "hi"]
    program = shlex.join([sys.executable, "-m", "guntainer"])
    place = shlex.quote(str(home / "store"))
    script = f"""
        mount --bind {place} {place}; mount -o remount,bind,ro {place}
        {program} {shlex.join(words)}
        {program} store ls
        {program} store verify
        {program} store prune --all
    """
    line = ["unshare", "-Urmpf", "--mount-proc", "--propagation", "private", "sh", "-ec", script]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout.startswith("hi\nKIND "), (done.stdout, done.stderr)
    assert "1 looked at, 0 damaged\n" in done.stderr and "0 removed" in done.stderr
    assert " s ago" in done.stdout or " min ago" in done.stdout


def test_prune_spares_what_is_in_use(guntainer: Run, home: Path, two_images: tuple[Path, Path], traces: Traces) -> None:
    image = facts(guntainer)[0]
    with leased(home, image["path"]):
        for words in (["--all"], ["--keep-size", "1"], ["--older-than", "0"]):
            assert guntainer("store", "prune", *words).returncode == 0
            assert digests(guntainer) == {image["digest"]}
            assert digests(guntainer, "--layers") == {image["digest"], *image["layers"]}
    done = guntainer("store", "prune", "--all")
    assert len(done.stdout.splitlines()) == 3 and done.stderr.startswith("3 removed")
    assert os.listdir(home / "store" / "index") == [] and facts(guntainer, "--layers") == []
    traces.check()


def test_prune_removes_what_is_of_no_use(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    store = home / "store"
    image = facts(guntainer)[0]
    (store / image["path"] / "meta").unlink()
    (store / "refs" / "gone").symlink_to("image:" + "0" * 64)
    (store / "index" / ".1-old").symlink_to("0" * 64)
    os.utime(store / "index" / ".1-old", (1, 1), follow_symlinks=False)
    done = guntainer("store", "prune")
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == ["image", "layer"]
    assert os.listdir(store / "refs") == [] and len(os.listdir(store / "index")) == 1
    assert guntainer("run", two_images[1], "nothing").returncode == 127


def test_wrong_values_are_named(guntainer: Run, home: Path) -> None:
    for words in (["--older-than", "5x"], ["--keep-size", "many"], ["--keep-size", "-1"]):
        done = guntainer("store", "prune", *words)
        assert done.returncode == 2 and words[0] in done.stderr and len(done.stderr.splitlines()) == 1
    for words in (
        [],
        ["what"],
        ["rm"],
        ["rm", "zzzz"],
        ["verify", "zzzz"],
        ["export", "zzzz", "-o", "a.tar"],
        ["ls", "--x"],
    ):
        done = guntainer("store", *words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, words


# -- rm


def test_rm_by_digest_and_by_source(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    guntainer("pull", archive(home / "a.tar"))
    digest = next(entry["digest"] for entry in facts(guntainer) if entry["kind"] == "rootfs")
    assert guntainer("store", "rm", digest[:10]).stdout.startswith(f"removed rootfs {digest[:12]}")
    assert guntainer("store", "rm", two_images[0]).returncode == 0
    assert [entry["sources"] for entry in facts(guntainer)] == [[str(two_images[1])]]
    assert len(digests(guntainer, "--layers")) == 3
    assert guntainer("run", two_images[1], "nothing").returncode == 127


def test_rm_of_what_could_be_several(guntainer: Run, home: Path) -> None:
    guntainer("pull", *(archive(home / f"{number}.tar") for number in range(17)))
    found = digests(guntainer)
    doubled = next(digit for digit in "0123456789abcdef" if len([one for one in found if one.startswith(digit)]) > 1)
    done = guntainer("store", "rm", doubled)
    assert done.returncode == 2 and "could be any of" in done.stderr and len(done.stderr.splitlines()) == 1
    assert digests(guntainer) == found


def test_rm_of_what_is_in_use_removes_nothing(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    free, held = facts(guntainer)
    before = digests(guntainer, "--layers")
    with leased(home, held["path"]):
        done = guntainer("store", "rm", free["digest"], held["digest"])
        assert done.returncode == 125 and "in use" in done.stderr and len(done.stderr.splitlines()) == 1
        assert digests(guntainer, "--layers") == before
    done = guntainer("store", "rm", free["layers"][0])
    assert done.returncode == 125 and "an image is made of it" in done.stderr
    assert digests(guntainer, "--layers") == before
    assert guntainer("store", "rm", free["digest"], held["digest"]).returncode == 0
    assert facts(guntainer, "--layers") == []


# -- export


@pytest.mark.parametrize("userns", ["single", "range"])
def test_export(guntainer: Run, home: Path, base: make.Layer, userns: str, request: pytest.FixtureRequest) -> None:
    if userns == "range":
        request.getfixturevalue("a_range")
    own = make.layer(("srv", "dir", {}), ("srv/f", "file", {"data": b"here"}), make.whiteout("etc"))
    layout = make.oci_folder(home / "layout", {"1": make.image(base, own)})
    guntainer("pull", "--userns", userns, layout)
    digest = facts(guntainer)[0]["digest"]
    for name in (digest[:12], layout):
        done = guntainer("store", "export", "--userns", userns, name, "-o", home / "out.tar.gz")
        assert done.returncode == 0, done.stderr
        with tarfile.open(home / "out.tar.gz") as made:
            names = {name.removeprefix("./") for name in made.getnames()}
        assert "srv/f" in names and "bin" in {name.partition("/")[0] for name in names}
    assert guntainer("run", home / "out.tar.gz", "cat", "/srv/f").stdout == "here"
    raw = guntainer("store", "export", "--userns", userns, digest[:12], text=False)
    assert raw.returncode == 0 and b"srv/f" in raw.stdout
    done = guntainer("store", "export", digest[:12], "-o", home / "nowhere" / "out.tar")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


# -- verify


def in_tree(home: Path, place: str, code: str) -> None:
    """Do something to the tree of an entry, as its owner's root."""
    tree = home / "store" / place / "tree"
    subprocess.run([sys.executable, "-c", f"import os, pathlib; os.chdir({str(tree)!r}); {code}"], check=True)


CHANGES = {
    "a mode": "os.chmod('etc/f', 0o600)",
    "a folder's mode": "os.chmod('etc', 0o700)",
    "a size": "s = os.stat('etc/f'); os.truncate('etc/f', 5); os.utime('etc/f', ns=(s.st_mtime_ns, s.st_mtime_ns))",
    "a time": "os.utime('etc/f', (5, 5))",
    "a file less": "os.unlink('etc/f')",
    "a file more": "pathlib.Path('etc/g').touch()",
    "a folder more": "os.mkdir('etc/d')",
    "a link's target": "os.unlink('l'); os.symlink('etc/g', 'l'); os.utime('l', (1000, 1000), follow_symlinks=False)",
    "everything": "os.rename('../tree', '../other')",
}


@pytest.mark.parametrize("userns", ["single", "range"])
@pytest.mark.parametrize("change", CHANGES)
def test_verify_finds_a_change(
    guntainer: Run, home: Path, change: str, userns: str, request: pytest.FixtureRequest
) -> None:
    if userns == "range":
        request.getfixturevalue("a_range")
    guntainer("pull", "--userns", userns, archive(home / "a.tar"), archive(home / "b.tar"))
    done = guntainer("store", "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "2 looked at, 0 damaged\n")
    place = next(entry["path"] for entry in facts(guntainer) if str(home / "a.tar") in entry["sources"])
    in_tree(home, place, CHANGES[change])
    done = guntainer("store", "verify")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("damaged rootfs ") and str(home / "a.tar") in done.stdout
    assert guntainer("store", "verify", home / "b.tar").returncode == 0
    assert guntainer("store", "verify", home / "a.tar").returncode == 1
    done = guntainer("store", "verify", "--repair")
    assert done.returncode == 0 and "is removed" in done.stderr
    assert not (home / "store" / place).exists() and len(facts(guntainer)) == 1
    guntainer("pull", "--userns", userns, home / "a.tar")
    assert guntainer("store", "verify").stderr == "2 looked at, 0 damaged\n"


def test_repair_of_a_layer_takes_its_images(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    layers = [entry for entry in facts(guntainer, "--layers") if entry["kind"] == "layer"]
    shared = max(layers, key=lambda entry: entry["size_bytes"])
    in_tree(home, shared["path"], "os.chmod('common', 0o600)")
    done = guntainer("store", "verify", two_images[0])
    assert done.returncode == 1 and sorted(line.split()[1] for line in done.stdout.splitlines()) == ["image", "layer"]
    image = facts(guntainer)[0]
    with leased(home, image["path"]):
        done = guntainer("store", "verify", "--repair")
        assert done.returncode == 1 and "is in use" in done.stderr
        assert image["digest"] in digests(guntainer) and shared["digest"] in digests(guntainer, "--layers")
    done = guntainer("store", "verify", "--repair")
    assert done.returncode == 0 and facts(guntainer) == []
    assert shared["digest"] not in digests(guntainer, "--layers") and len(digests(guntainer, "--layers")) == 2
    assert guntainer("run", two_images[0], "nothing").returncode == 127
    assert guntainer("store", "verify").returncode == 0


def test_an_images_links_are_checked(guntainer: Run, home: Path, two_images: tuple[Path, Path]) -> None:
    lowers = home / "store" / facts(guntainer)[0]["path"] / "lowers"
    (lowers / "0").unlink()
    (lowers / "0").symlink_to("/etc")
    done = guntainer("store", "verify")
    assert done.returncode == 1 and "link 0 leads to no layer" in done.stdout


@pytest.mark.parametrize("userns", ["single", "range"])
def test_a_step_of_a_build(
    guntainer: Run, home: Path, small_archive: Path, userns: str, request: pytest.FixtureRequest
) -> None:
    if userns == "range":
        request.getfixturevalue("a_range")
    text = f'Using "{small_archive}"\nExec "mkdir /etc/d; echo x > /etc/f; chmod 0 /etc/d"\n'
    (home / "work" / "Gunfile").write_text(text)
    done = guntainer("build", "--userns", userns, home / "out.tar")
    assert done.returncode == 0, done.stderr
    build = next(entry for entry in facts(guntainer) if entry["kind"] == "build")
    assert build["sealed"] and guntainer("store", "verify").stderr == "2 looked at, 0 damaged\n"
    in_tree(home, build["path"], "os.chmod('etc/f', 0o600)")
    done = guntainer("store", "verify", "--repair")
    assert done.stdout.startswith("damaged build ") and done.returncode == 0
    assert guntainer("build", "--userns", userns, home / "out.tar").returncode == 0
    assert guntainer("store", "rm", build["digest"][:12]).returncode == 0


def test_what_sub_ids_own_is_looked_into(guntainer: Run, home: Path, a_range: None) -> None:
    """A folder that is closed to all but another id, in an archive and in a layer."""
    entries: list[make.Entry] = [
        ("d", "dir", {"uid": 7, "gid": 8, "mode": 0o700}),
        ("d/f", "file", {"uid": 7, "gid": 8, "data": os.urandom(100_000)}),
    ]
    (home / "a.tar").write_bytes(make.tar_of(entries))
    layout = make.oci_folder(home / "layout", {"1": make.image(make.layer(*entries))})
    for userns in ("range", "single"):
        guntainer("pull", "--userns", userns, home / "a.tar", layout)
    assert guntainer("store", "verify").stderr == "6 looked at, 0 damaged\n"
    told = json.loads(guntainer("store", "du", "--json").stdout)
    assert told["unread_folders"] == 0 and 400_000 < told["total_bytes"] < 600_000
    done = guntainer("store", "rm", home / "a.tar", layout)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4, done.stderr
    assert facts(guntainer, "--layers") == []


# -- an older layout


def old_store(home: Path, small_archive: Path, guntainer: Run) -> str:
    """A store as layout 1 was: without the newer folders, and without seals."""
    import marshal
    import shutil

    guntainer("pull", "--userns", "single", small_archive)
    store = home / "store"
    for name in ("layers", "images", "builds", "refs"):
        shutil.rmtree(store / name)
    entry = next((store / "rootfs").iterdir())
    meta = marshal.loads((entry / "meta").read_bytes())
    del meta["seal"]
    (entry / "meta").write_bytes(marshal.dumps({**meta, "layout": 1}))
    (store / "VERSION").write_text("1\n")
    return entry.name


def test_an_older_store_is_taken_over(guntainer: Run, home: Path, small_archive: Path, base: make.Layer) -> None:
    digest = old_store(home, small_archive, guntainer)
    with leased(home, f"rootfs/{digest}"):  # by an older program, which runs on it
        assert guntainer("run", "--userns", "single", small_archive, "echo", "hi").stdout == "hi\n"
    assert (home / "store" / "VERSION").read_text() == f"{VERSION}\n"
    assert [entry["digest"] for entry in facts(guntainer)] == [digest]
    done = guntainer("store", "verify")
    assert done.returncode == 0 and done.stdout.startswith("not sealed rootfs ") and "1 not sealed" in done.stderr
    assert "not sealed" not in guntainer("store", "verify").stderr  # the first look has recorded it
    layout = make.oci_folder(home / "layout", {"1": make.image(base)})
    assert guntainer("run", layout, "echo", "hi").stdout == "hi\n"


def test_many_take_it_over_at_once(home: Path, guntainer: Run, small_archive: Path) -> None:
    old_store(home, small_archive, guntainer)
    log = home / "log"
    code = (
        "import time; from guntainer.store import migration, lookup; write = migration.write_version\n"
        f"def slow(*a):\n    open({str(log)!r}, 'a').write('x'); time.sleep(0.3); write(*a)\n"
        "migration.write_version = slow; lookup.open_store()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(5)]
    assert [process.wait(30) for process in processes] == [0] * 5
    assert log.read_text() == "x" and (home / "store" / "VERSION").read_text() == f"{VERSION}\n"


def test_a_crash_while_it_is_taken_over(home: Path, guntainer: Run, small_archive: Path) -> None:
    digest = old_store(home, small_archive, guntainer)
    code = (
        "import os; from guntainer.store import migration, lookup\n"
        "migration.write_version = lambda *a: os.kill(os.getpid(), 9); lookup.open_store()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (home / "store" / "VERSION").read_text() == "1\n"
    store = open_store()
    assert (home / "store" / "refs").is_dir() and (home / "store" / "VERSION").read_text() == f"{VERSION}\n"
    lease = store.lease(digest)
    assert lease is not None
    lease.release()


def test_a_store_that_can_only_be_read_serves(
    home: Path, guntainer: Run, small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = old_store(home, small_archive, guntainer)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.makedirs", refuse)
    lease = open_store().lease(digest)
    assert lease is not None
    lease.release()
