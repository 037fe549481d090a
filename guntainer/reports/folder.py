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

from guntainer.kernel import abi, syscalls
from guntainer.reports.fields import kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
BATCH = "batch.json"
RESULT = "result.json"
MOST_BATCH, MOST_RESULT = 64 << 20, 4 << 20  # bytes
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

    def has(self, name: str) -> bool:
        """Whether a regular file can be read there."""
        try:
            fd, _ = self.open(name)
        except (FileNotFoundError, Unreadable):
            return False
        os.close(fd)
        return True

    def listed(self) -> tuple[str, ...]:
        """The ids of the jobs in batch.json; none where that can not be read."""
        try:
            jobs = self.read_json(BATCH, MOST_BATCH).get("jobs")
        except (FileNotFoundError, Unreadable):
            return ()
        ids = (one.get("id") for one in (jobs if isinstance(jobs, list) else ()) if isinstance(one, dict))
        return tuple(job_id for job_id in ids if isinstance(job_id, str))

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
