"""Services: containers beside a job's own, in its network, as long as it lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import networks
import pytest
from conftest import Run, Traces, ended_jobs

from guntainer import Job, Result, Source, Supervisor, assembly, planner
from guntainer.container import Container
from guntainer.jobs.model import Limits, Mount, Retry, Secret, Service
from guntainer.watcher import Watcher

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("user_namespaces")]
private_networks, tool = networks.private_networks, networks.tool

PYTHON = networks.python("")[:-1]
SERVER = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    connection, _ = listening.accept()
    connection.sendall(sys.argv[2].encode())
    connection.close()
"""
"""Answers with its second argument on the port that is its first."""
ASK = """
import socket, sys
for name in sys.argv[2:]:
    with socket.create_connection((name, int(sys.argv[1])), 5) as sock:
        print(name, sock.recv(100).decode(), flush=True)
"""


def server(port: int = 80, answer: str = "hello") -> list[str]:
    return [*PYTHON, SERVER, str(port), answer]


def ask(*names: str, port: int = 80) -> list[str]:
    return [*PYTHON, ASK, str(port), *names]


class Box:
    """A rootfs in which this machine's Python runs, and a batch on it."""

    def __init__(self, home: Path, run: Run) -> None:
        tree, words = networks.python_rootfs(home / "box")
        (tree / "tmp").mkdir()
        self.common: dict[str, Any] = {"rootfs": str(tree), "volumes": words[1::2]}
        self.mounts = tuple(
            Mount(target=target, source=source, read_only=True)
            for source, target, _ in (word.split(":") for word in words[1::2])
        )
        self.secrets: dict[str, dict[str, str]] = {}
        self._home = home
        self._run = run

    def write(self, services: dict[str, dict[str, Any]], jobs: dict[str, dict[str, Any]]) -> Path:
        path = self._home / "jobs.json"
        both = [{name: {**self.common, **keys} for name, keys in group.items()} for group in (services, jobs)]
        path.write_text(json.dumps({"secrets": self.secrets, "services": both[0], "jobs": both[1]}))
        return path

    def batch(
        self, services: dict[str, dict[str, Any]], jobs: dict[str, dict[str, Any]], *options: object
    ) -> list[dict[str, Any]]:
        """Every result, in the order of their ids, with what the job has printed as `printed`."""
        path, report, kept = self.write(services, jobs), self._home / "report", self._home / "kept"
        done = self._run("batch", "-j4", *options, "--json", report, "--results", kept, path)
        assert "Traceback" not in done.stderr, done.stderr
        assert report.exists(), done.stderr
        found = sorted(ended_jobs(report.read_text()), key=lambda one: str(one["id"]))
        for one in found:
            stdout = kept / one["id"] / "stdout"
            one["printed"] = stdout.read_text() if stdout.exists() else ""
        return found

    def job(self, id_: str, command: list[str], *services: Service, **more: Any) -> Job:
        return Job(
            id=id_,
            rootfs=Source(location=self.common["rootfs"]),
            command=tuple(command),
            mounts=self.mounts,
            services=services,
            network=more.pop("network", "none"),
            **more,
        )

    def service(
        self, command: list[str], *, ready: tuple[str, ...] = (), port: int | None = None, **more: Any
    ) -> Service:
        return Service(name="db", job=self.job("db", command, **more), ready=ready, ready_port=port, ready_timeout_s=20)

    def run(self, *jobs: Job, before: Callable[[Supervisor], object] = lambda _: None, **options: Any) -> list[Result]:
        async def main() -> list[Result]:
            async with Supervisor(parallel=4, **options) as supervisor:
                before(supervisor)
                return list((await supervisor.run(jobs)).results)

        return anyio.run(main)


@pytest.fixture
def box(home: Path, guntainer: Run) -> Box:
    return Box(home, guntainer)


NONE = {"network": "none", "services": ["db"]}


@pytest.mark.parametrize("userns", ["single", "range"])
def test_a_job_reaches_its_service(box: Box, traces: Traces, request: pytest.FixtureRequest, userns: str) -> None:
    if userns == "range":
        request.getfixturevalue("a_range")
    services = {"db": {"command": server(), "ready-port": 80}}
    command = ask("localhost", "127.0.0.1", "db")
    (one,) = box.batch(services, {"a": {**NONE, "command": command}}, "--userns", userns)
    assert (one["outcome"], one["printed"]) == ("ok", "localhost hello\n127.0.0.1 hello\ndb hello\n"), one
    traces.check()


def test_services_reach_each_other_by_name(box: Box, traces: Traces) -> None:
    services: dict[str, dict[str, Any]] = {
        "db": {"command": server(), "ready-port": 80},
        "front": {"command": server(81, "front"), "ready": ask("db")},
    }
    job = {"network": "none", "services": ["db", "front"], "command": ask("front", port=81)}
    (one,) = box.batch(services, {"a": job})
    assert (one["outcome"], one["printed"]) == ("ok", "front front\n"), one
    traces.check()


def test_two_cells_at_once_on_one_port(box: Box, traces: Traces) -> None:
    services = {"db": {"command": server(5432, "${{ matrix.pg }}"), "ready-port": 5432}}
    held = [*PYTHON, ASK + "import time; time.sleep(1)", "5432", "db"]
    found = box.batch(services, {"a": {**NONE, "command": held, "matrix": {"pg": [15, 16, 17]}}})
    assert [(one["outcome"], one["printed"]) for one in found] == [("ok", f"db {pg}\n") for pg in (15, 16, 17)]
    traces.check()


# -- ready


READY = 'import os, sys; print(os.environ["MARK"], os.getuid(), os.getcwd(), flush=True); open("/tmp/up").close()'
LATE = "import time; time.sleep(0.5); open('/tmp/up', 'w').close(); time.sleep(50)"


@pytest.mark.parametrize("way", ["argv", "script"])
@pytest.mark.parametrize("userns", ["single", "auto"])
def test_ready_by_a_command(box: Box, traces: Traces, way: str, userns: str) -> None:
    """It runs inside: the service's files, its processes, its variables."""
    script = "test -e /tmp/up && test $MARK = m && test -d /proc/1 && test -d /proc/$$"
    ready = ["/bin/sh", "-c", script] if way == "argv" else script
    services = {"db": {"command": [*PYTHON, LATE], "ready": ready, "env": {"MARK": "m"}, "workdir": "/tmp"}}
    (one,) = box.batch(services, {"a": {**NONE, "command": ["/bin/sh", "-c", "test ! -e /tmp/up"]}}, "--userns", userns)
    assert one["outcome"] == "ok" and one["launch_ns"] > 500_000_000, one
    traces.check()


@pytest.mark.usefixtures("a_range")
def test_the_command_is_the_service_s_user(box: Box, traces: Traces) -> None:
    script = 'test "$(id -u)" = 1000 && test "$(sed -n "s/^CapEff:.//p" /proc/self/status)" = 0000000000000000'
    services = {"db": {"command": [*PYTHON, "import time; time.sleep(50)"], "ready": script, "user": "user"}}
    (one,) = box.batch(services, {"a": {**NONE, "command": ["true"]}}, "--userns", "range")
    assert one["outcome"] == "ok", one
    traces.check()


@pytest.mark.parametrize("isolation", [planner.FULL, planner.HOST_PROC, planner.NO_PID])
@pytest.mark.parametrize("userns", ["single", "auto"])
def test_ready_by_a_command_on_each_rung(box: Box, traces: Traces, isolation: str, userns: str) -> None:
    def lower(supervisor: Supervisor) -> None:
        supervisor._containers._isolation = isolation

    db = box.service([*PYTHON, LATE], ready=("/bin/sh", "-c", "test -e /tmp/up"))
    (result,) = box.run(box.job("a", ["true"], db), before=lower, userns=userns)
    assert (result.outcome, result.isolation) == ("ok", isolation), result
    traces.check()


def test_ready_with_an_init_of_ours(box: Box, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never executes: it forks the command when all is set up."""
    monkeypatch.setattr(assembly, "find_init", lambda: None)
    db = box.service([*PYTHON, LATE], ready=("/bin/sh", "-c", "test -e /tmp/up"), init=True)
    (result,) = box.run(box.job("a", ["true"], db))
    assert result.outcome == "ok", result
    traces.check()


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        ({"ready-port": 81}, "nobody listens on port 81"),
        (
            {"ready": ["/bin/sh", "-c", "echo no response; exit 3"]},
            "exit 3 of /bin/sh -c echo no response; exit 3: no response",
        ),
        ({"ready": "exit 4"}, "exit 4 of exit 4"),
        ({"ready": ["sleep", "100"]}, "no answer of sleep 100"),
        ({"ready": ["/missing"]}, "/missing: command not found"),
    ],
)
def test_not_ready_in_time(box: Box, traces: Traces, ready: dict[str, Any], expected: str) -> None:
    services = {"db": {"command": server(), "ready-timeout": "1s", **ready}}
    (one,) = box.batch(services, {"a": {**NONE, "command": ["true"]}})
    assert one["outcome"] == "error"
    assert one["message"].startswith(f"service db is not ready after 1 s: {expected}"), one["message"]
    assert one["message"].endswith("its last lines: listening"), one["message"]
    traces.check()


def test_a_command_that_hangs_is_killed_and_tried_again(
    box: Box, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guntainer.services import readiness

    monkeypatch.setattr(readiness, "TRY_S", 0.3)
    ready = ("/bin/sh", "-c", "test -e /tmp/second || { : > /tmp/second; exec sleep 50; }")
    (result,) = box.run(box.job("a", ["true"], box.service(server(), ready=ready)))
    assert result.outcome == "ok", result
    traces.check()


def test_it_dies_early(box: Box, traces: Traces) -> None:
    services = {"db": {"run": "echo starting; printf 'bad \\033[31mconfig'; exit 3", "ready-port": 80}}
    (one,) = box.batch(services, {"a": {**NONE, "command": ["true"]}})
    expected = "service db ended before it was ready: exit 3; its last lines: starting; bad ?[31mconfig"
    assert (one["outcome"], one["message"]) == ("error", expected)
    assert one["wall_ns"] < 10_000_000_000
    traces.check()


def test_its_command_is_not_there(box: Box, traces: Traces) -> None:
    (one,) = box.batch({"db": {"command": ["/missing"], "ready-port": 80}}, {"a": {**NONE, "command": ["true"]}})
    assert one["outcome"] == "error" and one["message"].startswith("service db: /missing: command not found"), one
    traces.check()


def test_its_rootfs_is_not_there(box: Box, traces: Traces, home: Path) -> None:
    services = {"db": {"rootfs": str(home / "missing.tar"), "command": []}}
    found = box.batch(services, {"a": {**NONE, "command": ["true"]}, "b": {"command": ["true"]}})
    assert [one["outcome"] for one in found] == ["error", "ok"]
    assert found[0]["message"].startswith("service db: ") and "missing.tar" in found[0]["message"]
    traces.check()


def test_it_dies_late(box: Box, traces: Traces) -> None:
    services = {"db": {"run": "sleep 0.3; exit 5"}}
    (one,) = box.batch(services, {"a": {**NONE, "command": ["sleep", "1"]}})
    assert (one["outcome"], one["notes"]) == ("ok", ["service db ended (exit 5) while the job ran"])
    traces.check()


@pytest.mark.parametrize("command", [["true"], ["/bin/sh", "-c", "sleep 0.02; exit 4"]])
def test_it_is_ready_when_it_is_launched(box: Box, traces: Traces, command: list[str]) -> None:
    """Where nobody has said what ready means; however soon it ends."""
    found = box.batch({"db": {"command": command}}, {"a": {**NONE, "command": ["sleep", "0.2"], "repeat": 6}})
    assert [one["outcome"] for one in found] == ["ok"] * 6, found
    assert all(note.startswith("service db ended (") for one in found for note in one["notes"])
    assert all(len(one["notes"]) == 1 for one in found)
    traces.check()


def test_that_can_not_be_launched_is_never_ready(box: Box, traces: Traces) -> None:
    (one,) = box.batch({"db": {"command": ["/missing"]}}, {"a": {**NONE, "command": ["true"]}})
    assert one["outcome"] == "error" and one["message"].startswith("service db: /missing: command not found"), one
    traces.check()


# -- what a try leaves

LEAVES = "for n in 1 2 3; do sleep 778 & done; (sleep 779 & sleep 779) & trap '' TERM HUP; "


@pytest.mark.parametrize("isolation", [planner.FULL, planner.HOST_PROC, planner.NO_PID])
@pytest.mark.parametrize("end", ["test -e /tmp/up", "test -e /tmp/up || sleep 777"])
def test_nothing_is_left_of_a_try(
    box: Box, traces: Traces, monkeypatch: pytest.MonkeyPatch, end: str, isolation: str
) -> None:
    """Neither of one that has ended, nor of one that was late."""
    from guntainer.services import readiness

    monkeypatch.setattr(readiness, "TRY_S", 0.3)

    def lower(supervisor: Supervisor) -> None:
        supervisor._containers._isolation = isolation

    seen: list[list[str]] = []
    left = readiness.Readiness._command

    async def looked(self: readiness.Readiness, container: Container) -> readiness.Look:
        look = await left(self, container)
        seen.append([line for line in traces.processes() if "sleep 77" in line])
        return look

    monkeypatch.setattr(readiness.Readiness, "_command", looked)
    script = "import time; time.sleep(1); open('/tmp/up', 'w').close(); time.sleep(50)"
    db = box.service([*PYTHON, script], ready=("/bin/sh", "-c", LEAVES + end))
    (result,) = box.run(box.job("a", ["true"], db), before=lower)
    assert result.outcome == "ok", result
    assert len(seen) >= 2 and not any(seen), seen
    traces.check()


def test_what_a_try_prints_takes_no_room(box: Box, traces: Traces, home: Path) -> None:
    ready = (
        "/bin/sh",
        "-c",
        "(while :; do echo yes yes yes yes yes yes yes; done > /proc/self/fd/1) & sleep 1; exit 0",
    )
    db = box.service(["sleep", "50"], ready=ready)
    seen: list[int] = []

    async def main() -> Result:
        async with Supervisor(parallel=1) as supervisor, anyio.create_task_group() as tasks:

            async def look() -> None:
                while True:
                    await anyio.sleep(0.05)
                    folder = Path(supervisor._run_folder().path)
                    seen.append(sum(path.stat().st_size for path in folder.glob("*") if path.is_file()))

            tasks.start_soon(look)
            (result,) = (await supervisor.run([box.job("a", ["true"], db)])).results
            tasks.cancel_scope.cancel()
            return result

    assert anyio.run(main).outcome == "ok"
    assert len(seen) > 3 and max(seen) < 64 << 10, seen
    traces.check()


# -- their life


def test_it_is_stopped_after_the_job(box: Box, traces: Traces, home: Path) -> None:
    """By its stop signal, when the job's own container is gone."""
    (home / "shared").mkdir()
    script = (
        "import signal, time\ndef end(*_):\n    open('/shared/end', 'w').write(str(time.time()))\n    raise SystemExit\n"
        "signal.signal(signal.SIGUSR1, end)\nopen('/tmp/up', 'w').close()\nwhile True: time.sleep(1)"
    )
    services = {
        "db": {
            "command": [*PYTHON, script],
            "ready": ["test", "-e", "/tmp/up"],
            "stop-signal": "USR1",
            "volumes": [*box.common["volumes"], f"{home}/shared:/shared"],
        }
    }
    last = [*PYTHON, "import time; time.sleep(0.3); print(time.time())"]
    (one,) = box.batch(services, {"a": {**NONE, "command": last}})
    assert one["outcome"] == "ok"
    assert float((home / "shared" / "end").read_text()) > float(one["printed"])
    traces.check()


def test_the_job_is_out_of_time(box: Box, traces: Traces) -> None:
    (one,) = box.batch(
        {"db": {"command": server(), "ready-port": 80}}, {"a": {**NONE, "command": ["sleep", "50"], "timeout": 0.5}}
    )
    assert one["outcome"] == "timeout"
    traces.check()


def test_one_that_does_not_want_to_end_is_killed(box: Box, traces: Traces) -> None:
    stubborn = (
        "import signal, time; signal.signal(15, lambda *_: 0); open('/tmp/up', 'w').close()\nwhile 1: time.sleep(9)"
    )
    services = {"db": {"command": [*PYTHON, stubborn], "ready": ["test", "-e", "/tmp/up"], "stop-timeout": 0.3}}
    (one,) = box.batch(services, {"a": {**NONE, "command": ["true"]}})
    assert one["outcome"] == "ok"
    traces.check()


def test_a_retry_gets_new_ones(box: Box, traces: Traces, home: Path) -> None:
    """The first attempt leaves something behind in its service, by which the second one would know it."""
    script = "test ! -e /tmp/old || exit 9; : > /tmp/old; echo new; exec sleep 50"
    db = box.service(["/bin/sh", "-c", script], ready=("test", "-e", "/tmp/old"))
    (result,) = box.run(box.job("a", ["false"], db, retry=Retry(attempts=2, on=("exit",))), results=str(home / "kept"))
    assert (result.outcome, len(result.attempts), result.notes) == ("failed", 1, ())
    for place in ("a/services/db.log", "a/attempt-1/services/db.log"):
        assert (home / "kept" / place).read_text() == "new\n"
    traces.check()


def test_nothing_is_kept_where_nobody_asked(box: Box, traces: Traces) -> None:
    def files(supervisor: Supervisor) -> list[str]:
        return sorted(os.listdir(supervisor._run_folder().path))

    seen: list[str] = []

    async def main() -> None:
        async with Supervisor(parallel=2) as supervisor:
            db = box.service(server(), ready=("true",))
            for name in ("a", "b"):
                await supervisor.run([box.job(name, ["true"], db)])
            seen.extend(one for one in files(supervisor) if one.startswith(("log-", "ready-")))

    anyio.run(main)
    assert seen == ["log-1"]  # that of the jobs themselves
    traces.check()


def test_a_job_that_never_ran_has_nobody_s_output(box: Box, traces: Traces) -> None:
    """Logs that nobody keeps are used again."""
    seen: dict[str, str] = {}

    class Reader(Watcher):
        async def finished(self, result: Result) -> None:
            seen[result.id] = Path(result.stdout).read_text() if result.stdout else ""

    async def main() -> None:
        async with Supervisor(parallel=1, watcher=Reader()) as supervisor:
            await supervisor.run([box.job("a", ["echo", "of a"])])
            await supervisor.run([box.job("b", ["echo", "of b"], box.service(["false"], port=80))])

    anyio.run(main)
    assert seen == {"a": "of a\n", "b": ""}
    traces.check()


def test_the_helper_of_the_network_dies(box: Box, traces: Traces) -> None:
    """What it has launched goes on, and is stopped as ever."""

    results: list[Result] = []

    async def main() -> None:
        async with Supervisor(parallel=2) as supervisor, anyio.create_task_group() as tasks:

            async def kill() -> None:
                while not (found := helpers_of_pods(os.getpid())):
                    await anyio.sleep(0.02)
                await anyio.sleep(0.7)
                found &= helpers_of_pods(os.getpid())  # a container that was just cloned looks like it for a moment
                assert len(found) == 1
                os.kill(found.pop(), signal.SIGKILL)

            tasks.start_soon(kill)
            db = box.service(server(), port=80)
            jobs = [box.job("a", ["sleep", "2"], db), box.job("b", ["true"])]
            results.extend((await supervisor.run(jobs)).results)

    anyio.run(main)
    assert [result.outcome for result in results] == ["ok", "ok"]
    traces.check()


def helpers_of_pods(pid: int) -> set[int]:
    found = set()
    for child in networks.children(pid):
        try:
            line = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"pod=True" in line and networks.children(child) == []:
                found.add(child)
        except OSError:
            continue
    return found


def test_it_has_secrets_which_its_log_does_not_show(
    box: Box, traces: Traces, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", "correct horse")
    box.secrets["PW"] = {"env": "PW"}
    services = {
        "db": {"run": 'echo "it is $PW"; exec sleep 50', "ready": 'test "$PW" = "correct horse"', "secrets": ["PW"]}
    }
    (one,) = box.batch(services, {"a": {**NONE, "run": 'test -z "$PW"'}})
    assert one["outcome"] == "ok", one
    assert (home / "kept" / "a" / "services" / "db.log").read_text() == "it is ***\n"
    services["db"]["ready"] = "echo $PW; false"
    services["db"]["ready-timeout"] = "1s"
    (one,) = box.batch(services, {"a": {**NONE, "run": "true"}})
    assert "exit 1" in one["message"] and "correct" not in json.dumps(one), one
    traces.check()


def test_secrets_of_either_are_shown_by_none(
    box: Box, traces: Traces, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may print what the job has told it, and the other way round."""
    monkeypatch.setenv("PW", "correct horse")
    monkeypatch.setenv("TOKEN", "battery staple")
    box.secrets |= {"PW": {"env": "PW"}, "TOKEN": {"env": "TOKEN"}}
    (home / "given").write_text("$PW: correct horse, $TOKEN: battery staple\n")
    volumes = {"volumes": [*box.common["volumes"], f"{home}/given:/given:ro"]}
    services = {
        "db": {"run": "cat /given; exec sleep 50", "secrets": ["PW"], "ready": "true", **volumes},
        "front": {"run": "cat /given; exec sleep 50", "ready": "cat /given; test -e /ready", **volumes},
    }
    names = {"network": "none", "services": ["db", "front"], "secrets": ["TOKEN"], **volumes}
    services["front"]["ready-timeout"] = "1s"
    (one,) = box.batch(services, {"a": {**names, "run": "cat /given"}})
    assert one["outcome"] == "error" and "$PW: ***, $TOKEN: ***" in one["message"], one
    services["front"]["ready"] = "true"
    (one,) = box.batch(services, {"a": {**names, "run": "cat /given; cat /given >&2"}})
    assert one["outcome"] == "ok", one
    for place in ("stdout", "stderr", "services/db.log", "services/front.log"):
        assert (home / "kept" / "a" / place).read_text() == "$PW: ***, $TOKEN: ***\n", place
    traces.check()


# -- what a service got otherwise than asked for


@pytest.mark.parametrize("end", ["exec sleep 50", "exit 0"])
def test_a_log_that_was_cut_is_said(box: Box, traces: Traces, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was stopped or has ended by itself."""
    from guntainer import stdio

    def full(_fd: int, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stdio, "_write_all", full)
    db = box.service(["/bin/sh", "-c", f"echo words; {end}"], secrets=(Secret(name="PW", variable="PW"),))
    job = box.job("a", ["sleep", "0.5"], db)
    (result,) = box.run(job, secrets={"PW": b"correct horse"})
    assert result.outcome == "ok"
    assert "service db: stdout was cut: No space left on device" in result.notes, result
    traces.check()


def test_limits_that_can_not_be_had_are_said(box: Box, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    from guntainer.cgroups.limiter import Granted

    granted = Granted(limits=Limits(), notes=("memory limits are not in force: made up",))
    monkeypatch.setattr(assembly.Ground, "granted", lambda _self, _limits: granted)
    limits = Limits(memory_bytes=64 << 20, best_effort=True)
    told: list[str] = []

    class Reader(Watcher):
        def note(self, text: str) -> None:
            told.append(text)

    db = box.service(["sleep", "50"], limits=limits)
    results = box.run(box.job("a", ["true"], db), box.job("b", ["true"], db), watcher=Reader())
    note = "service db: memory limits are not in force: made up"
    assert [result.notes for result in results] == [(note,)] * 2 and told.count(note) == 1
    traces.check()


def test_who_has_none_loads_nothing_of_them(home: Path, small_archive: Path) -> None:
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": {"rootfs": str(small_archive), "run": "true"}}}))
    code = (
        "import sys\nfrom guntainer.cli import main\n"
        "code = main(['batch', sys.argv[1]])\n"
        "print(code, sorted(one for one in sys.modules if one.startswith(('guntainer.services', 'guntainer.launcher.pod'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home / "jobs.json")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done


# -- its end from outside


STUBBORN = """
import signal, time
for number in (2, 15):
    signal.signal(number, lambda *_: 0)
open("/x", "w").close()
while True:
    time.sleep(9)
"""
PHASES: dict[str, tuple[dict[str, Any], str]] = {
    "not ready": (
        {"command": [*PYTHON, "open('/x', 'w').close(); import time; time.sleep(50)"], "ready": ["false"]},
        "true",
    ),
    "hanging": (
        {"command": [*PYTHON, "open('/x', 'w').close(); import time; time.sleep(50)"], "ready": ["sleep", "50"]},
        "true",
    ),
    "running": ({"command": server(), "ready-port": 80}, "echo x > /x; exec sleep 50"),
    "stopping": ({"command": [*PYTHON, STUBBORN], "ready": ["test", "-e", "/x"], "stop-timeout": 2}, "true"),
}
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "KILL": signal.SIGKILL}


@pytest.mark.parametrize("name", ["INT", "INT twice", "TERM", "HUP", "KILL"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal(box: Box, home: Path, guntainer: Run, traces: Traces, phase: str, name: str) -> None:
    service, script = PHASES[phase]
    path = box.write({"db": service}, {"a": {**NONE, "run": script}})
    process = subprocess.Popen(
        [sys.executable, "-m", "guntainer", "batch", "--json", str(home / "report"), str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    # not by rglob: folders come and go while it looks
    while not any(folder.endswith("/upper") and "x" in names for folder, _, names in os.walk(home / "tmp")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.6 if phase == "stopping" else 0.1)
    number = SIGNALS[name.split()[0]]
    process.send_signal(number)
    if "twice" in name:
        time.sleep(0.1)
        process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert b"Traceback" not in err
    assert process.returncode == (-9 if name == "KILL" else 128 + number), err
    if name != "KILL":
        (ended,) = ended_jobs((home / "report").read_text())
        # a job that has ended has its result already: only its services are waited for
        assert ended["outcome"] == ("ok" if phase == "stopping" else "cancelled")
    deadline = time.monotonic() + 5
    while traces.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert traces.processes() == []
    if name == "KILL":
        guntainer("run", box.common["rootfs"], "/missing")  # whoever starts next removes what it has left
    traces.check()


# -- networks

REACH = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
    way.connect(("192.0.2.1", 9))
    assert way.getsockname()[0] == "10.0.2.100", way.getsockname()
"""
"""Fails where there is no way out."""


def test_the_host_s_network_is_shared_on_demand(box: Box, traces: Traces) -> None:
    port = networks.free_port()
    path = box.write(
        {"db": {"command": server(port), "ready-port": port}},
        {"a": {"services": ["db"], "network": "host", "command": ask("db", "localhost", port=port)}},
    )
    done = box._run("batch", path)
    assert done.returncode == 0, done.stderr
    assert "listen on the host itself" in done.stdout + done.stderr
    traces.check()


def test_without_a_network_of_its_own_it_gets_one(box: Box, traces: Traces) -> None:
    """A private one where the host has a tool for that, else none."""
    (one,) = box.batch(
        {"db": {"command": server(), "ready-port": 80}}, {"a": {"services": ["db"], "command": ask("db")}}
    )
    assert (one["outcome"], one["printed"]) == ("ok", "db hello\n"), one
    traces.check()


@pytest.mark.vm
@pytest.mark.usefixtures("private_networks")
@pytest.mark.parametrize("userns", ["single", "auto"])
def test_a_private_network_is_shared(box: Box, traces: Traces, tool: str, userns: str) -> None:
    """Both have a way out, and the host reaches the service by a port that the job publishes."""
    port = networks.free_port()
    held = [*PYTHON, ASK + REACH + "import time; time.sleep(2)", "5432", "db"]
    services = {
        "db": {
            "command": [*PYTHON, REACH + SERVER.replace("127.0.0.1", "0.0.0.0"), "5432", "hello"],
            "ready-port": 5432,
        }
    }
    ports = [f"127.0.0.1:{port}:5432"]
    job = {"services": ["db"], "network": "private", "ports": ports, "command": held}
    path = box.write(services, {"a": job})
    process = subprocess.Popen(
        [sys.executable, "-m", "guntainer", "batch", "--userns", userns, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    try:
        answer = _asked(port)
    finally:
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, answer) == (0, "hello"), out
    traces.check()


@pytest.mark.vm
@pytest.mark.usefixtures("private_networks")
@pytest.mark.parametrize("name", ["INT", "TERM", "KILL"])
def test_a_signal_while_the_network_is_made(
    box: Box, home: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By a tool that is never ready."""
    networks.fake(home / "bin", "pasta", f": > {home}/marker; exec /bin/sleep 50")
    monkeypatch.setenv("PATH", str(home / "bin"))
    path = box.write({"db": {"command": server(), "ready-port": 80}}, {"a": {"services": ["db"], "command": ["true"]}})
    line = [sys.executable, "-m", "guntainer", "batch", str(path)]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    networks.until((home / "marker").exists)
    process.send_signal(SIGNALS[name])
    _, err = process.communicate(timeout=20)
    assert process.returncode == (-9 if name == "KILL" else 128 + SIGNALS[name]), err
    networks.until(lambda: traces.processes() == [])
    if name != "KILL":
        traces.check()


@pytest.mark.vm
@pytest.mark.usefixtures("private_networks")
def test_the_network_can_not_be_had(box: Box, home: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.fake(home / "bin", "pasta", "echo no way out >&2; exit 1")
    monkeypatch.setenv("PATH", str(home / "bin"))
    (one,) = box.batch({"db": {"command": server()}}, {"a": {"services": ["db"], "command": ["true"]}})
    assert one["outcome"] == "error" and one["message"].startswith("no private network: pasta: no way out"), one
    traces.check()


def _asked(port: int) -> str:
    import socket

    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as sock:
                answer = sock.recv(100).decode()
                if answer:
                    return answer
        except OSError:
            pass
        time.sleep(0.05)
    return ""
