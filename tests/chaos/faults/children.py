"""Child processes die, stop, run out of memory and leak, and a recording kills whatever touches it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import cycle as endless
from itertools import islice
from typing import Any

import psutil

from tests.chaos.daemons import Daemon
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.recovery import until_finished
from tests.chaos.world import World

RECORDING = "/audio/en-01.flac"  # of one window
PER_SECOND = 1  # jobs that arrive all the time, so that idle processes are noticed
AT_ONCE = 6  # jobs that arrive with each blow
LONG = "/audio/en-long.ogg"  # two more: work for both decoders, which takes memory
TWO_EACH: dict[str, Any] = {"engine__slots": 2, "engine__threads": 1, "speech__decoders": 2}
# Few jobs at once: what is done again is done before the next process gives up, so that none is blamed twice.
FEW: dict[str, Any] = {"engine__slots": 2, "engine__threads": 1, "speech__decoders": 1, "pipeline__max_prepared": 4}
ONE_EACH: dict[str, Any] = {"engine__slots": 1, "engine__threads": 1, "speech__decoders": 1}
REPLACED_SECONDS = 5.0  # and the time a model takes to load
MAX_RSS_BYTES = 320_000_000  # a slot of the demo model takes 200, and a leak as much again
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 30.0
DONE_SECONDS = 60.0

_Slots = dict[int, dict[str, Any]]  # by number, as /status has them
_Strike = Callable[[int], None]  # hits a process


async def struck(world: World, size: Size, *, strike: _Strike, cycles: tuple[int, int]) -> Result:
    """A slot's or a decoder's process is hit at work, by turns; others go on, and it is replaced."""
    daemon = await world.daemons.start("real", **TWO_EACH)
    limit = REPLACED_SECONDS + _load_seconds(daemon)
    recoveries: list[float] = []
    problems: list[str] = []
    async with world.producer.stream(PER_SECOND, RECORDING):
        await world.until_progress(0, PATIENCE_SECONDS)
        for victim in islice(endless((0, "decoder", 1, "decoder")), size.pick(*cycles)):
            before = await _slots(daemon)
            sent = await world.producer.send(AT_ONCE, RECORDING) + await world.producer.send(2, LONG)
            if isinstance(victim, int):
                recoveries.append(await _strike_slot(daemon, victim, strike))
            else:
                recoveries.append(await _strike_decoder(daemon, strike))
            after = await _slots(daemon)
            others = [number for number in before if number != victim]
            problems += [
                f"slot {number} was replaced, which nobody had touched"
                for number in others
                if after[number]["restarts"] != before[number]["restarts"]
            ]
            # Who was hit once is heard again by itself; hit again, it would rightly be blamed.
            await until_finished(world, sent, PATIENCE_SECONDS)
    problems += within(recoveries, limit, "a child")
    return await _all_transcribed(world, recoveries, problems)


async def leaking(world: World, size: Size) -> Result:
    """Slots grow beyond engine.max_rss_bytes: they are replaced between two batches."""
    jobs = size.pick(24, 1500)
    daemon = await world.daemons.start(
        "real", failpoints="slot.batch=leak@3", engine__max_rss_bytes=MAX_RSS_BYTES, **FEW
    )
    limit = REPLACED_SECONDS + _load_seconds(daemon)
    problems: list[str] = []
    async with _absences(daemon) as absences:
        await world.producer.send(jobs, RECORDING)
        await world.until_all_done(DONE_SECONDS + jobs)
        await asyncio.sleep(1)  # the last one is replaced, too
    restarts = daemon.events("slot restarted")
    if not restarts:
        problems.append("no slot was replaced")
    problems += [f"a slot {each['reason']}" for each in restarts if each["reason"] != "memory"]
    problems += within(absences, limit, "a slot")
    return await _all_transcribed(world, absences, problems)


async def poison(world: World, size: Size) -> Result:
    """A recording kills a process in two lives of the daemon: then it is a failure `poison`, and nobody dies of it."""
    count = size.pick(1, 10)
    problems: list[str] = []
    for number in range(count):
        await world.producer.send(1, RECORDING)
        async with _dying(world, "slot.batch=kill"):
            problems += await _until(world, "SELECT count(*) FROM child_deaths", 1, "the first death is not durable")
        async with _dying(world, "decoder.piece=kill"):
            problems += await _until(world, _POISONED, number + 1, "not in quarantine")
    done = await world.done()
    async with world.daemons.running("real", **ONE_EACH) as daemon:
        began = time.monotonic()
        await world.producer.send(5, RECORDING)
        recovered = await world.until_progress(done, PATIENCE_SECONDS, since=began)
        await world.until_all_done(DONE_SECONDS)
        if restarted := daemon.events("slot restarted") + daemon.events("decoder restarted"):
            problems.append(f"{len(restarted)} processes died once it was in quarantine")
    problems += await _until(world, "SELECT count(*) FROM child_deaths", 0, "deaths of finished jobs are kept")
    problems += await _until(world, "SELECT count(*) FROM failures", count, "others failed, too")
    return await world.result(count, [recovered], problems)


_POISONED = "SELECT count(*) FROM failures WHERE error_class = 'poison'"


@asynccontextmanager
async def _dying(world: World, failpoint: str) -> AsyncIterator[None]:
    """Run a daemon in which something dies, and kill it in the end."""
    daemon = await world.daemons.start("real", failpoints=failpoint, **ONE_EACH)
    yield
    await world.daemons.kill(daemon)


async def _all_transcribed(world: World, recoveries: list[float], problems: list[str]) -> Result:
    """Wait until all is done, and call it a problem when anything failed: nothing is wrong with the recordings."""
    await world.until_all_done(DONE_SECONDS)
    failed = await world.rows("SELECT error_class, reason, count(*) AS n FROM failures GROUP BY 1, 2")
    problems += [f"{row['n']} jobs failed: {row['error_class']}: {row['reason']}" for row in failed]
    return await world.result(len(recoveries), recoveries, problems)


async def _strike_slot(daemon: Daemon, number: int, strike: _Strike) -> float:
    """Hit a slot's process while it is busy; returns the seconds until another is ready."""
    while (slot := (await _slots(daemon))[number])["state"] != "busy":
        await asyncio.sleep(0)
    began = time.monotonic()
    strike(slot["pid"])
    while (now := (await _slots(daemon))[number]["pid"]) in (None, slot["pid"]) and _patient(began):
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began if now not in (None, slot["pid"]) else PATIENCE_SECONDS


async def _strike_decoder(daemon: Daemon, strike: _Strike) -> float:
    """Hit a decoder's process; returns the seconds until there is another."""
    known = await _decoders(daemon)
    victim = min(known)
    began = time.monotonic()
    strike(victim)
    while _patient(began):
        now = await _decoders(daemon)
        if victim not in now and len(now) == len(known):
            return time.monotonic() - began
        await asyncio.sleep(LOOK_SECONDS)
    return PATIENCE_SECONDS


def _patient(began: float) -> bool:
    return time.monotonic() - began < PATIENCE_SECONDS


async def _slots(daemon: Daemon) -> _Slots:
    return {each["slot"]: each for each in (await daemon.status())["slots"]}


async def _decoders(daemon: Daemon) -> set[int]:
    """Return the processes that hold no model, as far as they have one to be told by: all slots have to be ready."""
    slots = {each["pid"] for each in (await _slots(daemon)).values()}
    children = psutil.Process(daemon.process.pid).children()
    return {each.pid for each in children if _is_worker(each)} - slots


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _load_seconds(daemon: Daemon) -> float:
    """Return how long all models took to load when it started, decoders included."""
    began, ended = (
        datetime.fromisoformat(daemon.events(event)[0]["timestamp"]) for event in ("slots planned", "admin endpoint")
    )
    return (ended - began).total_seconds()


@asynccontextmanager
async def _absences(daemon: Daemon) -> AsyncIterator[list[float]]:
    """Yield a list to which each time that a slot is without its process is added, in seconds."""
    found: list[float] = []

    async def look() -> None:
        since: dict[int, float] = {}
        while True:
            for number, slot in (await _slots(daemon)).items():
                if slot["pid"] is None:
                    since.setdefault(number, time.monotonic())
                elif number in since:
                    found.append(time.monotonic() - since.pop(number))
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _until(world: World, query: str, expected: int, otherwise: str) -> list[str]:
    """Wait until a count is as expected; a problem when that takes too long."""
    began = time.monotonic()
    while (found := next(iter((await world.rows(query))[0].values()))) != expected:
        if not _patient(began):
            return [f"{otherwise}: {found} instead of {expected}"]
        await asyncio.sleep(LOOK_SECONDS)
    return []


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def _starve(pid: int) -> None:
    """Let it have no byte more than it has."""
    vms = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (vms, vms))


FAULTS = (
    Fault("child-killed", partial(struck, strike=_kill, cycles=(4, 200)), "a slot or decoder is killed", (16, 700)),
    Fault("child-stopped", partial(struck, strike=_stop, cycles=(2, 20)), "a slot or decoder is stopped", (18, 250)),
    Fault(
        "child-out-of-memory",
        partial(struck, strike=_starve, cycles=(2, 20)),
        "a slot or decoder gets no memory any more",
        (14, 250),
    ),
    Fault("child-leaking", leaking, "a slot leaks, and is recycled", (14, 500)),
    Fault("poison", poison, "a recording kills processes in two lives of the daemon", (18, 180)),
)
