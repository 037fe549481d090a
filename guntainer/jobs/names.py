"""Names of jobs: what may be one, which folder it gets, and which jobs a pattern means. Pure."""

from __future__ import annotations

import re
from binascii import crc32
from fnmatch import fnmatchcase

from guntainer import errors
from guntainer.jobs.values import near, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from guntainer.jobs.model import Job

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._(), #+=@-]|\.(?=\.)|^[^A-Za-z0-9_]|[. ]$")
_FOLDER_BYTES = 150  # leaves room below NAME_MAX, 255, for endings and for archives that add their own
_TAKEN = ("batch.json", "batch.json.new")
"""What else is in a folder of results."""
_MARK = "~"  # never in an unchanged name: a changed one can not meet it


def check_key(key: str) -> str:
    """`key`, when it can name a job."""
    if _KEY.fullmatch(key) is None:
        raise errors.UsageError(
            f"{quoted(key)} can not name a job: expected up to 100 letters, digits, . _ and -, not starting with . or -"
        )
    return key


def folder_name(job_id: str) -> str:
    """The folder for a job's results: the id as it stands where that is safe, else a likeness and its checksum.

    ASCII, at most 150 bytes, never hidden, never `..`; two ids never share one but by a clash of crc32.
    """
    plain = _UNSAFE.sub("_", job_id)[:_FOLDER_BYTES]
    if plain == job_id and plain and plain.casefold() not in _TAKEN:
        return plain
    mark = f"{_MARK}{crc32(job_id.encode('utf-8', 'surrogatepass')):08x}"
    return plain[: _FOLDER_BYTES - len(mark)] + mark


def select(jobs: Sequence[Job], globs: Iterable[str]) -> tuple[Job, ...]:
    """The jobs whose id or key matches one of the patterns, in their own order.

    Raises:
        UsageError: a pattern matches nothing.
    """
    chosen: set[int] = set()
    for glob in globs:
        found = {n for n, job in enumerate(jobs) if job.id == glob or _matches(job, glob)}
        if not found:
            names = [job.key for job in jobs] + [job.id for job in jobs]
            raise errors.UsageError(f"no job matches {quoted(glob)}{near(glob, names)}")
        chosen |= found
    return tuple(job for n, job in enumerate(jobs) if n in chosen)


def pattern(job_id: str, ids: Container[str]) -> str:
    """The pattern for `select` that means this job alone.

    Args:
        ids: of all jobs.
    """
    escaped = re.sub(r"([*?[])", r"[\1]", job_id)
    if escaped == job_id or escaped not in ids:
        return escaped
    return f"[{escaped[0]}]{escaped[1:]}"  # it is another's name as it stands, but none begins with [


def _matches(job: Job, glob: str) -> bool:
    return fnmatchcase(job.id, glob) or fnmatchcase(job.key or job.id, glob)
