"""`guntainer run` at a terminal: what the command sees of it, what keys and closing do, and that it is as before afterwards.

Each test has a pseudo-terminal whose master it holds, and a session of its own on it, as a terminal emulator has. The
session's leader is a shell, which outlives guntainer: with the leader's end, the kernel resets the terminal.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

PATIENCE_S = 20.0
GUNTAINER = [sys.executable, "-m", "guntainer", "run"]
# Where the caller's terminal is another user's, and the kernel has no TIOCGPTPEER.
POORER = [
    sys.executable,
    "-c",
    "from guntainer import nonblocking, terminal\n"
    "terminal.reopened = nonblocking.reopened = lambda *_: -1\n"
    "terminal.Terminal._hold_slave = lambda *_: None\n"
    "from guntainer.cli import main; import sys; sys.exit(main(sys.argv[1:]))",
    "run",
]
LOOP = "while :; do echo yyyyyyyy; done"
UP_AND_SLEEP = "echo up; exec sleep 100"
# $0: a file for the exit code. A trap that does something is not inherited, one that ignores would be.
LEADER = """
trap : HUP INT QUIT TERM PIPE
sh -c 'echo $$ >"$0.pid"; exec "$@"' "$0" "$@" {redirection}
echo $? >"$0.part"; mv "$0.part" "$0"
while read -r line; do :; done
"""


@pytest.fixture
def tree(home: Path, small_archive: Path, guntainer: Run) -> Path:
    """The small rootfs as a store entry, so that a test starts warm; `run` is given the archive."""
    assert guntainer("run", small_archive, "true").returncode == 0
    return small_archive


def wait_for(true: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what or "it did not come true"
        time.sleep(0.01)


class Screen:
    """The master of a terminal on which a session runs, and all that has come out of it."""

    def __init__(self, line: list[str], *, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        os.set_blocking(self.master, False)
        self.before = termios.tcgetattr(self.master)
        self.seen = b""
        # setsid(1) needs no fork here: a child of ours leads no group
        line = ["setsid", "--ctty", *line]
        self.process = subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        assert os.write(self.master, keys) == len(keys)

    def pump(self, seconds: float = 0.02) -> None:
        """Read what has come out, waiting a little for it."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.seen += os.read(self.master, 1 << 16)
            except OSError:
                time.sleep(seconds)  # nobody has the slave open

    def until(self, what: bytes, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.seen.count(what) < times:
            assert time.monotonic() < deadline, f"{what!r} did not come, but {self.seen!r}"
            self.pump()

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.master) == self.before


class Session(Screen):
    """guntainer under a shell, on a terminal."""

    def __init__(
        self,
        folder: Path,
        *words: object,
        redirection: str = "",
        program: list[str] = GUNTAINER,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self.code_file = folder / "code"
        script = LEADER.format(redirection=redirection)
        line = ["sh", "-c", script, str(self.code_file), *program, *map(str, words)]
        super().__init__(line, rows=rows, columns=columns)

    def code(self) -> int:
        """The exit code of guntainer, which is waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.code_file.exists():
            assert time.monotonic() < deadline, f"it does not end; it said {self.seen!r}"
            if self.master >= 0:
                self.pump()
            else:
                time.sleep(0.02)
        return int(self.code_file.read_text())

    @property
    def pid(self) -> int:
        path = Path(f"{self.code_file}.pid")
        wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
        return int(path.read_text())

    def init_pid(self) -> int:
        """The container's pid 1, as it is numbered here."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])


Start = Callable[..., Session]


@pytest.fixture
def start(tree: Path, home: Path, traces: Traces) -> Iterator[Start]:
    """Start a session; in the end, its terminal must be as before, and nothing be left of it."""
    sessions: list[Session] = []

    def begin(*words: object, **options: object) -> Session:
        sessions.append(Session(home, *words, **options))  # type: ignore[arg-type]
        return sessions[-1]

    try:
        yield begin
        for session in sessions:
            session.code()
            assert session.master < 0 or session.is_as_before()
    finally:
        for session in sessions:
            session.__exit__(None, None, None)
    traces.check()


def test_a_real_terminal_inside(tree: Path, start: Start) -> None:
    script = "tty; stty size; for fd in 0 1 2; do test -t $fd && echo fd $fd; done; ls /dev/console"
    session = start(tree, "sh", "-c", script, rows=33, columns=99)
    assert session.code() == 0
    session.until(b"/dev/pts/0\r\n33 99\r\nfd 0\r\nfd 1\r\nfd 2\r\n/dev/console\r\n")


def test_raw_while_it_runs(tree: Path, start: Start) -> None:
    session = start(tree, "cat")
    wait_for(lambda: not termios.tcgetattr(session.master)[3] & (termios.ICANON | termios.ISIG | termios.ECHO))
    session.press(b"abc\r")
    session.until(b"abc\r\nabc\r\n")  # the inner terminal echoes, and reads lines
    session.press(b"\x04")
    assert session.code() == 0


def test_the_size_follows(tree: Path, start: Start) -> None:
    session = start(tree, "sh", "-c", "trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done")
    session.until(b"up\r\n")
    session.resize(40, 120)
    session.until(b"40 120\r\n")
    for number in range(1, 400):
        session.resize(10 + number % 50, number)
    session.resize(51, 131)
    session.until(b"51 131\r\n")
    session.press(b"\x03")
    assert session.code() == 130


def test_no_size_is_no_size(tree: Path, start: Start) -> None:
    session = start(tree, "sh", "-c", "stty size", rows=0, columns=0)
    assert session.code() == 0
    session.until(b"0 0\r\n")


def test_bytes_are_passed_as_they_are(tree: Path, start: Start) -> None:
    session = start(tree, "sh", "-c", "stty raw -echo; echo up; head -c 512; echo end")
    session.until(b"up\n")
    session.press(bytes(range(256)) * 2)  # the keys for signals and for the end of file among them
    assert session.code() == 0
    session.until(bytes(range(256)) * 2 + b"end\n")


@pytest.mark.parametrize(("key", "code"), [(b"\x03", 130), (b"\x1c", 131)])
def test_a_key_ends_what_does_not_hear_it(tree: Path, start: Start, key: bytes, code: int) -> None:
    session = start(tree, "sh", "-c", UP_AND_SLEEP)
    session.until(b"up\r\n")
    session.press(key)
    assert session.code() == code


def test_a_key_ends_the_whole_script(tree: Path, start: Start) -> None:
    session = start(tree, "sh", "-c", "sleep 1.2; echo up; sleep 100; echo never")
    session.until(b"up\r\n")
    session.press(b"\x03")
    assert session.code() == 130
    assert b"never" not in session.seen


def test_a_key_as_soon_as_possible(tree: Path, start: Start) -> None:
    session = start(tree, "sleep", "100")
    wait_for(lambda: not termios.tcgetattr(session.master)[3] & termios.ICANON)
    session.press(b"\x03")
    assert session.code() == 130


def test_a_key_that_is_heard(tree: Path, start: Start) -> None:
    session = start(tree, "sh", "-c", "trap 'echo got' INT; trap '' QUIT; echo up; while :; do sleep 0.05; done")
    session.until(b"up\r\n")
    for times in (1, 2, 3):
        session.press(b"\x03")
        session.until(b"got\r\n", times)
    session.press(b"\x1c")  # ignored on purpose
    session.press(b"\x03")
    session.until(b"got\r\n", 4)
    os.kill(session.pid, signal.SIGTERM)
    assert session.code() == 143


def test_a_key_that_a_child_hears(tree: Path, start: Start) -> None:
    child = "trap 'sleep 0.4; echo got; exit 3' INT; echo up; while :; do sleep 0.05; done"
    session = start(tree, "sh", "-c", f"sh -c {shlex.quote(child)}; exit 4")
    session.until(b"up\r\n")
    session.press(b"\x03")
    session.until(b"got\r\n")
    assert session.code() in (4, 130)  # there are shells that end with what they waited for, and others


def test_a_key_under_an_init(tree: Path, start: Start) -> None:
    session = start("--init", tree, "sh", "-c", UP_AND_SLEEP)
    session.until(b"up\r\n")
    session.press(b"\x03")
    assert session.code() == 130


def test_a_key_that_is_only_text(tree: Path, start: Start) -> None:
    session = start(tree, "sh", "-c", "echo up; exec cat")
    session.until(b"up\r\n")
    session.press(b"\x16\x03\r")  # Ctrl-V makes the next one literal
    session.until(b"\x03\r\n")
    session.press(b"\x04")
    assert session.code() == 0


def test_an_interactive_shell(tree: Path, start: Start) -> None:
    session = start("-e", "PS1=more>", tree, "sh", "-i")
    session.until(b"more>")
    session.press(b"echo $((40 + 2))\r")
    session.until(b"42\r\nmore>")
    session.press(b"cat\r")
    session.press(b"xyz\r")
    session.until(b"xyz\r\n", 2)  # once by the terminal, once by cat, which has it now
    session.press(b"\x03")
    session.until(b"more>", 3)
    session.press(b"echo $((50 + 3))\r")
    session.until(b"53\r\nmore>")
    session.press(b"\x04")
    assert session.code() in (0, 130)


def test_keys_work_where_less_is_allowed(tree: Path, start: Start) -> None:
    script = "echo up; exec </dev/null >/dev/null 2>&1; exec sleep 100"
    session = start(tree, "sh", "-c", script, program=POORER)
    session.until(b"up\r\n")
    wait_for(lambda: Path(f"/proc/{session.init_pid()}/cmdline").read_bytes() == b"sleep\x00100\x00")
    clock = _processor_ticks(session.pid)
    time.sleep(0.3)
    assert _processor_ticks(session.pid) - clock < 10, "it is busy waiting"
    session.press(b"\x03")
    assert session.code() == 130


def _processor_ticks(pid: int) -> int:
    """utime and stime of proc(5), in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_keys_work_when_nobody_inside_has_the_terminal_open(tree: Path, start: Start) -> None:
    script = "echo up; exec </dev/null >/dev/null 2>&1; sleep 0.2; echo late >/dev/tty; exec sleep 100"
    session = start(tree, "sh", "-c", script)
    session.until(b"up\r\nlate\r\n")
    session.press(b"\x03")
    assert session.code() == 130


def _ends_by_itself(session: Session) -> int:
    session.press(b"\r")
    return 5


def _killed_outside(session: Session) -> int:
    os.kill(session.init_pid(), signal.SIGKILL)
    return 137


def _terminated(session: Session) -> int:
    os.kill(session.pid, signal.SIGTERM)
    return 143


def _hung_up(session: Session) -> int:
    os.kill(session.pid, signal.SIGHUP)
    return 129


def _interrupted_twice(session: Session) -> int:
    os.kill(session.pid, signal.SIGINT)
    os.kill(session.pid, signal.SIGINT)
    return 130


@pytest.mark.parametrize(
    "end", [_ends_by_itself, _killed_outside, _terminated, _hung_up, _interrupted_twice], ids=lambda f: f.__name__
)
def test_the_terminal_is_as_before(tree: Path, start: Start, end: Callable[[Session], int]) -> None:
    session = start(tree, "sh", "-c", "echo up; read line; exit 5")
    session.until(b"up\r\n")
    assert not session.is_as_before()
    code = end(session)
    assert session.code() == code
    assert session.is_as_before()


def test_the_terminal_is_as_before_a_timeout(tree: Path, start: Start) -> None:
    session = start("--timeout", "0.5", tree, "sleep", "100")
    assert session.code() == 124


def test_the_terminal_is_as_before_a_failure(tree: Path, start: Start) -> None:
    session = start(tree, "nosuch")
    assert session.code() == 127
    session.until(b"not found in the rootfs\r\n")  # said when the terminal was not raw any more


def test_death_by_a_signal_inside(tree: Path, start: Start) -> None:
    session = start(tree, "sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert session.code() == 137


def test_the_terminal_is_closed(tree: Path, start: Start, traces: Traces) -> None:
    session = start(tree, "sh", "-c", f"echo up; {LOOP}")
    session.until(b"up\r\n")
    session.close()
    assert session.code() == 129


def test_the_terminal_is_closed_and_no_signal_says_so(tree: Path, traces: Traces) -> None:
    """On a terminal that is not the session's own, no SIGHUP comes."""
    for script in ("echo up; exec sleep 100", f"echo up; {LOOP}"):
        master, slave = os.openpty()
        process = subprocess.Popen([*GUNTAINER, tree, "sh", "-c", script], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        assert os.read(master, 2) == b"up"
        os.close(master)
        assert process.wait(PATIENCE_S) == 129
    traces.check()


@contextmanager
def unread(kind: str) -> Iterator[tuple[int, int]]:
    """stdin and stdout for guntainer, that nobody reads the other end of."""
    ends = os.openpty() if kind == "terminal" else os.pipe()
    try:
        yield (ends[1] if kind == "terminal" else -1, ends[1])
    finally:
        for fd in ends:
            os.close(fd)


@pytest.mark.parametrize(("kind", "program"), [("terminal", GUNTAINER), ("pipe", GUNTAINER), ("terminal", POORER)])
def test_a_reader_that_does_not_read(tree: Path, traces: Traces, kind: str, program: list[str]) -> None:
    started = time.monotonic()
    with unread(kind) as (stdin, stdout):
        given = stdin if stdin >= 0 else subprocess.DEVNULL
        line = [*program, "-t", "--timeout", "1", str(tree), "sh", "-c", LOOP]
        process = subprocess.Popen(line, stdin=given, stdout=stdout, stderr=subprocess.DEVNULL)
        assert process.wait(PATIENCE_S) == 124
        assert os.get_blocking(stdout)  # the flags are the caller's
    assert time.monotonic() - started < 8
    traces.check()


@pytest.mark.parametrize("program", [GUNTAINER, POORER])
def test_a_reader_that_is_slow_gets_everything(tree: Path, traces: Traces, program: list[str]) -> None:
    line = [*program, "-t", str(tree), "seq", "30000"]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    got = process.stdout.read1(10)
    time.sleep(0.5)
    got += process.stdout.read()
    assert process.wait() == 0
    process.stdout.close()
    assert got.replace(b"\r\n", b"\n") == b"".join(b"%d\n" % n for n in range(1, 30001))
    traces.check()


def test_a_terminal_of_its_own(tree: Path, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", "-t", tree, "sh", "-c", "tty; exit 3", text=False)
    assert (done.returncode, done.stdout) == (3, b"/dev/pts/0\r\n")
    assert len(done.stderr.splitlines()) == 1 and b"-t" in done.stderr
    traces.check()


@pytest.mark.parametrize("text", [b"", b"abc", b"abc\n", b"abc\n" * 20_000])
def test_the_end_of_a_piped_stdin(tree: Path, traces: Traces, text: bytes) -> None:
    line = [*GUNTAINER, "-t", str(tree), "sh", "-c", "stty -echo; echo up; cat; cat; echo end"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\r\n"
        said, _ = process.communicate(text, timeout=PATIENCE_S)
    assert (process.returncode, said == text.replace(b"\n", b"\r\n") + b"end\r\n") == (0, True)
    traces.check()


def test_the_end_of_a_stdin_that_is_read_key_by_key(alpine: Path, guntainer: Run, traces: Traces) -> None:
    """Alpine's shell edits its lines itself: there the end is a key."""
    done = guntainer("run", "-t", alpine, "sh", input="echo $((6 * 7))\n", timeout=30)
    assert done.returncode == 0 and "42" in done.stdout
    traces.check()


def test_a_redirected_stderr_stays_apart(tree: Path, start: Start, home: Path) -> None:
    session = start(tree, "sh", "-c", "echo out; echo err >&2; test -t 2", redirection=f"2>{home}/errors")
    assert session.code() == 1
    session.until(b"out\r\n")
    assert (home / "errors").read_text() == "err\n" and b"err" not in session.seen


def test_both_ways_at_once_are_refused(tree: Path, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", "-t", "--no-tty", tree, "true")
    assert (done.returncode, len(done.stderr.splitlines())) == (125, 1)
    assert "can not be used together" in done.stderr
    traces.check()


@contextmanager
def interactive() -> Iterator[Screen]:
    """A shell with job control."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("this host has no bash")
    # a terminal that can do nothing, or its line editor would put sequences of its own between what is looked for
    with Screen(["env", "TERM=dumb", bash, "--norc", "--noprofile", "-i"]) as shell:
        shell.press(b"PS1='>'\r")
        shell.until(b"\n>")
        yield shell
        shell.press(b"exit\r")


def _start_in_background(shell: Screen, *words: object) -> Path:
    """Start guntainer as a job, which wants the terminal, which is the shell's: it stops."""
    shell.press(shlex.join([*GUNTAINER, *map(str, words)]).encode() + b" &\r")
    job = re.compile(rb"\n\[1\] (\d+)\r\n")
    wait_for(lambda: shell.pump() or job.search(shell.seen))
    found = job.search(shell.seen)
    assert found is not None
    process = Path(f"/proc/{int(found[1])}")
    state = re.compile(r"\) T ")
    wait_for(lambda: shell.pump() or state.search((process / "stat").read_text()), "it does not stop")
    shell.press(b"\r")
    shell.until(b"Stopped")
    return process


def test_background_and_foreground(tree: Path, traces: Traces) -> None:
    with interactive() as shell:
        _start_in_background(shell, tree, "sh", "-c", "stty size; echo $((40 + 2)) inside")
        shell.press(b"fg\r")
        shell.until(b"24 80\r\n42 inside\r\n>")
        shell.press(b"echo code=$?\r")
        shell.until(b"code=0\r\n")
        assert b"rror" not in shell.seen
    traces.check()


def test_a_stopped_job_can_be_ended(tree: Path, traces: Traces) -> None:
    with interactive() as shell:
        process = _start_in_background(shell, tree, "sleep", "100")
        shell.press(b"kill %1\r")
        wait_for(lambda: shell.pump() or not process.exists(), "it goes on")
        shell.press(b"\r")
        shell.until(b"Exit 143")
    traces.check()


def test_stopped_from_outside_and_brought_back(tree: Path, home: Path, traces: Traces) -> None:
    inside = "trap 'stty size' WINCH; echo $$ is up; while :; do read -r line && echo \"got $line\"; done"
    line = shlex.join(["sh", "-c", f'echo $$ >{home}/pid; exec "$@"', "sh", *GUNTAINER, str(tree), "sh", "-c", inside])
    with interactive() as shell:
        shell.press(line.encode() + b"\r")
        shell.until(b"1 is up\r\n")
        pid = int((home / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        shell.until(b"Stopped")
        shell.resize(44, 111)
        shell.press(b"fg\r")
        shell.until(b"44 111\r\n")
        shell.press(b"abc\r")
        shell.until(b"abc\r\ngot abc\r\n")
        shell.press(b"\x03")
        wait_for(lambda: shell.pump() or not Path(f"/proc/{pid}").exists())
        shell.press(b"echo code=$?\r")
        shell.until(b"code=130\r\n")
    traces.check()


def leave(*words: object, lines: int = 1) -> int:
    """The exit code of a run whose reader leaves after so many lines."""
    line = [*GUNTAINER, *map(str, words)]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    try:
        return process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["seq", "100000000"], 141),  # ends with 1, because it can not write
        (["sh", "-c", LOOP], 141),  # does not care
        (["sh", "-c", "echo y; sleep 0.7; exit 7"], 7),  # writes no more, so nothing is amiss
        (["sh", "-c", "echo y; sleep 0.7; exit 0"], 0),
        (["sh", "-c", "echo y; sleep 0.7; echo y; sleep 100"], 141),
        (
            ["sh", "-c", "echo y; sleep 0.5; seq 100000000; exit 8"],
            8,
        ),  # SIGPIPE ends the one that writes, not the shell
        (["sh", "-c", "trap 'exit 9' PIPE; echo y; while :; do sleep 0.05; echo y; done"], 9),
        (["sh", "-c", "trap '' PIPE; echo y; sleep 0.7; exit 7"], 7),
        (["sh", "-c", "echo y"], 0),
    ],
)
def test_a_reader_that_leaves(tree: Path, traces: Traces, words: list[str], code: int) -> None:
    assert leave(tree, *words) == code
    traces.check()


def test_work_goes_on_without_a_reader(tree: Path, traces: Traces, home: Path) -> None:
    for lines in (0, 1):
        script = f"echo start{'' if lines else ' >&2'}; sleep 1; echo finished > /h/done{lines}"
        assert leave("-v", f"{home}:/h", tree, "sh", "-c", script, lines=lines) == 0
        assert (home / f"done{lines}").read_text() == "finished\n"
    traces.check()


def test_a_reader_that_leaves_an_init(tree: Path, traces: Traces) -> None:
    assert leave("--init", tree, "sh", "-c", LOOP) == 141
    assert leave("--init", tree, "sh", "-c", "trap '' PIPE; echo y; sleep 0.7; exit 7") == 7
    traces.check()


def test_a_reader_that_was_never_there(tree: Path, traces: Traces) -> None:
    assert leave(tree, "sh", "-c", LOOP, lines=0) == 141
    assert leave(tree, "sh", "-c", "trap '' PIPE; sleep 0.7; exit 7", lines=0) == 7
    traces.check()


def test_a_reader_that_leaves_a_terminal(tree: Path, traces: Traces) -> None:
    assert leave("-t", tree, "sh", "-c", LOOP) == 141
    traces.check()
