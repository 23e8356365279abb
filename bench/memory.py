"""Resident memory of the daemon while 10³, 10⁴ and 10⁵ messages wait in its topic: it is to be flat.

Fetch and decode are constants and the engine sleeps, so that the backlog hardly shrinks while it is watched; the
growth is that of the highest sample. A full run then works the largest backlog off, with an engine that does not
sleep, and watches that too.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.context import Context, Findings, Lines, Series, Table
from bench.deployment import MeasureError, Running, deploy, messages
from bench.null_pipeline import CONSTANTS, MANY, QUIET
from bench.stand_ins import AUDIO_SECONDS

KEY = "rss_growth_1e5_mib"
BACKLOGS = (1000, 10_000, 100_000)
SLOTS = 4
PER_SECOND = 40  # messages that the sleeping engine ends
SAMPLE_SECONDS = 0.1
TIMEOUT_SECONDS = 600.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Curve:
    """Samples: seconds since the first, MiB."""

    seconds: tuple[float, ...]
    mib: tuple[float, ...]

    @property
    def peak(self) -> float:
        """The highest sample."""
        return max(self.mib)


async def measure(context: Context) -> Findings:
    """Answer with `rss_growth_1e5_mib`: the peak with 10⁵ messages less the peak with 10³."""
    seconds = context.by_size(3, 8, 60)
    backlogs = (BACKLOGS[0], BACKLOGS[-1]) if context.size == "quick" else BACKLOGS
    curves = {backlog: await _waiting(context, backlog, seconds) for backlog in backlogs}
    rows = [(f"{backlog:.0e} messages wait", round(curve.peak, 1)) for backlog, curve in curves.items()]
    series = [Series(f"{backlog:.0e} messages wait", curve.seconds, curve.mib) for backlog, curve in curves.items()]
    if context.size == "full":
        drained = await _drained(context, BACKLOGS[-1])
        rows.append((f"{BACKLOGS[-1]:.0e} messages worked off, 10⁴ in flight", round(drained.peak, 1)))
        series.append(Series("worked off", drained.seconds, drained.mib))
    table = Table("Resident memory of the daemon's process", ("backlog", "peak MiB"), tuple(rows), "It is to be flat.")
    plot = Lines("memory", "Memory of the daemon's process", "s", "MiB", tuple(series))
    growth = curves[BACKLOGS[-1]].peak - curves[BACKLOGS[0]].peak
    return Findings({KEY: growth}, (table,), (plot,))


async def _waiting(context: Context, backlog: int, seconds: float) -> Curve:
    factor = SLOTS / PER_SECOND / AUDIO_SECONDS
    flags = ("--constant", "fetch", "decode", "--engine-factor", str(factor))
    async with deploy(context) as deployment:
        await deployment.produce(messages(backlog))
        async with deployment.daemon(flags, QUIET | {"engine": {"model": "demo", "slots": SLOTS}}) as daemon:
            curve = await _watch(daemon, seconds)
        done = await deployment.transcribed()
    if not 0 < done < backlog:
        raise MeasureError(f"{done} of {backlog} messages were worked off: there was no backlog, or no work")
    context.say(f"{backlog} messages wait: {curve.peak:.1f} MiB at most")
    return curve


async def _drained(context: Context, count: int) -> Curve:
    async with deploy(context) as deployment:
        await deployment.produce(messages(count))
        async with deployment.daemon(CONSTANTS, MANY | QUIET) as daemon:
            working = asyncio.create_task(deployment.until_transcribed(count, TIMEOUT_SECONDS))
            curve = await _watch(daemon, TIMEOUT_SECONDS, working)
            await working
        await deployment.check_all_done(count)
    return curve


async def _watch(daemon: Running, seconds: float, until: asyncio.Task[None] | None = None) -> Curve:
    """Sample for so long, or until the task is done."""
    began = time.monotonic()
    samples = []
    while (now := time.monotonic() - began) < seconds and not (until is not None and until.done()):
        samples.append((now, daemon.process.memory_info().rss / MIB))
        await asyncio.sleep(SAMPLE_SECONDS)
    return Curve(*map(tuple, zip(*samples, strict=True)))
