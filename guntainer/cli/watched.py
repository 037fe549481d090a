"""What `batch --watch` looks at: the files that the jobs of a file read, and what they look like now.

A look is a table of sizes and times, and two looks are compared: what inotify(7) tells is only when to look again. So nothing is
missed between two rounds, and what jobs write themselves can be told from what somebody else has changed.
"""

from __future__ import annotations

import errno
import os
import stat

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.jobs.load import JobFile
    from guntainer.jobs.model import Job
    from guntainer.kernel.inotify import Inotify

    Seen = dict[str, tuple[int, ...]]

MOST_FOLDERS = 10_000
MOST_FILES = 200_000
LEFT_OUT = frozenset(
    (".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", ".tox", ".nox", ".mypy_cache", ".pytest_cache")
)
"""Folders that other programs keep for themselves."""
_NOT_FILES = ("/dev/", "/proc/", "/sys/")


class Watched:
    """The files and folders that a batch reads.

    Args:
        paths: absolute.
        written: those of them that jobs may write to.
        without: absolute paths that the batch writes itself: results, reports, the store.
    """

    def __init__(self, paths: Iterable[str], written: Iterable[str] = (), without: Iterable[str] = ()) -> None:
        self._paths = sorted(set(paths))
        self._written = tuple(f"{os.path.realpath(path)}/" for path in written)
        real = [os.path.realpath(path) for path in without]
        self._without = frozenset((*real, *(f"{path}.new" for path in real)))  # written there, then renamed
        self.folders = 0
        """How many are looked into."""
        self.cut = False
        """There is more than is looked at."""

    def look(self, inotify: Inotify | None = None) -> Seen:
        """What there is now.

        Args:
            inotify: is to tell of changes from here on.

        Raises:
            HostError: the user may watch no more folders.
        """
        seen: Seen = {}
        self.folders, self.cut = 0, False
        for path in self._paths:
            real = os.path.realpath(path)
            if inotify is not None:
                # of a file that is replaced, the new one counts; of a link, where it leads to
                for folder in {os.path.dirname(path), os.path.dirname(real)}:
                    _watch_nearest(inotify, folder)
            if os.path.isdir(real):
                self._look_into(real, inotify, seen)
            else:
                self._note(real, seen)
        return seen

    def after(self, before: Seen, now: Seen) -> Seen:
        """What the next look is compared with, after a round: what it began with, but for what its jobs may have changed."""
        if not self._written:
            return before
        kept = {path: one for path, one in before.items() if not self._is_written(path)}
        return kept | {path: one for path, one in now.items() if self._is_written(path)}

    def _is_written(self, path: str) -> bool:
        return f"{path}/".startswith(self._written)

    def _look_into(self, top: str, inotify: Inotify | None, seen: Seen) -> None:
        for folder, names, others in os.walk(top):
            if self.folders >= MOST_FOLDERS or len(seen) >= MOST_FILES:
                self.cut = True
                return
            names[:] = [name for name in names if name not in LEFT_OUT and f"{folder}/{name}" not in self._without]
            self.folders += 1
            if inotify is not None:
                _watch(inotify, folder)
            self._note(folder, seen)
            for name in others:
                self._note(f"{folder}/{name}", seen)

    def _note(self, path: str, seen: Seen) -> None:
        if path in self._without:
            return
        try:
            status = os.lstat(path)
        except OSError:
            return
        # of a folder, what is in it tells; its own times change with what is left out
        own = () if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns, status.st_ino)
        seen[path] = (status.st_mode, *own)


def changed(before: Seen, now: Seen) -> str:
    """The path of something that differs; "" where nothing does."""
    return next((path for path in sorted(before.keys() | now.keys()) if before.get(path) != now.get(path)), "")


def _watch(inotify: Inotify, folder: str) -> bool:
    """Have a folder watched; False where it is not there, or can not be looked into."""
    try:
        inotify.watch(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM):
            return False
        raise errors.HostError(
            f"--watch: {folder} can not be watched: too many folders are already",
            hint="raise the sysctl fs.inotify.max_user_watches, or watch less",
        ) from None
    return True


def _watch_nearest(inotify: Inotify, folder: str) -> None:
    """A folder, or where it will appear."""
    while not _watch(inotify, folder) and folder != "/":
        folder = os.path.dirname(folder)


def paths_of(file: JobFile, path: str) -> tuple[set[str], set[str]]:
    """(what the jobs of a file read on the host, what they may write to): absolute paths.

    Args:
        path: the job file's.
    """
    found, written = {path, *file.extends}, set()
    for job in file.jobs:
        for one in (job, *(service.job for service in job.services)):
            read, own = _paths_of_job(one)
            found |= read
            written |= own
    return watchable(found), written


def watchable(paths: set[str]) -> set[str]:
    """Those that tell of their changes."""
    return {path for path in paths if not path.startswith(_NOT_FILES)}


def _paths_of_job(job: Job) -> tuple[set[str], set[str]]:
    found, written = set(), set()
    if job.rootfs.kind in ("path", "oci", "docker-archive"):
        found.add(job.rootfs.location)
    for mount in job.mounts:
        if mount.kind == "bind":
            found.add(mount.source)
            if not mount.read_only:
                written.add(mount.source)
    if job.workspace is not None:
        found.add(job.workspace.source)
        if job.workspace.mode == "mount":
            written.add(job.workspace.source)
    found.update(secret.file for secret in job.secrets if secret.file)
    found.update(path for path in (job.stdin, job.seccomp) if path and path.startswith("/"))
    return found, written
