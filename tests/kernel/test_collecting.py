"""Taking artifacts out of a tree that nobody trusts, in this process: see tests/container/test_artifacts.py for the rest."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from guntainer import artifacts, collecting
from guntainer.collecting import Collecting
from guntainer.jobs.model import Artifacts
from guntainer.resultsfolder import ResultsFolder


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    (tmp_path / "tree").mkdir()
    fd = os.open(tmp_path / "tree", os.O_PATH | os.O_DIRECTORY)
    yield tmp_path / "tree", fd
    os.close(fd)


def collect(
    tree: tuple[Path, int],
    *patterns: str,
    most_bytes: int = 1 << 30,
    cwd: str = "/",
    mounts: Sequence[tuple[str, int]] = (),
) -> Collecting:
    results = ResultsFolder(str(tree[0].parent / "results"))
    work = Collecting(patterns, cwd, [("", tree[1]), *mounts], (results.fd, "job", results.path), most_bytes)
    work.run()
    results.close()
    return work


def test_links_lead_nowhere_but_inside(tree: tuple[Path, int]) -> None:
    (tree[0].parent / "outside").write_text("outside")
    (tree[0] / "inside").write_text("inside")
    for name, target in (
        ("a", "../outside"),
        ("b", str(tree[0].parent / "outside")),
        ("c", "/inside"),
        ("d", "../../../inside"),
        ("e", f"/proc/{os.getpid()}/root{tree[0].parent}/outside"),
    ):
        (tree[0] / name).symlink_to(target)
    work = collect(tree, "/*")
    assert sorted(work.files) == [("c", 6), ("d", 6), ("inside", 6)]
    assert dict(work.refused) == dict.fromkeys(("a", "b", "e"), "links that lead nowhere")


def test_folders_that_are_links(tree: tuple[Path, int]) -> None:
    """On the way of what a pattern begins with they are followed, inside; below that they are not."""
    (tree[0] / "real" / "sub").mkdir(parents=True)
    (tree[0] / "real" / "sub" / "x").write_text("x")
    (tree[0] / "way").symlink_to("/real")
    (tree[0] / "real" / "loop").symlink_to("/real")
    (tree[0] / "out").symlink_to(tree[0].parent)
    assert collect(tree, "/way/sub/*").files == [("way/sub/x", 1)]
    assert collect(tree, "/out/**").files == []
    work = collect(tree, "/real/**")
    assert work.files == [("real/sub/x", 1)] and dict(work.refused) == {"real/loop": "links to folders"}


@pytest.mark.parametrize("link", ["/run", "../run", "../../../run"])
def test_a_mount_whose_place_goes_by_a_link(tree: tuple[Path, int], link: str) -> None:
    """It is found by the place that is written, and by the one that the container sees."""
    (tree[0] / "run" / "ws").mkdir(parents=True)
    (tree[0] / "var").mkdir()
    (tree[0] / "var" / "run").symlink_to(link)
    mounted = tree[0].parent / "mounted"
    mounted.mkdir()
    (mounted / "x").write_text("x")
    fd = os.open(mounted, os.O_PATH | os.O_DIRECTORY)
    try:
        for pattern, path in (("/var/run/ws/*", "var/run/ws/x"), ("/run/ws/*", "run/ws/x"), ("/run/**", "run/ws/x")):
            assert collect(tree, pattern, mounts=[("var/run/ws", fd)]).files == [(path, 1)]
        shutil.rmtree(tree[0] / "run")
        assert collect(tree, "/var/run/ws/*", mounts=[("var/run/ws", fd)]).files == [("var/run/ws/x", 1)]
        (tree[0] / "var" / "run").unlink()
        (tree[0] / "var" / "run").symlink_to(tree[0].parent)  # as if the container had led it elsewhere
        assert collect(tree, "/**", mounts=[("var/run", fd)]).files == []
    finally:
        os.close(fd)


def test_nothing_waits(tree: tuple[Path, int]) -> None:
    os.mkfifo(tree[0] / "fifo")
    (tree[0] / "link").symlink_to("fifo")
    done = threading.Thread(target=collect, args=(tree, "/**", "/fifo"), daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()
    assert collect(tree, "/**", "/fifo").special == 2


def test_each_file_once(tree: tuple[Path, int]) -> None:
    (tree[0] / "d").mkdir()
    (tree[0] / "d" / "x").write_text("x")
    assert collect(tree, "/d", "/d/*", "/**", "d/x").files == [("d/x", 1)]


def test_what_is_taken_away(tree: tuple[Path, int]) -> None:
    for name in ("a/x", "a/y.tmp", "b/c/z", "b/k"):
        (tree[0] / name).parent.mkdir(parents=True, exist_ok=True)
        (tree[0] / name).write_text("x")
    work = collect(tree, "/a", "/b", "!**/*.tmp", "!/b/c")
    assert sorted(work.files) == [("a/x", 1), ("b/k", 1)] and not work.refused


def test_a_link_where_it_is_copied_to(tree: tuple[Path, int]) -> None:
    """Another job may have the folder of results as a volume."""
    (tree[0] / "d").mkdir()
    (tree[0] / "d" / "x").write_text("x")
    elsewhere = tree[0].parent / "elsewhere"
    elsewhere.mkdir()
    results = ResultsFolder(str(tree[0].parent / "results"))
    work = Collecting(("/d/x",), "/", [("", tree[1])], (results.fd, "job", results.path), 1 << 20)
    work._into = results.below("job")
    work._made("")
    (tree[0].parent / "results" / "job" / "artifacts" / "d").symlink_to(elsewhere)
    for pattern in work._wanted:
        work._base(pattern)
    assert list(elsewhere.iterdir()) == [] and work.files == [] and list(work.refused) == ["d/x"]
    for fd in (work._out, work._into):
        os.close(fd)
    results.close()


def test_a_link_in_place_of_the_jobs_folder(tree: tuple[Path, int]) -> None:
    (tree[0] / "x").write_text("x")
    elsewhere = tree[0].parent / "elsewhere"
    (elsewhere / "artifacts" / "precious").mkdir(parents=True)
    (tree[0].parent / "results").mkdir()
    (tree[0].parent / "results" / "job").symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError, match="is a link"):
        collect(tree, "/x")
    assert [path.name for path in (elsewhere / "artifacts").iterdir()] == ["precious"]


def test_how_many_names_are_looked_at(tree: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_MOST_SEEN", 20)
    for number in range(30):
        (tree[0] / f"{number}").write_text("")
    work = collect(tree, "/**")
    assert work.files == [] and "more than 20 names" in work.stopped


def test_how_long_their_paths_are(tree: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_MOST_PATH_BYTES", 1 << 10)
    for number in range(10):
        (tree[0] / (f"{number}" * 200)).write_text("x")
    work = collect(tree, "/*")
    assert len(work.files) == 5 and "the paths of those that match have more than 1 KiB" in work.stopped


def test_how_many_are_told(tree: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_MOST_TOLD", 10)
    monkeypatch.setattr(collecting, "_MOST_MATCHES", 20)
    for number in range(30):
        (tree[0] / f"{number}").write_text("xx")
    work = collect(tree, "/*", most_bytes=1)
    assert len(work.refused) == 10 and "more than 20 files match" in work.stopped


def test_no_room(tree: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that did not fit is not there by half."""
    for name in ("a", "b", "c"):
        (tree[0] / name).write_text(name)

    def full(_self: object, _source: int, fd: int, _status: object) -> None:
        os.write(fd, b"half")
        if len(list((tree[0].parent / "results" / "job" / "artifacts").iterdir())) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("guntainer.store.filedata.Data.copy", full)
    work = collect(tree, "/*")
    assert work.files == [("a", 1)] and work.stopped == "no space left for /b and what comes after it"
    assert os.listdir(tree[0].parent / "results" / "job" / "artifacts") == ["a"]


def test_why_there_are_none() -> None:
    wanted = Artifacts(paths=("*.whl",))
    assert artifacts.none_found(wanted, ()) == "no file matches *.whl"
    notes = tuple(artifacts._notes([("f", "more than 1 MiB together (max-size)")], 1, "it stopped"))
    assert artifacts.none_found(wanted, notes) == (
        "none could be taken: left out, more than 1 MiB together (max-size): /f; "
        "1 FIFO, sockets or devices left out; it stopped"
    )


def test_notes() -> None:
    refused = [(f"f{number}", "why") for number in range(7)] + [("x\ny", "other")]
    assert artifacts._notes(refused, 1, "it stopped") == [
        "artifacts left out, why: /f0, /f1, /f2, /f3, /f4 and 2 more",
        "artifacts left out, other: /x\\ny",
        "artifacts: 1 FIFO, sockets or devices left out",
        "artifacts: it stopped",
    ]
