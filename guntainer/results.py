"""Where a job's output and its result are kept: in the folder that the user has named, or until they have been shown.

    DIR/<job's folder>/stdout, stderr, result.json      with a folder of results, see `jobs.names.folder_name`
    DIR/<job's folder>/services/<name>.log              both streams of a service of its
    <run folder>/log-<n>                                without: both streams in one file, in the order of the writes

A result.json is written when its job has ended, and is whole or not there.
"""

from __future__ import annotations

import errno
import os
import stat

from guntainer import errors, idmap, resultsfolder, wholefile
from guntainer.jobs.names import folder_name
from guntainer.offloading import in_thread
from guntainer.resultsfolder import ResultsFolder
from guntainer.stdio import open_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.report import Result
    from guntainer.runfolder import RunFolder


class Results:
    """The files of one supervisor's jobs.

    Args:
        folder: kept; None: the log of a job that failed lives as long as the supervisor, that of a good one until it has
            been shown.
        run: gives the run folder.
        note: told of what can not be written.
    """

    def __init__(self, folder: str | None, run: Callable[[], RunFolder], note: Callable[[str], None]) -> None:
        self.path = folder
        self._opened: ResultsFolder | None = None
        self._run = run
        self._note = note
        self._free_logs: list[str] = []
        self._made_logs = 0
        self._service_logs: dict[str, list[str]] = {}
        """Of the jobs that run, by id."""
        self._lost: set[str] = set()
        """Folders of jobs with a log that is another user's now: nobody else looks into them."""

    def close(self) -> None:
        """Let go of the folder."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def folder(self) -> ResultsFolder:
        """The folder, opened the first time: before any container lives.

        Raises:
            OSError: it can not be opened.
        """
        if self._opened is None:
            assert self.path is not None
            self._opened = ResultsFolder(self.path)
        return self._opened

    def logs(self, job_id: str) -> tuple[str, str]:
        """Paths for a job's stdout and stderr, for `open_log`; the same one twice where nobody keeps them."""
        if self.path is not None:
            name = folder_name(job_id)
            self.folder().begin(name)
            return f"{self.path}/{name}/stdout", f"{self.path}/{name}/stderr"
        while self._free_logs:
            path = self._free_logs.pop()
            if _emptied(path):
                return path, path
        self._made_logs += 1
        path = f"{self._run().path}/log-{self._made_logs}"
        return path, path

    def service_log(self, job_id: str, name: str) -> tuple[str, bool]:
        """A path for what a job's service prints, and whether it is kept; without a folder it is the caller's to remove."""
        if self.path is None:
            self._made_logs += 1
            return f"{self._run().path}/log-{self._made_logs}", False
        os.close(self.folder().below(f"{folder_name(job_id)}/services"))
        path = f"{self.path}/{folder_name(job_id)}/services/{name}.log"
        self._service_logs.setdefault(job_id, []).append(path)
        return path, True

    def open_log(self, path: str, flags: int) -> int:
        """Open one of these paths to be written: a file, and no link on the way, whatever a job has put there.

        Raises:
            OSError: it can not be made, or something else is there.
        """
        if self.path is None:
            return open_log(path, flags)
        return open_log(path.removeprefix(f"{self.path}/"), flags, self.folder().open)

    def changed(self, job_id: str, *paths: str) -> list[str]:
        """Logs of a job, and of its services, that are not there, or not as they were made: for `restore`. All have ended."""
        found = []
        for path in {*paths, *self._service_logs.pop(job_id, ())}:
            try:
                if _is_plain(os.lstat(path)):
                    continue
            except OSError:
                pass
            found.append(path)
        return found

    async def restore(self, paths: list[str]) -> None:
        """Make them plain files of ours again, and empty ones where there is nothing."""
        for path in paths:
            try:
                await self._restored(path)
            except OSError as error:
                self._note(f"a log can not be read: {errors.describe_oserror(error)}")
                self._lost.add(os.path.dirname(path).removesuffix("/services"))

    async def _restored(self, path: str) -> None:
        """Its owner may have become another, or its mode: a container is root over its own stdout.

        Raises:
            OSError: something else is in its place.
        """
        try:
            os.close(self.open_log(path, 0))  # it may never have come so far
        except PermissionError:
            pass
        fd = self._opened_path(path)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a plain file", path)
            if os.fstat(fd).st_uid != os.geteuid() and not await in_thread(idmap.claim_mapped, fd):
                raise PermissionError(errno.EPERM, "it has become another user's", path)
            if not _is_plain(os.fstat(fd)):
                os.chmod(f"/proc/self/fd/{fd}", 0o644)
        finally:
            os.close(fd)

    def _opened_path(self, path: str) -> int:
        if self.path is None:
            return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self.folder().find(path.removeprefix(f"{self.path}/"))

    def put_aside(self, job_id: str, attempt: int, stdout: str, stderr: str) -> tuple[str, str]:
        """The logs of an attempt, counted from 1, that is not the last one: where they are from now on."""
        if self.path is None or not stdout:
            return stdout, stderr
        name = f"attempt-{attempt}"
        try:
            job = self.folder().below(folder_name(job_id))
            try:
                _move(job, resultsfolder.below(job, name, shown=f"{self.path}/{folder_name(job_id)}/{name}"))
            finally:
                os.close(job)
        except OSError as error:
            self._note(f"results can not be written: {errors.describe_oserror(error)}")
        folder = f"{self.path}/{folder_name(job_id)}/{name}"
        return f"{folder}/stdout", f"{folder}/stderr"

    def shown(self, result: Result) -> Result:
        """The watcher has been told: without a log that nobody needs any more.

        The next job writes over that of a good one, which spares the disk a file per job.
        """
        if self.path is not None or not result.ok or result.stdout is None:
            return result
        self._free_logs.append(result.stdout)
        return result.replace(stdout=None, stderr=None)

    def write(self, result: Result) -> None:
        """result.json, where there is a folder for it. Without a thread: it is small, and there may be thousands."""
        if self.path is None:
            return
        from guntainer.report_text import json_text

        try:
            job = self.folder().below(folder_name(result.id))
            try:
                wholefile.write(job, "result.json", (f"{json_text(result)}\n".encode(),), mode=0o644)
                if f"{self.path}/{folder_name(result.id)}" not in self._lost:
                    self.folder().end(job)
            finally:
                os.close(job)
        except OSError as error:
            self._note(f"results can not be written: {errors.describe_oserror(error)}")


def _move(job: int, attempt: int) -> None:
    """Logs, and those of services, from a job's folder to that of one of its attempts, which is closed."""
    try:
        for name in ("stdout", "stderr", "services"):
            try:
                os.replace(name, name, src_dir_fd=job, dst_dir_fd=attempt)
            except FileNotFoundError:
                pass
    finally:
        os.close(attempt)


def _is_plain(status: os.stat_result) -> bool:
    """Whether a log is as it was made: a file that its owner may read and write, others read at most, and nobody execute."""
    mode = status.st_mode
    return stat.S_ISREG(mode) and status.st_uid == os.geteuid() and mode & 0o600 == 0o600 and not mode & 0o7133


def _emptied(path: str) -> bool:
    """Whether a log can be used once more: its last container may have done to it whatever it liked."""
    try:
        if _is_plain(os.lstat(path)):
            os.truncate(path, 0)
            return True
        os.unlink(path)
    except OSError:
        pass
    return False
