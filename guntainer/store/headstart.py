"""Unpackers that are started before there is an event loop, to work while that is being imported.

A batch takes as long to import asyncio and what is built on it as an unpacker takes for a small rootfs. So the unpacks that
it will need are begun first, from a process that still has one thread and may fork; `preparation` goes on with each where
this module has left it. What can not be begun at once (another process unpacks it, it is missing, it is no archive) is left
to the ordinary way, which waits, or says what is wrong.
"""

from __future__ import annotations

import os

from guntainer import errors, interrupts
from guntainer.archive import worker
from guntainer.store.filling import Filling, wanted_archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.store.lookup import Store


class Begun:
    """One unpack under way: the steps so far, and its worker."""

    __slots__ = ("filling", "pid", "read", "task")

    def __init__(self, filling: Filling, task: worker.Task) -> None:
        self.filling = filling
        self.task = task
        self.pid, self.read = worker.fork(task)

    def end(self) -> None:
        """Kill the worker, and leave nothing half done."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.read)
        self.filling.close()


class HeadStart:
    """Unpacks under way that nobody has taken over yet."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str | None], Begun] = {}

    def begin(self, store: Store, sources: Iterable[tuple[str, str | None]], *, most: int) -> None:
        """Start unpackers for the first `most` (archive, sha256) that can be had. For a process with one thread."""
        for key in sources:
            if len(self._begun) >= most:
                return
            if key in self._begun or not os.path.isfile(key[0]):
                continue
            try:
                with interrupts.held():
                    begun = _begin(store, *key)
                    if begun is not None:
                        self._begun[key] = begun
            except (errors.GuntainerError, OSError):
                continue

    def take(self, location: str, sha256: str | None) -> Begun | None:
        """The unpack of an archive, to go on with: the caller ends it."""
        return self._begun.pop((location, sha256), None)

    def close(self) -> None:
        """End what nobody has taken over."""
        while self._begun:
            self._begun.popitem()[1].end()


def _begin(store: Store, archive: str, sha256: str | None) -> Begun | None:
    from guntainer.store import images

    if images.is_tar_of_image(archive):
        return None  # its layers are unpacked, not itself
    filling = Filling(store, wanted_archive(archive, sha256))
    begun = None
    try:
        if filling.lock(wait=False):
            task = filling.begin()
            if isinstance(task, worker.Task):
                begun = Begun(filling, task)
            else:
                task.release()
    finally:
        if begun is None:
            filling.close()
    return begun
