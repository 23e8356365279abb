"""The consumer group: members come and go, one of several dies, and a long backlog waits for one."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress

from aiokafka.errors import KafkaError

from tests.chaos.daemons import Daemon
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.joiner import joining
from tests.chaos.recovery import ends, until_behind, until_every_partition_moves
from tests.chaos.world import World

SESSION_SECONDS = 3.0  # the worlds' kafka.session_timeout_seconds
STORM_EVERY_SECONDS = 0.5
RESTART_EVERY_SECONDS = 20.0
STORM_PER_SECOND = 20
MOST_REDONE = 0.2
ONE_OF_THREE_DEADLINE = SESSION_SECONDS + 5.0
DONE_SECONDS = 90.0


async def storm(world: World, size: Size) -> Result:
    """Plain consumers join and leave all the time while three daemons work, one of which is restarted now and then."""
    restarts = size.pick(2, 30)
    joined = 0
    problems: list[str] = []

    async def come_and_go() -> None:
        nonlocal joined
        while True:
            with suppress(KafkaError):
                async with joining(world) as assigned:
                    await asyncio.wait([assigned], timeout=STORM_EVERY_SECONDS)
                    joined += 1

    daemons = await _three_daemons(world)
    async with world.producer.stream(STORM_PER_SECOND, path="/echo/3"):
        before = await world.done()
        storming = asyncio.create_task(come_and_go())
        for turn in range(restarts):
            await asyncio.sleep(RESTART_EVERY_SECONDS)
            await (world.daemons.kill if turn % 2 else world.daemons.stop)(daemons[turn % 3])
            daemons[turn % 3] = await world.daemons.start()
        meanwhile = await world.done() - before
        if storming.done():
            problems.append(f"the storm ended early: {storming.exception()!r}")
        storming.cancel()
        await asyncio.wait([storming])
    if meanwhile == 0:
        problems.append("no progress while members came and went")
    recovered = await until_every_partition_moves(world, DONE_SECONDS)
    await world.until_all_done(DONE_SECONDS)
    problems += await _stop(world, daemons)
    figures = {"joined": float(joined), "restarts": float(restarts), "done_in_the_storm": float(meanwhile)}
    result = await world.result(joined, [recovered], problems, figures)
    if result.redone_ratio >= MOST_REDONE:
        result.problems.append(f"{result.redone_ratio:.0%} of the work was done again")
    return result


async def one_of_three(world: World, size: Size) -> Result:
    """One of three daemons is killed: its partitions' jobs go on elsewhere, and it comes back."""
    recoveries: list[float] = []
    cycles = size.pick(1, 10)
    daemons = await _three_daemons(world)
    async with world.producer.stream(40, path="/echo/3"):
        await until_every_partition_moves(world, DONE_SECONDS)
        for cycle in range(cycles):
            before, since = ends(world), time.monotonic()
            await world.daemons.kill(daemons[cycle % 3])
            recoveries.append(await until_behind(world, before, 3 * ONE_OF_THREE_DEADLINE, since=since))
            daemons[cycle % 3] = await world.daemons.start()
            await until_every_partition_moves(world, DONE_SECONDS)
    await world.until_all_done(DONE_SECONDS)
    problems = within(recoveries, ONE_OF_THREE_DEADLINE, "one of three daemons is dead")
    problems += await _stop(world, daemons)
    return await world.result(cycles, recoveries, problems)


async def _three_daemons(world: World) -> list[Daemon]:
    daemons = [await world.daemons.start(wait=False) for _ in range(3)]
    for daemon in daemons:
        assert await daemon.ready(), daemon.tail()
    return daemons


async def _stop(world: World, daemons: list[Daemon]) -> list[str]:
    """Stop them at once, which costs one rebalance instead of three; returns the problems."""
    stopped = await asyncio.gather(*(world.daemons.stop(each) for each in daemons), return_exceptions=True)
    return [str(each) for each in stopped if isinstance(each, BaseException)]


async def backlog(world: World, size: Size) -> Result:
    """A daemon finds a long backlog, is killed in the middle, and its successor works off the rest."""
    count = size.pick(3000, 100_000)
    fast = {"ECHO_SECONDS": "0", "ECHO_SLOTS": "64"}
    await world.producer.send(count)
    began = time.monotonic()
    daemon = await world.daemons.start(environment=fast)
    async with AsyncExitStack() as stack:
        await world.until_progress(count // 3, count / 50)
        await world.daemons.kill(daemon)
        done = await world.done()
        since = time.monotonic()
        await stack.enter_async_context(world.daemons.running(environment=fast))
        recovered = await world.until_progress(done, 30, since=since)
        await world.until_all_done(count / 50)
        seconds = time.monotonic() - began
    return await world.result(1, [recovered], figures={"records_per_second": count / seconds})


FAULTS = (
    Fault("rebalance-storm", storm, "plain consumers join and leave the group of three daemons", (75, 750)),
    Fault("one-of-three", one_of_three, "one of three daemons is killed", (20, 150)),
    Fault("backlog", backlog, "3000 (long: 100,000) records wait; the daemon is killed in the middle", (20, 600)),
)
