"""What takes long: a long recording amid rebalances, hours of small trouble, a busy event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import psutil
from aiokafka.errors import KafkaError
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.daemons import Daemon
from tests.chaos.fault import Fault, Result, Size
from tests.chaos.joiner import joining
from tests.chaos.recovery import until_finished
from tests.chaos.world import TROUBLE, World

WINDOW_SECONDS = 20  # of audio, of the echo daemons' recordings
MOST_REDONE = 0.2
JOIN_SECONDS = 1.5  # a consumer stays so long, and is away so long
DONE_SECONDS = 90.0
RECORDING = "/audio/en-01.flac"
REAL: dict[str, Any] = {"engine__slots": 2, "engine__threads": 1, "speech__decoders": 1}
TOLERANCE = 2  # descriptors, tasks, files and connections more than before
GROWTH_PER_10_MINUTES = 0.01  # of the resident memory
SAMPLE_SECONDS = 1.0
SETTLE_SECONDS = 20.0
LAG_SECONDS = "0.1"  # a bucket of the metric
LATE_SHARE = 0.001


async def long_recording(world: World, size: Size) -> Result:
    """A recording of 20 minutes (long: 3 hours) amid rebalances; half-way the daemon that has it is killed."""
    windows = size.pick(20, 180) * 60 // WINDOW_SECONDS
    seconds = windows * size.pick(0.15, 1.0)  # with one slot, if nobody disturbed it
    slow = {"ECHO_SECONDS": str(seconds / windows), "ECHO_SLOTS": "1"}
    daemons = [await world.daemons.start(environment=slow) for _ in range(2)]
    problems: list[str] = []
    async with _while_running(_come_and_go(world)):
        (sent,) = await world.producer.send(1, f"/echo/{windows}", partition=0)
        while len(world.daemons.heard()) < windows / 2:
            await asyncio.sleep(0.1)
        owner = await _owner(daemons)
        await world.daemons.kill(owner)
        began = time.monotonic()
        heard = len(world.daemons.heard())
        while len(world.daemons.heard()) <= heard and time.monotonic() - began < DONE_SECONDS:
            await asyncio.sleep(0.1)
        recovered = time.monotonic() - began
        daemons[daemons.index(owner)] = await world.daemons.start(environment=slow)
        await until_finished(world, [sent], DONE_SECONDS + 3 * seconds)
    resumed = sum([(await each.metrics())["v2td_windows_resumed_total"] for each in daemons])
    result = await world.result(1, [recovered], problems, {"windows": windows, "windows_resumed": resumed})
    if not resumed:
        result.problems.append("no window survived")
    if result.redone_ratio >= MOST_REDONE:
        result.problems.append(f"{result.redone_ratio:.0%} of the windows were heard again")
    return result


async def _owner(daemons: list[Daemon]) -> Daemon:
    """Return the daemon that has the recording, which in the middle of a rebalance nobody has."""
    while True:
        for each in daemons:
            if (await each.status())["in_flight"]:
                return each
        await asyncio.sleep(0.05)


async def _come_and_go(world: World) -> None:
    """Have a consumer join the group and leave it, for ever."""
    while True:
        with suppress(KafkaError):
            async with joining(world):
                await asyncio.sleep(JOIN_SECONDS)
        await asyncio.sleep(JOIN_SECONDS)


@dataclass(frozen=True, slots=True)
class _Held:
    """What an idle daemon holds."""

    descriptors: int
    threads: int
    processes: int
    tasks: int
    pcm_files: int
    spool_files: int
    connections: int


async def soak(world: World, size: Size) -> Result:
    """Twenty minutes of small trouble (in the short form less): in the end nothing is held that was not before."""
    daemon = await world.daemons.start("real", speech__pcm_dir=str(world.folder / "pcm"), **REAL)
    problems: list[str] = []
    await _under_load(world, daemon, size.pick(14.0, 120.0))  # each trouble was there once
    before = await _held(world, daemon)
    world.say(f"before: {before}")
    samples = await _under_load(world, daemon, size.pick(15.0, 1200.0))
    held: _Held | None = None
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end and _more(before, held := await _held(world, daemon)):
        await asyncio.sleep(1)
    world.say(f"after: {held}")
    assert held is not None
    problems += _more(before, held)
    growth = _growth_per_10_minutes(samples)
    if size.long and growth > GROWTH_PER_10_MINUTES:
        problems.append(f"resident memory grows by {growth:.1%} in 10 min")
    figures = {f"{name}_more": float(after - asdict(before)[name]) for name, after in asdict(held).items()}
    return await world.result(1, [], problems, figures | {"rss_growth_per_10_minutes": growth})


async def _under_load(world: World, daemon: Daemon, seconds: float) -> list[tuple[float, int]]:
    """Have work and trouble for so long, then wait until all is done; returns (time, resident bytes) of the while."""
    samples: list[tuple[float, int]] = []
    process = psutil.Process(daemon.process.pid)
    end = time.monotonic() + seconds
    async with world.producer.stream(3, RECORDING), _while_running(_trouble(world, daemon)):
        while time.monotonic() < end:
            samples.append((time.monotonic(), process.memory_info().rss))
            await asyncio.sleep(SAMPLE_SECONDS)
    await world.until_all_done(DONE_SECONDS)
    return samples


async def _trouble(world: World, daemon: Daemon) -> None:
    """Bring about one small trouble after the other, for ever."""
    troubles: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: _kill_a_child(daemon),
        lambda: world.producer.send(2, "/status/404"),
        lambda: _cut_connections(world),
        lambda: world.producer.send_raw(b"{"),
        lambda: world.producer.send(2, "/status/503"),
        lambda: _join_once(world),
        lambda: world.producer.send(1, "/echo/3"),  # which is no audio
    )
    for trouble in itertools.cycle(troubles):
        with suppress(*TROUBLE, psutil.NoSuchProcess):
            await trouble()
        await asyncio.sleep(1.5)


async def _kill_a_child(daemon: Daemon) -> None:
    children = psutil.Process(daemon.process.pid).children()
    workers = [each.pid for each in children if "spawn_main" in " ".join(each.cmdline())]
    os.kill(random.choice(workers), signal.SIGKILL)


async def _cut_connections(world: World) -> None:
    await world.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'v2td'"
    )


async def _join_once(world: World) -> None:
    with suppress(KafkaError):
        async with joining(world):
            await asyncio.sleep(JOIN_SECONDS)


async def _held(world: World, daemon: Daemon) -> _Held:
    process = psutil.Process(daemon.process.pid)
    (connections,) = await world.rows(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'v2td'"
    )
    files = {name: sum(each.is_file() for each in (world.folder / name).rglob("*")) for name in ("pcm", "spool")}
    return _Held(
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        processes=len(process.children(recursive=True)),
        tasks=(await daemon.status())["tasks"],
        pcm_files=files["pcm"],
        spool_files=files["spool"],
        connections=connections["n"],
    )


def _more(before: _Held, now: _Held) -> list[str]:
    """Return what is held now and was not before, one problem for each kind."""
    earlier = asdict(before)
    return [
        f"{name}: {count} after the soak, {earlier[name]} before"
        for name, count in asdict(now).items()
        if count > earlier[name] + TOLERANCE
    ]


def _growth_per_10_minutes(samples: list[tuple[float, int]]) -> float:
    """Return the slope of the last two thirds, as a share of their mean."""
    late = samples[len(samples) // 3 :]
    if len(late) < 2:
        return 0.0
    times, sizes = zip(*late, strict=True)
    return float(statistics.linear_regression(times, sizes).slope * 600 / statistics.mean(sizes))


async def loop_lag(world: World, size: Size) -> Result:
    """The event loop is in time while the daemon has all that it can do."""
    fast = {"ECHO_SECONDS": "0.01", "ECHO_SLOTS": "64"}
    daemon = await world.daemons.start(environment=fast)
    problems: list[str] = []
    async with world.producer.stream(200):
        await world.until_progress(10, DONE_SECONDS)
        before = await _lags(daemon)
        await asyncio.sleep(size.pick(10, 300))
        looks, late = (now - then for now, then in zip(await _lags(daemon), before, strict=True))
    if late > max(1.0, LATE_SHARE * looks):  # of fewer than a thousand looks, one
        problems.append(f"{late:.0f} of {looks:.0f} times the event loop was late by more than {LAG_SECONDS} s")
    await world.until_all_done(2 * DONE_SECONDS)
    return await world.result(1, [], problems, {"looks": looks, "late": late})


async def _lags(daemon: Daemon) -> tuple[float, float]:
    """Return how often the daemon looked, and how often it was late."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{daemon.port}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    (lag,) = (each for each in families if each.name == "v2td_loop_lag_seconds")
    buckets = {each.labels["le"]: each.value for each in lag.samples if each.name.endswith("_bucket")}
    return buckets["+Inf"], buckets["+Inf"] - buckets[LAG_SECONDS]


@asynccontextmanager
async def _while_running(work: Any) -> AsyncIterator[None]:
    """Run something beside the block; it is a bug when it fails."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


FAULTS = (
    Fault("long-recording", long_recording, "20 minutes (long: 3 h) of audio amid rebalances and a kill", (25, 1200)),
    Fault("soak", soak, "small trouble of all kinds (20 min in the long form)", (35, 1500)),
    Fault("loop-lag", loop_lag, "the event loop under load", (15, 310), alone=True),
)
