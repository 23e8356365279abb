"""Brokers die, are restarted, and hand their partitions to each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from tests.chaos.cluster import Broker, Cluster, cluster
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.recovery import ends, failed_for_good, until_behind, until_every_partition_moves
from tests.chaos.world import World

PER_SECOND = 30
DEADLINE = 15.0  # after the return, and here also after a death while two of three are left
AWAY_SECONDS = 2.0
DONE_SECONDS = 60.0

# What is done to a cluster: returns how long it took, each time, until every partition moved.
Deed = Callable[[World, Cluster, int], Awaitable[list[float]]]


async def brokers(world: World, size: Size) -> Result:
    """A broker is killed, one is restarted in good order and made leader again, all are killed."""
    cycles = size.pick(1, 10)
    deeds: dict[str, Deed] = {"killed": _kill_one, "restarted": _restart_one, "all_killed": _kill_all}
    recoveries: list[float] = []
    problems: list[str] = []
    figures: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        three = await stack.enter_async_context(cluster())
        services = replace(world.services, kafka_bootstrap=three.bootstrap)
        own = await stack.enter_async_context(world.elsewhere(services, replication=len(three.brokers)))
        async with own.daemons.running():
            async with own.producer.stream(PER_SECOND):
                await until_every_partition_moves(own, 2 * DEADLINE)
                for number in range(cycles):
                    for name, deed in deeds.items():
                        await three.until_in_sync(own.topic)
                        seconds = await deed(own, three, number % own.producer.partitions)
                        recoveries += seconds
                        problems += within(seconds, DEADLINE, name)
                        figure = f"{name}_recovery_seconds"
                        figures[figure] = max(figures.get(figure, 0.0), *seconds)
            await own.until_all_done(DONE_SECONDS)
        problems += await failed_for_good(own)
        return await own.result(cycles * len(deeds), recoveries, problems, figures)


async def _kill_one(world: World, three: Cluster, partition: int) -> list[float]:
    """Kill the partition's leader: the work goes on without it, and with it when it is back."""
    broker = await _leader(world, three, partition)
    before = ends(world)
    await broker.kill()
    without = await until_behind(world, before, 3 * DEADLINE)
    await broker.start()
    return [without, await until_every_partition_moves(world, 3 * DEADLINE)]


async def _restart_one(world: World, three: Cluster, partition: int) -> list[float]:
    """Restart the partition's leader, then let it lead again: leaders change twice, the second time without a death."""
    broker = await _leader(world, three, partition)
    await broker.stop()
    await broker.start()
    back = await until_every_partition_moves(world, 3 * DEADLINE)
    await three.until_in_sync(world.topic)
    began = time.monotonic()
    changed = await three.elect_preferred(world.topic)
    assert changed, "no leader changed: nothing was tried"
    return [back, await until_every_partition_moves(world, 3 * DEADLINE, since=began)]


async def _kill_all(world: World, three: Cluster, _partition: int) -> list[float]:
    """Kill all brokers, and start them after a while."""
    before = ends(world)
    await asyncio.gather(*(broker.kill() for broker in three.brokers))
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.gather(*(broker.start() for broker in three.brokers))
    return [await until_behind(world, before, 3 * DEADLINE)]


async def _leader(world: World, three: Cluster, partition: int) -> Broker:
    leader = (await three.leaders(world.topic))[partition]
    assert leader is not None
    return leader


FAULTS = (
    Fault("brokers", brokers, "one of three brokers is killed, restarted, made leader; all are killed", (45, 400)),
)
