"""Folders of results as a batch leaves them, made without one: of any size, and with any names and logs."""

from __future__ import annotations

import json
import random
from pathlib import Path

from guntainer import errors, report
from guntainer.jobs.names import folder_name
from guntainer.report_text import json_object
from guntainer.reports import batchfile
from guntainer.resultsfolder import ResultsFolder

DISTRIBUTIONS = ["alpine-3.20", "alpine-3.19", "debian-12", "debian-11", "ubuntu-24.04", "ubuntu-22.04", "fedora-40"]
DISTRIBUTIONS += ["rocky-9", "arch", "opensuse-15", "void", "gentoo"]
GREEN, RED, BOLD, DIM, OFF = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
FACTS = (("host", "build-7"), ("kernel", "6.18.5"), ("cpus", "8"), ("guntainer", "0.5.0"))


def result(job_id: str, outcome: str = "ok", **settings: object) -> report.Result:
    """A result of the kind that `outcome` names: the words of `Result.outcome`."""
    exits = {
        "ok": report.exited(0),
        "flaky": report.exited(0),
        "failed": report.exited(3),
        "signal": report.signalled(9),
        "timeout": report.timed_out(5),
        "oom": report.Exit(reason=report.OOM, code=137, signal=9, message="out of memory: the limit is 64 MiB"),
        "pids-limit": report.Exit(reason=report.PIDS, code=1, message="no more than 20 processes"),
        "error": report.setup_failed(errors.RootfsError("missing.tar: No such file or directory")),
        "cancelled": report.cancelled("cancelled: another job failed"),
        "skipped": report.skipped("build did not succeed"),
    }
    if outcome == "flaky":
        settings.setdefault("attempts", (report.Attempt(exit=report.exited(7), wall_ns=20_000_000),))
    settings.setdefault("key", job_id.partition(" (")[0])
    return report.Result(id=job_id, exit=exits[outcome], **settings)  # type: ignore[arg-type]


def batch(*results: report.Result, **settings: object) -> report.Report:
    settings.setdefault("facts", FACTS)
    settings.setdefault("wall_ns", max((_end(one) for one in results), default=0))
    return report.Report(results=results, name="smoke", file="jobs.toml", started_at=1.78e9, parallel=8, **settings)  # type: ignore[arg-type]


def _end(one: report.Result) -> int:
    return one.begin_ns + one.wait_ns + one.prepare_ns + one.queue_ns + one.wall_ns


def write_batch(folder: Path, whole: report.Report, ids: list[str], *, running: bool = False) -> None:
    """Write its batch.json."""
    opened = ResultsFolder(str(folder))
    try:
        batchfile.write(opened.fd, whole, batchfile.Listed(ids=tuple(ids)), running=running)
    finally:
        opened.close()


def write(folder: Path, whole: report.Report, logs: dict[str, tuple[bytes, bytes]] | None = None) -> Path:
    """Write a results folder.

    Args:
        logs: (stdout, stderr) by id; where one is missing, a line that names the job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_batch(folder, whole, [one.id for one in whole.results])
    for one in whole.results:
        place = folder / folder_name(one.id)
        place.mkdir(exist_ok=True)
        (place / "result.json").write_text(json.dumps(json_object(one)) + "\n")
        default = (f"{one.id}\n".encode("utf-8", "replace"), b"") if one.wall_ns else (b"", b"")
        for name, data in zip(("stdout", "stderr"), (logs or {}).get(one.id, default), strict=True):
            if data or one.wall_ns:
                (place / name).write_bytes(data)
        for number, _ in enumerate(one.attempts, 1):
            (place / f"attempt-{number}").mkdir(exist_ok=True)
            (place / f"attempt-{number}" / "stdout").write_bytes(b"the attempt that failed\n")
        for artifact in one.artifacts:
            file = place / "artifacts" / artifact.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * min(artifact.size_bytes, 4096))
    return folder


def matrix(count: int, seed: int = 1) -> tuple[report.Report, dict[str, tuple[bytes, bytes]]]:
    """A batch of about so many jobs: a build, a matrix of up to three axes, and some single ones."""
    chance = random.Random(seed)
    wheel = (
        ["ok"] * 86 + ["failed"] * 4 + ["flaky"] * 3 + ["timeout", "oom", "error", "pids-limit", "skipped", "cancelled"]
    )
    slots = [0] * 8
    results, logs = [], {}
    names = [("build", (), "ok"), ("lint", (), "ok"), ("docs", (), "failed")] if count > 8 else []
    width = max(1, (count - len(names)) // 12)
    for number in range(count - len(names)):
        axes = [("distro", DISTRIBUTIONS[number // width % 12] if count > 12 else DISTRIBUTIONS[number % 3])]
        axes.append(
            ("python", f"3.{10 + (number % width) // 2 % (width // 2 or 1)}" if count > 12 else f"3.{11 + number // 3}")
        )
        if count > 12:
            axes.append(("flags", ("debug", "release")[number % 2]))
        names.append((f"test ({', '.join(value for _, value in axes)})", tuple(axes), chance.choice(wheel)))
    seen: dict[str, int] = {}
    for number, (plain, axes, outcome) in enumerate(names):
        seen[plain] = seen.get(plain, 0) + 1
        job_id = f"{plain} #{seen[plain]}" if seen[plain] > 1 else plain
        ran = outcome not in ("error", "skipped", "cancelled")
        slot = min(range(8), key=lambda one: slots[one])
        prepare = chance.randrange(200, 900) * 1_000_000 if number < 12 else 2_000_000
        wall = int(chance.lognormvariate(6.2, 0.7) * 1_000_000) if ran else 0
        begin = max(0, slots[slot] - chance.randrange(0, 300) * 1_000_000)
        queue = max(0, slots[slot] - begin - prepare)
        if ran:
            slots[slot] = begin + prepare + queue + wall
        results.append(
            result(
                job_id,
                outcome,
                matrix=axes,
                rootfs=axes[0][1] if axes else "alpine-3.20",
                started_at=1.78e9 + begin / 1e9 if ran else 0.0,
                begin_ns=begin,
                prepare_ns=prepare if ran else 0,
                queue_ns=queue if ran else 0,
                launch_ns=3_000_000 if ran else 0,
                wall_ns=wall,
                slot=slot if ran else -1,
                cpu_user_ns=wall // 3,
                max_rss_bytes=chance.randrange(2, 90) << 20 if ran else 0,
                isolation="full",
                userns="range",
                scratch="overlay on disk",
                limits=(("memory.max", "67108864"),) if outcome == "oom" else (),
                allow_failure=number % 23 == 5,
                notes=("the artifact pattern dist/*.whl matches nothing",) if number % 31 == 7 else (),
                artifacts=(report.Artifact(path="dist/tool.whl", size_bytes=52_311),)
                if number % 9 == 0 and ran
                else (),
            )
        )
        if ran:
            logs[job_id] = _log(job_id, outcome, chance)
    return batch(*results), logs


def _log(job_id: str, outcome: str, chance: random.Random) -> tuple[bytes, bytes]:
    rows = [f"{BOLD}== {job_id}{OFF}", f"{DIM}collecting …{OFF}"]
    rows += [
        f"tests/test_{number:02}.py {GREEN}{'.' * chance.randrange(3, 40)}{OFF} [{number * 2:3} %]"
        for number in range(chance.randrange(8, 60))
    ]
    if outcome in ("ok", "flaky"):
        return ("\n".join([*rows, f"{GREEN}{BOLD}all passed{OFF} in 0.4 s"]) + "\n").encode(), b""
    why = f"{RED}{BOLD}E   AssertionError: expected 200, got 503{OFF}\n\x1b[38;5;208mwarning{OFF} \x1b[48;2;40;80;120m retry \x1b[0m\n"
    return (
        "\n".join(rows) + "\n"
    ).encode(), f"Traceback (most recent call last):\n  test_{chance.randrange(90)}.py, line 12\n{why}".encode()


HOSTILE = [
    "</script><script>window.hacked=1</script>",
    '"onmouseover="window.hacked=1" x="',
    "<img src=x onerror=window.hacked=1>",
    "javascript:window.hacked=1",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 &amp; &lt;b&gt;",
    "a\u202egnp.exe\u2066b",
    "]]><!--<script>",
    "\x1b[2J\x1b]0;title\x07\x1b[31mred",
    "'/../../etc/passwd",
    "\u2028\u2029`${window.hacked=1}`",
]


def hostile() -> tuple[report.Report, dict[str, tuple[bytes, bytes]]]:
    """Jobs whose names, axes, notes, artifacts and logs try to be markup, script or a terminal's commands."""
    results, logs = [], {}
    for number, text in enumerate(HOSTILE):
        other = HOSTILE[(number + 1) % len(HOSTILE)]
        job_id = f"{text} ({number})"
        results.append(
            result(
                job_id,
                "failed" if number % 2 else "ok",
                key=text,
                matrix=(("axis" + text, other), ("second", str(number))),
                rootfs=text,
                wall_ns=1_000_000_000,
                slot=number % 2,
                begin_ns=number * 500_000_000,
                notes=(text, other),
                limits=((text, other),),
                artifacts=(report.Artifact(path=f"a{number}", size_bytes=3),),
            )
        )
        logs[job_id] = (f"{text}\n{other}\n".encode() * 3, b"\xff\xfe\x00" + text.encode() + b"\x1b[31m\x1b[1m" * 2000)
    return batch(*results, facts=((HOSTILE[0], HOSTILE[1]),)), logs
