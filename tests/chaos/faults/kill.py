"""kill -9 of the daemon: at each failpoint and at random, a thousand times if asked; and of the parent of children."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.daemons import Daemon
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.joiner import joining
from tests.chaos.telling import telling
from tests.chaos.world import World
from v2td import failpoints

SEED = 5
JOBS = 40  # of one window, for each cycle; further ones of many, and some that fail
PER_SECOND = 40  # further ones, as long as it lives
LONG_PATH = "/echo/24"  # windows that outlast progress_seconds
DYNAMIC = (16, 50)  # each such cycle, short and long form, is without static membership
REACH_SECONDS = 30.0  # until a daemon has come to where it is to die
RECOVER_SECONDS = 20.0  # the start of a process on a busy machine; a dynamic member waits for the session timeout too
ALL_DONE_SECONDS = 90.0
MOST_WAITING = 2000  # a busy machine does less between two kills than is sent: then nothing more is sent for a while
WORKED_OFF_PER_SECOND = 50

IN_CHILDREN = ("slot.batch", "decoder.piece")  # faults/children.py
PLACES = tuple(place for place in failpoints.PLACES if place not in IN_CHILDREN)
ONCE = ("assign.begin", "progress.written", "pipeline.letter_sent", "drain.begin", "drain.done")  # come by rarely
MOST_VISITS = 5


@dataclass(frozen=True, slots=True)
class _Cycle:
    """`place` None: at random, so many seconds after it is ready."""

    place: str | None
    visit: int
    delay: float
    static: bool

    @property
    def armed(self) -> str:
        return f"{self.place}=kill@{self.visit}" if self.place else ""


def _cycles(count: int, dynamic: int, random: Random) -> Iterator[_Cycle]:
    """Each failpoint in turn, every third cycle at random."""
    places = itertools.cycle(PLACES)
    for number in range(1, count + 1):
        place = None if number % 3 == 0 else next(places)
        visit = visit_that_counts(place or "")
        if place and visit == 1 and place not in ONCE:
            visit = random.randint(1, MOST_VISITS)
        yield _Cycle(place, visit, random.uniform(0, 0.8), number % dynamic != 0)


def visit_that_counts(place: str) -> int:
    """Return the first visit that matters: aiokafka revokes nothing from a member that joins, and says so, too."""
    return 2 if place.startswith("revoke") else 1


async def kill(world: World, size: Size) -> Result:
    """Kill the daemon again and again while work comes in; one that is left alone does the rest."""
    random = Random(SEED)
    count = size.kill_cycles or size.pick(60, 1000)
    async with telling(world) as told:
        return await told.judge(await _kill(world, size, count, random, told.settings))


async def _kill(world: World, size: Size, count: int, random: Random, settings: dict[str, Any]) -> Result:
    recoveries: list[float] = []
    problems: list[str] = []
    for number, cycle in enumerate(_cycles(count, size.pick(*DYNAMIC), random), start=1):
        done = await world.done()
        if len(world.producer.acknowledged) - done < MOST_WAITING:
            await _produce(world)
        began = time.monotonic()
        member = "chaos" if cycle.static else None
        daemon = await world.daemons.start(failpoints=cycle.armed, member=member, wait=False, **settings)
        progress = asyncio.create_task(world.until_progress(done, RECOVER_SECONDS, since=began))
        if not await _dies(world, daemon, cycle):
            problems.append(f"cycle {number}: {cycle.place} was not reached")
        if progress.done():
            recoveries.append(progress.result())
        progress.cancel()
        if number % 10 == 0:
            world.say(f"{number} of {count} cycles, {await world.done()} outcomes")
    done, began = await world.done(), time.monotonic()
    if done < len(world.producer.acknowledged):
        await world.daemons.start(member="chaos", wait=False, **settings)
        recoveries.append(await world.until_progress(done, RECOVER_SECONDS + 5, since=began))
    left = len(world.producer.acknowledged) - done
    await world.until_all_done(ALL_DONE_SECONDS + left / WORKED_OFF_PER_SECOND)
    problems += within(recoveries, RECOVER_SECONDS, "after kill -9")
    return await world.result(count, recoveries, problems)


async def _produce(world: World) -> None:
    await world.producer.send(JOBS)
    await world.producer.send(4, LONG_PATH)
    await world.producer.send(1, "/status/404")
    await world.producer.send_raw(b"{")


async def _dies(world: World, daemon: Daemon, cycle: _Cycle) -> bool:
    """Do what brings the daemon to where it dies; False when it did not, and it was killed instead."""
    async with AsyncExitStack() as stack:
        if cycle.place is None:
            await daemon.ready()
            await asyncio.sleep(cycle.delay)
            await world.daemons.kill(daemon)
            return True
        if cycle.place.startswith(("revoke", "drain")) and await daemon.ready():
            await asyncio.sleep(cycle.delay / 2)
            if cycle.place.startswith("revoke"):
                await stack.enter_async_context(joining(world))
            else:
                daemon.process.send_signal(signal.SIGTERM)
        try:  # work has to come in until the place was visited often enough
            async with asyncio.timeout(REACH_SECONDS), world.producer.stream(PER_SECOND):
                code = await daemon.process.wait()
        except TimeoutError:
            await world.daemons.kill(daemon)
            return False
        await world.daemons.bury(daemon, 1)
        return code == -signal.SIGKILL


async def parent(world: World, size: Size) -> Result:
    """Kill the real daemon, with its slots and decoders, while they work: none of them may outlive it."""
    cycles = size.pick(3, 100)
    problems: list[str] = []
    for number in range(cycles):
        await world.producer.send(8, "/audio/en-02.ogg", prompt="")
        done = await world.done()
        daemon = await world.daemons.start("real", member="chaos")
        await world.until_progress(done, RECOVER_SECONDS)
        await asyncio.sleep(0.1 * (number % 5))
        if not daemon.processes():
            problems.append("the daemon has no children")
        await world.daemons.kill(daemon)
    await world.daemons.start("real", member="chaos")
    await world.until_all_done(ALL_DONE_SECONDS)
    return await world.result(cycles, problems=problems)


FAULTS = (
    Fault("kill", kill, "kill -9 of the daemon at failpoints and at random", seconds=(150, 2500)),
    Fault("parent-killed", parent, "kill -9 of a daemon with slots and decoders: no orphan after 2 s", (25, 500)),
)
