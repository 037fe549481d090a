"""Rootfs for many jobs at once: each source is opened once, at most one per core at a time, and leased to the end."""

from __future__ import annotations

import os

import anyio

from guntainer import errors, opening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.jobs.model import Job, Source
    from guntainer.runfolder import RunFolder
    from guntainer.store.headstart import HeadStart
    from guntainer.store.lookup import Lease, Store

    Progress = Callable[[str, int, int], None]


class _Entry:
    """One source: being opened, open, or failed."""

    __slots__ = ("error", "lock", "tree")

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.tree = ""
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
        self._entries: dict[tuple[str, str | None, bool], _Entry] = {}
        self._leases: list[Lease] = []
        self._unpackers = anyio.CapacityLimiter(max(1, len(os.sched_getaffinity(0))))

    async def tree(self, job: Job) -> str:
        """The folder of a job's rootfs; waits for it to be unpacked.

        Raises:
            GuntainerError: it can not be had; the same error for every job that names it.
        """
        key = (job.rootfs.location, job.rootfs.sha256, job.cache)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
        if entry.tree:
            return entry.tree
        async with entry.lock:
            if entry.error is not None:
                raise entry.error
            if not entry.tree:
                try:
                    entry.tree = await self._open(job.rootfs, cache=job.cache)
                except errors.GuntainerError as error:
                    entry.error = error
                    raise
        return entry.tree

    async def _open(self, source: Source, *, cache: bool) -> str:
        path, name = source.location, source.name or source.location
        if opening.kind_of(path, name, source.sha256) == "folder":
            return path
        if cache:
            lease = self._store.find(path, source.sha256)
            if lease is None:
                lease = await self._fill(source)
                for text in opening.not_as_packed(name, lease):
                    self._note(text)
            self._leases.append(lease)
            opening.check_architecture(lease.architecture, name)
            return str(lease.tree)
        from guntainer.store import asynchronous

        async with self._unpackers:
            into = f"{self._run().path}/rootfs-{len(self._entries)}"
            return str(
                await asynchronous.unpack_temporary(
                    path, into, ids=self._store.ids, sha256=source.sha256, progress=self._report(name)
                )
            )

    async def _fill(self, source: Source) -> Lease:
        from guntainer.store import asynchronous

        async with self._unpackers:
            begun = self._head_start.take(source.location, source.sha256) if self._head_start else None
            return await asynchronous.lease(
                self._store, source.location, sha256=source.sha256, progress=self._report(source.name), begun=begun
            )

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
