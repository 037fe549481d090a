"""The lowest rung of the ladder: a host without pid namespaces, where nothing of the kernel's ends what a command has started."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, Traces, ended_jobs

pytestmark = pytest.mark.usefixtures("user_namespaces")

NONE = "echo 0 > /proc/sys/user/max_pid_namespaces"
DAEMONS = """
sleep 50 &
setsid sleep 51 &
(setsid sh -c 'sleep 52 & exec sleep 53' &)
sh -c 'trap "" TERM HUP INT; setsid sh -c "trap \\"\\" TERM; while true; do sleep 0.05; done" & exit' &
sleep 0.3
"""


def without(script: str, *words: object, wait: bool = True) -> subprocess.Popen[str]:
    """The program in a user namespace that `script` has worked over; nothing else is its own."""
    line = f"{script}\nexec " + shlex.join([sys.executable, "-m", "guntainer", *map(str, words)])
    process = subprocess.Popen(
        ["unshare", "-Ur", "sh", "-ec", line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        process.wait(60)
    return process


def said(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def warm(home: Path, small_archive: Path, guntainer: Run) -> Path:
    assert guntainer("run", small_archive, "true").returncode == 0
    return small_archive


def test_it_runs_and_says_so(warm: Path, traces: Traces) -> None:
    code, out, err = said(
        without(NONE, "run", warm, "sh", "-c", "id -u; test -e /proc/self/status && echo proc; exit 7")
    )
    assert (code, out) == (7, "0\nproc\n"), err
    assert err.count("isolation: no-pid (user.max_pid_namespaces is 0") == 1
    traces.check()


def test_what_became_a_daemon_is_dead_afterwards(warm: Path, traces: Traces) -> None:
    code, out, err = said(without(NONE, "run", warm, "sh", "-c", f"{DAEMONS} echo done"))
    assert (code, out) == (0, "done\n"), err
    traces.check()


def test_a_batch_on_it(warm: Path, home: Path, traces: Traces) -> None:
    jobs = {
        "daemons": {"rootfs": str(warm), "run": DAEMONS, "repeat": 3},
        "signal": {"rootfs": str(warm), "run": "kill -9 $$"},
        "slow": {"rootfs": str(warm), "run": f"{DAEMONS} sleep 54", "timeout": "1s", "stop-timeout": "0.2s"},
        "missing": {"rootfs": str(warm), "command": ["nothing-of-this-name"]},
    }
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    code, out, err = said(without(NONE, "batch", "-j3", "--json", home / "report", home / "jobs.json"))
    assert code == 1, (out, err)
    assert err.count("isolation: no-pid") == 1
    results = {one["id"]: one for one in ended_jobs((home / "report").read_text())}
    assert {one["isolation"] for one in results.values()} == {"no-pid"}
    assert {name: (one["outcome"], one["code"]) for name, one in results.items()} == {
        "daemons #1": ("ok", 0),
        "daemons #2": ("ok", 0),
        "daemons #3": ("ok", 0),
        "signal": ("failed", 137),
        "slow": ("timeout", 124),
        "missing": ("error", 127),
    }
    assert results["signal"]["signal"] == 9
    (home / "report").unlink()
    traces.check()


@pytest.mark.parametrize("options", [["--init"], ["--scratch", "memory"], ["--network", "none"], ["-u", "0"]])
def test_with_options(warm: Path, traces: Traces, options: list[str]) -> None:
    code, out, err = said(without(NONE, "run", *options, warm, "sh", "-c", f"{DAEMONS} kill -15 $$"))
    assert (code, out) == (143, ""), err
    traces.check()


def test_with_a_terminal(warm: Path, traces: Traces) -> None:
    """Ctrl-C ends the command itself, which is no pid 1, and what it has started goes with it."""
    ours, theirs = pty.openpty()
    program = shlex.join(
        [sys.executable, "-m", "guntainer", "run", "-t", str(warm), "sh", "-c", f"{DAEMONS} tty; sleep 54"]
    )
    line = ["unshare", "-Ur", "sh", "-ec", f"{NONE}\nexec {program}"]
    with subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, start_new_session=True) as process:
        seen = b""
        while b"/dev/pts/0" not in seen and b"/dev/console" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"\x03")
        assert process.wait(20) == 130
    os.close(theirs)
    os.close(ours)
    traces.check()


def test_where_a_reader_leaves(warm: Path, traces: Traces) -> None:
    """SIGPIPE reaches a command that is no pid 1."""
    process = without(NONE, "run", warm, "sh", "-c", f"{DAEMONS} while echo y; do :; done", wait=False)
    assert process.stdout is not None and process.stdout.readline() == "y\n"
    process.stdout.close()
    assert process.wait(20) in (141, 1)
    assert process.stderr is not None
    process.stderr.close()
    traces.check()


def test_not_even_the_hosts_proc(warm: Path, home: Path, traces: Traces) -> None:
    """A new /proc is refused, since a part of this one is masked, and a filter refuses to show the host's."""
    filtered = f"{sys.executable} {Path(__file__).parent}/filtered.py move_mount=EPERM,open_tree=EPERM"
    program = shlex.join(
        [sys.executable, "-m", "guntainer", "run", str(warm), "sh", "-c", f"{DAEMONS} ls -A /proc; exit 3"]
    )
    script = f"mount --bind -o ro /dev/null /proc/timer_list\n{filtered} {program}"
    line = ["unshare", "-Urmpf", "--mount-proc", "--propagation", "private", "sh", "-ec", script]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    if "timer_list" in done.stderr:
        pytest.skip("a part of /proc can not be masked here")
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert "isolation: host-proc" in done.stderr and "isolation: no-pid" in done.stderr
    traces.check()


def test_with_a_range_of_ids(warm: Path, traces: Traces) -> None:
    """Its processes belong to a sub-id; so does what stands in for pid 1."""
    wide = ["unshare", "-U", "--map-root-user", "--map-auto"]
    if subprocess.run([*wide, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no range of ids can be mapped here")
    for words, code in ((["-u", "1234"], 5), (["-u", "1234", "--timeout", "1"], 124)):
        command = [
            "run",
            "--userns",
            "range",
            *words,
            str(warm),
            "sh",
            "-c",
            f"{DAEMONS} id -u; sleep {code - 5}; exit 5",
        ]
        script = f"{NONE}\nexec " + shlex.join([sys.executable, "-m", "guntainer", *command])
        done = subprocess.run(
            [*wide, "sh", "-ec", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (code, "1234\n"), done.stderr
        assert "isolation: no-pid" in done.stderr
        assert traces.processes() == []


def test_full_isolation_on_demand_runs_nothing(warm: Path, home: Path, traces: Traces) -> None:
    code, _, err = said(
        without(NONE, "run", "--require-isolation", "full", "-v", f"{home}/work:/w", warm, "touch", "/w/ran")
    )
    assert code == 125
    line = [one for one in err.splitlines() if "error" in one]
    assert (
        len(line) == 1 and "full isolation was demanded" in line[0] and "(guntainer doctor namespace-limits)" in line[0]
    )
    job = {"rootfs": str(warm), "command": ["touch", "/w/ran"], "volumes": [f"{home}/work:/w"]}
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": job}}))
    code, out, _ = said(
        without(NONE, "batch", "--require-isolation", "full", "--json", home / "report", home / "jobs.json")
    )
    assert code == 125 and "full isolation was demanded" in out
    assert ended_jobs((home / "report").read_text())[0]["probe"] == "namespace-limits"
    assert not (home / "work" / "ran").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_all_of_it(warm: Path, traces: Traces, number: signal.Signals) -> None:
    """SIGKILL included: what stands in for pid 1 is told that its supervisor has died."""
    process = without(NONE, "run", "--stop-timeout", "0", warm, "sh", "-c", f"{DAEMONS} echo up; sleep 54", wait=False)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(number)
    process.wait(20)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    until(lambda: traces.processes() == [], "processes are left")
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


def test_a_killed_batch_leaves_no_process(warm: Path, home: Path, traces: Traces) -> None:
    job = {"rootfs": str(warm), "run": f"{DAEMONS} touch /w/$HOSTNAME; sleep 54", "volumes": [f"{home}/work:/w"]}
    jobs = {name: {**job, "hostname": name} for name in ("a", "b")}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    process = without(NONE, "batch", "-j2", home / "jobs.json", wait=False)
    until(lambda: sorted(os.listdir(home / "work")) == ["a", "b"], "the jobs do not start")
    process.kill()
    process.communicate()
    until(lambda: traces.processes() == [], "processes are left")


def test_who_kills_its_guardian_takes_nothing_along(warm: Path, traces: Traces) -> None:
    """The parent of all orphans is killed from inside: what is in the container's mount namespace is found all the same."""
    code, _, err = said(without(NONE, "run", warm, "sh", "-c", f"{DAEMONS} kill -9 $PPID; sleep 54"))
    assert code == 137, err
    until(lambda: traces.processes() == [], "processes are left")


def test_a_killed_fork_helper_takes_its_containers_along(warm: Path, home: Path, traces: Traces) -> None:
    job = {"rootfs": str(warm), "run": f"{DAEMONS} touch /w/$HOSTNAME; sleep 0.5", "volumes": [f"{home}/work:/w"]}
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {**job, "hostname": "a"}, "b": {**job, "hostname": "b"}}})
    )
    process = without(NONE, "batch", "-j1", home / "jobs.json", wait=False)
    until(lambda: os.listdir(home / "work") == ["a"], "the job does not start")
    for line in list(Path("/proc").glob("[0-9]*/comm")):
        try:
            parent = int((line.parent / "stat").read_text().rpartition(")")[2].split()[1])
            if line.read_text() == "guntainer-fork\n" and parent == process.pid:
                os.kill(int(line.parent.name), signal.SIGKILL)
                break
        except (OSError, ValueError):
            continue
    else:
        pytest.fail("no fork helper is there")
    code, out, err = said(process)
    assert code == 0, (out, err)
    until(lambda: traces.processes() == [], "processes are left")
    traces.check()


def test_a_pid_namespace_in_use_is_waited_for(warm: Path, home: Path) -> None:
    """Exhaustion is no refusal: with room for one, jobs wait, and none goes down the ladder."""
    one = "echo 1 > /proc/sys/user/max_pid_namespaces"
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {"rootfs": str(warm), "command": ["sleep", "0.2"], "repeat": 4}}})
    )
    code, out, err = said(without(one, "batch", "-j4", "--json", home / "report", home / "jobs.json"))
    assert code == 0, (out, err)
    results = ended_jobs((home / "report").read_text())
    assert {result["isolation"] for result in results} == {"full"}
    assert "jobs wait until others have ended" in err


def test_no_room_at_all_is_an_error(warm: Path, home: Path) -> None:
    """The one pid namespace that is allowed is somebody else's: there is nobody of ours to wait for."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv of util-linux is not here")
    taken = "setpriv --pdeathsig KILL unshare -pf --kill-child sleep 60 >/dev/null 2>&1 & sleep 0.3"
    one = f"echo 1 > /proc/sys/user/max_pid_namespaces; {taken}"
    code, _, err = said(without(one, "run", warm, "true"))
    assert code == 125 and "no more pid namespaces are allowed" in err
    (home / "jobs.json").write_text(
        json.dumps({"jobs": {"a": {"rootfs": str(warm), "command": ["true"], "repeat": 2}}})
    )
    code, out, _ = said(without(one, "batch", home / "jobs.json"))
    assert code == 125 and out.count("no more pid namespaces are allowed") >= 2


def test_no_user_namespaces_are_refused_by_name(warm: Path, traces: Traces) -> None:
    for kind in ("user", "mnt", "uts", "ipc", "cgroup"):
        code, _, err = said(without(f"echo 0 > /proc/sys/user/max_{kind}_namespaces", "run", warm, "true"))
        last = err.splitlines()[-1]
        assert code == 125 and f"user.max_{kind}_namespaces is 0" in last, err
        assert last.endswith("(guntainer doctor namespace-limits)")
    traces.check()
