"""Slots are given out by rank, and none is lost to whoever gives up."""

from __future__ import annotations

import anyio

from guntainer.slots import Slots


def test_the_lowest_rank_first_and_the_lowest_number() -> None:
    order: list[tuple[str, int]] = []

    async def main() -> None:
        slots = Slots(2)

        async def one(name: str, rank: float) -> None:
            async with slots.take((rank,)) as number:
                order.append((name, number))
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            for name, rank in (("a", 9), ("b", 8), ("c", 3), ("d", 1), ("e", 2), ("f", 2)):
                tasks.start_soon(one, name, rank)
        assert repr(slots) == "Slots(total=2, free=2, waiting=0)"

    anyio.run(main)
    assert [name for name, _ in order] == ["a", "b", "d", "e", "f", "c"]
    assert {number for _, number in order} == {0, 1}


def test_whoever_gives_up_leaves_no_hole() -> None:
    async def main() -> Slots:
        slots = Slots(1)

        async def wait() -> None:
            async with slots.take((0,)):
                raise AssertionError("it was cancelled before")

        async with slots.take((0,)), anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with slots.take((0,)) as number:
            assert number == 0
        return slots

    slots = anyio.run(main)
    assert repr(slots) == "Slots(total=1, free=1, waiting=0)"


def test_a_slot_that_comes_together_with_a_cancellation_goes_on() -> None:
    async def main() -> Slots:
        slots = Slots(1)
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                async with slots.take((0,)):
                    pass

        async with anyio.create_task_group() as tasks:
            async with slots.take((0,)):
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
            scope.cancel()  # the slot was given to it a moment ago
        return slots

    assert repr(anyio.run(main)) == "Slots(total=1, free=1, waiting=0)"
