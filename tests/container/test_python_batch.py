"""`guntainer.batch` and `guntainer.open_batch`: what scripts and event loops get, and that nothing is left whenever they end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
from conftest import Traces

import guntainer
from guntainer import errors

pytestmark = pytest.mark.usefixtures("user_namespaces")


def jobs(archive: Path, **commands: str) -> dict[str, object]:
    return {"rootfs": {"small": {"source": archive}}, "defaults": {"rootfs": "small"},
            "jobs": {name: {"run": text} for name, text in commands.items()}}  # fmt: skip


@pytest.mark.root
def test_a_mapping(home: Path, small_archive: Path, traces: Traces) -> None:
    report = guntainer.batch(jobs(small_archive, good="true", bad="exit 3"), parallel=2)
    assert [(one.id, one.outcome, one.exit.code) for one in report.results] == [("good", "ok", 0), ("bad", "failed", 3)]
    assert (report.exit_code, report.parallel, dict(report.facts)["guntainer"]) == (1, 2, guntainer.__version__)
    assert report.first_failure is not None and report.first_failure.stdout is None
    traces.check()


def test_a_file(home: Path, small_archive: Path, traces: Traces) -> None:
    folder = home / "work" / "below"
    folder.mkdir()
    (folder / "small.tar.gz").symlink_to(small_archive)
    text = 'name = "n"\n[defaults]\nrootfs = "./small.tar.gz"\n[jobs.a]\nrun = "true"\n[jobs.b]\nrun = "true"\nneeds = "a"\n'
    (folder / "jobs.toml").write_text(text + '[jobs.c]\nrun = "false"\n')
    report = guntainer.batch("below/jobs.toml", only=["b"], settings=["jobs.b.run=echo said; exit 1"], results="out")
    assert [(one.id, one.exit.code) for one in report.results] == [("a", 0), ("b", 1)]
    assert (report.name, report.file) == ("n", "below/jobs.toml")
    failed = report.first_failure
    assert failed is not None and failed.stdout is not None and Path(failed.stdout).read_text() == "said\n"
    assert json.loads(Path("out/b/result.json").read_text())["code"] == 1
    batch = json.loads(Path("out/batch.json").read_text())
    assert [one["id"] for one in batch["jobs"]] == ["a", "b"] and batch["wall_ns"] == report.wall_ns
    traces.check()


def test_jobs(home: Path, small_archive: Path, traces: Traces) -> None:
    source = guntainer.Source.of(str(small_archive))
    wanted = (guntainer.Job(id=f"n {n}", rootfs=source, command=("sh", "-c", f"exit {n}")) for n in range(3))
    report = guntainer.batch(wanted)
    assert [one.exit.code for one in report.results] == [0, 1, 2]
    twice = [guntainer.Job(id="x", rootfs=source)] * 2
    with pytest.raises(ValueError, match="two jobs have the same id"):
        guntainer.batch(twice)
    with pytest.raises(TypeError, match="got int among them"):
        guntainer.batch([3])  # type: ignore[list-item]
    traces.check()


def test_what_makes_no_sense(home: Path, small_archive: Path, traces: Traces) -> None:
    good = jobs(small_archive, a="true")
    with pytest.raises(errors.JobFileError, match=r"<mapping>.*jobs.a.*comand.*command"):
        guntainer.batch({"jobs": {"a": {"rootfs": str(small_archive), "comand": "x"}}})
    with pytest.raises(errors.JobFileError, match=r"none.toml: No such file"):
        guntainer.batch("none.toml")
    with pytest.raises(errors.JobFileError, match="got set"):
        guntainer.batch({"jobs": {1, 2}})
    for options, text in [
        ({"parallel": 0}, "parallel 0: expected a number from 1"),
        ({"userns": "many"}, "expected auto, range or single"),
        ({"only": ["b"]}, "no job matches"),
        ({"settings": ["x"]}, "--set x"),
        ({"results": "/proc/none"}, "results: "),
        ({"results": ""}, "results: expected the path of a folder, got an empty one"),
        ({"results": 5}, "results: expected the path of a folder, got 5"),
        ({"store": ""}, "store: expected the path of a folder, got an empty one"),
        ({"store": b"x"}, "store: expected the path of a folder, got b'x'"),
        ({"parallel": "4"}, "parallel '4': expected a number from 1"),
        ({"parallel": True}, "parallel True: expected a number from 1"),
        ({"only": [1]}, "only: expected texts, got 1 among them"),
        ({"only": 1}, "only: expected texts, got 1"),
        ({"only": None}, "only: expected texts, got None"),
        ({"only": "b"}, 'no job matches "b"'),
        ({"settings": [1]}, "settings: expected texts, got 1 among them"),
        ({"settings": {"env.A": 1}}, "settings: expected texts, got {"),
        ({"settings": "x=1"}, "--set x=1"),
    ]:
        with pytest.raises(errors.UsageError, match=re.escape(text)):
            guntainer.batch(good, **options)
    assert os.listdir(".") == []
    with pytest.raises(errors.UsageError, match="got Jobs"):
        guntainer.batch([], settings=["jobs.a.run=x"])
    with pytest.raises(errors.JobFileError, match="secret S"):
        guntainer.batch({"secrets": {"S": {"env": "NONE_SUCH"}}, "jobs": {"a": {
            "rootfs": str(small_archive), "run": "true", "secrets": ["S"]}}})  # fmt: skip
    traces.check()


def test_events(home: Path, small_archive: Path, traces: Traces) -> None:
    seen: list[guntainer.Event] = []
    source = jobs(small_archive, a="echo out; echo err >&2", b="test -e /again || exit 1")
    source["jobs"]["b"]["retry"] = 1  # type: ignore[index]
    report = guntainer.batch(source, parallel=1, on_event=seen.append)
    assert isinstance(seen[0], guntainer.BatchStarted) and seen[0].jobs == ("a", "b")
    assert isinstance(seen[-1], guntainer.BatchFinished) and seen[-1].report.exit_code == report.exit_code == 1
    times = [one.at_ns for one in seen]
    assert times == sorted(times)
    output = {one.stream: one.data for one in seen if isinstance(one, guntainer.JobOutput)}
    assert output == {"stdout": b"out\n", "stderr": b"err\n"}
    of_b = [type(one).__name__ for one in seen if getattr(one, "id", "") == "b"]
    assert of_b == ["JobPreparing", "JobStarted", "JobRetrying", "JobPreparing", "JobStarted"]
    assert sorted(one.result.id for one in seen if isinstance(one, guntainer.JobFinished)) == ["a", "b"]
    traces.check()


def test_an_exception_of_the_callers_ends_the_batch(home: Path, small_archive: Path, traces: Traces) -> None:
    def stop(event: guntainer.Event) -> None:
        if isinstance(event, guntainer.JobOutput):
            raise ZeroDivisionError

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        guntainer.batch(jobs(small_archive, a="echo up; sleep 50", b="sleep 50"), on_event=stop)
    assert time.monotonic() - began < 20
    traces.check()


def test_in_an_event_loop(home: Path, small_archive: Path) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"async with guntainer\.open_batch"):
            guntainer.batch(jobs(small_archive, a="true"))

    asyncio.run(main())
    with pytest.raises(RuntimeError, match=r"asyncio\.run"):
        guntainer.open_batch(jobs(small_archive, a="true")).__aenter__().send(None)


def test_a_block_that_is_left_early(home: Path, small_archive: Path, traces: Traces) -> None:
    source = jobs(small_archive, a="echo up; sleep 50", b="sleep 50")

    async def leave() -> None:
        async with guntainer.open_batch(source) as stream:
            async for event in stream:
                if isinstance(event, guntainer.JobOutput):
                    break
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = stream.report
        with pytest.raises(RuntimeError, match="run before"):
            await stream.__aenter__()

    async def fail() -> None:
        async with guntainer.open_batch(source) as stream:
            async for event in stream:
                assert not isinstance(event, guntainer.JobOutput), "stopped"

    async def never_read() -> None:
        async with guntainer.open_batch(source):
            await anyio.sleep(0.3)

    async def timed_out() -> None:
        async with asyncio.timeout(0.5), guntainer.open_batch(source) as stream:
            async for _ in stream:
                pass

    async def scope() -> None:
        with anyio.move_on_after(0.5) as scope:
            async with guntainer.open_batch(source) as stream:
                async for _ in stream:
                    pass
        assert scope.cancelled_caught

    asyncio.run(leave())
    traces.check()
    with pytest.raises(AssertionError, match="stopped"):
        asyncio.run(fail())
    traces.check()
    asyncio.run(never_read())
    traces.check()
    with pytest.raises(TimeoutError):
        asyncio.run(timed_out())
    traces.check()
    asyncio.run(scope())
    traces.check()


def test_cancelled_at_any_moment(home: Path, small_archive: Path, traces: Traces) -> None:
    async def main(delay_s: float) -> None:
        async def follow() -> None:
            async with guntainer.open_batch(jobs(small_archive, a="echo up; sleep 50", b="yes")) as stream:
                async for _ in stream:
                    pass

        task = asyncio.ensure_future(follow())
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for delay_s in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5):
        asyncio.run(main(delay_s))
        traces.check()


def test_a_slow_reader_holds_output_back(home: Path, small_archive: Path, traces: Traces) -> None:
    async def main() -> tuple[int, int]:
        source = jobs(small_archive, a="head -c 30000000 /dev/zero")
        async with guntainer.open_batch(source) as stream:
            taken = most = 0
            async for event in stream:
                if isinstance(event, guntainer.JobOutput):
                    if not taken:
                        await anyio.sleep(0.5)
                    taken += len(event.data)
                    most = max(most, stream._output_bytes)
            assert stream.report.exit_code == 0
        return taken, most

    taken, most = anyio.run(main)
    assert taken == 30_000_000 and most < 4_000_000
    traces.check()


def test_in_threads(home: Path, small_archive: Path, traces: Traces) -> None:
    """Containers die with the thread that spawned their helper: which is the one whose event loop runs the batch."""
    found: list[int] = []

    def work(text: str) -> None:
        report = guntainer.batch(jobs(small_archive, a=text, b=text))
        found.extend(one.exit.code for one in report.results)

    threads = [threading.Thread(target=work, args=(f"sleep 0.{n}; exit {n}",)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [1, 1, 2, 2, 3, 3, 4, 4]
    traces.check()


SCRIPT = """
import guntainer, sys
def main(event):
    if isinstance(event, guntainer.JobOutput): print("up", flush=True)
guntainer.batch({{"jobs": {{"a": {{"rootfs": {archive!r}, "run": "echo up; sleep 50"}}}}}}, on_event=main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals(home: Path, small_archive: Path, traces: Traces, number: signal.Signals) -> None:
    """Ctrl-C is a KeyboardInterrupt after a clean end; a process that is killed takes its containers along."""
    code = SCRIPT.format(archive=str(small_archive))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == -number
    assert (b"KeyboardInterrupt" in err) == (number == signal.SIGINT)
    if number == signal.SIGINT:
        traces.check()
    else:
        assert guntainer.batch(jobs(small_archive, a="true")).exit_code == 0  # which also tidies up
        traces.check()


def test_two_batches_do_not_share_a_folder(home: Path, small_archive: Path, traces: Traces) -> None:
    async def main() -> None:
        source = jobs(small_archive, a="sleep 50")
        async with guntainer.open_batch(source, results="out"):
            with pytest.raises(errors.UsageError, match=r"results .*out: another batch is writing there"):
                async with guntainer.open_batch(source, results="out"):
                    pass

    asyncio.run(main())
    assert json.loads(Path("out/batch.json").read_text())["wall_ns"] is None
    traces.check()


def test_one_text_stands_for_itself(home: Path, small_archive: Path) -> None:
    source = jobs(small_archive, one="echo $A", two="exit 1")
    report = guntainer.batch(source, only="one", settings="env.A=said", results="out")
    assert [result.id for result in report.results] == ["one"]
    assert Path("out/one/stdout").read_text() == "said\n"


def test_a_stream_that_was_not_entered(home: Path, small_archive: Path) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"enter it first, with `async with guntainer\.open_batch"):
            async for _ in guntainer.open_batch(jobs(small_archive, a="true")):
                pass

    async def bounded() -> None:
        await asyncio.wait_for(main(), 10)

    asyncio.run(bounded())


def test_a_folder_in_the_place_of_a_file_costs_no_descriptor(home: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for source in (".", {"extends": ".", "jobs": {"a": {"rootfs": "host", "run": "x"}}}):
        for _ in range(3):
            with pytest.raises(errors.JobFileError, match="Is a directory"):
                guntainer.batch(source)
    job = {"rootfs": "host", "run": "x", "secrets": ["S"]}
    for _ in range(3):
        with pytest.raises(errors.JobFileError, match=r"secret S: .* is not a file"):
            guntainer.batch({"secrets": {"S": {"file": "."}}, "jobs": {"a": job}})
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptors_stay_the_same(home: Path, small_archive: Path) -> None:
    source = jobs(small_archive, a="true")
    guntainer.batch(source)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        guntainer.batch(source, results="out", on_event=lambda _: None)
    assert len(os.listdir("/proc/self/fd")) == before


def test_ctrl_c_twice(home: Path, small_archive: Path, traces: Traces) -> None:
    """A job that does not listen to the first one is not waited for after the second one."""
    code = SCRIPT.format(archive=str(small_archive)).replace("echo up; sleep 50", STUBBORN)
    code = code.replace('"run":', '"stop-timeout": 40, "run":')
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT and b"KeyboardInterrupt" in err
    traces.check()


STUBBORN = "trap true TERM; echo up; while true; do sleep 0.1; done"
