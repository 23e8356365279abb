"""How late the daemon's event loop runs its timers while every slot is busy with short messages.

v2td_loop_lag_seconds looks ten times a second and has coarse buckets, too little for a p99.9. So the daemon's process
looks for itself, every 5 ms, and writes down each lag; libuv rounds timers to milliseconds, so 1 ms is its zero. The
real daemon: real downloads, decoders and slots, the micro model. Then, in the same run, everything constant and many
messages (the loop is all that works): with the garbage collector as the daemon tunes it, and as Python has it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.context import Context, Distribution, Findings, Table
from bench.deployment import MeasureError, deploy, messages
from bench.file_server import file_server
from bench.load import speech_messages
from bench.null_pipeline import CONSTANTS, DEFAULT_GC, MANY, QUIET
from v2td.bundled.recordings import AUDIO

KEY = "loop_lag_p999_ms"
TIMEOUT_SECONDS = 600.0

Lags = NDArray[np.float64]  # milliseconds


async def measure(context: Context) -> Findings:
    """Answer with `loop_lag_p999_ms`, of the real daemon under load."""
    real_count = int(context.by_size(48, 200, 3000))
    busy = {"micro model, short messages": await _real(context, real_count)}
    if context.size != "quick":
        count = int(context.by_size(0, 20_000, 100_000))
        busy["constants"] = await _constant(context, count)
        busy[f"constants, {DEFAULT_GC}"] = await _constant(context, count, "--default-gc")
    table = Table(
        "Event-loop lag",
        ("load", "looks", "p50 ms", "p99 ms", "p99.9 ms", "max ms"),
        tuple(
            (name, len(lags), *(round(each, 1) for each in (*_percentiles(lags), float(lags.max()))))
            for name, lags in busy.items()
        ),
        "A timer of 5 ms looks how late it is, as long as the load lasts.",
    )
    plot = Distribution(
        "loop_lag", "Event-loop lag", "ms", tuple((name, tuple(lags.tolist())) for name, lags in busy.items())
    )
    return Findings({KEY: float(_percentiles(next(iter(busy.values())))[2])}, (table,), (plot,))


def _percentiles(lags: Lags) -> Sequence[float]:
    percentiles: list[float] = np.percentile(lags, (50, 99, 99.9)).tolist()
    return percentiles


async def _real(context: Context, count: int) -> Lags:
    async with file_server(AUDIO) as url:
        return await _lags(context, list(speech_messages(count, url)))


async def _constant(context: Context, count: int, *flags: str) -> Lags:
    return await _lags(context, list(messages(count)), *CONSTANTS, *flags)


async def _lags(context: Context, values: Sequence[bytes], *flags: str) -> Lags:
    """Return the lags between the first message and the last row."""
    async with deploy(context) as deployment:
        file = deployment.folder / "lags.json"
        changes = QUIET | (MANY if flags else {})
        async with deployment.daemon(("--lag", str(file), *flags), changes):
            began = time.monotonic()
            await deployment.produce(values)
            await deployment.until_transcribed(len(values), TIMEOUT_SECONDS)
            ended = time.monotonic()
        await deployment.check_all_done(len(values))
    looks = np.array(json.loads(file.read_text()), dtype=np.float64)  # (looks, 2): when it was due, how late it was
    lags: Lags = looks[(looks[:, 0] >= began) & (looks[:, 0] <= ended), 1] * 1000
    if not len(lags):
        raise MeasureError("the loop was never looked at")
    context.say(f"{len(lags)} looks in {ended - began:.1f} s")
    return lags
