"""An archive unpacked, or leased, without what a run does besides."""

from __future__ import annotations

import os
from typing import Any

from guntainer.archive.worker import Task
from guntainer.idmap import Ids
from guntainer.jobs.model import Source
from guntainer.store import fill
from guntainer.store.acquire import acquire
from guntainer.store.filling import Wanted, task_of, wanted_archive
from guntainer.store.lookup import Lease, Store


def work(task: Task) -> dict[str, Any]:
    """The facts of a worker, forked and waited for."""
    working = fill.Working(task)
    try:
        while (facts := working.more()) is None:
            pass
        return facts
    finally:
        working.close()


def task_for(wanted: Wanted, into: str, ids: Ids = Ids()) -> Task:
    """What is to be unpacked into a new folder."""
    os.makedirs(into, 0o700)
    return task_of(wanted, into, ids, hash_it=wanted.sha256 is not None)


def unpack(archive: str, into: str, *, ids: Ids = Ids(), limits: tuple[int, int] | None = None) -> str:
    """Unpack into a new folder, and return the rootfs's path."""
    task = task_for(wanted_archive(archive, None, limits), into, ids)
    facts = work(task)
    assert facts.get("image") is None, "a container image, not a rootfs"
    return f"{into}/{facts['tree']}"


def lease(store: Store, archive: str, *, sha256: str | None = None, limits: tuple[int, int] | None = None) -> Lease:
    """The lease of an archive, unpacked if need be."""
    return acquire(store, Source(location=archive, sha256=sha256, limits=limits))
