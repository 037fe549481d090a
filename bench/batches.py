"""What a batch that people keep costs: every report on, ten thousand jobs in one file, the page, the live table, chatty jobs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import shutil
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import throughput
from bench.measure import Outcome, interleave, run
from bench.peers import Ground

MANY, MOST = 1000, 10_000
LIVE, LIVE_S = 50, 10
CHATTY, CHATTY_BYTES = 8, 128 << 20
_MIB = 1 << 20


def bench(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(case="batches: what reports, many jobs, a live table and chatty jobs cost", unit="see the rows")
    reports(ground, rounds, outcome)
    most(ground, min(rounds, 3), outcome)
    table(ground, min(rounds, 3), outcome)
    chatty(ground, min(rounds, 3), outcome)
    return outcome


def jobs(ground: Ground, count: int, name: str) -> Path:
    path = ground.folder / name
    head = f'name = "bench"\n[rootfs.small]\nsource = "{ground.archive}"\n[defaults]\nrootfs = "small"\nscratch = "memory"\n'
    rows = (f'[jobs.job-{n:05}]\ncommand = ["/bin/true"]\nenv = {{ N = "{n}" }}\n' for n in range(count))
    path.write_text(head + "".join(rows))
    return path


@contextlib.contextmanager
def folder(ground: Ground) -> Iterator[Path]:
    """One for the results of a run."""
    path = ground.folder / f"results-{time.monotonic_ns()}"
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def all_reports(results: Path) -> list[str]:
    files = {"--json": "r.jsonl", "--junit": "r.xml", "--html": "r.html"}
    return [
        "--results",
        str(results),
        *(word for option, name in files.items() for word in (option, f"{results}.{name}")),
    ]


def peak(line: Sequence[str], code: int = 0) -> tuple[float, float]:
    """(seconds, MiB that the process itself had at most): getrusage(2) of that one."""
    started = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(f"{line}: ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def reports(ground: Ground, rounds: int, outcome: Outcome) -> None:
    """1,000 jobs with all reports on, against the case `throughput` as it stands."""
    path, bare = jobs(ground, MANY, "many.toml"), throughput.job_file(ground)

    def full() -> float:
        with folder(ground) as results:
            line = [ground.guntainer, "batch", "-j4", "--output", "quiet", *all_reports(results), str(path)]
            taken = run(line)
            if len(list(results.glob("*/result.json"))) != MANY:
                raise RuntimeError("batches: not all jobs have a result")
            for name in ("r.jsonl", "r.xml", "r.html"):
                Path(f"{results}.{name}").unlink()
            return MANY / taken

    def plain() -> float:
        with folder(ground) as results:
            line = [ground.guntainer, "batch", "-j4", "--output", "quiet", "--results", str(results)]
            return throughput.COUNT / run([*line, "--json", f"{results}.json", str(bare)])

    names = (f"{MANY} jobs, all reports: containers/s", "the bare throughput case: containers/s")
    outcome.samples |= interleave(rounds, dict(zip(names, (full, plain), strict=True)))
    outcome.compare("all reports × bare", *names, 0.7, at_least=True)


def most(ground: Ground, rounds: int, outcome: Outcome) -> None:
    """10,000 jobs: planned, run, and looked at."""
    path = jobs(ground, MOST, "most.toml")
    for _ in range(rounds):
        planned, _ = peak([ground.guntainer, "batch", "--check", str(path)])
        outcome.samples.setdefault(f"{MOST} jobs: planned, s", []).append(planned)
        with folder(ground) as results:
            taken, mib = peak([ground.guntainer, "batch", "--output", "quiet", *all_reports(results), str(path)])
            outcome.samples.setdefault(f"{MOST} jobs: run with all reports, s", []).append(taken)
            outcome.samples.setdefault(f"{MOST} jobs: the supervisor at most, MiB", []).append(mib)
            page = Path(f"{results}.r.html")
            outcome.samples.setdefault(f"{MOST} jobs: the page, MiB", []).append(page.stat().st_size / _MIB)
            opened = open_in_browser(page)
            if opened is not None:
                outcome.samples.setdefault(f"{MOST} jobs: the page opens, s", []).append(opened)
    outcome.bound("seconds until 10,000 jobs are planned", outcome.median(f"{MOST} jobs: planned, s"), 2)
    outcome.bound("MiB of the supervisor", outcome.median(f"{MOST} jobs: the supervisor at most, MiB"), 150)
    name = f"{MOST} jobs: the page opens, s"
    if name in outcome.samples:
        outcome.bound("seconds until the page is open", outcome.median(name), 2)
    else:
        outcome.notes.append("no chromium with its driver, or no selenium: the page was not opened")


def open_in_browser(page: Path) -> float | None:
    """Seconds from asking for a page until it shows its last job that is in sight; None: there is no browser."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        return None
    driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or browser is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in ("--headless=new", "--disable-gpu", "--no-sandbox", "--window-size=1280,900"):
        options.add_argument(word)
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        window.get("about:blank")
        started = time.perf_counter()
        window.get(page.as_uri())
        # the next frame after everything has been drawn
        window.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 0))")
        return time.perf_counter() - started
    finally:
        window.quit()


def table(ground: Ground, rounds: int, outcome: Outcome) -> None:
    """What the live table takes of a core while 50 jobs say a line a second, beside the same without a terminal."""
    path = ground.folder / "live.toml"
    script = f"for i in `seq {LIVE_S}`; do echo line $i; sleep 1; done"
    path.write_text(f'[jobs.t]\nrootfs = "{ground.archive}"\nrun = "{script}"\nrepeat = {LIVE}\nscratch = "memory"\n')
    for _ in range(rounds):
        for name, terminal in (("live table", True), ("no terminal", False)):
            used = _processor(ground, path, terminal=terminal)
            outcome.samples.setdefault(f"{LIVE} jobs, {name}: s of a core", []).append(used)
    shown, hidden = (outcome.median(f"{LIVE} jobs, {name}: s of a core") for name in ("live table", "no terminal"))
    outcome.bound("% of a core for the live table", (shown - hidden) / LIVE_S * 100, 5)


def _processor(ground: Ground, path: Path, *, terminal: bool) -> float:
    """Processor time of the supervisor itself, s."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 60, 160, 0, 0))
    read = threading.Thread(target=_drain, args=(ours,), daemon=True)
    read.start()
    stream = theirs if terminal else subprocess.DEVNULL
    line = [ground.guntainer, "batch", f"-j{LIVE}", "--output", "live", str(path)]
    env = {**{key: value for key, value in os.environ.items() if key != "CI"}, "TERM": "xterm-256color"}
    process = subprocess.Popen(line, stdout=stream, stderr=stream, env=env)
    os.close(theirs)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    read.join()
    os.close(ours)
    if process.returncode != 0:
        raise RuntimeError(f"batches: the live jobs ended with {process.returncode}")
    return float(usage.ru_utime + usage.ru_stime)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, _MIB):
            pass
    except OSError:
        pass  # EIO: the other end is closed


def chatty(ground: Ground, rounds: int, outcome: Outcome) -> None:
    """8 jobs of 128 MiB each, shown live: how fast, and whether the logs are what they wrote."""
    path = ground.folder / "chatty.toml"
    script = f"yes job $N says something | head -c {CHATTY_BYTES}"
    path.write_text(
        f"[jobs.c]\nrootfs = '{ground.archive}'\nrun = '{script}'\nenv = {{ N = '${{{{ matrix.n }}}}' }}\nscratch = 'memory'\n"
        f"matrix = {{ n = {list(range(CHATTY))} }}\n"
    )
    expected = {f"c ({n})": _digest(f"job {n} says something\n".encode()) for n in range(CHATTY)}

    def one(mode: str) -> Callable[[], float]:
        def work() -> float:
            with folder(ground) as results:
                words = [
                    ground.guntainer,
                    "batch",
                    f"-j{CHATTY}",
                    "--output",
                    mode,
                    "--results",
                    str(results),
                    str(path),
                ]
                started = time.perf_counter()
                subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
                taken = time.perf_counter() - started
                for name, digest in expected.items():
                    found = json.loads((results / name / "result.json").read_text())["outcome"]
                    with (results / name / "stdout").open("rb") as log:
                        if found != "ok" or hashlib.file_digest(log, "sha256").hexdigest() != digest:
                            raise RuntimeError(f"batches: the log of {name} is not what it wrote")
                return CHATTY * CHATTY_BYTES / 1e6 / taken

        return work

    name = f"{CHATTY} chatty jobs, live: MB/s, logs byte-exact"
    outcome.samples |= interleave(rounds, {name: one("live"), name.replace("live", "quiet"): one("quiet")})
    outcome.samples["100 MB/s"] = [100.0]
    outcome.compare("MB/s of chatty jobs × 100", name, "100 MB/s", 1.0, at_least=True)


def _digest(line: bytes) -> str:
    whole = line * (CHATTY_BYTES // len(line) + 1)
    return hashlib.sha256(whole[:CHATTY_BYTES]).hexdigest()
