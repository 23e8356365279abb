"""Who is let in, in which order, and that no place is lost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from v2td.limit import PriorityLimit


async def test_the_urgent_come_first_then_the_early() -> None:
    limit = PriorityLimit(1)
    order: list[str] = []

    async def visit(name: str, priority: int) -> None:
        async with limit.inside(priority):
            order.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name, priority in (("first", 9), ("b", 5), ("c", 5), ("urgent", 0), ("a", 4)):
            group.create_task(visit(name, priority))
    assert order == ["first", "urgent", "a", "b", "c"]


@given(size=st.integers(1, 4), cancelled=st.lists(st.booleans(), min_size=1, max_size=20), yields=st.integers(0, 3))
def test_cancelled_waits_take_no_place(size: int, cancelled: list[bool], yields: int) -> None:
    async def scenario() -> None:
        limit = PriorityLimit(size)
        inside = most = done = 0

        async def visit() -> None:
            nonlocal inside, most, done
            async with limit.inside(5):
                inside += 1
                most = max(most, inside)
                try:
                    await asyncio.sleep(0)
                finally:
                    inside -= 1
                done += 1

        tasks = [asyncio.create_task(visit()) for _ in cancelled]
        for _ in range(yields):
            await asyncio.sleep(0)
        for task, gone in zip(tasks, cancelled, strict=True):
            if gone:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= size
        assert done >= cancelled.count(False)
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:  # all places are free again
            for _ in range(size):
                group.create_task(visit())

    asyncio.run(scenario())
