from __future__ import annotations

import asyncio
from collections import Counter

from aigate.keeper.batches.slots import Slots


def test_what_becomes_free_goes_to_who_has_the_fewest() -> None:
    async def test() -> None:
        slots = Slots(4)
        holding: Counter[str] = Counter()
        order: list[str] = []

        async def take(owner: str) -> None:
            await slots.take(owner)
            holding[owner] += 1
            order.append(owner)

        for _ in range(4):
            await take("large")
        waiting = [asyncio.create_task(take(owner)) for owner in ["large"] * 4 + ["small"] * 2 + ["third"]]
        await asyncio.sleep(0)
        for _ in range(4):
            slots.give("large")
            holding["large"] -= 1
            await asyncio.sleep(0)
        assert holding == {"large": 1, "small": 2, "third": 1}
        assert order[4:] == ["small", "third", "large", "small"]
        for task in waiting:
            task.cancel()

    asyncio.run(asyncio.wait_for(test(), 5))


def test_a_turn_that_comes_to_one_who_left_goes_on() -> None:
    async def test() -> None:
        slots = Slots(1)
        await slots.take("a")
        first, second = asyncio.create_task(slots.take("b")), asyncio.create_task(slots.take("c"))
        await asyncio.sleep(0)
        slots.give("a")
        first.cancel()  # it has its turn by now, and did not hear of it
        await second
        third = asyncio.create_task(slots.take("d"))
        await asyncio.sleep(0)
        third.cancel()
        await asyncio.gather(first, third, return_exceptions=True)
        slots.give("c")
        await asyncio.wait_for(slots.take("e"), 1)

    asyncio.run(asyncio.wait_for(test(), 5))
