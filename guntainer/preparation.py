"""Rootfs for many jobs at once: each source is opened once, at most one per core at a time, and leased to the end."""

from __future__ import annotations

import os

import anyio

from guntainer import errors, opening
from guntainer.store.lookup import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.jobs.model import Job, Source
    from guntainer.rootfs import Rootfs
    from guntainer.runfolder import RunFolder
    from guntainer.store.headstart import HeadStart
    from guntainer.store.lookup import Lease, Store

    Progress = Callable[[str, int, int], None]


class _Entry:
    """One source: being opened, open, or failed."""

    __slots__ = ("error", "lock", "rootfs")

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.rootfs: Rootfs | None = None
        self.error: errors.GuntainerError | None = None


class Preparation:
    """Opens sources and holds their leases until `release`."""

    def __init__(
        self,
        store: Store,
        run: Callable[[], RunFolder],
        progress: Progress | None = None,
        head_start: HeadStart | None = None,
        note: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._store = store
        self._note = note
        self._head_start = head_start
        self._run = run
        self._progress = progress
        self._entries: dict[tuple[Source, bool], _Entry] = {}
        self._leases: list[Lease] = []
        self._unpackers = anyio.CapacityLimiter(max(1, len(os.sched_getaffinity(0))))

    async def rootfs(self, job: Job) -> Rootfs:
        """The rootfs of a job; waits for it to be fetched and unpacked.

        Raises:
            GuntainerError: it can not be had; the same error for every job that names it.
        """
        key = (job.rootfs, job.cache)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
        if entry.rootfs is not None:
            return entry.rootfs
        async with entry.lock:
            if entry.error is not None:
                raise entry.error
            if entry.rootfs is None:
                try:
                    entry.rootfs = await self._open(job.rootfs, cache=job.cache)
                except errors.GuntainerError as error:
                    entry.error = error
                    raise
        return entry.rootfs

    def forget_failure(self, job: Job) -> None:
        """A rootfs that could not be had is tried again when a job asks for it the next time."""
        entry = self._entries.get((job.rootfs, job.cache))
        if entry is not None and entry.error is not None:
            del self._entries[job.rootfs, job.cache]

    async def _open(self, source: Source, *, cache: bool) -> Rootfs:
        opening.check(source)
        own = opening.folder_of(source, self._store.path)
        if own is not None:
            return own
        store = self._store if cache else open_store(f"{self._run().path}/store", self._store.ids)
        lease = None
        if not source.remote and source.limits is None:
            lease = store.find(source.location, source.sha256, source.selection)
        if lease is None:
            from guntainer.store import asynchronous

            begun = (
                self._head_start.take(source.location, source.sha256)
                if self._head_start and cache and source.plain
                else None
            )
            lease = await asynchronous.acquire(
                store, source, self._unpackers, progress=self._report(source.name), begun=begun
            )
            for text in opening.not_as_packed(source.name, lease):
                self._note(text)
        self._leases.append(lease)
        opening.check_architecture(lease.architecture, source.name)
        return lease.rootfs

    def _report(self, name: str) -> Any:
        if self._progress is None:
            return None
        told = self._progress
        return lambda done, total: told(name, done, total)

    def release(self) -> None:
        """Give the leases back, and end unpacks that no job has come to wait for."""
        if self._head_start is not None:
            self._head_start.close()
        for lease in self._leases:
            lease.release()
        self._leases.clear()
        self._entries.clear()
