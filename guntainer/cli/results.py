"""The results folder of a batch, made ready. What can not be written is found out before it starts."""

from __future__ import annotations

import errno
import os

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.jobs.model import Job

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


def open_folder(path: str, jobs: Iterable[Job], *, what: str = "--results") -> int:
    """Make the results folder ready for these jobs; returns its lock: two batches must not write into one.

    Args:
        what: how the user has named it.

    Raises:
        UsageError: it can not be written, or another batch has it.
    """
    try:
        os.makedirs(path, exist_ok=True)
        lock = os.open(f"{path}/.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise errors.UsageError(f"{what}: {errors.describe_oserror(error)}") from None
    try:
        _make_ready(path, jobs, lock, what)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _make_ready(path: str, jobs: Iterable[Job], lock: int, what: str) -> None:
    import fcntl

    if not os.access(path, os.W_OK | os.X_OK):
        raise errors.UsageError(f"{what}: {path}: {os.strerror(errno.EACCES)}")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise errors.UsageError(f"{what} {path}: another batch is writing there") from None
    try:
        _remove_old(path, jobs)
    except OSError as error:
        raise errors.UsageError(
            f"{what}: {errors.describe_oserror(error)}", hint="remove what is in the way, or name another folder"
        ) from None


def _remove_old(path: str, jobs: Iterable[Job]) -> None:
    """What an earlier run has left of these very jobs, so that nobody takes it for this run's; nothing else."""
    from guntainer.jobs.names import folder_name
    from guntainer.store.remove import remove_tree

    there = set(os.listdir(path)) - {".lock"}
    for folder in there and there.intersection(folder_name(job.id) for job in jobs):
        for name in _OF_A_JOB:
            try:
                os.unlink(f"{path}/{folder}/{name}")
            except FileNotFoundError:
                pass
        for name in os.listdir(f"{path}/{folder}"):
            if name in ("artifacts", "services") or _is_attempt(name):
                remove_tree(f"{path}/{folder}/{name}")


def _is_attempt(name: str) -> bool:
    return name.startswith("attempt-") and name.removeprefix("attempt-").isdecimal()
