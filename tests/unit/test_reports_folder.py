"""A results folder read again: what was written comes back, and what is damaged or hostile is named, and leads nowhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import report_folders as folders

from guntainer import errors, report, reports
from guntainer.reports import batchfile
from guntainer.reports import logs as logs_module
from guntainer.reports.logs import Logs, level, open_logs, shares
from guntainer.resultsfolder import ResultsFolder


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    whole, logs = folders.matrix(40)
    stored = reports.read(str(folders.write(tmp_path / "r", whole, logs)))
    assert stored.problems == ()
    assert stored.complete
    assert stored.report.replace(results=()) == whole.replace(results=())
    # the exceptions of a setup are not kept, their words are
    for before, after in zip(whole.results, stored.report.results, strict=True):
        assert after.replace(exit=before.exit, attempts=()) == before.replace(attempts=())
        assert after.exit.describe() == before.exit.describe()
        assert [one.exit for one in after.attempts] == [one.exit for one in before.attempts]
        assert after.verdict == before.verdict


def test_a_batch_that_has_only_begun(tmp_path: Path) -> None:
    whole = folders.batch(folders.result("a", wall_ns=5_000_000))
    folders.write(tmp_path, whole)
    folders.write_batch(tmp_path, whole, ["a", "b"], running=True)
    stored = reports.read(str(tmp_path))
    assert not stored.complete
    assert "has not ended" in " ".join(stored.problems)
    assert [one.outcome for one in stored.report.results] == ["ok", "cancelled"]
    assert stored.report.wall_ns == 5_000_000


def test_the_batch_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    whole = folders.batch(folders.result("a"))
    folders.write(tmp_path, whole)
    before = (tmp_path / "batch.json").read_bytes()
    (tmp_path / "batch.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        folders.write_batch(tmp_path, whole, ["a", "b"])
    assert (tmp_path / "batch.json").read_bytes() == before


def test_results_of_an_earlier_batch_and_runs_before_it(tmp_path: Path) -> None:
    old = folders.result("a", begin_ns=9_000_000_000, wall_ns=1, slot=3)
    whole = folders.batch(old, folders.result("b", begin_ns=5, wall_ns=7, slot=2))
    folders.write(tmp_path, whole)
    entries = batchfile.Listed(ids=("a", "b"), earlier={"a"}, runs={"b": "1.5:2000000:failed 2:3000000:ok", "a": "?"})
    with_folder(tmp_path, lambda fd: batchfile.write(fd, whole, entries, running=True))
    stored = reports.read(str(tmp_path))
    assert [(one.begin_ns, one.slot, one.notes) for one in stored.report.results] == [
        (0, -1, (report.EARLIER,)),
        (5, 2, ()),
    ]
    assert stored.report.wall_ns == 12  # until the last one of this batch has ended
    assert stored.runs == {
        "b": [
            {"started_at": 1.5, "wall_ns": 2_000_000, "outcome": "failed"},
            {"started_at": 2.0, "wall_ns": 3_000_000, "outcome": "ok"},
        ]
    }


def with_folder(path: Path, do: Callable[[int], None]) -> None:
    opened = ResultsFolder(str(path))
    do(opened.fd)
    opened.close()


def test_which_jobs_a_folder_is_about(tmp_path: Path) -> None:
    """Those of the batch, and others of its file that have results in there."""
    folders.write(tmp_path, folders.batch(*map(folders.result, ("a", "b", "c", "gone"))))
    (tmp_path / "c" / "result.json").unlink()
    known = ("a", "b", "c", "d")
    found = batchfile.listed(str(tmp_path), ["d", "b"], known, taken=["d"])
    assert found.ids == ("a", "b", "d") and found.earlier == {"a", "d"}
    whole = batchfile.listed(str(tmp_path), known, known)
    assert whole.ids == known and not whole.earlier
    assert batchfile.listed(str(tmp_path / "none"), ["b"], known).ids == ("b",)
    (tmp_path / "batch.json").write_text('{"jobs": [{"id": 5}, 7, {"id": "a"}]}')
    assert batchfile.listed(str(tmp_path), ["b"], known).ids == ("a", "b")
    (tmp_path / "batch.json").write_text("[")
    assert batchfile.listed(str(tmp_path), ["b"], known).ids == ("b",)


def damaged(tmp_path: Path, file: str, content: str | bytes) -> tuple[tuple[str, ...], report.Report]:
    folder = folders.write(
        tmp_path / "r", folders.batch(folders.result("a", wall_ns=1), folders.result("b", wall_ns=1))
    )
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    stored = reports.read(str(folder))
    return stored.problems, stored.report


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        ('{"version": 1, "id": "a", "co', "no valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        ("[1, 2]", "expected a table, got a list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"x": ' + "9" * 10_000 + "}", "no valid JSON"),
    ],
    ids=["empty", "cut", "not utf-8", "a list", "deep", "a long number"],
)
def test_a_damaged_file(tmp_path: Path, content: str | bytes, told: str) -> None:
    problems, found = damaged(tmp_path, "a/result.json", content)
    assert any(text.startswith("a/result.json: ") and told in text for text in problems), problems
    assert [one.outcome for one in found.results] == ["error", "ok"]
    (tmp_path / "batch").mkdir()
    problems, found = damaged(tmp_path / "batch", "batch.json", content)
    assert any(text.startswith("batch.json: ") and told in text for text in problems), problems
    assert [one.id for one in found.results] == ["a", "b"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("matrix", []),
        ("matrix", {"a": 1}),
        ("wall_ns", "soon"),
        ("wall_ns", -1),
        ("wall_ns", 1e300),
        ("begin_ns", True),
        ("started_at", float("inf")),
        ("started_at", "yesterday"),
        ("slot", -2),
        ("slot", {}),
        ("notes", "one"),
        ("notes", [1, None]),
        ("attempts", [1]),
        ("attempts", [{"reason": "bored"}]),
        ("artifacts", {"path": 1}),
        ("artifacts", [{"path": 7, "size_bytes": "big"}]),
        ("reason", "bored"),
        ("reason", 3),
        ("limits", None),
        ("signal", "KILL"),
        ("id", ["a"]),
        ("job", 5),
        ("allow_failure", "yes"),
        ("message", {"<script>": 1}),
    ],
)
def test_a_wrong_type_is_named_and_the_rest_is_read(tmp_path: Path, key: str, value: object) -> None:
    folder = folders.write(tmp_path / "r", folders.batch(folders.result("a", "failed", wall_ns=1), folders.result("b")))
    path = folder / "a" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    stored = reports.read(str(folder))
    assert [one.id for one in stored.report.results] == ["a", "b"]
    assert bool(stored.problems) == (value is not None)
    assert reports.write_html(str(tmp_path / "page"), stored.report, str(folder), problems=stored.problems) == ()
    reports.write_junit(str(tmp_path / "xml"), stored.report, str(folder))


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ([{"id": "a", "folder": "../a"}], "no folder of its own"),
        ([{"id": "a", "folder": "/etc"}], "no folder of its own"),
        ([{"id": "a", "folder": "."}], "no folder of its own"),
        ([{"id": "a", "folder": "a\x00"}], "no folder of its own"),
        ([{"id": "b", "folder": "a"}, {"id": "a", "folder": "a"}], "no folder of its own"),
        ([{"id": "a", "folder": "a"}, {"id": "a", "folder": "b"}], "listed twice"),
        ([{"folder": "a"}, {"id": "a", "folder": "a"}], "without an id"),
        ([{"id": "a", "folder": "b"}], 'is of "b", not of "a"'),
        ([1, {"id": "a", "folder": "a"}], "expected a list of tables"),
        ("all", "expected a list"),
    ],
)
def test_the_list_of_jobs_is_not_trusted(tmp_path: Path, jobs: object, told: str) -> None:
    folder = folders.write(
        tmp_path / "r", folders.batch(folders.result("a", wall_ns=1), folders.result("b", wall_ns=1))
    )
    path = folder / "batch.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "jobs": jobs}))
    problems = reports.read(str(folder)).problems
    assert any(told in text for text in problems), problems


def test_without_a_batch_file(tmp_path: Path) -> None:
    folder = folders.write(tmp_path, folders.batch(folders.result("b", begin_ns=2), folders.result("a", begin_ns=1)))
    (folder / "batch.json").unlink()
    (folder / ".lock").touch()
    (folder / "notes.txt").touch()
    stored = reports.read(str(folder))
    assert [one.id for one in stored.report.results] == ["a", "b"]
    assert "batch.json is missing" in stored.problems[0]


@pytest.mark.parametrize("kind", ["missing", "empty", "a file", "nul"])
def test_no_results_at_all(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "r"
    if kind == "empty":
        path.mkdir()
    elif kind == "a file":
        path.touch()
    with pytest.raises(errors.UsageError, match="name a folder that batch --results has written"):
        reports.read(str(path) + ("\0" if kind == "nul" else ""))


def test_missing_results_and_logs_are_named(tmp_path: Path) -> None:
    folder = folders.write(tmp_path, folders.batch(folders.result("a", wall_ns=1), folders.result("b", wall_ns=1)))
    (folder / "a" / "result.json").unlink()
    (folder / "b" / "stdout").unlink()
    stored = reports.read(str(folder))
    assert stored.problems == ("a/result.json is missing",)
    assert stored.report.results[0].outcome == "cancelled"
    assert reports.write_html(str(tmp_path / "page"), stored.report, str(folder)) == ("b/stdout: is missing",)


def one(tmp_path: Path) -> tuple[Path, report.Result]:
    result = folders.result("a", wall_ns=1)
    return folders.write(tmp_path / "r", folders.batch(result)), result


@pytest.mark.parametrize("which", ["stdout", "result.json", "folder"])
def test_no_link_leads_out(tmp_path: Path, which: str) -> None:
    folder, result = one(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("stdout", "result.json"):
        (outside / name).write_text("secret")
    place = folder / "a"
    if which == "folder":
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
        place.symlink_to("../outside")
    else:
        (place / which).unlink()
        (place / which).symlink_to(outside / which if which == "stdout" else f"../../outside/{which}")
    stored = reports.read(str(folder))
    with open_logs(str(folder)) as logs:
        log = logs.read(result, "stdout", 0, 1000)
        assert log is None or which == "result.json"
        told = [*stored.problems, *logs.problems]
    assert any("leads out of the folder" in text for text in told), told
    reports.write_html(str(tmp_path / "page"), stored.report, str(folder), problems=stored.problems)
    assert b"secret" not in (tmp_path / "page").read_bytes()


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    folder, result = one(tmp_path)
    (folder / "a" / "stdout").rename(folder / "a" / "log")
    (folder / "a" / "stdout").symlink_to("log")
    with open_logs(str(folder)) as logs:
        log = logs.read(result, "stdout", 0, 1000)
    assert log is not None
    assert log.head == b"a\n"


@pytest.mark.parametrize("name", ["stdout", "result.json"])
def test_a_fifo_is_not_waited_for(tmp_path: Path, name: str) -> None:
    folder, _ = one(tmp_path)
    (folder / "a" / name).unlink()
    os.mkfifo(folder / "a" / name)
    stored = reports.read(str(folder))
    unread = reports.write_html(str(tmp_path / "page"), stored.report, str(folder))
    assert "not a regular file" in " ".join([*stored.problems, *unread])


def test_a_log_of_ten_gigabytes(tmp_path: Path) -> None:
    folder, result = one(tmp_path)
    with (folder / "a" / "stdout").open("r+b") as file:
        file.write(b"first\n")
        file.truncate(10 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    with open_logs(str(folder)) as logs:
        log = logs.read(result, "stdout", 0, logs_module.MOST_BYTES)
        end = logs.end(result, "stdout", 0, 1000)
    assert log is not None
    assert log.head.startswith(b"first\n")
    assert log.tail.endswith(b"\nlast\n")
    assert len(log.head) + len(log.tail) <= logs_module.MOST_BYTES
    assert log.left_out == log.size_bytes - len(log.head) - len(log.tail) > 9 << 30
    assert end is not None
    assert end.tail.endswith(b"last\n")
    reports.write_html(str(tmp_path / "page"), folders.batch(result), str(folder))
    assert (tmp_path / "page").stat().st_size < 1 << 20


def test_a_log_is_cut_between_lines(tmp_path: Path) -> None:
    folder, result = one(tmp_path)
    (folder / "a" / "stdout").write_bytes(b"".join(b"line %06d\n" % number for number in range(100_000)))
    with open_logs(str(folder)) as logs:
        log = logs.read(result, "stdout", 0, 40_000)
    assert log is not None
    assert log.head.endswith(b"\n")
    assert log.tail.startswith(b"line ")
    assert len(log.head) < len(log.tail) / 2


def test_logs_of_services(tmp_path: Path) -> None:
    folder, result = one(tmp_path)
    (folder / "a" / "services").mkdir()
    (folder / "a" / "services" / "db.log").write_text("ready\n")
    (folder / "a" / "services" / "link.log").symlink_to("/etc/passwd")
    os.mkfifo(folder / "a" / "services" / "pipe.log")
    with open_logs(str(folder)) as logs:
        assert logs.sizes(result) == [("stdout", 0, 2)]
        assert logs.sizes(result, services=True) == [("stdout", 0, 2), ("services/db.log", 0, 6)]
        assert len(logs.problems) == 2


def test_logs_of_a_batch_without_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "log-1"
    path.write_bytes(b"hello\n")
    result = folders.result("a", wall_ns=1, stdout=str(path))
    logs = Logs(None)
    assert logs.sizes(result) == [("stdout", 0, 6)]
    path.unlink()
    os.mkfifo(path)
    assert logs.read(result, "stdout", 0, 10) is None
    assert logs.problems


def test_the_budget_is_shared() -> None:
    assert level([10, 10, 10], 100, 50) == 50
    assert level([10, 100, 100], 110, 1000) == 50
    assert level([], 10, 7) == 7
    assert shares([100, 100, 100], [False, True, False], 150, 100) == [25, 100, 25]
    assert shares([100, 100], [True, True], 60, 100) == [30, 30]
    assert sum(shares([1 << 20] * 1000, [False] * 1000, 28 << 20, 256 << 10)) <= 28 << 20


def test_the_page_stays_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from guntainer.reports import page

    monkeypatch.setattr(page, "MOST_ALL", 1 << 20)
    results = [folders.result(f"j{n}", "failed" if n == 7 else "ok", wall_ns=1) for n in range(30)]
    noise = {one.id: (os.urandom(300_000), b"") for one in results}
    folder = folders.write(tmp_path / "r", folders.batch(*results), noise)
    reports.write_html(str(tmp_path / "page"), folders.batch(*results), str(folder))
    assert (tmp_path / "page").stat().st_size < 1.6 * (1 << 20)
