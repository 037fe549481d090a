"""Fill the store, and wait for it without an event loop: several entries side by side, each by a worker of its own.

Nobody waits for a lock while a worker of his has nothing to do, and whoever has a lock works: no two can wait for each other.
"""

from __future__ import annotations

import os

from guntainer import errors, interrupts
from guntainer.archive import worker
from guntainer.store.filling import Filling, ImageInside, crashed, failure
from guntainer.store.lookup import Lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Progress = Callable[[int, int], None]
    Meanwhile = Callable[[], None]

_KILL = 9
_LOOK_AGAIN_S = 0.05


class Working:
    """A worker under way."""

    def __init__(self, task: worker.Task) -> None:
        self.name = task.name
        self.pid = self.read = -1
        with interrupts.held():
            try:
                self.pid, self.read = worker.fork(task)
            except BlockingIOError:
                why, hint = worker.no_process(task.name)
                raise errors.Exhausted(why, hint=hint, probe="nproc") from None
        self.done = self.total = 0
        self._pipe = worker.Pipe()
        self._last: tuple[Any, ...] | None = None

    def more(self) -> dict[str, Any] | None:
        """Read what it says; its facts, when it is through.

        Raises:
            GuntainerError: what it has failed for.
        """
        data = os.read(self.read, 1 << 16)
        for message in self._pipe.feed(data):
            if message[0] == "progress":
                self.done, self.total = message[1:]
            else:
                self._last = message
        if data:
            return None
        status = os.waitpid(self.pid, 0)[1]
        self.pid = -1
        if self._last is None:
            raise crashed(self.name, status)
        if self._last[0] == "failed":
            raise failure(self._last)
        facts: dict[str, Any] = self._last[1]
        return facts

    def close(self) -> None:
        """It is dead and waited for after this."""
        if self.pid > 0:
            os.kill(self.pid, _KILL)
            os.waitpid(self.pid, 0)
            self.pid = -1
        if self.read >= 0:
            os.close(self.read)
            self.read = -1


class Crew:
    """Several fillings side by side, for a process with one thread.

    Args:
        most: workers at once.
        meanwhile: called once the first of them works.
    """

    def __init__(
        self,
        fillings: Sequence[Filling],
        most: int,
        progress: Progress | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> None:
        self._meanwhile = meanwhile
        self._waiting = list(fillings)
        self._most = most
        self._progress = progress
        self._at_work: dict[int, tuple[Working, Filling]] = {}
        self._leases: dict[Filling, Lease] = {}
        self._read = 0
        self._total = sum(filling.wanted.size_bytes for filling in fillings)

    def run(self) -> dict[Filling, Lease]:
        """Fill them all; the leases are the caller's.

        Raises:
            GuntainerError: of one of them; the others are ended, and nothing of them is kept or leased.
        """
        import select

        poll = select.poll()
        done = False
        try:
            while self._waiting or self._at_work:
                self._start(poll)
                if self._at_work and self._meanwhile is not None:
                    go_on, self._meanwhile = self._meanwhile, None
                    go_on()
                if not (self._waiting or self._at_work):
                    break  # all of them were there
                for fd, _events in poll.poll(
                    _LOOK_AGAIN_S * 1000 if len(self._at_work) < self._most and self._waiting else None
                ):
                    self._hear(fd, poll)
            done = True
            return self._leases
        finally:
            for working, filling in self._at_work.values():
                working.close()
                filling.close()
            for filling in self._waiting:
                filling.close()  # one whose lock was taken at the moment of a signal
            if not done:
                for lease in self._leases.values():
                    lease.release()
            if self._progress is not None:
                self._progress(1, 1)

    def _start(self, poll: Any) -> None:
        """Begin what can be begun; wait for a lock only where nothing else is to do."""
        for filling in list(self._waiting):
            if len(self._at_work) >= self._most:
                return
            if not filling.lock(wait=not self._at_work and len(self._waiting) == 1):
                continue
            # whatever interrupts this, `run` closes it: it leaves `_waiting` when it is in its next place
            begun = filling.begin()
            if isinstance(begun, Lease):
                self._leases[filling] = begun
                filling.close()
            else:
                with interrupts.held():
                    working = Working(begun)
                    self._at_work[working.read] = (working, filling)
                poll.register(working.read, 1)  # POLLIN; its end is told anyway
            self._waiting.remove(filling)

    def _hear(self, fd: int, poll: Any) -> None:
        working, filling = self._at_work[fd]
        facts = working.more()  # where this raises, `run` ends what is at work
        if facts is None:
            self._tell()
            return
        poll.unregister(fd)
        self._read += working.total
        working.close()
        try:
            self._leases[filling] = filling.finish(facts)
        except ImageInside:
            del self._at_work[fd]  # who catches it reads there, and closes it
            raise
        filling.close()
        del self._at_work[fd]

    def _tell(self) -> None:
        if self._progress is not None:
            done = self._read + sum(working.done for working, _ in self._at_work.values())
            self._progress(done, max(done, self._total))


def workers() -> int:
    """How many work side by side: one per core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))
