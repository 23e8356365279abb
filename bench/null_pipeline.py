"""Messages per second of everything but the work itself: consumer, pipeline, COPY and commits on one core.

The daemon's own composition, in which fetch, decode and inference answer with constants, is pinned to one CPU. The
clock runs from the first message that is produced (many times as fast as it is worked off) to the last durable row;
after that every offset must be committed. The second figure has the real fetch and decoders, which may use every CPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from statistics import median

from bench.context import Context, Findings, Table
from bench.deployment import Config, Deployment, Running, deploy, messages
from bench.file_server import file_server
from v2td.bundled.recordings import AUDIO

KEY = "null_messages_per_second"
GOAL = 3000
CLIP = "en-02.ogg"  # 4 s of speech, Vorbis
CONSTANTS = ("--constant", "fetch", "decode", "--engine-factor", "0")
TIMEOUT_SECONDS = 600.0
DEFAULT_GC = "Python's default garbage collection"
QUIET: Config = {"log": {"level": "warning"}}
MANY: Config = {  # as a user would set them who has this many short messages
    "pipeline": {"max_in_flight": 10_000, "max_prepared": 10_000},
    "kafka": {"commit_batch": 5000},
    "database": {"flush_rows": 5000},
}


@dataclass(frozen=True, slots=True)
class Rate:
    """Messages per second, and the CPU milliseconds of one message: in the daemon's process and in its children."""

    per_second: float
    own_cpu_ms: float
    children_cpu_ms: float


async def measure(context: Context) -> Findings:
    """Answer with `null_messages_per_second`, the median over rounds."""
    count = int(context.by_size(5000, 20_000, 100_000))
    rounds = int(context.by_size(1, 3, 5))
    null, default = [], []
    for _ in range(rounds):
        null.append(await _null(context, count, MANY | QUIET))
        context.say(f"{null[-1].per_second:.0f} messages/s")
        if context.size != "quick":
            default.append(await _null(context, count, MANY | QUIET, "--default-gc"))
            context.say(f"{default[-1].per_second:.0f} messages/s with {DEFAULT_GC}")
    rows = [_row("constants", count, null)]
    if context.size != "quick":
        rows.append(_row(f"constants, {DEFAULT_GC}", count, default))
        rows.append(_row("constants, a log line for each job", count, [await _null(context, count, MANY)]))
    real_count = int(context.by_size(100, 500, 5000))
    rows.append(
        _row(
            f"real fetch and decode ({CLIP}), constant inference",
            real_count,
            [await _real_fetch_and_decode(context, real_count)],
        )
    )
    table = Table(
        "Messages per second without inference",
        ("what is real", "messages", "per second", "CPU ms each, daemon", "CPU ms each, decoders"),
        tuple(rows),
        f"Daemon on one CPU; goal ≥ {GOAL}. Medians of {rounds} rounds, interleaved.",
    )
    return Findings({KEY: median(each.per_second for each in null)}, (table,))


def _row(name: str, count: int, rates: list[Rate]) -> tuple[str | int | float, ...]:
    return (
        name,
        count,
        round(median(each.per_second for each in rates)),
        round(median(each.own_cpu_ms for each in rates), 3),
        round(median(each.children_cpu_ms for each in rates), 3),
    )


async def _null(context: Context, count: int, changes: Config, *flags: str) -> Rate:
    cpu = max(os.sched_getaffinity(0))
    async with deploy(context) as deployment:
        async with deployment.daemon((*CONSTANTS, *flags), changes, (cpu,)) as daemon:
            rate = await _work_off(deployment, daemon, messages(count))
        await deployment.check_all_done(count)
    return rate


async def _real_fetch_and_decode(context: Context, count: int) -> Rate:
    """Without the bounds of MANY: each job that is prepared holds its PCM."""
    changes: Config = {"speech": {"decoders": len(os.sched_getaffinity(0))}} | QUIET
    async with deploy(context) as deployment, file_server(AUDIO) as url:
        async with deployment.daemon(("--engine-factor", "0"), changes) as daemon:
            (message,) = messages(1, f"{url}/{CLIP}")
            rate = await _work_off(deployment, daemon, repeat(message, count))
        await deployment.check_all_done(count)
    return rate


async def _work_off(deployment: Deployment, daemon: Running, values: Iterable[bytes]) -> Rate:
    began = time.monotonic()
    own, children = daemon.cpu_seconds(), sum(daemon.children_cpu_seconds().values())
    count = await deployment.produce(values)
    await deployment.until_transcribed(count, TIMEOUT_SECONDS)
    return Rate(
        count / (time.monotonic() - began),
        (daemon.cpu_seconds() - own) / count * 1000,
        (sum(daemon.children_cpu_seconds().values()) - children) / count * 1000,
    )
