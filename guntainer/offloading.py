"""Work that may take a while, in a thread, so that the event loop goes on."""

from __future__ import annotations

import anyio.to_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar, TypeVarTuple

    Result = TypeVar("Result")
    Arguments = TypeVarTuple("Arguments")


async def in_thread(work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Do `work` in a thread and wait for it; here and now where no more threads are allowed (RLIMIT_NPROC, pids.max)."""
    try:
        return await anyio.to_thread.run_sync(work, *arguments)
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        return work(*arguments)
