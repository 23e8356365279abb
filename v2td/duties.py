"""What the daemon does on the side: garbage, loop lag, the watchdog, its row in `instances`, partitions made ahead."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import Callable

import psutil

from v2td import __version__, metrics, store, systemd
from v2td.config import KafkaSettings, Settings
from v2td.errors import ServiceError
from v2td.intake import Intake
from v2td.logs import get_logger
from v2td.store import webhooks

log = get_logger(__name__)

STALL_SECONDS = 20.0  # what does not move for this long hangs
GC_THRESHOLDS = (10_000, 10, 10)  # Python's own are (700, 10, 10); looser ones cost memory and win nothing
LAG_SECONDS = 0.1
INSTANCE_SECONDS = 10.0
KEEP_SECONDS = 24 * 3600.0
KEEP_FIRST_SECONDS = 600.0  # not while it starts and catches up
KEEP_RETRY_SECONDS = 60.0
FORGET_DAYS = 30  # windows of jobs that never ended: their topic is gone


def tune_garbage_collection() -> None:
    """Take what is there by now out of the collector's sight, for good, and let it run less often.

    To be called once everything is open: what was made until then lives as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def measure_loop_lag() -> None:
    """Observe how late the loop runs a timer, for ever."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(LAG_SECONDS)
        metrics.LOOP_LAG.observe(max(0.0, time.monotonic() - before - LAG_SECONDS))


async def feed_watchdog(not_alive: Callable[[], str | None]) -> None:
    """Tell systemd that we live, twice as often as it asks, as long as nothing hangs; returns if it does not ask."""
    period = systemd.watchdog_seconds()
    if period is None:
        return
    while True:
        if (reason := not_alive()) is None:
            systemd.notify("WATCHDOG=1")
        else:
            log.error("not feeding the watchdog", reason=reason)
        await asyncio.sleep(period / 2)


async def keep_tables(database: store.Database, settings: Settings) -> None:
    """Make the coming months' partitions and sweep what no job will ask for any more, once a day, for ever.

    The first time soon, for daemons that are started anew each day; trouble is tried again and does no harm meanwhile.
    """
    pause = KEEP_FIRST_SECONDS
    while True:
        await asyncio.sleep(pause)
        pause = KEEP_SECONDS
        while True:
            try:
                async with database.acquire() as connection:
                    await store.ensure_partitions(connection, settings.database.partitions_ahead)
                await store.forget_old(database, FORGET_DAYS)
                await webhooks.forget(database, settings.webhooks.keep_days)
                break
            except (OSError, ServiceError) as error:
                log.warning("tables not kept", error=str(error))
                await asyncio.sleep(KEEP_RETRY_SECONDS)


async def report_instance(database: store.Database, settings: KafkaSettings, slots: int, intake: Intake) -> None:
    """Keep this instance's row up to date, for ever."""
    host = socket.gethostname()
    name = store.instance_name(settings)
    before: dict[psutil.Process, float] = {}
    while True:
        now, rss_bytes = await asyncio.to_thread(_usage)
        metrics.CPU_SECONDS.inc(max(0.0, sum(each - before.get(process, 0.0) for process, each in now.items())))
        metrics.RSS.set(rss_bytes)
        before, cpu_seconds = now, sum(now.values())
        partitions = tuple(sorted(f"{each.topic}/{each.partition}" for each in intake.partitions))
        row = store.Instance(name, host, os.getpid(), __version__, slots, cpu_seconds, rss_bytes, partitions)
        try:
            await store.report(database, row)
        except ServiceError as error:
            log.warning("instance not reported", error=str(error))
        await asyncio.sleep(INSTANCE_SECONDS)


def _usage() -> tuple[dict[psutil.Process, float], int]:
    """Return the CPU seconds of this process and of each of its children, and the resident bytes of all."""
    cpu_seconds: dict[psutil.Process, float] = {}  # by pid and time of birth, which make them equal
    rss_bytes = 0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
            rss_bytes += process.memory_info().rss
            cpu_seconds[process] = times.user + times.system
        except psutil.NoSuchProcess:  # ended while we looked
            continue
    return cpu_seconds, rss_bytes
