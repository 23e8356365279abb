"""When a world is well again: records that came after a fault have their outcomes, in each partition.

All of them stop to wait after `seconds` and return what has passed by then, since `since` (time.monotonic()):
`within` makes a problem of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from tests.chaos.producer import Sent
from tests.chaos.world import LOOK_SECONDS, TROUBLE, World

_OUTCOMES = """
SELECT job_id FROM transcriptions WHERE job_id = ANY($1)
UNION SELECT job_id FROM failures WHERE job_id = ANY($1) AND replay_state IS DISTINCT FROM 'requested'
"""
_NEWEST = """
SELECT kafka_partition AS part, max(kafka_offset) AS newest FROM (
    SELECT topic, kafka_partition, kafka_offset FROM transcriptions
    UNION ALL SELECT topic, kafka_partition, kafka_offset FROM failures
) AS outcomes WHERE topic = $1 GROUP BY kafka_partition
"""


def ends(world: World) -> dict[int, int]:
    """Return the highest acknowledged offset of each partition."""
    highest: dict[int, int] = {}
    for record in world.producer.acknowledged:
        highest[record.partition] = max(record.offset, highest.get(record.partition, -1))
    return highest


async def until_every_partition_moves(
    world: World, seconds: float, *, since: float | None = None, **keys: Any
) -> float:
    """Send a record to each partition and wait for their outcomes; `keys` as for Producer.send."""
    since = time.monotonic() if since is None else since
    partitions = range(world.producer.partitions)
    with suppress(TimeoutError):
        async with asyncio.timeout(since + seconds - time.monotonic()):
            sent = await asyncio.gather(*(_sent(world, partition, keys) for partition in partitions))
            await until_finished(world, sent, seconds, since=since)
    return time.monotonic() - since


async def until_behind(world: World, ends: dict[int, int], seconds: float, *, since: float | None = None) -> float:
    """Wait for the outcome of a record behind the end of each partition: one that no daemon had fetched by then."""
    since = time.monotonic() if since is None else since
    while time.monotonic() < since + seconds:
        with suppress(*TROUBLE):
            done = {row["part"]: row["newest"] for row in await world.rows(_NEWEST, world.topic)}
            if all(done.get(partition, -1) > end for partition, end in ends.items()):
                break
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - since


async def until_finished(
    world: World, records: Collection[Sent], seconds: float = 60.0, *, since: float | None = None
) -> float:
    """Wait until each of the records has an outcome."""
    since = time.monotonic() if since is None else since
    wanted = {record.job_id for record in records}
    while wanted and time.monotonic() < since + seconds:
        with suppress(*TROUBLE):  # the database is what is being troubled
            wanted -= {row["job_id"] for row in await world.rows(_OUTCOMES, list(wanted))}
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - since


async def failed_for_good(world: World) -> list[str]:
    """Return a problem for each reason of a failure: where all jobs are good, a fault of ours may not fail one."""
    rows = await world.rows("SELECT reason, count(*) AS jobs FROM failures GROUP BY reason")
    return [f"{row['jobs']} × failed for good: {row['reason']}" for row in rows]


async def _sent(world: World, partition: int, keys: dict[str, Any]) -> Sent:
    """Return a record once a broker has acknowledged it; those that were not are among the unsure."""
    while True:
        for record in await world.producer.send(partition=partition, **keys):
            return record
        await asyncio.sleep(LOOK_SECONDS)
