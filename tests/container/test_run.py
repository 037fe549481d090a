"""`guntainer run` on a real container: what is inside, what comes out, what is left."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")


@pytest.fixture
def tree(home: Path, small_archive: Path, guntainer: Run) -> Path:
    """The small rootfs as a store entry, so that a test starts warm; `run` is given the archive."""
    assert guntainer("run", small_archive, "true").returncode == 0
    return small_archive


@pytest.mark.root
def test_runs_a_command(tree: Path, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", tree, "echo", "--", "-x", "héllo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "-- -x héllo\n", "")
    traces.check()


@pytest.mark.root
@pytest.mark.parametrize("code", [0, 1, 2, 77, 124, 125, 126, 127, 128, 255])
def test_exit_codes_pass_through(tree: Path, guntainer: Run, code: int) -> None:
    assert guntainer("run", tree, "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_death_by_signal_is_128_plus_n(tree: Path, guntainer: Run, number: int) -> None:
    # pid 1 ignores what it has no handler for, so a child of it dies and the shell passes that on
    done = guntainer("run", tree, "sh", "-c", f"sh -c 'kill -{int(number)} $$'; exit $?")
    assert done.returncode == 128 + number


def test_isolation(tree: Path, guntainer: Run) -> None:
    names = ["user", "mnt", "pid", "uts", "ipc", "cgroup"]
    done = guntainer("run", tree, "readlink", *(f"/proc/self/ns/{name}" for name in names))
    inside = done.stdout.split()
    assert len(inside) == 6
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{name}") for name in names}
    assert guntainer("run", tree, "sh", "-c", "echo $$").stdout == "1\n"
    assert guntainer("run", tree, "id", "-u").stdout == "0\n"
    assert guntainer("run", tree, "hostname").stdout == "guntainer\n"
    assert guntainer("run", "-h", "other", tree, "hostname").stdout == "other\n"


def test_network(tree: Path, guntainer: Run) -> None:
    shared = guntainer("run", tree, "readlink", "/proc/self/ns/net").stdout.strip()
    assert shared == os.readlink("/proc/self/ns/net")
    own = guntainer(
        "run", "--network", "none", tree, "sh", "-c", "readlink /proc/self/ns/net; cat /proc/net/dev"
    ).stdout
    assert shared not in own
    devices = [line.split(":")[0].strip() for line in own.splitlines()[3:]]
    assert "lo" in devices and not [name for name in devices if name.startswith(("eth", "en"))]


def test_devices_and_kernel_file_systems(tree: Path, guntainer: Run) -> None:
    script = """
    set -e
    for d in null zero full random urandom tty; do test -c /dev/$d; done
    for l in fd stdin stdout stderr ptmx; do test -L /dev/$l; done
    for f in pts shm mqueue; do test -d /dev/$f; done
    echo x > /dev/null; echo y > /dev/shm/y; head -c 3 /dev/zero | wc -c
    test -e /proc/self/status; test -d /sys/kernel || test ! -e /sys/kernel
    """
    done = guntainer("run", tree, "sh", "-c", script)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3", "")


def test_the_host_is_gone(tree: Path, guntainer: Run, home: Path) -> None:
    done = guntainer("run", tree, "sh", "-c", f"ls -d {home}; ls /proc | head -50; cat /proc/1/mountinfo")
    assert "No such file" in done.stderr
    assert str(os.getpid()) not in done.stdout.split("\n")
    roots = [line.split()[4] for line in done.stdout.splitlines() if " - " in line]
    assert roots.count("/") == 1


def test_only_three_descriptors(tree: Path, guntainer: Run) -> None:
    done = guntainer("run", tree, "ls", "/proc/self/fd")
    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is the listing itself


def test_writes_are_private(tree: Path, guntainer: Run, traces: Traces) -> None:
    assert guntainer("run", tree, "sh", "-c", "echo x > /new; rm /etc/passwd; echo y > /etc/hosts").returncode == 0
    assert guntainer("run", tree, "sh", "-c", "test ! -e /new && test -s /etc/passwd").returncode == 0
    traces.check()


@pytest.mark.parametrize("scratch", ["disk", "memory", "memory:4m"])
def test_scratch(tree: Path, guntainer: Run, traces: Traces, scratch: str) -> None:
    done = guntainer(
        "run", "--scratch", scratch, tree, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; echo $?"
    )
    assert done.stdout == ("1\n" if scratch == "memory:4m" else "0\n")
    traces.check()


def test_read_only(tree: Path, guntainer: Run) -> None:
    done = guntainer("run", "--read-only", "--tmpfs", "/t:size=1m", tree, "sh", "-c", "echo a > /t/a && echo b > /b")
    assert done.returncode != 0
    assert "Read-only" in done.stderr and "/b" in done.stderr


def test_volumes(tree: Path, guntainer: Run, home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "file").write_text("from the host\n")
    script = "cat /d/file; echo back > /d/new; cat /one/file"
    done = guntainer("run", "-v", f"{home}/data:/d", "-v", f"{home}/data/file:/one/file:ro", tree, "sh", "-c", script)
    assert done.stdout == "from the host\nfrom the host\n", done.stderr
    assert (home / "data" / "new").read_text() == "back\n"
    done = guntainer("run", "-v", f"{home}/data:/d:ro", tree, "sh", "-c", "echo x > /d/x")
    assert "Read-only" in done.stderr
    done = guntainer("run", "--mount", f"type=bind,src={home}/data,dst=/m,readonly", tree, "cat", "/m/file")
    assert done.stdout == "from the host\n"


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/x", "/sys", "/dev", "/a/../proc"])
def test_volumes_that_would_hide_the_kernel(tree: Path, guntainer: Run, home: Path, target: str) -> None:
    done = guntainer("run", "-v", f"{home}:{target}", tree, "true")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1 and "can not mount on" in done.stderr


def test_a_volume_does_not_follow_a_link_out(home: Path, tree: Path, guntainer: Run) -> None:
    rootfs = home / "rootfs"
    lease = guntainer("store", "path", tree).stdout.strip()
    subprocess.run(["cp", "-a", lease, rootfs], check=True)
    for name, target in {"up": "../../../..", "abs": str(home), "magic": "/proc/self/root"}.items():
        (rootfs / name).symlink_to(target)
        guntainer("run", "-v", f"{home}:/{name}/escaped/here", rootfs, "true")
        assert not (home / "escaped").exists() and not Path("/escaped").exists()


def test_environment(tree: Path, guntainer: Run, home: Path) -> None:
    (home / "vars").write_text("# a comment\nFROM_FILE=1\nTOLD\n")
    os.environ["TOLD"], os.environ["HIDDEN"] = "told", "hidden"
    try:
        done = guntainer("run", "--env-file", home / "vars", "-e", "A=b c", "-e", "TOLD", tree, "env")
    finally:
        del os.environ["TOLD"], os.environ["HIDDEN"]
    got = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {k: got.get(k) for k in ("FROM_FILE", "A", "TOLD", "HOME", "HOSTNAME")} == {
        "FROM_FILE": "1", "A": "b c", "TOLD": "told", "HOME": "/root", "HOSTNAME": "guntainer",
    }  # fmt: skip
    assert {"PATH", "TERM"} <= set(got) and "HIDDEN" not in got


def test_user(tree: Path, guntainer: Run) -> None:
    assert guntainer("run", "-u", "1234:77", tree, "sh", "-c", "id -u; id -g").stdout == "1234\n77\n"
    assert guntainer("run", "-u", "nobody", tree, "id", "-un").stdout == "nobody\n"
    done = guntainer("run", "-u", "joe", tree, "true")
    assert (done.returncode, len(done.stderr.splitlines())) == (125, 1)


def test_workdir(tree: Path, guntainer: Run) -> None:
    assert guntainer("run", "-w", "/etc", tree, "pwd").stdout == "/etc\n"
    done = guntainer("run", "-w", "/nowhere", tree, "pwd")
    assert done.returncode == 125 and "/nowhere" in done.stderr


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_stdin_and_stdout_are_byte_exact(tree: Path, guntainer: Run, size: int) -> None:
    data = os.urandom(size)
    done = guntainer("run", "-i", tree, "cat", input=data, text=False)
    assert (done.returncode, done.stdout == data) == (0, True)


@pytest.mark.root
def test_not_found_and_not_executable(tree: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    def ends(code: int, *command: str, say: str) -> None:
        done = guntainer("run", "-v", f"{home}:/h", tree, *command)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1 and say in done.stderr

    (home / "script").write_text("#!/no/such/interpreter\n")
    (home / "script").chmod(0o755)
    (home / "noise").write_bytes(b"\x01\x02\x03")
    (home / "noise").chmod(0o755)
    ends(127, "nosuch", say="not found")
    ends(127, "/bin/nosuch", say="not found")
    ends(127, "", say="COMMAND is empty: not found")
    ends(126, "/etc/passwd", say="/etc/passwd")
    ends(126, "/etc", say="/etc")
    ends(126, "/h/noise", say="not a program")
    ends(127, "/h/script", say="/no/such/interpreter")
    traces.check()


@pytest.mark.root
@pytest.mark.parametrize("init", [[], ["--init"]])
def test_timeout(tree: Path, guntainer: Run, traces: Traces, init: list[str]) -> None:
    started = time.monotonic()
    done = guntainer("run", "--timeout", "0.5", *init, tree, "sh", "-c", "sleep 100 & sleep 100")
    assert done.returncode == 124
    assert time.monotonic() - started < 8  # nobody hears SIGTERM here, so no grace is waited for
    assert "timeout after 0.5 s" in done.stderr
    traces.check()


def test_a_timeout_asks_before_it_kills(tree: Path, guntainer: Run) -> None:
    script = "trap 'echo asked; exit 3' TERM; while :; do sleep 0.05; done"
    done = guntainer("run", "--timeout", "1", tree, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (124, "asked\n")
    script = "trap 'echo asked' TERM; while :; do sleep 0.05; done"
    done = guntainer("run", "--timeout", "1", "--stop-timeout", "0.3", tree, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (124, "asked\n")


def test_init_reaps_and_forwards(tree: Path, guntainer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guntainer("run", "--init", tree, "sh", "-c", "echo $$").stdout.strip() != "1"
    assert guntainer("run", "--init", tree, "sh", "-c", "exit 42").returncode == 42
    assert guntainer("run", "--init", tree, "sh", "-c", "kill -9 $$").returncode == 137


def test_our_own_reaper(tree: Path, home: Path) -> None:
    """Where the host has no small init: made so by a run in which none is found."""
    code = (
        "from guntainer import assembly; assembly.find_init = lambda *_: None\n"
        "from guntainer.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    )

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", code, "run", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)

    done = run("--init", tree, "sh", "-c", "(sleep 0.1 &) ; sleep 0.4; ls -d /proc/[0-9]* | wc -l; exit 42")
    assert done.returncode == 42
    assert int(done.stdout) <= 4  # init, sh, ls, wc: the orphan was reaped
    assert run("--init", tree, "nosuch").returncode == 127
    assert run("--init", "--timeout", "0.5", "--stop-timeout", "1", tree, "sleep", "50").returncode == 124


def start(*words: object) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "guntainer", "run", *map(str, words)]
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until_said(process: subprocess.Popen[bytes], what: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == what


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_it(tree: Path, guntainer: Run, traces: Traces, number: int, code: int) -> None:
    # the shell may be between fork and exec when the signal comes, and then goes on: hence the short grace
    process = start("--stop-timeout", "1", tree, "sh", "-c", "echo up; sleep 100 & sleep 100")
    until_said(process, b"up")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (code, b"", b"")
    traces.check()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo up; exec sleep 60", 131),
        ("echo up; sleep 60; echo never", 131),
        ("trap 'echo got; exit 3' QUIT; echo up; while :; do sleep 0.05; done", 3),
        ("trap '' QUIT; echo up; sleep 1; exit 4", 4),
    ],
)
@pytest.mark.parametrize("init", [[], ["--init"]])
def test_a_quit_without_a_terminal(
    tree: Path, guntainer: Run, traces: Traces, script: str, code: int, init: list[str]
) -> None:
    """Ctrl-\\ of a pipeline at a terminal: the kernel keeps it from a pid 1 that has no handler; who listens decides himself."""
    line = [sys.executable, "-m", "guntainer", "run", *init, str(tree), "sh", "-c", script]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGQUIT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, "never" in out) == (code, False)
    traces.check()


def test_a_quit_that_a_child_hears(tree: Path, guntainer: Run) -> None:
    child = "trap 'echo got; exit 3' QUIT; echo up; while :; do sleep 0.05; done"
    process = start(tree, "sh", "-c", f'sh -c "{child}"; exit 5')
    until_said(process, b"up")
    process.send_signal(signal.SIGQUIT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (5, b"got\n")


def test_a_quit_that_is_ignored_stays_so(tree: Path, guntainer: Run) -> None:
    """As of what a shell without job control starts in the background."""
    line = [sys.executable, "-m", "guntainer", "run", str(tree), "sh", "-c", "echo up; sleep 1; exit 5"]
    ignoring = lambda: signal.signal(signal.SIGQUIT, signal.SIG_IGN) and None  # noqa: E731
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, preexec_fn=ignoring)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGQUIT)
    process.communicate(timeout=30)
    assert process.returncode == 5


def test_the_second_interrupt_kills(tree: Path, guntainer: Run, traces: Traces) -> None:
    process = start(tree, "sh", "-c", "trap 'echo no' INT; echo up; while :; do sleep 0.05; done")
    until_said(process, b"up")
    process.send_signal(signal.SIGINT)
    until_said(process, b"no")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    traces.check()


def test_an_interrupt_can_be_handled(tree: Path, guntainer: Run) -> None:
    process = start(tree, "sh", "-c", "trap 'echo mine; exit 9' INT; echo up; while :; do sleep 0.05; done")
    until_said(process, b"up")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (9, b"mine\n")


@pytest.mark.root
def test_kill_nine_leaves_nothing_alive(tree: Path, guntainer: Run, traces: Traces) -> None:
    process = start(tree, "sh", "-c", "echo up; sleep 100 & sleep 100")
    until_said(process, b"up")
    process.kill()
    process.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while traces.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert traces.processes() == []
    assert traces.folders()  # nobody could remove them
    assert guntainer("run", tree, "true").returncode == 0
    traces.check()


def test_no_cache_keeps_nothing(small_archive: Path, guntainer: Run, traces: Traces, home: Path) -> None:
    done = guntainer("run", "--no-cache", small_archive, "echo", "hi")
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
    assert not (home / "store" / "rootfs").exists() or not list((home / "store" / "rootfs").iterdir())
    traces.check()


def test_keep(tree: Path, guntainer: Run) -> None:
    done = guntainer("run", "--keep", tree, "sh", "-c", "echo kept > /kept")
    upper = Path(done.stderr.rpartition("kept ")[2].partition(";")[0].strip())
    assert (upper / "kept").read_text() == "kept\n"
    assert guntainer("run", tree, "true").returncode == 0
    assert upper.exists()  # the next start does not take it for a dead run's


def test_dry_run_starts_nothing(tree: Path, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", "--dry-run", "--init", tree, "sh", "-c", "echo no")
    assert done.returncode == 0
    assert "pivot_root" in done.stdout and "execute sh -c 'echo no'" in done.stdout
    assert done.stderr == ""
    traces.check()


def test_dry_run_warns_of_a_refusal(tree: Path, guntainer: Run, traces: Traces) -> None:
    """It asks the host as a run does; what that would end with is a warning, and the plan is shown."""
    low = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))}
    words = ("--ulimit", "nofile=501", tree, "true")
    refused = guntainer("run", *words, **low)
    assert refused.returncode == 125
    done = guntainer("run", "--dry-run", *words, **low)
    assert done.stderr == refused.stderr.replace("error: ", "warning: a run would be refused here: ")
    assert done.returncode == 0 and "execute true" in done.stdout
    less = guntainer("run", "--dry-run", "--limits", "best-effort", *words, **low)
    assert "the hard limit here is 500, which holds instead" in less.stderr and "refused" not in less.stderr
    traces.check()


def test_a_folder_is_run_copy_on_write(tree: Path, guntainer: Run, traces: Traces, home: Path) -> None:
    lease = guntainer("store", "path", tree).stdout.strip()
    subprocess.run(["cp", "-a", lease, home / "rootfs"], check=True)
    before = sorted(os.listdir(home / "rootfs"))
    assert guntainer("run", home / "rootfs", "sh", "-c", "echo x > /x").returncode == 0
    assert sorted(os.listdir(home / "rootfs")) == before
    traces.check()


def test_a_reader_that_leaves(tree: Path, guntainer: Run, traces: Traces) -> None:
    line = f"{sys.executable} -m guntainer run {tree} sh -c 'while echo y; do :; done' | head -n 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "y\n"
    traces.check()


def test_missing_tmpdir_and_home(tree: Path, guntainer: Run, home: Path) -> None:
    environment = {"PYTHONPATH": os.environ["PYTHONPATH"], "GUNTAINER_STORE": str(home / "store")}
    assert guntainer("run", tree, "echo", "ok", env=environment).stdout == "ok\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--nosuch", "x"],
        ["--network", "moon", "x"],
        ["-v", "a", "x"],
        ["-v", "/nonexistent:/x", "/"],
        ["-e", "=x", "x"],
        ["--timeout", "soon", "x"],
        ["--scratch", "paper", "x"],
        ["-w", "relative", "x"],
        ["--stop-signal", "NOPE", "x"],
        ["--sha256", "12", "x"],
        ["--env-file", "/nonexistent", "x"],
        ["/nonexistent.tar"],
        ["/dev/null"],
        [],
    ],
)
def test_bad_usage_is_one_line_and_125(guntainer: Run, traces: Traces, words: list[str]) -> None:
    done = guntainer("run", *words)
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("guntainer: error: ")
    traces.check()


def test_alpine(alpine: Path, guntainer: Run, traces: Traces) -> None:
    done = guntainer("run", alpine, "sh", "-c", ". /etc/os-release; echo $ID; cat /etc/hosts; apk --version")
    assert done.stdout.startswith("alpine\n") and "localhost" in done.stdout and "apk-tools" in done.stdout
    traces.check()


def test_another_architecture_is_named(distributions: Path, guntainer: Run) -> None:
    archives = list(distributions.glob("alpine-minirootfs-*-aarch64.tar.gz"))
    if not archives or os.uname().machine != "x86_64":
        pytest.skip("no real distributions here: set GUNTAINER_TEST_ROOTFS to a folder of rootfs archives")
    done = guntainer("run", archives[0], "true")
    assert done.returncode in (125, 126)
    assert "this rootfs is arm64" in done.stderr
