"""A whole batch on a terminal: the live table, Ctrl-C, Ctrl-Z, a terminal that knows little; and what a CI system gets of one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

LOUD = 'run = "for n in 1 2 3 4 5 6; do echo $n of ${{ matrix.name }}; sleep 0.2; done"\nmatrix.name = ["x", "y"]\n'
LONG = 'run = "echo up; sleep 100"\nstop-timeout = 0.5\nrepeat = 2\n'


def job_file(home: Path, archive: Path, *jobs: str) -> Path:
    path = home / "work" / "jobs.toml"
    texts = [f'[jobs.{chr(97 + n)}]\nrootfs = "small"\n{job}' for n, job in enumerate(jobs)]
    path.write_text("\n".join([f'[rootfs.small]\nsource = "{archive}"', *texts]))
    return path


class Seen:
    """A program on a terminal of its own, with a shell's job control where it has a shell."""

    def __init__(self, *words: object, **env: str) -> None:
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self.screen)
        self.bytes = b""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            given = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
            os.execvpe(str(words[0]), [str(word) for word in words], {**given, "TERM": "xterm", **env})

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n")

    def until(self, done: Callable[[str], bool], seconds: float = 25) -> str:
        """Look until it is so, or until nobody has the terminal any more."""
        deadline = time.monotonic() + seconds
        while not done(self.text()):
            assert time.monotonic() < deadline, self.text()
            if not select.select([self.fd], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:
                break  # EIO
            self.bytes += data
            self._stream.feed(data)
        return self.text()

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what is left on the terminal."""
        text = self.until(lambda _text: False)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status), text


BATCH = (sys.executable, "-m", "guntainer", "batch")


def test_the_table_stands_below_and_is_gone_at_the_end(home: Path, small_archive: Path, traces: Traces) -> None:
    seen = Seen(*BATCH, job_file(home, small_archive, LOUD), "-j", 2)
    seen.until(lambda text: text.endswith(" 0/2 done · 2 running") and "3 of x" in text)
    lines = seen.text().splitlines()
    assert "a (x) | 3 of x" in lines and [line[3:].split()[:2] for line in lines[-3:-1]] == [["a", "(x)"], ["a", "(y)"]]
    code, text = seen.end()
    assert code == 0 and "running" not in text and " done" not in text
    assert [f"a (x) | {n} of x" in text for n in range(1, 7)] == [True] * 6
    assert text.splitlines()[-1].startswith("2 jobs: 2 ok in") and not seen.screen.cursor.hidden
    traces.check()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_a_clean_terminal(home: Path, small_archive: Path, traces: Traces, times: int) -> None:
    seen = Seen(*BATCH, job_file(home, small_archive, LONG), "-j", 2)
    seen.until(lambda text: text.count("running up") == 2)
    for _ in range(times):
        seen.type(b"\x03")
        time.sleep(0.05)
    code, text = seen.end()
    assert code == 130 and "running " not in text and "0/2 done" not in text
    assert "2 jobs: 2 cancelled in" in text
    assert seen.bytes.rfind(b"\x1b[?7h") > seen.bytes.rfind(b"\x1b[?7l")
    traces.check()


def test_ctrl_z_gives_the_terminal_back(home: Path, small_archive: Path, traces: Traces) -> None:
    path = job_file(home, small_archive, 'run = "sleep 2; echo woken"\n')
    batch = shlex.join([*BATCH, str(path)])
    seen = Seen("bash", "--norc", "-c", f"set -m; {batch}; echo shell again; sleep 0.5; fg; echo code $?")
    seen.until(lambda text: "1 running" in text)
    seen.type(b"\x1a")
    text = seen.until(lambda text: "shell again" in text)
    assert "running" not in text.partition("Stopped")[0] and "done" not in text
    seen.until(lambda text: "1 running" in text.partition("shell again")[2])
    code, text = seen.end()
    assert code == 0 and text.splitlines()[-1] == "code 0" and "a | woken" in text and "running" not in text
    traces.check()


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"CI": "true"}, {"NO_COLOR": "1"}, {"TERM": "xterm-256color"}])
def test_what_a_terminal_does_not_know_it_is_not_sent(home: Path, small_archive: Path, env: dict[str, str]) -> None:
    seen = Seen(*BATCH, job_file(home, small_archive, 'run = "echo up; sleep 1"\n'), **env)
    code, text = seen.end()
    assert code == 0 and "up" in text
    colour = b"\x1b[" in seen.bytes and b"m" in b"".join(part[:3] for part in seen.bytes.split(b"\x1b[")[1:])
    assert colour == (env.get("TERM") == "xterm-256color" or "CI" in env)
    assert (b"?7l" in seen.bytes) == ("CI" not in env and env.get("TERM") != "dumb")


def test_the_command_at_the_end_runs_that_job_alone(home: Path, small_archive: Path, guntainer: Run) -> None:
    names = ['"[*]"', '"?"', '"it\'s"', '"x; echo $(id)"', '"-v"', '"ü\\n"', '"plain"']
    store = home / "other store"
    for number in range(len(names)):
        rest = ", ".join(names[number:])
        path = job_file(home, small_archive, f'run = "false"\nmatrix.name = [{rest}]\n')
        done = guntainer("batch", path, "--store", store, "--userns", "single", "--set", "env.A=b c")
        lines = done.stdout.splitlines()
        words = next(line for line in lines if line.startswith("run it again: ")).removeprefix(
            "run it again: guntainer "
        )
        assert "--userns single --set 'env.A=b c'" in words and "other store" in words and "--max-cells" not in words
        script = f"{sys.executable} -m guntainer {words}"
        again = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        assert again.returncode == 1 and "\n1 job: 1 failed in" in again.stdout, (words, again.stderr)
        first = next(line for line in lines if line.startswith("first failure: "))
        assert first in again.stdout


def test_a_summary_for_the_step(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, 'run = "true"\n', "run = \"echo '<b>```'; exit 3\"\n")
    env = {**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(home / "summary.md")}
    done = guntainer("batch", path, env=env)
    text = (home / "summary.md").read_text()
    assert done.returncode == 1 and "| ✅ | <code>a</code> | ok | 0 |" in text and "````text\n<b>```\n````\n" in text
    assert "--only b\n" in text
    env["GITHUB_STEP_SUMMARY"] = str(home / "none" / "summary.md")
    done = guntainer("batch", path, env=env)
    assert done.returncode == 1 and "no summary is written" in done.stderr and "2 jobs: 1 ok, 1 failed" in done.stdout


def test_nothing_but_a_table_loads_rich(home: Path, small_archive: Path, guntainer: Run) -> None:
    path = job_file(home, small_archive, 'run = "sleep 0.5"\nmemory = "1T"\n')
    look = "import sys; from guntainer.cli import main; main({!r}); print([m for m in sys.modules if m[:4] == 'rich'])"
    for words in (
        ["--version"],
        ["run", str(small_archive), "true"],
        ["batch", str(path)],
        ["batch", str(path), "--output", "live"],
    ):
        done = subprocess.run([sys.executable, "-c", look.format(words)], capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[-1] == "[]", words
