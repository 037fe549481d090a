"""`fill` for an event loop: the same steps, waiting without blocking, cancellable at every point."""

from __future__ import annotations

import asyncio
import os

import anyio

from guntainer import errors
from guntainer.archive import worker
from guntainer.idmap import Ids
from guntainer.offloading import in_thread
from guntainer.store import fill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.store.headstart import Begun
    from guntainer.store.lookup import Lease, Store

_LOOK_AGAIN_S = 0.05
_PATIENCE_S = 30.0
_KILL = 9


async def lease(
    store: Store,
    archive: str,
    *,
    sha256: str | None = None,
    progress: fill.Progress | None = None,
    limits: fill.LimitPair | None = None,
    begun: Begun | None = None,
) -> Lease:
    """As `fill.lease`. Cancelled, it kills its worker and leaves nothing half done.

    Args:
        begun: an unpack of this archive that is under way already.
    """
    filling = begun.filling if begun is not None else fill.Filling(store, archive, sha256, limits)
    try:
        if begun is not None:
            return filling.finish(await _work(begun.task, begun.pid, begun.read, progress))
        while not filling.lock(wait=False):
            await anyio.sleep(_LOOK_AGAIN_S)
        task = filling.begin()
        if not isinstance(task, worker.Task):
            return task
        return filling.finish(await _work(task, *await _spawn(task), progress))
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(filling.close)


async def unpack_temporary(
    archive: str,
    into: str,
    *,
    ids: Ids = Ids(),
    sha256: str | None = None,
    progress: fill.Progress | None = None,
    limits: fill.LimitPair | None = None,
) -> str:
    """As `fill.unpack_temporary`."""
    task = fill.temporary_task(archive, into, ids, sha256, limits)
    return fill.temporary_tree(task, await _work(task, *await _spawn(task), progress), sha256)


async def _spawn(task: worker.Task) -> tuple[int, int]:
    """Start a worker; where no more processes are allowed just now, wait for others to end.

    Raises:
        Exhausted: none has for _PATIENCE_S.
    """
    for _ in range(int(_PATIENCE_S / _LOOK_AGAIN_S)):
        try:
            return worker.spawn(task)
        except BlockingIOError:
            await anyio.sleep(_LOOK_AGAIN_S)
    message, hint = worker.no_process(task.name)
    raise errors.Exhausted(message, hint=hint, probe="nproc")


async def _work(task: worker.Task, pid: int, read: int, progress: fill.Progress | None) -> dict[str, Any]:
    """Wait for a worker; whatever interrupts this, it is dead and waited for afterwards."""
    last: tuple[Any, ...] | None = None
    ended = False
    pidfd = -1
    try:
        os.set_blocking(read, False)
        pidfd = os.pidfd_open(pid)
        pipe = worker.Pipe()
        while True:
            try:
                data = os.read(read, 1 << 16)
            except BlockingIOError:
                await _readable(read)
                continue
            if not data:
                break
            for message in pipe.feed(data):
                if message[0] != "progress":
                    last = message
                elif progress is not None:
                    progress(message[1], message[2])
        await _readable(pidfd)
        status = os.waitpid(pid, 0)[1]
        ended = True
        if last is None:
            raise fill.crashed(task.name, status)
        if last[0] == "failed":
            raise fill.failure(last)
        facts: dict[str, Any] = last[1]
        return facts
    finally:
        if not ended:
            os.kill(pid, _KILL)
            if pidfd >= 0:
                with anyio.CancelScope(shield=True):
                    await _readable(pidfd)
            os.waitpid(pid, 0)
        if pidfd >= 0:
            os.close(pidfd)
        os.close(read)


async def _readable(fd: int) -> None:
    """Wait until a descriptor is readable."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
