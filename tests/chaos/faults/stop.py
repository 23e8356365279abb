"""SIGTERM under load, once and twice: how a daemon is stopped on purpose."""

from __future__ import annotations

import asyncio
import signal
import time
from random import Random

from tests.chaos.daemons import Daemon, DaemonError
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.world import World

SEED = 6
PER_SECOND = 50
SLOTS = 8  # windows in flight at once
LONG_PATH = "/echo/60"  # as an echo daemon hears them one by one, more than DRAIN_SECONDS
WINDOW_SECONDS = 0.05
DRAIN_SECONDS = 1.0
DEADLINE_SECONDS = DRAIN_SECONDS + 5 + 5  # the drain, a flush and a commit
SECOND_SIGNAL_SECONDS = 2.0
RECOVER_SECONDS = 10.0
ALL_DONE_SECONDS = 120.0


async def sigterm(world: World, size: Size) -> Result:
    """Stop the daemon while work comes in, with jobs that are too long for the drain under way."""
    random = Random(SEED)
    cycles = size.pick(10, 100)
    recoveries: list[float] = []
    problems: list[str] = []
    stops: list[float] = []
    async with world.producer.stream(PER_SECOND):
        for number in range(1, cycles + 1):
            await world.producer.send(2, LONG_PATH)
            done, began = await world.done(), time.monotonic()
            daemon = await _start(world)
            recoveries.append(await world.until_progress(done, RECOVER_SECONDS, since=began))
            await asyncio.sleep(random.uniform(0.2, 1.2))
            try:
                stops.append(await world.daemons.stop(daemon, DEADLINE_SECONDS))
            except DaemonError as error:
                problems.append(f"cycle {number}: {error}")
                await world.daemons.kill(daemon)
    await _start(world)
    await world.until_all_done(ALL_DONE_SECONDS)
    heard = world.daemons.heard()
    redone = heard.total() - len(heard)
    most = SLOTS + 1  # what was being heard, and a window that ended between the last save and the end
    if redone > cycles * most:
        problems.append(f"{redone} windows were heard again; {cycles} stops may cost {most} each")
    problems += within(recoveries, RECOVER_SECONDS, "started again after SIGTERM")
    figures = {"stop_seconds_max": max(stops, default=0.0), "redone_windows_per_stop": redone / cycles}
    return await world.result(cycles, recoveries, problems, figures)


async def sigterm_twice(world: World, size: Size) -> Result:
    """Send a second SIGTERM while the drain waits for long jobs: it ends at once, and nothing is lost."""
    cycles = size.pick(3, 20)
    problems: list[str] = []
    for number in range(1, cycles + 1):
        await world.producer.send(6, LONG_PATH)
        daemon = await _start(world, drain_seconds=30)
        await _until_busy(daemon)
        daemon.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        second = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        code = await world.daemons.bury(daemon, RECOVER_SECONDS)
        if (seconds := time.monotonic() - second) > SECOND_SIGNAL_SECONDS:
            problems.append(f"cycle {number}: ended {seconds:.1f} s after the second signal")
        if code not in (130, 128 + signal.SIGTERM):
            problems.append(f"cycle {number}: exit status {code} after a second signal")
    await _start(world)
    await world.until_all_done(ALL_DONE_SECONDS)
    return await world.result(cycles, problems=problems)


async def _start(world: World, drain_seconds: float = DRAIN_SECONDS) -> Daemon:
    environment = {"ECHO_SECONDS": str(WINDOW_SECONDS), "ECHO_SLOTS": str(SLOTS)}
    return await world.daemons.start(member="chaos", environment=environment, pipeline__drain_seconds=drain_seconds)


async def _until_busy(daemon: Daemon) -> None:
    async with asyncio.timeout(RECOVER_SECONDS):
        while (await daemon.status())["in_flight"] == 0:
            await asyncio.sleep(0.02)


FAULTS = (
    Fault(
        "sigterm", sigterm, "SIGTERM under load: exit 0 in the deadline, no window lost but those in flight", (45, 400)
    ),
    Fault("sigterm-twice", sigterm_twice, "a second SIGTERM ends the daemon at once", (15, 60)),
)
