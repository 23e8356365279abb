"""Failpoints that raise and that hang: whatever breaks inside, the daemon goes on or ends, and can be stopped."""

from __future__ import annotations

import asyncio
import itertools
import signal
from contextlib import AsyncExitStack
from typing import Any, Literal

from tests.chaos.daemons import Daemon
from tests.chaos.fault import Fault, Result, Size
from tests.chaos.faults.kill import IN_CHILDREN, visit_that_counts
from tests.chaos.joiner import joining
from tests.chaos.telling import telling
from tests.chaos.world import World
from v2td import failpoints

Action = Literal["raise", "hang"]

PLACES = tuple(place for place in failpoints.PLACES if place not in IN_CHILDREN)
HANGS_SHORT = ("pipeline.heard", "write.copied", "commit.begin", "progress.written", "drain.begin")
PER_SECOND = 20
REACH_SECONDS = 30.0
# What a hang inside may cost at the end: the settings below, a flush and a commit, and a second signal after that.
DRAIN_SECONDS = 1.0
STOP_SECONDS = 2.0
END_SECONDS = DRAIN_SECONDS + STOP_SECONDS + 5 + 5 + 2
ALL_DONE_SECONDS = 60.0
LONG_PATH = "/echo/100"  # windows that outlast progress_seconds, on a fast machine too


async def raising(world: World, size: Size) -> Result:
    """Raise a bug's exception at each place in turn."""
    return await _each(world, PLACES, "raise", size.pick(1, 5))


async def hanging(world: World, size: Size) -> Result:
    """Hang at places of each kind in turn, or at all of them; the daemon has to end in time when it is asked to."""
    return await _each(world, size.pick(HANGS_SHORT, PLACES), "hang", size.pick(1, 3))


async def _each(world: World, places: tuple[str, ...], action: Action, rounds: int) -> Result:
    async with telling(world) as told:
        return await told.judge(await _rounds(world, places, action, rounds, told.settings))


async def _rounds(
    world: World, places: tuple[str, ...], action: Action, rounds: int, settings: dict[str, Any]
) -> Result:
    problems: list[str] = []
    for place in itertools.chain.from_iterable(itertools.repeat(places, rounds)):
        problem = await _at(world, place, action, settings)
        if problem:
            problems.append(f"{action} at {place}: {problem}")
    await world.daemons.start(member="chaos", **settings)
    await world.until_all_done(ALL_DONE_SECONDS)
    return await world.result(rounds * len(places), problems=problems)


async def _at(world: World, place: str, action: Action, settings: dict[str, Any]) -> str | None:
    """Let a daemon come to the place, and end it; returns what was wrong."""
    await world.producer.send(10)
    await world.producer.send(1, LONG_PATH)
    await world.producer.send(1, "/status/404")
    before = world.daemons.went_off
    daemon = await world.daemons.start(
        member="chaos",
        failpoints=f"{place}={action}@{visit_that_counts(place)}",
        wait=False,
        pipeline__drain_seconds=DRAIN_SECONDS,
        pipeline__stop_seconds=STOP_SECONDS,
        **settings,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(world.producer.stream(PER_SECOND))
        if place.startswith("revoke") and await daemon.ready():
            await stack.enter_async_context(joining(world))
        if place.startswith("drain") and await daemon.ready():
            daemon.process.send_signal(signal.SIGTERM)
        reached = await _reached(world, before)
        await asyncio.sleep(0.3)
        await _end(world, daemon)
    if not reached:
        return "was not reached"
    return None if await _ended(world, daemon) else f"still there {END_SECONDS:g} s after SIGTERM\n{daemon.tail()}"


async def _reached(world: World, before: int) -> bool:
    try:
        async with asyncio.timeout(REACH_SECONDS):
            while world.daemons.went_off == before:
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


async def _end(world: World, daemon: Daemon) -> None:
    if daemon.running:
        daemon.process.send_signal(signal.SIGTERM)


async def _ended(world: World, daemon: Daemon) -> bool:
    """Whether the daemon ended by itself in time; it has ended when this returns."""
    try:
        async with asyncio.timeout(END_SECONDS):
            await daemon.process.wait()
    except TimeoutError:
        await world.daemons.kill(daemon)
        return False
    await world.daemons.bury(daemon, 1)
    return True


FAULTS = (
    Fault("failpoints-raise", raising, "an exception at each failpoint", (50, 300)),
    Fault("failpoints-hang", hanging, "a hang at failpoints: the daemon can still be stopped in time", (50, 500)),
)
