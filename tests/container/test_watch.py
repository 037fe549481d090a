"""`batch --watch`: a round for each change that matters, none for those that do not, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Traces

from guntainer.cli.watched import Watched, changed

pytestmark = pytest.mark.usefixtures("user_namespaces")

PATIENCE_S = 30.0
WATCHING = r"watching .*; Ctrl-C ends"


class Watch:
    """A running `batch --watch`, and all that it has said."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.path = folder / "said"
        line = [sys.executable, "-m", "guntainer", "batch", "--watch", *words]
        with open(self.path, "wb") as file:
            self.process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def said(self) -> str:
        return self.path.read_text(errors="replace")

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.said))

    def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def until_round(self, number: int) -> None:
        """Until it waits after this round, counted from 1."""
        self.until(lambda: self.count(WATCHING) >= number)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGINT) -> int:
        self.send(number)
        return self.process.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def watch(home: Path) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(*words: str) -> Watch:
        started.append(Watch(home, *words))
        return started[-1]

    yield start
    for one in started:
        one.close()


def jobs(home: Path, rootfs: Path, run: str, more: str = "") -> Path:
    path = home / "work" / "jobs.toml"
    path.write_text(f"[jobs.one]\nrootfs = \"{rootfs}\"\nrun = '''{run}'''\n{more}")
    return path


def test_a_change_of_the_job_file_runs_it_again(
    watch: Callable[..., Watch], home: Path, small_archive: Path, traces: Traces
) -> None:
    jobs(home, small_archive, "echo round-1")
    running = watch()
    running.until_round(1)
    assert running.count("round-1\n") >= 1
    jobs(home, small_archive, "echo round-2; exit 4")
    running.until_round(2)
    assert "jobs.toml has changed: running again" in running.said and "round-2\n" in running.said
    jobs(home, small_archive, "echo never", "nonsense = 1")
    running.until_round(3)
    assert "nonsense: unknown key" in running.said
    jobs(home, small_archive, "echo round-4")
    running.until_round(4)
    assert running.count("round-4\n") >= 1 and "never\n" not in running.said
    assert running.end() == 130
    traces.check()


def test_sources_and_what_is_extended(watch: Callable[..., Watch], home: Path, small_archive: Path) -> None:
    source = home / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("first\n")
    (source / ".git").mkdir()
    (home / "work" / "base.toml").write_text('[defaults]\nenv = { WORD = "one" }\n')
    text = f'volumes = ["{source}:/source:ro"]\n'
    path = jobs(home, small_archive, "cat /source/deep/file; echo $WORD", text)
    path.write_text(f'extends = "base.toml"\n{path.read_text()}')
    running = watch()
    running.until_round(1)
    assert "first\none\n" in running.said and "watching 2 folders" in running.said
    (source / "deep" / "file").write_text("second\n")
    running.until_round(2)
    assert "second\none\n" in running.said
    (home / "work" / "base.toml").write_text('[defaults]\nenv = { WORD = "two" }\n')
    running.until_round(3)
    assert "second\ntwo\n" in running.said
    (source / "new").mkdir()
    running.until_round(4)
    (source / "new" / "\x1b[2Jfile").write_text("")
    running.until_round(5)
    assert "/new/\\x1b[2Jfile has changed" in running.said and "\x1b[2J" not in running.said
    (source / ".git" / "index").write_text("")  # nobody's business
    (home / "work" / "other").write_text("")
    time.sleep(1)
    assert running.count(WATCHING) == 5
    assert running.end(signal.SIGTERM) == 143


def test_what_jobs_write_and_reports_begin_no_round(
    watch: Callable[..., Watch], home: Path, small_archive: Path, traces: Traces
) -> None:
    source = home / "work" / "source"
    source.mkdir()
    (source / "file").write_text("1")
    jobs(home, small_archive, "echo x >>/source/made", f'volumes = ["{source}:/source"]\n')
    running = watch("--results", "source/out", "--html", "source/page.html", "--json", "source/all.json")
    running.until_round(1)
    time.sleep(1)
    assert running.count(WATCHING) == 1
    assert (source / "made").read_text() == "x\n" and (source / "page.html").exists()
    (source / "file").write_text("2")
    running.until_round(2)
    assert (source / "made").read_text() == "x\nx\n"
    assert running.end() == 130
    traces.check()


def test_a_change_while_it_runs_waits_for_its_end(watch: Callable[..., Watch], home: Path, small_archive: Path) -> None:
    up = home / "flags"
    up.mkdir()
    more = f'volumes = ["{up}:/flags"]\n'
    jobs(home, small_archive, "touch /flags/up; sleep 1; echo ended-1", more)
    running = watch()
    running.until((up / "up").exists)
    jobs(home, small_archive, "echo ended-2", more)
    running.until(lambda: running.count("ended-2\n"))
    assert running.said.index("ended-1\n") < running.said.index("ended-2\n")


def test_ctrl_c_ends_the_round_and_then_all(
    watch: Callable[..., Watch], home: Path, small_archive: Path, traces: Traces
) -> None:
    up = home / "flags"
    up.mkdir()
    jobs(home, small_archive, "touch /flags/up; exec sleep 100", f'volumes = ["{up}:/flags"]\n')
    running = watch()
    running.until((up / "up").exists)
    running.send(signal.SIGINT)
    running.until_round(1)
    assert "SIGINT: stopping" in running.said and "cancelled" in running.said
    jobs(home, small_archive, "echo after-it")
    running.until_round(2)
    assert "after-it\n" in running.said
    assert running.end() == 130
    traces.check()


def test_ctrl_c_twice(watch: Callable[..., Watch], home: Path, small_archive: Path, traces: Traces) -> None:
    up = home / "flags"
    up.mkdir()
    stubborn = "trap '' TERM INT; touch /flags/up; while :; do sleep 1; done"
    jobs(home, small_archive, stubborn, f'volumes = ["{up}:/flags"]\nstop-timeout = "60s"\n')
    running = watch()
    running.until((up / "up").exists)
    running.send(signal.SIGINT)
    running.until(lambda: "SIGINT: stopping" in running.said)
    assert running.end() == 130
    traces.check()


def test_a_killed_watch_leaves_nothing(
    watch: Callable[..., Watch], home: Path, small_archive: Path, traces: Traces
) -> None:
    up = home / "flags"
    up.mkdir()
    jobs(home, small_archive, "touch /flags/up; exec sleep 100", f'volumes = ["{up}:/flags"]\n')
    running = watch()
    running.until((up / "up").exists)
    running.process.kill()
    running.process.wait()
    running.until(lambda: not traces.processes())
    traces.check()


def test_bad_options_end_it_at_once(watch: Callable[..., Watch], home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, "true")
    running = watch("-j", "many")
    assert running.process.wait(timeout=PATIENCE_S) == 2
    assert running.count("expected a number from 1 to 100000") == 1


def test_a_file_with_mistakes_is_waited_for(watch: Callable[..., Watch], home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, "true", "nonsense = 1")
    running = watch()
    running.until_round(1)
    assert "nonsense: unknown key" in running.said
    new = home / "work" / "new"
    new.write_text(jobs(home, small_archive, "echo better").read_text())
    running.until_round(2)
    os.replace(new, home / "work" / "jobs.toml")  # as editors do
    running.until_round(3)
    assert running.count("better\n") >= 2


def test_the_store_begins_no_round(
    watch: Callable[..., Watch], home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the history, where one of them lies in what is watched."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "work" / "state"))
    monkeypatch.setenv("GUNTAINER_STORE", "kept/store")
    for words, store in ((("--store", "st"), "st"), ((), "kept/store")):
        path = jobs(home, small_archive, "echo said", 'workspace = "."\n')
        running = watch(*words)
        running.until_round(1)
        time.sleep(1.5)
        assert running.count(WATCHING) == 1 and running.said.count("said\n") >= 1, running.said
        assert list((home / "work" / store / "rootfs").iterdir())
        assert list((home / "work" / "state" / "guntainer" / "history").iterdir())
        path.write_text(path.read_text().replace("said", "more"))
        running.until_round(2)
        assert running.end() == 130


def test_mistakes_in_what_is_extended_are_seen_as_mended(
    watch: Callable[..., Watch], home: Path, small_archive: Path
) -> None:
    base = home / "work" / "base.toml"
    path = jobs(home, small_archive, "echo $WORD")
    path.write_text(f'extends = "base.toml"\n{path.read_text()}')
    running = watch()
    running.until_round(1)
    assert '"base.toml": No such file' in running.said
    base.write_text("[defaults\n")
    running.until_round(2)
    base.write_text('[defaults]\nenv = { WORD = "one" }\n')
    running.until_round(3)
    assert "one\n" in running.said
    base.write_text("[defaults]\nnonsense = 1\n")
    running.until_round(4)
    base.write_text('[defaults]\nenv = { WORD = "two" }\n')
    running.until_round(5)
    assert "two\n" in running.said
    assert running.end() == 130


def test_the_file_of_a_secret_is_waited_for(watch: Callable[..., Watch], home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, "echo ${#S}", 'secrets = ["S"]\n[secrets.S]\nfile = "../secret"\n')
    running = watch()
    running.until_round(1)
    assert "secret S: " in running.said and "No such file" in running.said
    (home / "secret").write_text("12345678\n")
    running.until_round(2)
    assert "8\n" in running.said
    assert running.end() == 130


def test_a_variable_is_not_waited_for(watch: Callable[..., Watch], home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, "true", 'secrets = ["S"]\n[secrets.S]\nenv = "NONE_SUCH"\n')
    assert watch().process.wait(timeout=PATIENCE_S) == 2


def test_folders_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"d{number}").mkdir()
    watched = Watched([str(tmp_path)])
    watched.look()
    assert (watched.folders, watched.cut) == (6, False)
    monkeypatch.setattr("guntainer.cli.watched.MOST_FOLDERS", 3)
    watched.look()
    assert (watched.folders, watched.cut) == (3, True)


def test_a_look_sees_what_changes(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("1")
    link.symlink_to("file")
    watched = Watched([str(link), str(tmp_path / "missing" / "deep"), "/no/such"])
    before = watched.look()
    assert changed(before, watched.look()) == ""
    file.write_text("22")
    assert changed(before, watched.look()) == str(file)
    before = watched.look()
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "deep").write_text("")
    assert changed(before, watched.look()) == str(tmp_path / "missing" / "deep")
    before = watched.look()
    file.chmod(0o755)
    assert changed(before, watched.look()) == str(file)


def test_too_many_watches_are_named(
    watch: Callable[..., Watch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guntainer import errors
    from guntainer.kernel.inotify import Inotify

    def full(_self: Inotify, path: str) -> None:
        raise OSError(28, "No space left on device", path)

    inotify = Inotify()
    monkeypatch.setattr(Inotify, "watch", full)
    with pytest.raises(errors.HostError, match=r"max_user_watches"):
        Watched([str(tmp_path)]).look(inotify)
    inotify.close()
