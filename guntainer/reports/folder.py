"""A folder of results, read again: batch.json, and of each job result.json and logs.

    DIR/batch.json                                  what ran, and which folder is whose
    DIR/<job's folder>/result.json, stdout, stderr  as `results` writes them
    DIR/<job's folder>/attempt-N/stdout, stderr     of earlier attempts
    DIR/<job's folder>/artifacts/…

Nothing in there is trusted. Every look is an openat2(2) that does not leave the folder; what is no regular file is not read,
so that no FIFO is waited for; what is damaged is named, and the rest is read.
"""

from __future__ import annotations

import errno
import os
import stat

from guntainer.jobs.names import folder_name
from guntainer.kernel import abi, syscalls
from guntainer.reports.fields import kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from guntainer.report import Report

VERSION = 1
BATCH = "batch.json"
RESULT = "result.json"
_RULES = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_MAGICLINKS


class Unreadable(Exception):
    """A file of the folder can not be used; the message says why."""


class Folder:
    """The folder as an open thing; what is in there is named relative to it."""

    def __init__(self, path: str) -> None:
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._root)

    def open(self, name: str) -> tuple[int, int]:
        """A regular file: its descriptor, and its size in bytes.

        Raises:
            FileNotFoundError, Unreadable: as it says.
        """
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its writer
            fd = syscalls.openat2(self._root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=_RULES)
        except FileNotFoundError:
            raise
        except NotADirectoryError:
            raise Unreadable("what leads there is no folder") from None
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            why = getattr(error, "strerror", None) or str(error)
            raise Unreadable("a link that leads out of the folder" if number == errno.EXDEV else why) from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("not a regular file")
        except BaseException:
            os.close(fd)
            raise
        return fd, status.st_size

    def read_json(self, name: str, most: int) -> dict[str, Any]:
        """A file with one table of JSON.

        Raises:
            FileNotFoundError, Unreadable: as it says.
        """
        fd, size = self.open(name)
        try:
            if size > most:
                raise Unreadable(f"larger than {most >> 20} MiB")
            try:
                data = _read(fd, size)
            except OSError as error:
                raise Unreadable(error.strerror or str(error)) from None
        finally:
            os.close(fd)
        return _table(data)

    def names(self, below: str = ".") -> list[str]:
        """What is in the folder, or in one below it, sorted; nothing where there is none."""
        try:
            fd = syscalls.openat2(self._root, below, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, resolve=_RULES)
        except OSError:
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)


def _read(fd: int, size: int) -> bytes:
    parts = []
    left = size
    while left > 0:
        part = os.read(fd, left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _table(data: bytes) -> dict[str, Any]:
    import json

    try:
        found = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    except json.JSONDecodeError as error:
        why = "empty" if not data else f"no valid JSON (line {error.lineno}: {error.msg})"
        raise Unreadable(why) from None
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"no valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise Unreadable(f"expected a table, got {kind(found)}")
    return found


def write_batch(path: str, a_report: Report, jobs: Iterable[str], *, running: bool = False) -> None:
    """Write batch.json, whole or not at all.

    Args:
        path: the results folder.
        a_report: what is known of the batch; its results may still be missing.
        jobs: the ids of all jobs, in the file's order.
        running: the batch has only begun.

    Raises:
        OSError: it can not be written; what was there stays.
    """
    import json

    values = {
        "version": VERSION,
        "name": a_report.name,
        "file": a_report.file,
        "started_at": a_report.started_at,
        "wall_ns": None if running else a_report.wall_ns,
        "parallel": a_report.parallel,
        "interrupted": a_report.interrupted,
        "facts": dict(a_report.facts),
        "jobs": [{"id": job_id, "folder": folder_name(job_id)} for job_id in jobs],
    }
    new = f"{path}/{BATCH}.new"
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        os.replace(new, f"{path}/{BATCH}")
    except OSError:
        try:
            os.unlink(new)
        except OSError:
            pass
        raise
