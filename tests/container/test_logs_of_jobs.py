"""The logs of jobs: each job's own, and plain files of the user's, whatever a container does to its own stdout."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")


def job_file(home: Path, rootfs: Path, text: str) -> Path:
    path = home / "work" / "jobs.toml"
    path.write_text(f'[defaults]\nrootfs = "{rootfs}"\n{text}')
    return path


def plain(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o7133


TWO = """
[jobs.a]
run = "echo of a; {}"
[jobs.b]
needs = "a"
run = "echo of b"
"""


@pytest.mark.root
@pytest.mark.parametrize("does", ["chmod 000 /proc/self/fd/1", "chmod 6755 /proc/self/fd/1 /proc/self/fd/2"])
@pytest.mark.parametrize("results", [(), ("--results", "out")])
def test_a_container_changes_the_mode_of_its_log(
    guntainer: Run, home: Path, small_archive: Path, traces: Traces, does: str, results: tuple[str, ...]
) -> None:
    """The next job gets another one, and what is kept is no program that runs as the user."""
    done = guntainer("batch", "-j1", *results, job_file(home, small_archive, TWO.format(does)))
    assert done.returncode == 0 and "2 jobs: 2 ok" in done.stdout, done.stdout + done.stderr
    if results:
        assert all(plain(Path("out", job, name)) for job in "ab" for name in ("stdout", "stderr"))
        assert Path("out/a/stdout").read_text() == "of a\n"
        assert Path("out/a").stat().st_mode & 0o777 == Path("out").stat().st_mode & 0o777
    traces.check()


@pytest.mark.root
@pytest.mark.parametrize("job", ['run = "true"', 'run = "exit 3"\nretry = 1', 'run = "sleep 60"\ntimeout = 0.3'])
def test_a_service_changes_the_mode_of_its_log(
    guntainer: Run, home: Path, small_archive: Path, traces: Traces, job: str
) -> None:
    text = (
        '[services.db]\nrootfs = "host"\nready = "test -e /tmp/up"\n'
        'command = ["/bin/sh", "-c", "echo of db; chmod 4777 /proc/self/fd/1; touch /tmp/up; sleep 100"]\n'
        f'[jobs.a]\nservices = ["db"]\nnetwork = "none"\n{job}\n'
    )
    guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    logs = sorted(Path("out/a").rglob("db.log"))
    assert len(logs) == (2 if "retry" in job else 1)
    assert all(plain(log) and log.read_text() == "of db\n" for log in logs)
    traces.check()


def test_nobody_else_looks_into_a_folder_whose_job_runs(
    guntainer: Run, home: Path, small_archive: Path, traces: Traces
) -> None:
    text = '[jobs.a]\nvolumes = [".:/w"]\nrun = "stat -c %a /w/out/a"\n'
    for _ in range(2):  # the second time it is there already
        done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
        assert (done.returncode, Path("out/a/stdout").read_text()) == (0, "700\n"), done.stderr
    traces.check()


@pytest.mark.root
@pytest.mark.parametrize("results", [(), ("--results", "out")])
def test_a_container_gives_its_log_away(
    a_range: None, guntainer: Run, home: Path, small_archive: Path, traces: Traces, results: tuple[str, ...]
) -> None:
    text = (
        '[jobs.a]\nrootfs = "host"\nrun = "echo of a; chown 33:33 /proc/self/fd/1; chmod 600 /proc/self/fd/1; exit 1"\n'
    )
    done = guntainer("batch", *results, job_file(home, small_archive, text))
    assert done.returncode == 1 and done.stdout.count("of a\n") == 2, done.stdout + done.stderr
    if results:
        assert plain(Path("out/a/stdout")) and Path("out/a/stdout").read_text() == "of a\n"
    traces.check()


@pytest.mark.parametrize("results", [(), ("--results", "out")])
def test_a_job_that_never_ran_shows_nothing_of_another(
    guntainer: Run, home: Path, small_archive: Path, traces: Traces, results: tuple[str, ...]
) -> None:
    """Its cache folder can not be opened: found out after its slot was taken, before its streams are opened."""
    more = 'cache = [{ key = "k", path = "/c" }]\nretry = { attempts = 2, on = ["setup"] }\n'
    path = job_file(home, small_archive, TWO.format("true").replace("echo of b", "true") + more)
    words = ("batch", "-j1", "--store", home / "store", *results, path)
    assert guntainer(*words).returncode == 0
    (folder,) = (one for one in (home / "store" / "folders").iterdir() if one.is_dir())
    folder.chmod(0)
    try:
        done = guntainer(*words)
    finally:
        folder.chmod(0o700)
    assert done.returncode == 1 and "cache folder" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("of a\n") == 1 and "can not be written" not in done.stderr
    if results:
        assert Path("out/b/stdout").read_text() == ""
    traces.check()
