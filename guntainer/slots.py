"""Places for what may go on at once, given out by rank: the lowest rank that waits comes first, whoever came first."""

from __future__ import annotations

import heapq
from contextlib import asynccontextmanager

import anyio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Rank = tuple[float, ...]


class Slots:
    """A number of slots, each with a number of its own from 0.

    Args:
        total: how many there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = list(range(total))
        self._waiting: list[tuple[Rank, int, _Turn]] = []
        self._came = 0

    def __repr__(self) -> str:
        return f"Slots(total={self.total}, free={len(self._free)}, waiting={len(self._waiting)})"

    @asynccontextmanager
    async def take(self, rank: Rank) -> AsyncIterator[int]:
        """Wait for a slot; it is given back at the end of the block."""
        number = await self._turn(rank)
        try:
            yield number
        finally:
            self._give_back(number)

    async def _turn(self, rank: Rank) -> int:
        if self._free:
            return heapq.heappop(self._free)
        turn = _Turn()
        self._came += 1
        heapq.heappush(self._waiting, (rank, self._came, turn))
        try:
            await turn.come.wait()
        except BaseException:
            turn.given_up = True
            if turn.number >= 0:
                self._give_back(turn.number)  # it came together with the cancellation
            raise
        return turn.number

    def _give_back(self, number: int) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.given_up:
                turn.number = number
                turn.come.set()
                return
        heapq.heappush(self._free, number)


class _Turn:
    """Somebody who waits."""

    __slots__ = ("come", "given_up", "number")

    def __init__(self) -> None:
        self.come = anyio.Event()
        self.given_up = False
        self.number = -1
