"""What earlier batches of a job file came to: how long its jobs took, and how they ended.

    $XDG_STATE_HOME/guntainer/history/     ~/.local/state where that is not set: XDG Base Directory Specification
        lock                               held (flock) while one of the files is written
        <sha256 of a job file's path>.json

Nobody depends on it: what is damaged, or of another kind, is ignored with a note, and what can not be written is not. It is
bounded: runs of a job, jobs of a file, and files. A job's runs are one text, `started_at:wall_ns:outcome` apart by blanks, the
oldest first: ten thousand jobs are read in a few milliseconds, since most of these texts are never taken apart.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time

from guntainer import errors, report
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

VERSION = 1
RUNS = 20
MOST_JOBS = 100_000
MOST_FILES = 200
FORGOTTEN_S = 90 * 86400.0
"""A job that did not run for so long is forgotten."""
GOOD = ("ok", "flaky")
NOT_RUN = (report.CANCELLED, report.SKIPPED)
OUTCOMES = (*GOOD, "failed", "error", report.TIMEOUT, report.OOM, report.PIDS, *NOT_RUN)
_MANY_JOBS, _FEW_RUNS = 20_000, 5  # of more jobs, fewer runs
_MANY_TEXTS = 2_000
_MOST_TEXT = RUNS * 64  # characters: more than the longest runs take
_MOST_BYTES = 64 << 20
_LONGEST_NS = 1 << 62
_MEDIAN_OF = 5
_PATIENCE_S = 2.0  # for another batch that writes: it takes milliseconds
_LOOK_AGAIN_S = 0.01
_LARGEST_TIME_S = 1 << 40


class Run(Value):
    """One run of a job."""

    started_at: float
    """Seconds since the epoch."""
    wall_ns: int
    outcome: str


class History:
    """The history of one job file.

    Args:
        path: of the file that keeps it; "": none is kept.
        jobs: the runs of each job as text, by id.
        note: why an earlier history is ignored.
        detail: why there is none, for those who look for reasons.
        stamp: what the file was when the jobs were read from it.
    """

    def __init__(
        self,
        path: str,
        jobs: dict[str, str] | None = None,
        *,
        note: str = "",
        detail: str = "",
        stamp: tuple[int, ...] | None = None,
    ) -> None:
        self.path = path
        self.note = note
        self.detail = detail
        self.interrupted = False
        """The last batch was ended by a signal."""
        self._jobs = jobs or {}
        self._stamp = stamp

    def __repr__(self) -> str:
        return f"History({self.path!r}, jobs={len(self._jobs)})"

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return bool(self._jobs)

    def expected(self) -> dict[str, int]:
        """How long jobs take, in ns, by id: the median of the last good runs; without those that were never good."""
        found: dict[str, int] = {}
        for job_id, text in self._jobs.items():
            times = _good_times(text.rsplit(" ", _MEDIAN_OF)[-_MEDIAN_OF:])
            if len(times) < _MEDIAN_OF and text.count(" ") >= _MEDIAN_OF:
                times = _good_times(text.split(" "))[-_MEDIAN_OF:]
            if times:
                times.sort()
                found[job_id] = times[len(times) // 2]
        return found

    def last(self) -> dict[str, str]:
        """How each job ended when it was last to run: a word of OUTCOMES, by id."""
        ended = ((job_id, text.rpartition(":")[2]) for job_id, text in self._jobs.items())
        return {job_id: outcome for job_id, outcome in ended if outcome in OUTCOMES}

    def runs(self, job_id: str) -> tuple[Run, ...]:
        """A job's runs, the oldest first."""
        return tuple(Run(**fields) for fields in parsed(self._jobs.get(job_id, "")))

    def by_job(self, a_report: report.Report) -> dict[str, list[dict[str, Any]]]:
        """The runs of a report's jobs before this one, as the report page takes them."""
        found = {result.id: parsed(self._jobs.get(result.id, "")) for result in a_report.results}
        return {job_id: runs for job_id, runs in found.items() if runs}

    def texts(self, ids: Iterable[str]) -> dict[str, str]:
        """The runs of some jobs as they stand here, by id: for `parsed`. Of many jobs, fewer runs of each."""
        found = {job_id: self._jobs[job_id] for job_id in ids if job_id in self._jobs}
        most = RUNS if len(found) <= _MANY_TEXTS else _FEW_RUNS
        return {job_id: _shortened(text, most) for job_id, text in found.items()}

    def add(self, a_report: report.Report) -> str:
        """Take a batch in, and write all of it; returns why that could not be done, "" where it was.

        It is read again first: other batches of the same file may have ended meanwhile. Results that are in there already,
        as those which a batch has taken over, are not added twice.
        """
        if not self.path:
            return ""
        try:
            with _Lock(os.path.dirname(self.path)):
                if self._stamp is None or self._stamp != _stamp(self.path):
                    self._jobs, _, _ = _read(self.path)
                self.interrupted = a_report.interrupted is not None
                self._take_in(a_report)
                self._write(a_report)
        except OSError as error:
            return f"the history of this job file can not be written: {errors.describe_oserror(error)}"
        return ""

    def _take_in(self, a_report: report.Report) -> None:
        jobs = self._jobs
        for result in a_report.results:
            started_at = result.started_at or a_report.started_at
            outcome = result.outcome
            word = f"{started_at:.3f}:{max(0, result.wall_ns)}:{outcome}"
            before = jobs.get(result.id, "")
            earlier, _, latest = before.rpartition(" ")
            if latest.partition(":")[0] == word.partition(":")[0]:
                continue
            if outcome in NOT_RUN and latest.endswith(NOT_RUN):
                before = earlier  # what did not run says nothing, however often
            jobs[result.id] = f"{before} {word}" if before else word
        oldest = time.time() - FORGOTTEN_S
        here = {result.id for result in a_report.results}
        kept = [job_id for job_id, text in jobs.items() if job_id in here or _started(text) >= oldest]
        if len(kept) > MOST_JOBS:
            kept = sorted(kept, key=lambda job_id: _started(jobs[job_id]))[-MOST_JOBS:]
        most = RUNS if len(kept) <= _MANY_JOBS else _FEW_RUNS
        self._jobs = {job_id: _shortened(jobs[job_id], most) for job_id in kept}

    def _write(self, a_report: report.Report) -> None:
        import json

        values = {
            "version": VERSION,
            "file": a_report.file,
            "last": {"started_at": a_report.started_at, "interrupted": a_report.interrupted},
            "jobs": self._jobs,
        }
        new = f"{self.path}.new"
        is_new = not os.path.lexists(self.path)
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="ascii") as file:
                file.write(json.dumps(values, separators=(",", ":")) + "\n")
            os.replace(new, self.path)
            self._stamp = _stamp(self.path)
        except OSError:
            _unlink(new)
            raise
        if is_new:
            _forget(os.path.dirname(self.path))


def open_history(job_file: str | None) -> History:
    """The history of a job file; one that keeps nothing where there can be none. Never an error.

    Args:
        job_file: its path; None: standard input, which has none.
    """
    if job_file is None:
        return History("", detail="standard input has no history")
    folder = own_folder()
    if not folder:
        return History("", detail="no history is kept: neither XDG_STATE_HOME nor HOME is an absolute path")
    try:
        name = hashlib.sha256(os.fsencode(os.path.abspath(job_file))).hexdigest()
    except OSError:
        return History("", detail="no history is kept: the working directory does not exist any more")
    path = f"{folder}/{name}.json"
    stamp = _stamp(path)  # before it is read: whoever writes it meanwhile is noticed
    try:
        jobs, interrupted, note = _read(path)
    except OSError as error:
        return History("", detail=f"no history is kept: {errors.describe_oserror(error)}")
    found = History(path, jobs, note=note, stamp=stamp)
    found.interrupted = interrupted
    return found


def own_folder() -> str:
    """The folder of all histories, which may not be there yet; "": none is kept."""
    base = _state_folder()
    return f"{base}/guntainer/history" if base else ""


def _state_folder() -> str:
    given = os.environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):  # "all paths must be absolute", and what is not is ignored
        return given
    home = os.environ.get("HOME", "")
    return f"{home}/.local/state" if home.startswith("/") else ""


def _read(path: str) -> tuple[dict[str, str], bool, str]:
    """The jobs in a file, whether its last batch was interrupted, and why it is ignored.

    Raises:
        OSError: there is something that can not be read; not where there is nothing.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return {}, False, ""
        if error.errno == errno.ELOOP:
            return {}, False, f"the history {path} is ignored: it is a link"
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return {}, False, f"the history {path} is ignored: it is no regular file"
        if status.st_size > _MOST_BYTES:
            return {}, False, f"the history {path} is ignored: it is larger than {_MOST_BYTES >> 20} MiB"
        with open(fd, "rb", closefd=False) as file:  # where it raises, it would not close it
            data = file.read(_MOST_BYTES)
    finally:
        os.close(fd)
    why, jobs, interrupted = _understood(data)
    return jobs, interrupted, f"the history {path} is ignored: {why}" if why else ""


def _understood(data: bytes) -> tuple[str, dict[str, str], bool]:
    import json

    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return "it is damaged", {}, False
    if not isinstance(values, dict) or values.get("version") != VERSION:
        return "it is of another version", {}, False
    jobs, last = values.get("jobs"), values.get("last")
    if not isinstance(jobs, dict) or not all(isinstance(text, str) for text in jobs.values()):
        return "it is damaged", {}, False
    if len(jobs) > MOST_JOBS:
        return f"it has more than {MOST_JOBS} jobs", {}, False
    return "", jobs, isinstance(last, dict) and last.get("interrupted") is not None


def parsed(text: str) -> list[dict[str, Any]]:
    """The fields of the Runs in a text, the oldest first; what makes no sense is left out."""
    read = map(_fields, text[-_MOST_TEXT:].split(" ") if text else ())
    return [fields for fields in read if fields is not None]


def _good_times(words: list[str]) -> list[int]:
    """How long the good ones of some runs took, in ns, in their order."""
    times: list[int] = []
    for word in words:
        _, wall, outcome = word.split(":") if word.count(":") == 2 else ("", "", "")
        if outcome in GOOD and wall.isdecimal() and len(wall) < 20:
            times.append(int(wall))
    return times


def _fields(word: str) -> dict[str, Any] | None:
    """The fields of a Run; None where that makes no sense."""
    started, _, rest = word.partition(":")
    wall, _, outcome = rest.partition(":")
    if outcome not in OUTCOMES or not wall.isdecimal() or len(wall) > 19 or int(wall) > _LONGEST_NS:
        return None
    started_at = _time(started)
    return None if started_at is None else {"started_at": started_at, "wall_ns": int(wall), "outcome": outcome}


def _time(text: str) -> float | None:
    whole, _, part = text.partition(".")
    digits = whole + part
    if len(digits) > 20 or not digits.isascii() or not digits.isdecimal():
        return None
    return min(float(text), float(_LARGEST_TIME_S))


def _started(text: str) -> float:
    """When the last of a job's runs began; 0 where that is not known."""
    return _time(text.rpartition(" ")[2].partition(":")[0]) or 0.0


def _stamp(path: str) -> tuple[int, ...] | None:
    """Changes when the file is written again: that makes a new one. None: there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _shortened(text: str, most: int) -> str:
    return text if text.count(" ") < most else " ".join(text.rsplit(" ", most)[1:])


class _Lock:
    """The lock of all histories, in a folder that is made where it is missing.

    Raises:
        OSError: it can not be made, or somebody has held it for a while.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = f"{self._folder}/lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK or time.monotonic() > deadline:
                    os.close(self._fd)
                    raise OSError(error.errno, error.strerror, path) from None
            time.sleep(_LOOK_AGAIN_S)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _forget(folder: str) -> None:
    """Remove the histories that were not written for the longest time, where there are too many."""
    names = [name for name in os.listdir(folder) if name.endswith(".json")]
    if len(names) <= MOST_FILES:
        return
    written: list[tuple[float, str]] = []
    for name in names:
        try:
            written.append((os.lstat(f"{folder}/{name}").st_mtime, name))
        except FileNotFoundError:
            pass
    for _, name in sorted(written)[: len(names) - MOST_FILES]:
        _unlink(f"{folder}/{name}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
