"""batch.json: which jobs a results folder is about, what is known of them as a whole, and how long they took before.

A batch that runs some of its file's jobs alone, into a folder that has results of the others, is about all of them: what it
has not run itself is marked as `earlier`.
"""

from __future__ import annotations

import json

from guntainer import wholefile
from guntainer.jobs.names import folder_name
from guntainer.reports.folder import BATCH, RESULT, VERSION, Folder
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from typing import Any

    from guntainer.report import Report


class Listed(Value):
    """The jobs that a batch.json has."""

    ids: tuple[str, ...]
    """In the file's order."""
    earlier: Container[str] = ()
    """Of jobs whose results are of an earlier batch."""
    runs: Mapping[str, str] = {}
    """Earlier runs of a job, by id, as `history` writes them."""


def listed(path: str, ids: Iterable[str], known: Iterable[str], taken: Iterable[str] = ()) -> Listed:
    """The jobs that a results folder has when these have run in it.

    Args:
        path: of the folder, as it was before.
        ids: of the jobs that the batch is about.
        known: of all jobs of its file, in order.
        taken: those of the batch whose results it has found in there.
    """
    ids, known = tuple(ids), tuple(known)
    if len(ids) >= len(known):
        return Listed(ids=ids, earlier=frozenset(taken))
    own, others = set(ids), _with_results(path, set(known).difference(ids))
    return Listed(
        ids=tuple(job_id for job_id in known if job_id in own or job_id in others),
        earlier=frozenset((*taken, *others)),
    )


def _with_results(path: str, wanted: set[str]) -> set[str]:
    """Those of some jobs that batch.json lists, and that have ended."""
    try:
        folder = Folder(path)
    except (OSError, ValueError):
        return set()
    try:
        found = wanted.intersection(folder.listed())
        return {job_id for job_id in found if folder.has(f"{folder_name(job_id)}/{RESULT}")}
    finally:
        folder.close()


def write(folder: int, a_report: Report, jobs: Listed, *, running: bool = False) -> None:
    """Write it, whole or not at all.

    Args:
        folder: a descriptor of the results folder.
        a_report: what is known of the batch; its results may still be missing.
        running: the batch has only begun.

    Raises:
        OSError: it can not be written; what was there stays.
    """
    values = {
        "version": VERSION,
        "name": a_report.name,
        "file": a_report.file,
        "started_at": a_report.started_at,
        "wall_ns": None if running else a_report.wall_ns,
        "parallel": a_report.parallel,
        "interrupted": a_report.interrupted,
        "facts": dict(a_report.facts),
        "jobs": [_entry(job_id, jobs) for job_id in jobs.ids],
    }
    wholefile.write(folder, BATCH, (json.dumps(values).encode() + b"\n",), mode=0o644)


def _entry(job_id: str, jobs: Listed) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": job_id, "folder": folder_name(job_id)}
    if job_id in jobs.earlier:
        entry["earlier"] = True
    if job_id in jobs.runs:
        entry["runs"] = jobs.runs[job_id]
    return entry
