"""Artifacts: what comes out of a container, and what does not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from conftest import Run, Traces
from test_confined import NO_OVERLAY, confined

pytestmark = pytest.mark.usefixtures("user_namespaces")


def job_file(home: Path, archive: Path, text: str) -> Path:
    path = home / "work" / "jobs.toml"
    path.write_text(f'[rootfs.small]\nsource = "{archive}"\n[defaults]\nrootfs = "small"\n{text}')
    return path


def outcome(job: str = "a") -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(f"out/{job}/result.json").read_text())
    return found


def kept(job: str = "a") -> dict[str, bytes]:
    folder = Path(f"out/{job}/artifacts")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MAKE = """
mkdir -p /w/dist/sub /var/log/app
echo one > /w/dist/one.whl
echo two > /w/dist/sub/two.whl
echo no > /w/dist/no.txt
echo log > /var/log/app/x.log
chmod 000 /w/dist/one.whl
chmod 755 /var/log/app/x.log
"""


@pytest.mark.root
@pytest.mark.parametrize("scratch", ["disk", "memory"])
@pytest.mark.parametrize("userns", ["auto", "single"])
def test_they_are_there(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, scratch: str, userns: str
) -> None:
    text = f"""[jobs.a]
scratch = "{scratch}"
run = '''{MAKE}'''
artifacts = ["/w/dist/*.whl", "/var/log/app/**", "/w/**/two.whl", "!/w/none"]
[jobs.seen]
workdir = "/etc"
run = "mkdir /etc/d && echo rel > d/rel && echo hidden > d/.rel"
artifacts = "d"
"""
    path = job_file(home, small_archive, text)
    done = guntainer("batch", "--userns", userns, "--results", "out", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept() == {"w/dist/one.whl": b"one\n", "w/dist/sub/two.whl": b"two\n", "var/log/app/x.log": b"log\n"}
    assert kept("seen") == {"etc/d/rel": b"rel\n", "etc/d/.rel": b"hidden\n"}
    assert outcome()["artifacts"] == [
        {"path": "w/dist/one.whl", "size_bytes": 4},
        {"path": "var/log/app/x.log", "size_bytes": 4},
        {"path": "w/dist/sub/two.whl", "size_bytes": 4},
    ]
    modes = {path.name: path.stat().st_mode & 0o7777 for path in Path("out/a/artifacts").rglob("*.*")}
    assert modes == {"one.whl": 0o644, "two.whl": 0o644, "x.log": 0o755}
    assert all(path.stat().st_uid == os.geteuid() for path in Path("out/a/artifacts").rglob("*"))
    traces.check()


@pytest.mark.parametrize("command", ["false", "sleep 100"])
def test_also_of_a_job_that_failed(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, command: str
) -> None:
    text = f'[jobs.a]\nrun = "echo x > /x; {command}"\ntimeout = 1\nartifacts = ["/x"]\n'
    assert guntainer("batch", "--results", "out", job_file(home, small_archive, text)).returncode == 1
    assert kept() == {"x": b"x\n"}
    traces.check()


def test_of_each_job_its_own_and_of_this_run_alone(home: Path, small_archive: Path, guntainer: Run) -> None:
    text = '[jobs.a]\nrun = "echo ${{ matrix.n }} > /x"\nartifacts = ["/*x"]\nmatrix = { n = [1, 2, 3] }\n'
    stale = home / "work" / "out" / "a (1)" / "artifacts"
    stale.mkdir(parents=True)
    (stale / "old").write_text("of an earlier run")
    assert guntainer("batch", "--results", "out", job_file(home, small_archive, text)).returncode == 0
    assert [kept(f"a ({n})") for n in (1, 2, 3)] == [{"x": f"{n}\n".encode()} for n in (1, 2, 3)]


@pytest.mark.parametrize(("if_none", "code"), [("warn", 0), ("error", 1), ("ignore", 0)])
def test_none_match(home: Path, small_archive: Path, guntainer: Run, traces: Traces, if_none: str, code: int) -> None:
    text = f'[jobs.a]\nrun = "true"\nartifacts = {{ paths = ["*.whl"], if-none = "{if_none}" }}\n'
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == code
    why = "artifacts: no file matches *.whl"
    assert (why in done.stdout + done.stderr) == (if_none != "ignore")
    assert outcome()["outcome"] == ("failed" if if_none == "error" else "ok")
    assert outcome()["message"] == (why if if_none == "error" else "")
    assert not Path("out/a/artifacts").exists()
    traces.check()


@pytest.mark.parametrize("if_none", ["warn", "error"])
def test_none_could_be_taken(home: Path, small_archive: Path, guntainer: Run, traces: Traces, if_none: str) -> None:
    """That one matches is not denied."""
    text = f"""[jobs.a]
run = "echo 12345 > /x"
artifacts = {{ paths = ["/x"], max-size = 3, if-none = "{if_none}" }}
"""
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == (if_none == "error"), done.stdout + done.stderr
    why = "artifacts: none could be taken: left out, more than 3 bytes together (max-size): /x"
    assert (outcome()["message"], outcome()["notes"]) == ((why, []) if if_none == "error" else ("", [why]))
    traces.check()


@pytest.mark.parametrize("target", ["/x[1]", "/*/?"])
def test_a_working_directory_is_no_pattern(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, target: str
) -> None:
    (home / "work" / "ws").mkdir()
    text = f"""[jobs.a]
workspace = {{ source = "ws", target = "{target}" }}
run = "mkdir -p /x1 /a/b; echo no > /x1/no.txt; echo no > /a/b/no.txt; echo yes > yes.txt"
artifacts = ["*.txt"]
"""
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept() == {f"{target[1:]}/yes.txt": b"yes\n"}
    traces.check()


def test_a_workspace_behind_a_link(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """Of the rootfs: /var/run of many is one."""
    with tarfile.open(small_archive) as small, tarfile.open(home / "linked.tar", "w") as made:
        for one in small:
            made.addfile(one, small.extractfile(one) if one.isreg() else None)
        link = tarfile.TarInfo("var/run")
        link.type, link.linkname = tarfile.SYMTYPE, "/run"
        made.addfile(link)
    (home / "work" / "ws").mkdir()
    text = """[jobs.a]
workspace = { source = "ws", target = "/var/run/ws" }
run = "test $(pwd -P) = /run/ws; echo a > a.txt; echo b > b.bin"
artifacts = ["*.txt", "/run/ws/*.bin"]
"""
    done = guntainer("batch", "--results", "out", job_file(home, home / "linked.tar", text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.rpartition("/")[2] for path in kept()) == ["a.txt", "b.bin"] and outcome()["notes"] == []
    traces.check()


def test_without_a_folder_of_results(home: Path, small_archive: Path, guntainer: Run) -> None:
    text = '[jobs.a]\nrun = "echo x > /x"\nartifacts = { paths = ["/x"], if-none = "error" }\n'
    done = guntainer("batch", job_file(home, small_archive, text))
    assert (done.returncode, done.stderr.count("artifacts are not kept without --results DIR")) == (0, 1)


HOSTILE = """
mkdir /w && cd /w
echo good > good
ln -s /../../../../../../../../../etc/hostname up
ln -s {secret} away
ln -s good link
ln -s nowhere dangling
ln -s round round
ln -s / root
ln -s /proc/1/root/etc/hostname magic
"""


def test_nothing_but_files_of_the_container(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    secret = home / "secret"
    secret.write_text("of the host")
    text = f"[jobs.a]\nrun = '''{HOSTILE.format(secret=secret)}'''\nartifacts = ['/w']\n"
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    found = kept()
    assert found.pop("w/up", b"").strip() in (b"", b"guntainer")  # the container's own
    assert found == {"w/good": b"good\n", "w/link": b"good\n"}
    assert not [path for path in Path("out").rglob("*") if path.is_symlink()]
    notes = " ".join(outcome()["notes"])  # type: ignore[arg-type]
    for name in ("/w/away", "/w/dangling", "/w/round", "/w/root"):
        assert name in notes
    traces.check()


def test_what_is_no_file_stays(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """A FIFO would hang whoever reads it; what is mounted is not the container's own."""
    (home / "work" / "vol").mkdir()
    (home / "work" / "vol" / "hosts").write_text("of a volume")
    os.mkfifo(home / "work" / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("sock")
    text = """[jobs.a]
run = "echo x > /w/x; cat /v/hosts /dev/null; ls /proc/self > /dev/null"
artifacts = ["/w", "/v/**", "/proc/self/*", "/dev/**"]
volumes = ["vol:/v"]
workspace = { source = "ws", target = "/w" }
"""
    (home / "work" / "ws").mkdir()
    os.rename("fifo", "ws/fifo")
    os.rename("sock", "ws/sock")
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept() == {"w/x": b"x\n"}
    assert "2 FIFOs, sockets or devices left out" in " ".join(outcome()["notes"])  # type: ignore[arg-type]
    traces.check()


def test_their_size_is_bounded(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """By what a file seems to have: nobody has the room for what a hole becomes elsewhere."""
    text = """[jobs.a]
run = '''
mkdir /w
dd if=/dev/zero of=/w/huge bs=1 count=0 seek=10G 2> /dev/null
dd if=/dev/zero of=/w/sparse bs=1 count=0 seek=900K 2> /dev/null
dd if=/dev/zero of=/w/too bs=1k count=200 2> /dev/null
echo fits > /w/z
'''
artifacts = { paths = ["/w/*"], max-size = "1m" }
"""
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: len(data) for path, data in kept().items()} == {"w/sparse": 900 << 10, "w/z": 5}
    assert Path("out/a/artifacts/w/sparse").stat().st_blocks < 100
    notes = " ".join(outcome()["notes"])  # type: ignore[arg-type]
    assert "more than 1 MiB together (max-size): /w/huge, /w/too" in notes
    traces.check()


def test_their_number_is_bounded(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    text = '[jobs.a]\nrun = "mkdir /w; cd /w; touch $(seq 10050)"\nartifacts = ["/w/*"]\n'
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(kept()) == 10_000
    assert "more than 10000 files match" in " ".join(outcome()["notes"])  # type: ignore[arg-type]
    traces.check()


def test_names_and_depths_of_any_kind(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    text = r"""[jobs.a]
run = '''
mkdir /w && cd /w
echo a > "$(printf 'new\nline')"; echo b > "$(printf '\377')"; echo c > '<b>&"x'; echo d > '-rf'; echo e > 'a*b'
i=0; while [ $i -lt 300 ]; do mkdir dddddddddddddddddddd; cd -P dddddddddddddddddddd; i=$((i+1)); done; echo deep > deep
'''
artifacts = ["/w/**"]
"""
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = os.fsencode("out/a/artifacts/w")
    names = {name for name in os.listdir(folder) if not name.startswith(b"ddd")}
    assert names == {b"new\nline", b"\xff", b'<b>&"x', b"-rf", b"a*b"}
    assert "File name too long: /w/ddd" in " ".join(outcome()["notes"])  # type: ignore[arg-type]
    traces.check()


def test_of_sub_ids(home: Path, small_archive: Path, guntainer: Run, traces: Traces, a_range: None) -> None:
    text = '[jobs.a]\nrun = "echo x > /x; chmod 600 /x; chown 1234:1234 /x"\nartifacts = ["/x"]\n'
    done = guntainer("batch", "--userns", "range", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept() == {"x": b"x\n"} and Path("out/a/artifacts/x").stat().st_uid == os.geteuid()
    traces.check()


def test_a_file_in_the_place_of_the_folder(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    folder = home / "work" / "out" / "a"
    folder.mkdir(parents=True)
    (folder / "artifacts").write_text("of an earlier run, perhaps")
    text = '[jobs.a]\nrun = "echo x > /x"\nartifacts = ["/x"]\n'
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0 and kept() == {"x": b"x\n"}
    traces.check()


def test_they_can_not_be_written(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """The job is what it was, and its result says what is missing."""
    text = """[jobs.a]
run = "mkdir -p /w/%s/%s; echo x > /w/%s/%s/x; echo y > /w/y"
artifacts = ["/w"]
""" % (("d" * 200, "e" * 200) * 2)
    deep = "/".join(["r" * 200] * 19)
    done = guntainer("batch", "--results", deep, job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(Path(f"{deep}/a/result.json").read_text())
    assert [one["path"] for one in result["artifacts"]] == ["w/y"]
    assert "File name too long: /w/ddd" in " ".join(result["notes"])
    traces.check()


def test_of_a_batch_that_is_stopped(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """Those of jobs that have ended by themselves are there, those of the others are not."""
    text = """[jobs.a]
run = "echo x > /x"
artifacts = ["/x"]
[jobs.b]
run = "echo x > /x; sleep 100"
artifacts = ["/x"]
"""
    words = [sys.executable, "-m", "guntainer", "batch", "-j", "2", "--results", "out"]
    words.append(str(job_file(home, small_archive, text)))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    for _ in range(400):
        if Path("out/a/result.json").exists() and Path("out/b/stdout").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert kept() == {"x": b"x\n"} and kept("b") == {} and outcome("b")["outcome"] == "cancelled"
    traces.check()


@pytest.mark.parametrize("wait_s", [0.15, 0.25, 0.35, 0.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_any_time(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, number: int, wait_s: float
) -> None:
    """Twice, which kills: also who copies. After SIGKILL the next start cleans up."""
    text = """[jobs.a]
run = "dd if=/dev/urandom of=/x bs=1M count=30 2> /dev/null; mkdir /d; cd /d; touch $(seq 500)"
artifacts = ["/x", "/d"]
matrix = { n = [1, 2, 3, 4, 5, 6] }
"""
    path = job_file(home, small_archive, text)
    assert guntainer("batch", "--only", "zzz", path).returncode == 2
    words = [sys.executable, "-m", "guntainer", "batch", "-j", "3", "--results", "out", str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    time.sleep(wait_s)
    process.send_signal(number)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (130, -number, 0)
    for _ in range(100):
        if not traces.processes():
            break
        time.sleep(0.05)
    assert guntainer("batch", job_file(home, small_archive, '[jobs.c]\nrun = "true"\n')).returncode == 0
    traces.check()


@pytest.mark.parametrize("rung", ["host-proc", "copy"])
def test_on_lower_rungs(home: Path, small_archive: Path, traces: Traces, rung: str) -> None:
    text = '[jobs.a]\nrun = "echo x > /x; ln -s /x /y"\nartifacts = { paths = ["/[xy]", "/proc/1/*"], if-none = "error" }\n'
    path = job_file(home, small_archive, text)
    script = NO_OVERLAY.format(home / "tmp") if rung == "copy" else "mount -t tmpfs none /proc/sys"
    done = confined(script, "batch", "--results", "out", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept() == {"x": b"x\n", "y": b"x\n"}
    traces.check()


def test_of_the_host_s_own_system(home: Path, guntainer: Run, traces: Traces) -> None:
    """What is bound from the host is mounted, so it is not the container's."""
    path = home / "work" / "jobs.toml"
    path.write_text(
        '[jobs.a]\nrootfs = "host"\nrun = "echo x > /tmp/x"\nartifacts = ["/tmp/*", "/etc/passwd", "/usr/bin/env"]\n'
    )
    done = guntainer("batch", "--results", "out", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept() == {"tmp/x": b"x\n"}
    traces.check()


def test_of_a_try_that_is_the_last(home: Path, small_archive: Path, guntainer: Run) -> None:
    """What is missing can be tried again, as any failure."""
    text = """[jobs.a]
run = "echo x >> /c/n; test $(cat /c/n | wc -l) = 1 && echo first > /first || echo x > /x"
artifacts = { paths = ["/x"], if-none = "error" }
cache = { key = "k", path = "/c" }
retry = { attempts = 3, on = ["exit"] }
"""
    done = guntainer("batch", "--results", "out", job_file(home, small_archive, text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept() == {"x": b"x\n"} and outcome()["outcome"] == "flaky"
