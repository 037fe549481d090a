"""A fork helper dies in the middle of a launch, while others of the same process are at theirs: nobody else's is taken along."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import networks
import pytest
from conftest import Traces

from guntainer import errors
from guntainer.init import AS_INIT
from guntainer.kernel import abi
from guntainer.launcher import spawn
from guntainer.launcher.client import Child, Launcher
from guntainer.launcher.pod import PodLauncher

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("user_namespaces")]

HOLD = """
import os, signal
from guntainer.init import child
cloning = child.Launches.launch
def launch(*words):
    done = cloning(*words)
    os.kill(os.getpid(), signal.SIG{signal})
    return done
child.Launches.launch = launch
"""
"""The helper gets a signal when it has cloned, and has not said so yet."""
IN_PYTHON = "from guntainer.kernel import program; program._entry = None\n"
PATH = {"PATH": os.environ["PATH"]}
FLAGS = abi.CLONE_NEWUSER | abi.CLONE_NEWPID
SLEEPS = ("sh", "-c", "sleep 50 & exec sleep 51")
WAYS = {
    "own pid namespace": (FLAGS, (), SLEEPS, PATH, ""),
    "the caller's": (0, (), ("sleep", "50"), PATH, ""),
    "our init": (FLAGS, (("seal",),), SLEEPS, PATH, AS_INIT),
}


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Helpers that are started from now on execute this first."""
    code = spawn._CODE

    def change(text: str) -> None:
        first = f"exec({text!r}); ".replace("{", "{{").replace("}", "}}") if text else ""
        monkeypatch.setattr(
            spawn, "_CODE", code.replace("from guntainer.init.zygote", f"{first}from guntainer.init.zygote")
        )

    return change


@asynccontextmanager
async def launcher(kind: str) -> AsyncIterator[Launcher]:
    if kind == "batch":
        async with Launcher() as one:
            yield one
        return
    async with PodLauncher(namespace=-1) as pod:
        maps = ("id_map", f"0 {os.geteuid()} 1\n", f"0 {os.getegid()} 1\n")
        await pod.enter(abi.CLONE_NEWUSER | abi.CLONE_NEWNET, (maps, ("loopback_up",)), (0, 0), [])
        yield pod


def children() -> set[int]:
    return set(networks.children(os.getpid()))


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await anyio.sleep(0.005)


def state(pid: int) -> str:
    """As in proc(5); "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def end(one: Launcher, child: Child) -> int:
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: state(child.pid) == "Z")
    status = os.waitpid(child.pid, 0)[1]
    one.forget(child)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize(("dying", "other"), [("pod", "batch"), ("batch", "pod"), ("pod", "pod"), ("batch", "batch")])
@pytest.mark.parametrize("first", ["", IN_PYTHON], ids=["machine code", "loop"])
def test_another_launch_is_under_way(
    changed: Callable[[str], None], traces: Traces, dying: str, other: str, way: str, first: str
) -> None:
    """Both have a container that nobody knows of yet, when the helper of one is killed."""
    plan = WAYS[way]
    got: list[Child] = []

    async def main() -> None:
        changed(first + HOLD.format(signal="STOP"))
        async with launcher(other) as living, launcher(dying) as lost, anyio.create_task_group() as tasks:

            async def launch() -> None:
                got.append(await living.launch(plan, []))

            async def fail() -> None:
                with pytest.raises(errors.LauncherLost, match="fork helper died"):
                    await lost.launch(plan, [])

            before = children()
            assert {living.pid, lost.pid} <= before
            try:
                tasks.start_soon(launch)
                await until(lambda: len(children() - before) == 1 and state(living.pid) == "T")
                (kept,) = children() - before
                tasks.start_soon(fail)
                await until(lambda: len(children() - before) == 2 and state(lost.pid) == "T")
                (stranger,) = children() - before - {kept}
                os.kill(lost.pid, signal.SIGKILL)
                await until(lambda: lost.pid == 0)
                assert state(stranger) == "" and stranger not in children()
                assert state(kept) not in ("", "Z") and living.statistics()["under_way"] == 1
            finally:
                os.kill(living.pid, signal.SIGCONT)
            await until(lambda: got)
            assert got[0].pid == kept
            assert await end(living, got[0]) == -signal.SIGKILL
        assert not children() & {kept, stranger}

    anyio.run(main)
    traces.check()


def test_a_helper_that_has_answered_already(traces: Traces) -> None:
    """It dies before its answer is read, with the next message unread: what it has launched lives on."""

    async def main() -> None:
        got: list[Child] = []
        async with Launcher() as one, anyio.create_task_group() as tasks:

            async def launch(name: str) -> None:
                try:
                    got.append(await one.launch(WAYS["own pid namespace"], []))
                except errors.LauncherLost:
                    assert name == "second"

            before = children()
            tasks.start_soon(launch, "first")
            await until(lambda: one.statistics()["under_way"])
            stop_when_answered(one.pid, before)
            tasks.start_soon(launch, "second")
            tasks.start_soon(kill, one.pid)
            await until(lambda: got)
            (child,) = got
            assert one.pid == 0 and state(child.pid) not in ("", "Z")
            assert await end(one, child) == -signal.SIGKILL

    anyio.run(main)
    traces.check()


def stop_when_answered(pid: int, before: set[int]) -> None:
    """The event loop has no turn meanwhile."""
    while not children() - before:
        time.sleep(0.01)
    time.sleep(0.2)  # the answer comes right after it
    os.kill(pid, signal.SIGSTOP)
    wait_until(pid, "T")


async def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(pid, "Z")


def wait_until(pid: int, letter: str) -> None:
    while state(pid) != letter:
        time.sleep(0.01)


def test_where_no_memory_can_be_shared(monkeypatch: pytest.MonkeyPatch, traces: Traces) -> None:
    """Launches go on as ever."""

    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(spawn.last_clone, "shared", refused)

    async def main() -> None:
        async with Launcher() as one:
            child = await one.launch(WAYS["own pid namespace"], [])
            assert await end(one, child) == -signal.SIGKILL
            os.kill(one.pid, signal.SIGKILL)
            await until(lambda: one.pid == 0)

    anyio.run(main)
    traces.check()


def test_one_that_was_waited_for_is_not_killed_again(monkeypatch: pytest.MonkeyPatch, traces: Traces) -> None:
    """Its process id may be another's by then."""
    killed: list[int] = []
    kill_it = os.kill

    def kill_noted(pid: int, number: int) -> None:
        killed.append(pid)
        kill_it(pid, number)

    monkeypatch.setattr(os, "kill", kill_noted)
    helper = spawn.spawn()
    helper.end()
    helper.close()
    assert killed == [helper.pid]
    traces.check()
