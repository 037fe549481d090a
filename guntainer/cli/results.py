"""The results folder of a batch, made ready. What can not be written is found out before it starts."""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.resultsfolder import ResultsFolder

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


def open_folder(path: str, jobs: Iterable[Job], *, what: str = "--results") -> ResultsFolder:
    """Make the results folder ready for these jobs, and lock it: two batches must not write into one. The caller closes it.

    Args:
        what: how the user has named it.

    Raises:
        UsageError: it can not be written, or another batch has it.
    """
    try:
        folder = ResultsFolder(path)
    except OSError as error:
        raise errors.UsageError(f"{what}: {errors.describe_oserror(error)}") from None
    try:
        _make_ready(folder, jobs, what)
    except BaseException:
        folder.close()
        raise
    return folder


def _make_ready(folder: ResultsFolder, jobs: Iterable[Job], what: str) -> None:
    import fcntl

    if not os.access(folder.path, os.W_OK | os.X_OK):
        raise errors.UsageError(f"{what}: {folder.path}: {os.strerror(errno.EACCES)}")
    try:
        folder.lock = folder.open(".lock", 0)
    except OSError as error:
        raise errors.UsageError(f"{what}: {errors.describe_oserror(error)}") from None
    try:
        fcntl.flock(folder.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise errors.UsageError(f"{what} {folder.path}: another batch is writing there") from None
    try:
        _remove_old(folder, jobs)
    except OSError as error:
        raise errors.UsageError(
            f"{what}: {errors.describe_oserror(error)}", hint="remove what is in the way, or name another folder"
        ) from None


def _remove_old(results: ResultsFolder, jobs: Iterable[Job]) -> None:
    """What an earlier run has left of these very jobs, so that nobody takes it for this run's; nothing else."""
    from guntainer.jobs.names import folder_name

    there = set(os.listdir(f"/proc/self/fd/{results.fd}")) - {".lock"}
    for name in there and there.intersection(folder_name(job.id) for job in jobs):
        folder = results.below(name)
        way = f"/proc/self/fd/{folder}"
        try:
            _empty(way)
        except OSError as error:
            where = str(error.filename).replace(way, f"{results.path}/{name}")
            raise OSError(error.errno, error.strerror, where) from None
        finally:
            os.close(folder)


def _empty(folder: str) -> None:
    from guntainer.store.remove import remove_tree

    for name in os.listdir(folder):
        if name in _OF_A_JOB:
            os.unlink(f"{folder}/{name}")
        elif name in ("artifacts", "services") or _is_attempt(name):
            remove_tree(f"{folder}/{name}")


def _is_attempt(name: str) -> bool:
    return name.startswith("attempt-") and name.removeprefix("attempt-").isdecimal()
