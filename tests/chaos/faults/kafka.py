"""Brokers die, are restarted, and hand their partitions to each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from tests.chaos.cluster import Broker, Cluster, cluster
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.recovery import until_every_partition_moves
from tests.chaos.world import World

PER_SECOND = 60
DEADLINE = 15.0  # after the return, and here also after a death while two of three are left
AWAY_SECONDS = 2.0
DONE_SECONDS = 60.0


async def killed(world: World, size: Size) -> Result:
    """One of three brokers is killed, the work goes on, and it comes back."""

    async def run(own: World, three: Cluster, cycles: int) -> tuple[list[float], list[str]]:
        recoveries: list[float] = []
        without: list[float] = []
        for cycle in range(cycles):
            await three.until_in_sync(own.topic)
            broker = await _leader(own, three, partition=cycle % own.producer.partitions)
            await broker.kill()
            without.append(await until_every_partition_moves(own, 3 * DEADLINE, since=time.monotonic()))
            await broker.start()
            recoveries.append(await until_every_partition_moves(own, 3 * DEADLINE, since=time.monotonic()))
        return recoveries, within(without, DEADLINE, "one of three brokers is dead")

    return await _under_load(world, run, size.pick(1, 10))


async def all_killed(world: World, size: Size) -> Result:
    """All brokers are killed and started again."""

    async def run(own: World, three: Cluster, cycles: int) -> tuple[list[float], list[str]]:
        recoveries: list[float] = []
        for _ in range(cycles):
            await three.until_in_sync(own.topic)
            await asyncio.gather(*(broker.kill() for broker in three.brokers))
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.gather(*(broker.start() for broker in three.brokers))
            recoveries.append(await until_every_partition_moves(own, 3 * DEADLINE, since=time.monotonic()))
        return recoveries, []

    return await _under_load(world, run, size.pick(1, 10))


async def restarted(world: World, size: Size) -> Result:
    """A broker is restarted in good order, and then leads its partitions again: leaders change twice."""

    async def run(own: World, three: Cluster, cycles: int) -> tuple[list[float], list[str]]:
        recoveries: list[float] = []
        problems: list[str] = []
        for cycle in range(cycles):
            await three.until_in_sync(own.topic)
            broker = await _leader(own, three, partition=cycle % own.producer.partitions)
            await broker.stop()
            await broker.start()
            recoveries.append(await until_every_partition_moves(own, 3 * DEADLINE, since=time.monotonic()))
            await three.until_in_sync(own.topic)
            if not await three.elect_preferred(own.topic):
                problems.append("no leader changed: nothing was tried")
            recoveries.append(await until_every_partition_moves(own, 3 * DEADLINE, since=time.monotonic()))
        return recoveries, problems

    return await _under_load(world, run, size.pick(1, 10))


async def _under_load(
    world: World, run: Callable[[World, Cluster, int], Awaitable[tuple[list[float], list[str]]]], cycles: int
) -> Result:
    """Let `run` do its worst to a cluster while jobs arrive; it returns recoveries and problems."""
    async with cluster() as three:
        services = replace(world.services, kafka_bootstrap=three.bootstrap)
        async with world.elsewhere(services, replication=len(three.brokers)) as own:
            async with own.daemons.running():
                async with own.producer.stream(PER_SECOND):
                    await until_every_partition_moves(own, 2 * DEADLINE, since=time.monotonic())
                    recoveries, problems = await run(own, three, cycles)
                await own.until_all_done(DONE_SECONDS)
            problems += within(recoveries, DEADLINE, "the brokers are back")
            return await own.result(cycles, recoveries, problems)


async def _leader(world: World, three: Cluster, partition: int) -> Broker:
    leader = (await three.leaders(world.topic))[partition]
    assert leader is not None
    return leader


FAULTS = (
    Fault("broker-killed", killed, "one of three brokers is killed and started again", (25, 200)),
    Fault("brokers-killed", all_killed, "all three brokers are killed and started again", (25, 200)),
    Fault("broker-restarted", restarted, "a broker is restarted, then leads again", (25, 200)),
)
