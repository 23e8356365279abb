"""When records under way have come to an end."""

import asyncio
import time

from v2td.intake.works import Work, Works
from v2td.jobs import Coordinates


def at(offset: int, partition: int = 0) -> Coordinates:
    return Coordinates("cluster", "jobs", partition, offset, 0)


async def test_it_waits_as_long_as_records_end_and_no_longer() -> None:
    works = Works()
    under_way = [Work([]) for _ in range(4)]
    for offset, work in enumerate(under_way):
        works.add(at(offset), work)
    loop = asyncio.get_running_loop()
    for offset, work in enumerate(under_way[:3]):
        loop.call_later(0.2 * (offset + 1), works.remove, at(offset), work)
    began = time.monotonic()
    assert not await works.until_idle(5, patience=0.4)
    assert 0.9 < time.monotonic() - began < 2
    assert works.in_flight == 1
    loop.call_later(0.1, works.remove, at(3), under_way[3])
    assert await works.until_idle(5, patience=0.4)
    assert await works.until_idle(0)


async def test_what_is_held_counts_for_nothing_until_it_is_released() -> None:
    works = Works()
    works.add(at(0), held := Work([], due=1.0), held=True)
    assert (works.in_flight, list(works.under_way()), works.holding()) == (0, [], {("jobs", 0)})
    assert await works.until_idle(0)
    works.release(at(0))
    assert (works.in_flight, list(works.under_way()), works.holding()) == (1, [at(0)], set())
    assert not await works.until_idle(0.05)
    works.remove(at(0), held)
    assert works.in_flight == 0


async def test_one_that_was_given_up_and_came_back_outlives_its_first_end() -> None:
    works = Works()
    works.add(at(0), first := Work([], due=1.0), held=True)
    works.cancel_held()
    assert first.cancelled
    assert works.get(at(0)) is None
    works.add(at(0), second := Work([]))
    works.remove(at(0), first)
    assert works.get(at(0)) is second
    assert works.in_flight == 1
    works.cancel(lambda where: where.partition == 1)
    assert works.get(at(0)) is second
    works.remove(at(0), second)
    assert await works.until_idle(0)
