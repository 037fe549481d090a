"""`acquire` and `fill` for an event loop: the same steps, waiting without blocking, cancellable at every point."""

from __future__ import annotations

import asyncio
import os

import anyio
import anyio.to_thread

from guntainer import errors
from guntainer.archive import worker
from guntainer.offloading import in_thread
from guntainer.store import acquire as acquiring
from guntainer.store.filling import Filling, ImageInside, crashed, failure
from guntainer.store.lookup import Lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.jobs.model import Source
    from guntainer.store import fill
    from guntainer.store.acquire import Call, Fill
    from guntainer.store.headstart import Begun
    from guntainer.store.lookup import Store

_LOOK_AGAIN_S = 0.05
_PATIENCE_S = 30.0
_KILL = 9


async def acquire(
    store: Store,
    source: Source,
    workers: anyio.CapacityLimiter,
    *,
    progress: fill.Progress | None = None,
    begun: Begun | None = None,
) -> Lease:
    """As `acquire.acquire`. Cancelled, it kills its workers and leaves nothing half done.

    Args:
        workers: bounds those of all that ask.
        begun: an unpack of this source that is under way already.
    """
    way = acquiring.steps(store, source, begun)
    try:
        try:
            step = next(way)
        except errors.GuntainerError:
            if begun is not None:
                begun.end()  # its archive is gone
            raise
        while True:
            try:
                result = await _go(step, workers, progress)
            except BaseException as error:
                step = way.throw(error)
            else:
                step = way.send(result)
    except StopIteration as end:
        lease: Lease = end.value
        return lease


async def _go(step: Call | Fill, workers: anyio.CapacityLimiter, progress: fill.Progress | None) -> Any:
    if isinstance(step, acquiring.Call):
        if step.remote:
            return await _abandonable(step.function)
        return await in_thread(step.function)
    return await _side_by_side(step, workers, progress)


async def _abandonable(function: Callable[[], Any]) -> Any:
    """In a thread that nobody waits for any more when this is cancelled: it has time limits of its own."""
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


async def _side_by_side(
    step: Fill, workers: anyio.CapacityLimiter, progress: fill.Progress | None
) -> dict[Filling, Lease]:
    done: dict[Filling, int] = dict.fromkeys(step.fillings, 0)
    total = sum(filling.wanted.size_bytes for filling in step.fillings)
    leases: dict[Filling, Lease] = {}
    failed: list[BaseException] = []

    async def one(filling: Filling) -> None:
        def told(read: int, size: int) -> None:
            done[filling] = read
            if progress is not None:
                progress(sum(done.values()), max(total, size))

        try:
            leases[filling] = await _filled(filling, step.begun, workers, told)
        except Exception as error:
            failed.append(error)
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for filling in step.fillings:
                group.start_soon(one, filling)
        if failed:
            raise failed[0]
    except BaseException:
        for lease in leases.values():
            lease.release()
        raise
    if progress is not None:
        progress(1, 1)
    return leases


async def _filled(
    filling: Filling, begun: Begun | None, workers: anyio.CapacityLimiter, progress: fill.Progress
) -> Lease:
    """One entry: a worker's turn, its lock, its place. Who has a lock works, so that others can have those of the rest."""
    inside = False
    try:
        if begun is not None:
            return filling.finish(await _gone_on_with(begun, workers, progress))
        while True:
            async with workers:
                if filling.lock(wait=False):
                    task = await in_thread(filling.begin)
                    if isinstance(task, Lease):
                        return task
                    return filling.finish(await _work(task, *await _spawn(task), progress))
            await anyio.sleep(_LOOK_AGAIN_S)  # another has it
    except ImageInside:
        inside = True  # who catches it reads there, and closes it
        raise
    finally:
        if not inside:
            with anyio.CancelScope(shield=True):
                await in_thread(filling.close)


async def _gone_on_with(begun: Begun, workers: anyio.CapacityLimiter, progress: fill.Progress) -> dict[str, Any]:
    """The facts of a worker that is under way; it counts as one of all, and does not outlive this."""
    waiting = True
    try:
        async with workers:
            waiting = False
            return await _work(begun.task, begun.pid, begun.read, progress)
    finally:
        if waiting:
            begun.end()


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
            raise crashed(task.name, status)
        if last[0] == "failed":
            raise failure(last)
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
