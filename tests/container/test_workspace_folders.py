"""Workspaces: a folder of the host's that a job works in, and what is left of that."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, Traces
from test_confined import NO_OVERLAY, confined

pytestmark = pytest.mark.usefixtures("user_namespaces")


def job_file(home: Path, archive: Path, text: str) -> Path:
    path = home / "jobs.toml"
    path.write_text(f'[rootfs.small]\nsource = "{archive}"\n[defaults]\nrootfs = "small"\n{text}')
    return path


@pytest.fixture
def folder(home: Path) -> Path:
    """A folder with what a folder may hold."""
    place = home / "src"
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "file").write_text("as it was\n")
    (place / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (place / "run.sh").chmod(0o755)
    (place / "link").symlink_to("sub/file")
    (place / "away").symlink_to("/etc/hostname")
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "fifo")
    place.chmod(0o750)
    return place


WORK = """
pwd; stat -c %a .; ./run.sh; cat link; readlink away dangling
echo changed > sub/file; rm run.sh; mkdir new; echo x > new/x; chmod 000 new; test -p fifo
"""


@pytest.mark.root
@pytest.mark.parametrize("userns", ["auto", "single"])
@pytest.mark.parametrize("scratch", ["disk", "memory"])
def test_each_job_has_its_own(
    home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces, userns: str, scratch: str
) -> None:
    text = f"""[jobs.a]
run = '''{WORK}'''
workspace = "src"
scratch = "{scratch}"
matrix = {{ n = [1, 2, 3] }}
"""
    path = job_file(home, small_archive, text)
    done = guntainer("batch", "-j", "2", "--userns", userns, "--output", "group", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("/workspace\n750\nran\nas it was\n/etc/hostname\nnowhere\n") == 3
    assert (folder / "sub" / "file").read_text() == "as it was\n" and not (folder / "new").exists()
    traces.check()


COPIED = f"""[jobs.a]
run = '''{WORK}
cat mine; ls -A
test ! -e sock -a ! -e store -a ! -e results -a -z "$(ls tmp)" && echo none
'''
workspace = "src"
matrix = {{ n = [1, 2, 3] }}
"""


@pytest.mark.parametrize("whole", [True, False])
def test_a_copy_where_there_can_be_no_overlay(
    home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces, whole: bool
) -> None:
    """Over the folder alone, since something is mounted in it, or nowhere. What guntainer keeps in there is not copied."""
    for name in ("tmp", "store", "results", "mnt", "work"):
        (folder / name).mkdir()
    (folder / "store" / "x").write_text("not one yet")
    (folder / "mine").write_text("mine\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(folder / "sock"))
    script = f"export TMPDIR={folder}/tmp GUNTAINER_STORE={folder}/store\nmount -t tmpfs none {folder}/mnt\n"
    if whole:
        script += NO_OVERLAY.format(folder / "work")
    path = job_file(home, small_archive, COPIED)
    done = confined(script, "batch", "-j", "2", "--results", folder / "results", "--output", "group", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("/workspace\n750\nran\nas it was\n/etc/hostname\nnowhere\nmine\n") == 3
    assert done.stdout.count("\nnone\n") == 3
    assert done.stderr.count("running on a copy") == 1 and (("workspace" in done.stderr) != whole)
    assert (folder / "sub" / "file").read_text() == "as it was\n" and not (folder / "new").exists()
    assert list((folder / "tmp").iterdir()) == []
    traces.check()


def test_a_copy_that_can_not_be_made(
    home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    (folder / "large").write_bytes(bytes(range(256)) * 40_000)
    (folder / "mnt").mkdir()
    script = f"mount -t tmpfs none {folder}/mnt\nmount -t tmpfs -o size=4m none {home}/tmp\n"
    text = '[jobs.a]\nrun = "true"\nworkspace = "src"\n[jobs.b]\nrun = "true"\n'
    done = confined(script, "batch", "-j", "1", job_file(home, small_archive, text))
    assert done.returncode == 1 and "1 ok, 1 error" in done.stdout, done.stdout + done.stderr
    assert "copying it failed: large: No space left on device" in done.stdout
    traces.check()


def test_what_guntainer_keeps_in_there_is_hidden(
    home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    env = {**os.environ, "GUNTAINER_STORE": str(folder / "a" / "store")}
    (folder / "a").mkdir()
    (folder / "a" / "other").write_text("other")
    text = '[jobs.a]\nrun = "ls -A a a/store results sub; stat -c %a a"\nworkspace = "src"\n'
    done = guntainer("batch", "--results", folder / "results", job_file(home, small_archive, text), env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a:\nother\nstore\n\na/store:\n\nresults:\n\nsub:\nfile\n" in done.stdout
    assert list((folder / "results").iterdir())
    traces.check()


@pytest.mark.root
def test_the_folder_itself(home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    text = """[jobs.a]
run = "echo changed > sub/file"
workspace = { source = "src", mode = "mount", target = "/w" }
[jobs.b]
run = "cat run.sh; ! echo x > x"
workspace = { source = "src", mode = "read-only", target = "/w" }
"""
    done = guntainer("batch", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "sub" / "file").read_text() == "changed\n" and not (folder / "x").exists()
    traces.check()


@pytest.mark.parametrize("mode", ["copy", "mount", "read-only"])
def test_its_artifacts(
    home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces, mode: str
) -> None:
    """Also those that a link in it leads to, as long as it stays in there."""
    command = "true" if mode == "read-only" else "mkdir -p dist; echo whl > dist/a.whl; ln -s a.whl dist/b.whl"
    text = f"""[jobs.a]
run = "{command}"
workspace = {{ source = "src", mode = "{mode}" }}
artifacts = {{ paths = ["dist/*.whl", "/**/file", "link", "away", "fifo"], if-none = "error" }}
"""
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    kept = {str(p.relative_to("out/a/artifacts")): p.read_text() for p in Path("out/a/artifacts").rglob("*.*")}
    assert kept == (
        {} if mode == "read-only" else dict.fromkeys(("workspace/dist/a.whl", "workspace/dist/b.whl"), "whl\n")
    )
    assert Path("out/a/artifacts/workspace/link").read_text() == "as it was\n"
    assert Path("out/a/artifacts/workspace/sub/file").read_text() == "as it was\n"
    notes = " ".join(json.loads(Path("out/a/result.json").read_text())["notes"])
    assert "links that lead out of /workspace: /workspace/away" in notes and "1 FIFO," in notes
    assert not Path("out/a/artifacts/workspace/away").exists()
    traces.check()


@pytest.mark.parametrize("name", ["we:ird,na=me", "back\\\\slash \u00e4", "x" * 250])
def test_names_of_any_kind(home: Path, small_archive: Path, guntainer: Run, traces: Traces, name: str) -> None:
    (home / name).mkdir()
    (home / name / "x").write_text("here\n")
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "run": "cat x", "workspace": f"./{name}"}}})
    )
    done = guntainer("batch", home / "jobs.json")
    assert done.returncode == 0 and "here\n" in done.stdout and "copy" not in done.stderr, done.stdout + done.stderr
    traces.check()


def test_a_link_to_one(home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    (home / "link").symlink_to("src")
    (home / "src" / "store").mkdir()
    env = {**os.environ, "GUNTAINER_STORE": str(folder / "store")}
    text = '[jobs.a]\nrun = "cat link; ls -A store"\nworkspace = "link"\n'
    done = guntainer("batch", job_file(home, small_archive, text), env=env)
    assert done.returncode == 0 and "as it was\n" in done.stdout and "VERSION" not in done.stdout
    traces.check()


def test_of_a_job_that_works_elsewhere(home: Path, folder: Path, small_archive: Path, guntainer: Run) -> None:
    text = '[jobs.a]\nrun = "pwd; cat /workspace/link"\nworkdir = "/etc"\nworkspace = "src"\nread-only = true\n'
    done = guntainer("batch", job_file(home, small_archive, text))
    assert done.returncode == 0 and "/etc\nas it was\n" in done.stdout


@pytest.mark.parametrize(
    ("source", "why"),
    [("nothing", "it does not exist on the host"), ("src/run.sh", "it is not a folder"), ("/", "whole root")],
)
def test_one_that_can_not_be(
    home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces, source: str, why: str
) -> None:
    text = f'[jobs.a]\nrun = "true"\nworkspace = "{source}"\n[jobs.b]\nrun = "true"\n'
    done = guntainer("batch", job_file(home, small_archive, text))
    assert done.returncode == 1 and "1 ok, 1 error" in done.stdout and why in done.stdout
    assert "Traceback" not in done.stderr
    traces.check()


def test_what_only_its_owner_may_read(
    home: Path, folder: Path, small_archive: Path, guntainer: Run, traces: Traces
) -> None:
    """Or not even that: the root of the container's ids may."""
    (folder / "sub" / "file").chmod(0o000)
    text = '[jobs.a]\nrun = "cat sub/file"\nworkspace = "src"\n'
    done = guntainer("batch", job_file(home, small_archive, text))
    assert done.returncode == 0 and "as it was" in done.stdout
    traces.check()


def test_stopped_at_any_time(home: Path, folder: Path, small_archive: Path, traces: Traces) -> None:
    (folder / "tmp").mkdir()
    for number in range(3000):
        (folder / f"f{number}").write_text("x")
    env = {**os.environ, "TMPDIR": str(folder / "tmp")}
    text = '[jobs.a]\nrun = "true"\nworkspace = "src"\nmatrix = { n = [1, 2, 3, 4] }\n'
    words = [sys.executable, "-m", "guntainer", "batch", str(job_file(home, small_archive, text))]
    for wait_s in (0.2, 0.3, 0.4):
        process = subprocess.Popen(
            words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode in (130, -2, 0)
        assert list((folder / "tmp").iterdir()) == []
    traces.check()
