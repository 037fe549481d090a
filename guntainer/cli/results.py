"""The files that a batch leaves: its results folder and its report. What can not be written is found out before it starts."""

from __future__ import annotations

import errno
import os

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.jobs.model import Job
    from guntainer.report import Report

_OF_A_JOB = ("result.json", "result.json.new", "stdout", "stderr")


def absolute(path: str, what: str) -> str:
    """`path` from the root on.

    Raises:
        UsageError: it is relative to a working directory that has been deleted; `what` says for what it is needed.
    """
    try:
        return os.path.abspath(path)
    except OSError:
        raise errors.UsageError(
            f"{what}: the working directory does not exist any more", hint="go to another one, or give full paths"
        ) from None


def open_folder(path: str, jobs: Iterable[Job]) -> int:
    """Make the results folder ready for these jobs; returns its lock: two batches must not write into one.

    Raises:
        UsageError: it can not be written, or another batch has it.
    """
    import fcntl

    try:
        os.makedirs(path, exist_ok=True)
        lock = os.open(f"{path}/.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except OSError as error:
        raise errors.UsageError(f"--results: {errors.describe_oserror(error)}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise errors.UsageError(f"--results {path}: another batch is writing there") from None
    try:
        _remove_old(path, jobs)
    except OSError as error:
        raise errors.UsageError(
            f"--results: {errors.describe_oserror(error)}", hint="remove what is in the way, or name another folder"
        ) from None
    return lock


def _remove_old(path: str, jobs: Iterable[Job]) -> None:
    """What an earlier run has left of these very jobs, so that nobody takes it for this run's; nothing else."""
    from guntainer.jobs.names import folder_name

    there = set(os.listdir(path)) - {".lock"}
    for folder in there and there.intersection(folder_name(job.id) for job in jobs):
        for name in _OF_A_JOB:
            try:
                os.unlink(f"{path}/{folder}/{name}")
            except FileNotFoundError:
                pass


def try_to_write(path: str) -> None:
    """Make the file that a report is written to before it gets its name, and remove it again.

    Raises:
        UsageError: that fails.
    """
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_no_file(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        os.close(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        os.unlink(f"{path}.new")
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        raise errors.UsageError(f"--json {path}: {folder}: No such file or directory", hint="make it first") from None
    except OSError as error:
        raise errors.UsageError(f"--json {path}: {error.strerror}", hint="name a file that can be written") from None


_OPEN_ALREADY = ("/dev/fd/", "/dev/std", "/proc/")


def _is_no_file(path: str) -> bool:
    """A pipe, a terminal, /dev/null, /dev/fd/3: written to as it is, since nothing else can take its name."""
    return os.path.exists(path) and (not os.path.isfile(path) or os.path.abspath(path).startswith(_OPEN_ALREADY))


async def write_report(path: str, report: Report) -> None:
    """Atomic, also after Ctrl-C: a reader sees the whole report or none.

    Raises:
        GuntainerError: it can not be written; nothing of it stays.
    """
    import aiofiles

    from guntainer.report_text import json_lines

    try:
        if _is_no_file(path):
            async with aiofiles.open(path, "a", encoding="utf-8") as file:
                await file.write(json_lines(report))
            return
        try:
            async with aiofiles.open(f"{path}.new", "w", encoding="utf-8") as file:
                await file.write(json_lines(report))
            os.replace(f"{path}.new", path)
        except BaseException:
            _remove(f"{path}.new")
            raise
    except OSError as error:
        raise errors.GuntainerError(f"--json {path}: {error.strerror}; the report is not written") from None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
