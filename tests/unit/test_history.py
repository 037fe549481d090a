"""What is kept of earlier batches: written, read again, bounded, and never a reason to fail."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from guntainer import history, report
from guntainer.history import History, open_history

NOW = time.time()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state" / "guntainer" / "history"


def result(job_id: str, exit_: report.Exit = report.exited(0), wall_ms: int = 5, at: float = NOW) -> report.Result:
    return report.Result(id=job_id, key=job_id, exit=exit_, started_at=at, wall_ns=wall_ms * 1_000_000)


def batch(*results: report.Result, at: float = NOW, interrupted: int | None = None) -> report.Report:
    return report.Report(results=results, file="jobs.toml", started_at=at, interrupted=interrupted)


def opened() -> History:
    return open_history("jobs.toml")


def only_file(folder: Path) -> Path:
    (found,) = folder.glob("*.json")
    return found


def test_a_batch_is_known_afterwards(state: Path) -> None:
    first = opened()
    assert not first and first.last() == {} and first.expected() == {} and not first.note
    assert first.add(batch(result("a", wall_ms=7), result("b (1, ü)", report.exited(3)))) == ""
    again = opened()
    assert again and not again.note and not again.interrupted
    assert again.last() == {"a": "ok", "b (1, ü)": "failed"}
    assert again.expected() == {"a": 7_000_000}
    (run,) = again.runs("a")
    assert (run.wall_ns, run.outcome) == (7_000_000, "ok") and abs(run.started_at - NOW) < 0.01
    assert again.runs("nobody") == ()
    assert again.by_job(batch(result("a"), result("new"))) == {"a": [run.as_dict()]}
    assert stat.S_IMODE(only_file(state).stat().st_mode) == 0o600 and stat.S_IMODE(state.stat().st_mode) == 0o700
    assert sorted(os.listdir(state)) == sorted(["lock", only_file(state).name])


def test_runs_as_text(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they go with the results of a batch: of many jobs, fewer of each."""
    for number in range(8):
        opened().add(batch(result("a", wall_ms=number, at=NOW + number), result("b", at=NOW + number)))
    known = opened()
    texts = known.texts(["a", "nobody"])
    assert history.parsed(texts["a"]) == [run.as_dict() for run in known.runs("a")] and list(texts) == ["a"]
    monkeypatch.setattr(history, "_MANY_TEXTS", 1)
    assert [len(history.parsed(text)) for text in known.texts(["a", "b"]).values()] == [5, 5]


@pytest.mark.parametrize(
    "text", ["", " ", "x", "::", "1:2", "1:2:ok:3", "-1:2:ok", "1:-2:ok", "1:2:nothing", "9" * 5000]
)
def test_texts_that_make_no_sense(text: str) -> None:
    assert history.parsed(text) == []
    assert len(history.parsed(f"{text} 1.5:2:ok")) == 1


def test_a_text_that_has_no_end() -> None:
    assert len(history.parsed("1:2:ok " * 1_000_000)) < 1000


def test_paths_have_histories_of_their_own(state: Path, tmp_path: Path) -> None:
    opened().add(batch(result("a")))
    assert open_history(str(tmp_path / "jobs.toml")).last() == {"a": "ok"}  # the same file, called otherwise
    assert not open_history("other.toml")


def test_the_median_of_the_last_five_good_runs(state: Path) -> None:
    for number, (wall_ms, code) in enumerate([(900, 0), (1, 0), (50, 0), (2, 9), (60, 0), (70, 0), (1, 1), (40, 0)]):
        opened().add(batch(result("a", report.exited(code), wall_ms, at=NOW + number)))
    assert opened().expected() == {"a": 50_000_000}
    assert [run.outcome for run in opened().runs("a")][-2:] == ["failed", "ok"]


def test_twenty_runs_are_kept(state: Path) -> None:
    for number in range(25):
        opened().add(batch(result("a", wall_ms=number, at=NOW + number)))
    walls = [run.wall_ns // 1_000_000 for run in opened().runs("a")]
    assert walls == list(range(5, 25))


def test_what_did_not_run_pushes_nothing_out(state: Path) -> None:
    opened().add(batch(result("a")))
    for number in range(30):
        opened().add(batch(result("a", report.skipped("why"), 0, at=0.0), at=NOW + 1 + number))
    found = opened()
    assert [run.outcome for run in found.runs("a")] == ["ok", "skipped"]
    assert found.last() == {"a": "skipped"} and found.expected() == {"a": 5_000_000}


def test_a_result_that_was_taken_over_counts_once(state: Path) -> None:
    opened().add(batch(result("a"), interrupted=15))
    assert opened().interrupted
    opened().add(batch(result("a"), result("b"), at=NOW + 60))
    assert len(opened().runs("a")) == 1 and not opened().interrupted


def test_a_batch_of_some_jobs_says_nothing_of_the_others(state: Path) -> None:
    opened().add(batch(result("a", report.exited(1)), result("b")))
    opened().add(batch(result("b", at=NOW + 1)))
    assert opened().last() == {"a": "failed", "b": "ok"}


def test_batches_that_end_together_both_count(state: Path) -> None:
    one, other = opened(), opened()
    one.add(batch(result("a")))
    other.add(batch(result("b")))
    assert opened().last() == {"a": "ok", "b": "ok"}


def test_the_old_is_forgotten(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened().add(batch(result("old", at=NOW - 89 * 86400), result("new")))
    assert opened().last() == {"old": "ok", "new": "ok"}
    monkeypatch.setattr(time, "time", lambda: NOW + 2 * 86400)
    opened().add(batch(result("new", at=NOW + 2 * 86400)))
    assert opened().last() == {"new": "ok"}


def test_jobs_are_bounded(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_JOBS", 3)
    opened().add(batch(*(result(f"j{n}", at=NOW - n) for n in range(5))))
    assert set(opened().last()) == {"j0", "j1", "j2"}
    monkeypatch.setattr(history, "MOST_JOBS", 2)
    assert "more than 2 jobs" in opened().note


def test_many_jobs_keep_fewer_runs(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_MANY_JOBS", 1)
    for number in range(9):
        opened().add(batch(result("a", at=NOW + number), result("b", at=NOW + number)))
    assert len(opened().runs("a")) == 5


def test_files_are_bounded(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_FILES", 2)
    for number in range(4):
        path = f"jobs-{number}.toml"
        open_history(path).add(batch(result("a")))
        for file in state.glob("*.json"):  # older than whatever comes next
            os.utime(file, (file.stat().st_mtime - 100,) * 2)
    assert [bool(open_history(f"jobs-{number}.toml")) for number in range(4)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"version": 1, "jobs": {"a": "1:2:ok"', "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[]", "another version"),
        (b'{"version": 2, "jobs": {}}', "another version"),
        (b'{"version": 1, "jobs": []}', "damaged"),
        (b'{"version": 1, "jobs": {"a": 3}}', "damaged"),
    ],
)
def test_what_is_damaged_is_ignored_and_replaced(state: Path, content: bytes, why: str) -> None:
    opened().add(batch(result("a")))
    only_file(state).write_bytes(content)
    found = opened()
    assert not found and why in found.note and str(only_file(state)) in found.note
    assert found.add(batch(result("b"))) == ""
    assert opened().last() == {"b": "ok"} and not opened().note


@pytest.mark.parametrize(
    "runs",
    [
        "",
        "x",
        "1:2",
        "1:2:nonsense",
        "-1:2:ok",
        "1:-2:ok",
        "1:99999999999999999999:ok",
        "nan:1:ok",
        "1:²:ok",
        "a:b:c:d",
    ],
)
def test_runs_that_make_no_sense_are_passed_over(state: Path, runs: str) -> None:
    opened().add(batch(result("a")))
    path = only_file(state)
    document = json.loads(path.read_text())
    document["jobs"] = {"a": f"{runs} 1.5:7000000:ok" if runs else "1.5:7000000:ok", "b": runs}
    path.write_text(json.dumps(document))
    found = opened()
    assert found.expected()["a"] == 7_000_000 and found.last()["a"] == "ok"
    assert [run.wall_ns for run in found.runs("a")] == [7_000_000] and found.runs("b") == ()
    assert found.add(batch(result("b", at=NOW + 5))) == ""


def test_links_and_fifos_are_not_read(state: Path, tmp_path: Path) -> None:
    opened().add(batch(result("a")))
    path = only_file(state)
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert "link" in opened().note
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in opened().note
    path.unlink()
    path.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    assert "no regular file" in opened().note
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_kept_of_standard_input(state: Path) -> None:
    found = open_history(None)
    assert found.add(batch(result("a"))) == "" and "standard input" in found.detail and not state.exists()


def test_without_a_home_there_is_none(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    found = opened()
    assert "HOME" in found.detail and found.add(batch(result("a"))) == ""
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # is to be ignored
    monkeypatch.setenv("HOME", str(state.parent))
    assert opened().path.startswith(f"{state.parent}/.local/state/guntainer/history/")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written(state: Path) -> None:
    state.mkdir(parents=True)
    state.chmod(0o500)
    assert "can not be written" in opened().add(batch(result("a")))
    state.chmod(0)
    found = opened()
    assert "no history is kept" in found.detail and found.add(batch(result("a"))) == ""
    state.chmod(0o700)


def test_a_lock_that_is_held_is_waited_for_a_while(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(history, "_PATIENCE_S", 0.05)
    state.mkdir(parents=True)
    with open(state / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "can not be written" in opened().add(batch(result("a")))
    assert opened().add(batch(result("a"))) == ""


def test_a_full_disk_leaves_the_old_one(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened().add(batch(result("a")))

    def full(_from: str, _to: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert "No space left" in opened().add(batch(result("b")))
    assert opened().last() == {"a": "ok"} and not list(state.glob("*.new"))


def test_ten_thousand_jobs(state: Path) -> None:
    jobs = [result(f"job-{n} (alpine, {n})", wall_ms=n) for n in range(10_000)]
    for number in range(3):
        opened().add(batch(*(one.replace(started_at=NOW + number) for one in jobs)))
    assert len(opened().expected()) == 10_000
