"""Where a job's output and its result are kept: in the folder that the user has named, or until they have been shown.

    DIR/<job's folder>/stdout, stderr, result.json      with a folder of results, see `jobs.names.folder_name`
    DIR/<job's folder>/services/<name>.log              both streams of a service of its
    <run folder>/log-<n>                                without: both streams in one file, in the order of the writes

A result.json is written when its job has ended, and is whole or not there.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.jobs.names import folder_name

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
        self._folder = folder
        self._run = run
        self._note = note
        self._free_logs: list[str] = []
        self._made_logs = 0

    def logs(self, job_id: str) -> tuple[str, str]:
        """Paths for a job's stdout and stderr; the same one twice where nobody keeps them."""
        if self._folder is not None:
            folder = self._folder_of(job_id)
            return f"{folder}/stdout", f"{folder}/stderr"
        if not self._free_logs:
            self._made_logs += 1
            self._free_logs.append(f"{self._run().path}/log-{self._made_logs}")
        path = self._free_logs.pop()
        return path, path

    def _folder_of(self, job_id: str) -> str:
        """The job's folder of results, made where it is not there."""
        folder = f"{self._folder}/{folder_name(job_id)}"
        try:
            os.mkdir(folder)
        except FileExistsError:
            if os.path.islink(folder):  # a job that may write to the results could lead us anywhere
                raise NotADirectoryError(errno.ENOTDIR, "is a link", folder) from None
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
        return folder

    def service_log(self, job_id: str, name: str) -> tuple[str, bool]:
        """A path for what a job's service prints, and whether it is kept; without a folder it is the caller's to remove."""
        if self._folder is None:
            self._made_logs += 1
            return f"{self._run().path}/log-{self._made_logs}", False
        folder = f"{self._folder_of(job_id)}/services"
        os.makedirs(folder, exist_ok=True)
        return f"{folder}/{name}.log", True

    def put_aside(self, job_id: str, attempt: int, stdout: str, stderr: str) -> tuple[str, str]:
        """The logs of an attempt, counted from 1, that is not the last one: where they are from now on."""
        if self._folder is None or not stdout:
            return stdout, stderr
        folder = f"{self._folder}/{folder_name(job_id)}/attempt-{attempt}"
        try:
            os.makedirs(folder, exist_ok=True)
            for path in (stdout, stderr):
                os.replace(path, f"{folder}/{os.path.basename(path)}")
            services = f"{os.path.dirname(folder)}/services"
            if os.path.isdir(services):
                os.replace(services, f"{folder}/services")
        except OSError as error:
            self._note(f"results can not be written: {errors.describe_oserror(error)}")
        return f"{folder}/stdout", f"{folder}/stderr"

    def shown(self, result: Result) -> Result:
        """The watcher has been told: without a log that nobody needs any more.

        The next job writes over that of a good one, which spares the disk a file per job.
        """
        if self._folder is not None or not result.ok or result.stdout is None:
            return result
        self._free_logs.append(result.stdout)
        return result.replace(stdout=None, stderr=None)

    def write(self, result: Result) -> None:
        """result.json, where there is a folder for it. Without a thread: it is small, and there may be thousands."""
        if self._folder is None:
            return
        import json

        from guntainer.report_text import json_object

        new = ""
        try:
            path = f"{self._folder_of(result.id)}/result.json"
            new = f"{path}.new"
            with open(new, "w", encoding="utf-8", opener=_open_new) as file:
                file.write(json.dumps(json_object(result)) + "\n")
            os.replace(new, path)
        except OSError as error:
            try:
                os.unlink(new)
            except OSError:
                pass
            self._note(f"results can not be written: {errors.describe_oserror(error)}")


def _open_new(path: str, _flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
