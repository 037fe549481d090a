"""`batch --interactive-on-failure`, on a pseudo-terminal: a shell in what the failed job has left, and the batch goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

PATIENCE_S = 30.0
SHELL = "this is a shell in its container"
ENDED = "the shell has ended; going on"


class Session:
    """A batch on a terminal of its own, whose master we hold."""

    def __init__(self, *words: str) -> None:
        self.master, slave = os.openpty()
        os.set_blocking(self.master, False)
        self.before = termios.tcgetattr(self.master)
        self.seen = ""
        line = ["setsid", "--ctty", sys.executable, "-m", "guntainer", "batch", "--interactive-on-failure", *words]
        self.process = subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def read(self) -> str:
        try:
            while True:
                self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            pass
        except OSError:
            pass  # EIO: nobody has the slave any more
        return self.seen

    def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            self.read()
            assert time.monotonic() < deadline, self.seen
            time.sleep(0.02)

    def until_seen(self, text: str, times: int = 1) -> None:
        self.until(lambda: self.read().count(text) >= times)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def asks(self, line: str, pattern: str) -> None:
        """Type a line into the shell, and see what its answer is."""
        self.type(f"{line}\n")
        self.until(lambda: re.search(pattern, self.read()))

    def end(self) -> int:
        code: list[int] = []

        def ended() -> bool:
            found = self.process.poll()
            if found is not None:
                code.append(found)
            return found is not None

        self.until(ended)
        self.read()
        return code[0]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def session(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Session]]:
    started: list[Session] = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def start(*words: str) -> Session:
        started.append(Session(*words))
        return started[-1]

    yield start
    for one in started:
        one.close()


def jobs(home: Path, rootfs: Path, text: str) -> None:
    (home / "shared").mkdir(exist_ok=True)
    (home / "shared" / "given").write_text("given-to-it\n")
    head = f'[defaults]\nrootfs = "{rootfs}"\nvolumes = ["{home}/shared:/shared"]\n'
    (home / "work" / "jobs.toml").write_text(head + text)


FAILS = """
[jobs.bad]
env = { WORD = "of-the-job" }
workdir = "/tmp"
run = "echo said-before; echo left-behind >/tmp/file; mkdir -p /new/deep; exit 3"
[jobs.next]
needs = "bad"
if = "always()"
run = "echo next-one"
"""


@pytest.mark.root
@pytest.mark.parametrize("words", [(), ("--output", "group"), ("-q",), ("--userns", "single")])
def test_a_shell_in_what_it_has_left(
    session: Callable[..., Session], home: Path, small_archive: Path, words: tuple[str, ...]
) -> None:
    jobs(home, small_archive, FAILS)
    running = session(*words)
    running.until_seen(SHELL)
    assert "bad failed: exit 3" in running.seen and "said-before" in running.seen
    running.asks("cat file; echo got=$?", r"left-behind\r\ngot=0")
    running.asks("cat /shared/given", r"given-to-it")
    running.asks("echo word=$WORD in $PWD", r"word=of-the-job in /tmp")
    running.asks("echo $((6*7)) >/shared/made; ls -d /new/deep; tty", r"/new/deep\r\n/dev/(pts/0|console)")
    assert "next-one" not in running.seen
    running.type("exit 9\n")
    assert running.end() == 1
    assert ENDED in running.seen and "next-one" in running.seen
    assert (home / "shared" / "made").read_text() == "42\n"
    assert termios.tcgetattr(running.master) == running.before


def test_nothing_is_left(session: Callable[..., Session], home: Path, small_archive: Path, traces: Traces) -> None:
    jobs(home, small_archive, FAILS)
    running = session()
    running.until_seen(SHELL)
    running.type("exit\n")
    assert running.end() == 1
    assert traces.processes() == [] and traces.folders() == []


def test_one_at_a_time(session: Callable[..., Session], home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, '[jobs.bad]\nrepeat = 3\nrun = "exit 1"\n')
    running = session("-j", "3")
    for number in (1, 2, 3):
        running.until_seen(SHELL, number)
        time.sleep(0.3)
        assert running.read().count(SHELL) == number
        running.type("exit\n")
    assert running.end() == 1 and running.seen.count(ENDED) == 3


def test_what_others_say_waits(session: Callable[..., Session], home: Path, small_archive: Path) -> None:
    jobs(
        home,
        small_archive,
        '[jobs.bad]\nrun = "exit 1"\n[jobs.other]\nrun = "while ! test -e /shared/go; do sleep 0.1; done; seq 100000; echo other-said"\n',
    )
    running = session("-j", "2")
    running.until_seen(SHELL)
    (home / "shared" / "go").touch()
    time.sleep(1)
    running.asks("echo a''b", "ab\r\n")
    assert "other-said" not in running.seen and "99" not in running.seen
    running.type("exit\n")
    assert running.end() == 1 and "other-said" in running.seen
    assert [int(word) for word in re.findall(r"other \|.{0,9} (\d+)\r", running.seen)] == list(range(1, 100001))


def test_only_the_last_attempt_and_what_counts(
    session: Callable[..., Session], home: Path, small_archive: Path
) -> None:
    jobs(
        home,
        small_archive,
        '[jobs.tried]\nretry = 1\nrun = "exit 1"\n[jobs.may]\nallow-failure = true\nrun = "exit 1"\n'
        '[jobs.gone]\ncommand = ["/no/such"]\n',
    )
    running = session("-j", "1")
    running.until_seen(SHELL)
    running.type("exit\n")
    assert running.end() == 1
    assert running.seen.count(SHELL) == 1 and "tried failed: exit 1" in running.seen


def test_a_timeout_and_memory(session: Callable[..., Session], home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, '[jobs.slow]\nscratch = "memory"\ntimeout = 1\nrun = "echo x >/kept; exec sleep 60"\n')
    running = session()
    running.until_seen(SHELL)
    assert "scratch is on disk for all jobs" in running.seen and "slow failed: timeout after 1 s" in running.seen
    running.asks("cat /kept", r"x\r\n")
    time.sleep(1.2)  # its time does not count here
    running.asks("echo st''ill", "still")
    running.type("exit\n")
    assert running.end() == 1


def test_a_workspace_is_still_there(session: Callable[..., Session], home: Path, small_archive: Path) -> None:
    (home / "project").mkdir()
    (home / "project" / "file").write_text("of-the-project\n")
    jobs(
        home,
        small_archive,
        f'[jobs.bad]\nworkspace = "{home}/project"\nrun = "echo changed >made; exit 1"\nworkdir = "/workspace"\n',
    )
    running = session()
    running.until_seen(SHELL)
    running.asks("cat file made", r"of-the-project\r\nchanged")
    running.type("exit\n")
    assert running.end() == 1 and not (home / "project" / "made").exists()


def test_its_services_are_still_there(session: Callable[..., Session], home: Path, small_archive: Path) -> None:
    jobs(
        home,
        small_archive,
        '[services.db]\nrootfs = "small"\ncommand = ["sh", "-c", "hostname >/shared/up; exec sleep 100"]\n'
        'volumes = ["SHARED:/shared"]\nready = ["sh", "-c", "test -e /shared/up"]\n'
        '[jobs.bad]\nservices = ["db"]\nnetwork = "none"\nrun = "readlink /proc/self/ns/net; exit 1"\n'.replace(
            "SHARED", f"{home}/shared"
        ).replace('"small"', f'"{small_archive}"'),
    )
    running = session()
    running.until_seen(SHELL)
    running.asks("echo $(readlink /proc/self/ns/net) again; grep db /etc/hosts", r"again\r\n.*\sdb")
    found = re.findall(r"net:\[\d+\]", running.seen)
    assert len(found) >= 2 and len(set(found)) == 1
    running.type("exit\n")
    assert running.end() == 1


def test_where_overlayfs_is_refused(
    session: Callable[..., Session], home: Path, small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = home / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import guntainer.container as c\n"
        "before = c.Container.run\n"
        "async def run(self, isolation='full', *, copy=False, require_full=False):\n"
        "    return await before(self, isolation, copy=True, require_full=require_full)\n"
        "c.Container.run = run\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{site}:{os.environ['PYTHONPATH']}")
    jobs(home, small_archive, FAILS)
    running = session()
    running.until_seen(SHELL)
    running.asks("cat /tmp/file", r"left-behind\r\n")
    running.type("exit\n")
    assert running.end() == 1


def test_no_shell_in_there(session: Callable[..., Session], home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, '[jobs.bad]\nrun = "rm /bin/sh /usr/bin/sh; exit 1"\n')
    running = session()
    running.until_seen("bad: no shell: ")
    assert running.end() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_shell(
    session: Callable[..., Session], home: Path, small_archive: Path, number: int, traces: Traces
) -> None:
    jobs(home, small_archive, FAILS)
    running = session("--json", "out.json")
    running.until_seen(SHELL)
    running.asks("echo u''p", "up")
    running.process.send_signal(number)
    assert running.end() == 128 + number
    assert "SIG" in running.seen and termios.tcgetattr(running.master) == running.before
    assert '"outcome": "failed"' in (home / "work" / "out.json").read_text()  # it is what it was
    assert traces.processes() == [] and traces.folders() == []


def test_a_terminal_that_vanishes(
    session: Callable[..., Session], home: Path, small_archive: Path, traces: Traces
) -> None:
    jobs(home, small_archive, FAILS)
    running = session()
    running.until_seen(SHELL)
    running.asks("echo u''p", "up")
    os.close(running.master)
    running.master = os.open("/dev/null", os.O_RDONLY)
    running.process.wait(timeout=PATIENCE_S)
    assert traces.processes() == [] and traces.folders() == []


def test_without_a_terminal(guntainer: Run, home: Path, small_archive: Path) -> None:
    jobs(home, small_archive, FAILS)
    done = guntainer("batch", "--interactive-on-failure")
    assert done.returncode == 2 and "not a terminal" in done.stderr


def test_the_size_follows(session: Callable[..., Session], home: Path, small_archive: Path) -> None:
    import fcntl
    import struct

    jobs(home, small_archive, FAILS)
    running = session()
    running.until_seen(SHELL)
    fcntl.ioctl(running.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    running.until(lambda: running.type("stty size\n") or time.sleep(0.2) or "33 99" in running.read())
    running.type("exit\n")
    assert running.end() == 1
