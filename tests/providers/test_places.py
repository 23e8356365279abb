"""Places at several providers: none is lost, none is given twice, whoever gives up waiting or working when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from v2td.limit import CURRENT, Priority
from v2td.providers.places import Places, by_depth, place

SIZES = st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=3)
VISITS = st.lists(
    st.tuples(
        st.sets(st.integers(0, 2), min_size=1),  # where it may go
        st.integers(0, 9),  # its priority
        st.integers(0, 4),  # how many turns of the loop it stays
        st.one_of(st.none(), st.integers(0, 9)),  # after how many it is cancelled
    ),
    max_size=40,
)


def first(free: Sequence[Places]) -> Places:
    return free[0]


@settings(deadline=None)
@given(sizes=SIZES, visits=VISITS)
def test_no_place_is_lost_or_given_twice(
    sizes: list[int | None], visits: list[tuple[set[int], int, int, int | None]]
) -> None:
    async def scenario() -> None:
        places = [Places(f"test-{number}", size) for number, size in enumerate(sizes)]
        inside = dict.fromkeys(places, 0)
        done = 0

        async def visit(where: set[int], priority: int, turns: int) -> None:
            nonlocal done
            async with place([places[each % len(places)] for each in where], priority, first) as found:
                inside[found] += 1
                try:
                    for each, size in zip(places, sizes, strict=True):
                        assert each.taken >= inside[each]
                        assert size in (0, None) or inside[each] <= size
                        assert size is not None or inside[each] <= 20
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    inside[found] -= 1
            done += 1

        async def cancel(task: asyncio.Task[None], turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()

        tasks, cancels = [], []
        for where, priority, turns, cancelled in visits:
            tasks.append(asyncio.create_task(visit({each % len(places) for each in where}, priority, turns)))
            if cancelled is not None:
                cancels.append(asyncio.create_task(cancel(tasks[-1], cancelled)))
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*cancels)
        assert done == sum(each is None for each in answers)
        assert all(each is None or isinstance(each, asyncio.CancelledError) for each in answers)
        for each in places:
            assert (each.taken, each.waiting) == (0, 0)
            assert each.free

    asyncio.run(scenario())


async def test_a_free_place_elsewhere_is_taken_before_any_waiting() -> None:
    one, two = Places("test-one", 1), Places("test-two", 1)
    async with place([one, two], 5, first) as found, place([one, two], 5, first) as other:
        assert {found, other} == {one, two}
        assert not one.free
        assert not two.free
    assert one.free


async def test_who_comes_to_a_free_place_passes_nobody() -> None:
    """A place that comes free is given away at once: whoever comes next finds none, however urgent."""
    places = Places("test-turn", 1)
    order: list[str] = []

    async def visit(name: str, priority: int) -> None:
        async with place([places], priority, first):
            order.append(name)

    async with place([places], 5, first):
        waiting = asyncio.create_task(visit("early", 9))
        await asyncio.sleep(0)
    late = asyncio.create_task(visit("late", 0))
    await asyncio.wait({waiting, late})
    assert order == ["early", "late"]


async def test_who_gets_another_priority_waits_by_that() -> None:
    one, two = Places("test-one", 1), Places("test-two", 1)
    order: list[str] = []
    priorities = {name: Priority(5) for name in ("a", "b", "c", "d")}

    async def visit(name: str) -> None:
        CURRENT.set(priorities[name])
        async with place([one, two], 5, first):
            order.append(name)

    async with place([one], 5, first), place([two], 5, first):
        waiting = [asyncio.create_task(visit(name)) for name in priorities]
        await asyncio.sleep(0)
        for name, changes in (("a", (9,)), ("b", (0, 5)), ("c", (7, 0)), ("d", (1,))):
            for value in changes:
                priorities[name].change(value)
    await asyncio.wait(waiting)
    assert order == ["c", "d", "b", "a"]
    assert (one.taken, two.taken, one.waiting, two.waiting) == (0, 0, 0, 0)


def test_the_seeds_batch_sizes() -> None:
    assert [by_depth(each) for each in (0, 100, 101, 1000, 1001)] == [5, 5, 10, 10, 20]
