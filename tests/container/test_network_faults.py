"""Private networks where something goes wrong, and many of them at once: reasons are told, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import networks
import pytest
from conftest import Run, Traces, ended_jobs
from networks import ASK, Box, batch_file, fake, python, running, server, until

from guntainer import Job, Port, Source, Supervisor, errors
from guntainer.jobs.values import parse_volume
from guntainer.network.link import Link

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.usefixtures("user_namespaces", "private_networks")]
box, tool, userns, outside = networks.box, networks.tool, networks.userns, networks.outside
private_networks, no_tool_left = networks.private_networks, networks.no_tool_left


# -- what goes wrong


def test_a_port_in_use_is_named(guntainer: Run, box: Box, tool: str, traces: Traces) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = guntainer("run", *box("print('ran')", "-p", f"127.0.0.1:{port}:80"))
        assert (done.returncode, done.stdout) == (125, "")
        assert f"port {port}/tcp can not be published on 127.0.0.1: it is in use" in done.stderr
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("0.0.0.0", 0))
        port = datagrams.getsockname()[1]
        done = guntainer("run", *box("print('ran')", "-p", f"{port}:80/udp"))
        assert f"port {port}/udp can not be published on 0.0.0.0: it is in use" in done.stderr
    done = guntainer("run", *box("print('ran')", "-p", "203.0.113.1:8080:80"))
    assert "port 8080/tcp can not be published on 203.0.113.1: the host has no such address" in done.stderr
    traces.check()


def test_a_port_that_is_taken_at_the_last_moment(
    guntainer: Run, box: Box, tool: str, home: Path, traces: Traces, no_tool_left: None
) -> None:
    """What only the tool finds out is told in its words, with its port."""
    driver = (
        "import sys, socket\nfrom guntainer.network import publishing\n"
        "bind = publishing._bind\ndef late(port):\n    number = bind(port)\n"
        "    global taken; taken = socket.create_server(('127.0.0.1', number)); return number\n"
        "publishing._bind = late\nfrom guntainer.cli import entry\nentry()\n"
    )
    port = networks.free_port()
    line = [sys.executable, "-c", driver, "run", *box("print('ran')", "-p", f"127.0.0.1:{port}:80")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert str(port) in done.stderr and tool in done.stderr and "Traceback" not in done.stderr, done.stderr
    traces.check()


def test_the_tool_dies(box: Box, tool: str, userns: str, traces: Traces, no_tool_left: None) -> None:
    line = [sys.executable, "-m", "guntainer", "run", "--userns", userns]
    with subprocess.Popen(
        [*line, *box("print('up', flush=True); input(); print('still here')")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "up\n"
        os.kill(networks.tool_of(process.pid), signal.SIGKILL)
        told = process.stderr.readline()
        assert told == f"guntainer: warning: the network is gone: {tool} ended with signal 9 (SIGKILL)\n"
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout.read() == "still here\n"
        assert process.wait(30) == 0
    traces.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_supervisor_of_one_run_dies(box: Box, tool: str, userns: str, number: signal.Signals) -> None:
    with running("run", "--userns", userns, *box("print('up', flush=True); import time; time.sleep(600)")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        pid = networks.tool_of(process.pid)
        assert pid
        process.send_signal(number)
        process.wait(30)
        until(lambda: not networks.alive(pid))


def test_the_supervisor_of_a_batch_is_killed(home: Path, box: Box, tool: str, userns: str) -> None:
    file = batch_file(
        home, box("open('/up/there', 'w').close(); import time; time.sleep(600)", "-v", f"{home}/work:/up")
    )
    with running("batch", "--userns", userns, file) as process:
        until((home / "work" / "there").exists)
        pid = networks.tool_of(process.pid)
        assert pid
        process.kill()
        process.wait()
        until(lambda: not networks.alive(pid))


def test_a_tool_that_fails(
    guntainer: Run, box: Box, home: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    fake(home / "bin", "pasta", "echo first >&2; echo the moon is full >&2; exit 3")
    monkeypatch.setenv("PATH", f"{home}/bin")
    done = guntainer("run", *box("print('ran')"))
    assert (done.returncode, done.stdout) == (125, "")
    assert "no private network: pasta: first; the moon is full (guntainer doctor network-tool)" in done.stderr
    fake(home / "bin", "pasta", "kill -KILL $$")
    assert "pasta: signal 9 (SIGKILL)" in guntainer("run", *box("print('ran')")).stderr
    (home / "bin" / "pasta").write_bytes(b"no program\n")
    done = guntainer("run", *box("print('ran')"))
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{home}/bin/pasta can not be started: Exec format error" in done.stderr
    traces.check()


def test_the_other_tool_steps_in(
    guntainer: Run, box: Box, home: Path, outside: str, monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    networks.only("slirp4netns", home / "bin")
    fake(home / "bin", "pasta", "echo no route >&2; exit 1")
    monkeypatch.setenv("PATH", f"{home}/bin")
    with server(outside) as found:
        done = guntainer("run", *box(f"{ASK}\nprint(ask(TCP, {outside!r}, {found.port}))"))
        assert done.stdout == "echo hi\n", done.stderr
        assert "warning: pasta: no route: slirp4netns is used instead" in done.stderr
        file = batch_file(home, box(f"{ASK}\nprint(ask(TCP, {outside!r}, {found.port}))"), repeat=3)
        done = guntainer("batch", "--output", "quiet", "-j", "1", file)
        assert (done.returncode, done.stderr.count("slirp4netns is used instead")) == (0, 1), done.stderr
    traces.check()


def test_a_tool_that_is_never_ready(box: Box, home: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces) -> None:
    """The wait is bounded; a time-out and a signal end it before."""
    sleep = shutil.which("sleep")
    fake(home / "bin", "pasta", f"echo waiting >&2; exec {sleep} 600")
    monkeypatch.setenv("PATH", f"{home}/bin")
    driver = (
        "from guntainer.network.link import Link\nLink.patience_s = 0.3\nfrom guntainer.cli import entry\nentry()\n"
    )
    words = box("print('ran')")
    for line, code, part in (
        ([sys.executable, "-c", driver, "run", *words], 125, "pasta: not ready after 0.3 s"),
        ([sys.executable, "-m", "guntainer", "run", "--timeout", "0.3", *words], 124, "timeout after 0.3 s"),
        ([sys.executable, "-c", driver, "batch", str(batch_file(home, words))], 125, "pasta: not ready after 0.3 s"),
    ):
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "ran" in done.stdout) == (code, False), done.stderr
        assert part in done.stderr + done.stdout
        traces.check()
    for command in (("run", *words), ("batch", batch_file(home, words))):
        with running(*command) as process:
            until(lambda: started(process.pid, str(sleep)))
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        traces.check()


def started(pid: int, program: str) -> bool:
    """Whether a child of this process runs that program by now."""
    for child in networks.children(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].decode() == program:
                return True
    return False


# -- batches


def test_many_at_once(
    guntainer: Run, home: Path, box: Box, tool: str, userns: str, outside: str, traces: Traces, no_tool_left: None
) -> None:
    with server(outside) as found:
        file = batch_file(home, box(f"{ASK}\nprint(ask(TCP, {outside!r}, {found.port}))"), repeat=8)
        done = guntainer("batch", "--userns", userns, "-j", "4", "--json", "-", "--output", "quiet", file)
    results = ended_jobs(done.stdout)
    assert [result["outcome"] for result in results] == ["ok"] * 8, done.stderr
    assert len(found.heard) == 8
    traces.check()


def test_two_jobs_on_one_port_take_turns(guntainer: Run, home: Path, box: Box, traces: Traces) -> None:
    port = networks.free_port()
    file = batch_file(home, box("print('ran')"), repeat=3, more=f'ports = ["127.0.0.1:{port}:80"]\n')
    done = guntainer("batch", "-j", "3", file)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"port {port}/tcp is published by another job: jobs wait") == 1
    traces.check()


def test_a_chosen_port_is_told_with_its_job(guntainer: Run, home: Path, box: Box) -> None:
    done = guntainer("batch", batch_file(home, box("print('ran')"), more='ports = ["80/udp"]\n'))
    assert "a: 80/udp is published on 0.0.0.0:" in done.stderr


def test_the_tool_of_a_job_dies(home: Path, box: Box, tool: str) -> None:
    script = "open('/up/there', 'w').close()\nimport os, time\nwhile not os.path.exists('/up/go'): time.sleep(0.01)"
    file = batch_file(home, box(script, "-v", f"{home}/work:/up"))
    with running("batch", "--results", home / "results", file) as process:
        until((home / "work" / "there").exists)
        pid = networks.tool_of(process.pid)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not networks.alive(pid))
        (home / "work" / "go").touch()
        assert process.wait(30) == 0
        assert process.stderr is not None
        note = f"the network is gone: {tool} ended with signal 9 (SIGKILL)"
        assert note in process.stderr.read()
    result = json.loads((home / "results" / "a" / "result.json").read_text())
    assert note in result["notes"]


def test_no_room_for_descriptors(home: Path) -> None:
    """The kernel leaves out those of a message for which there is no room: recvmsg(2), MSG_CTRUNC."""
    watched: set[int] = set()
    job = Job(id="a", rootfs=Source(location="/"), network="private", ports=(Port(container=80),))
    link = Link(job, lambda: str(home), print)
    with socket.socket(fileno=os.dup(link.theirs)) as container:
        link.launched(0, watched.add, watched.discard)
        socket.send_fds(container, [b"m"], [0])
        with pytest.raises(errors.Exhausted, match="no more descriptors are allowed"):
            link.ready(*watched)
        link.close()
        assert not watched
        assert container.recv(1) == b""


def test_descriptors_are_closed(home: Path, box: Box, outside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every way in which a container with a private network ends, in one supervisor."""
    words = box("")
    at = words.index(str(home / "tree"))
    source = Source(location=words[at])
    mounts = tuple(parse_volume(words[n + 1], "") for n, word in enumerate(words) if word == "-v")

    def job(name: str, script: str, **more: object) -> Job:
        return Job(
            id=name,
            rootfs=source,
            mounts=mounts,
            network="private",
            command=tuple(python(script)),
            **{"timeout_s": 60, **more},
        )  # type: ignore[arg-type]

    port = Port(container=80, host=networks.free_port(), address="127.0.0.1")
    jobs = [
        job("good", "", ports=(port, Port(container=81))),
        job("bad", "1/0", ports=(Port(container=53, protocol="udp"),)),
        job("slow", "import time; time.sleep(60)", timeout_s=0.3),
        job("nothing", "").replace(command=("/no/such/command",)),
        job("wrong", "", workdir="/no/such/folder"),
        job("no address", "", ports=(Port(container=80, address="203.0.113.1", host=8080),)),
        job("no sense", "", ports=(port,)).replace(network="host"),
    ]

    async def run() -> tuple[list[str], list[str], list[str]]:
        async with Supervisor(parallel=3) as supervisor:
            await supervisor.run([job("first", "")])
            before = sorted(os.listdir("/proc/self/fd"))
            results = (await supervisor.run(jobs)).results
            return [result.outcome for result in results], before, sorted(os.listdir("/proc/self/fd"))

    outcomes, before, after = anyio.run(run)
    assert outcomes == ["ok", "failed", "timeout", "error", "error", "error", "error"]
    assert before == after


def test_a_command_that_is_not_there(guntainer: Run, box: Box, home: Path, traces: Traces, no_tool_left: None) -> None:
    words = box("")
    words[words.index(str(home / "tree")) + 1 :] = ["/no/such/command"]
    assert guntainer("run", *words).returncode == 127
    traces.check()
