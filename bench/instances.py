"""1, 2 and 4 instances in one group, whose engines sleep for a set share of real time: does coordination scale?

Each is a process of its own with the daemon's composition and 4 slots; fetch and decode are constants, so that what
is measured is the group, the pipeline, the writes and the commits of all of them on one broker and one database, not
the CPUs that they share here. They have joined before the first message; the backlog lasts for the whole time.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from bench.context import Context, Findings, Lines, Series, Table
from bench.deployment import Deployment, MeasureError, Running, deploy, messages
from bench.null_pipeline import QUIET
from bench.stand_ins import AUDIO_SECONDS

KEY = "instances_4_scaling"
SLOTS = 4
FACTOR = 0.05  # real-time factor of a slot: 0.25 s for a message of 5 s
PARTITIONS = 16
SETTLE_SECONDS = 60.0
WARM_UP_SECONDS = 1.0


async def measure(context: Context) -> Findings:
    """Answer with `instances_4_scaling`: throughput of 4 instances ÷ throughput of 1."""
    seconds = context.by_size(2, 6, 60)
    counts = (1, 4) if context.size == "quick" else (1, 2, 4)
    rates = {count: await _rate(context, count, seconds) for count in counts}
    ideal = SLOTS / FACTOR / AUDIO_SECONDS  # messages per second of one instance
    rows = tuple(
        (count, count * SLOTS, round(rate, 1), round(rate / rates[1], 2), round(rate / (count * ideal), 3))
        for count, rate in rates.items()
    )
    table = Table(
        "Instances",
        ("instances", "slots in all", "messages/s", "× one instance", "of what the slots can do"),
        rows,
        f"Each slot sleeps {FACTOR * AUDIO_SECONDS:g} s for a message; {PARTITIONS} partitions.",
    )
    plot = Lines(
        "instances",
        "Instances with sleeping engines",
        "instances",
        "messages/s",
        (
            Series("measured", tuple(map(float, counts)), tuple(rates.values())),
            Series("linear", tuple(map(float, counts)), tuple(count * rates[1] for count in counts)),
        ),
    )
    return Findings({KEY: rates[4] / rates[1]}, (table,), (plot,))


async def _rate(context: Context, count: int, seconds: float) -> float:
    """Return messages per second of so many instances, all of which are at work."""
    flags = ("--constant", "fetch", "decode", "--engine-factor", str(FACTOR))
    async with deploy(context, PARTITIONS) as deployment, AsyncExitStack() as stack:
        changes = QUIET | {"engine": {"model": "demo", "slots": SLOTS}}
        async with asyncio.TaskGroup() as group:
            starting = [
                group.create_task(stack.enter_async_context(deployment.daemon(flags, changes))) for _ in range(count)
            ]
        daemons = [task.result() for task in starting]
        await _until_shared(daemons)
        most = int(count * SLOTS / FACTOR / AUDIO_SECONDS * (seconds + WARM_UP_SECONDS) * 2)
        await deployment.produce(messages(most))
        await asyncio.sleep(WARM_UP_SECONDS)
        rate = await _durable_per_second(deployment, seconds)
        lags = [sum(partition["lag"] or 0 for partition in (await each.status())["partitions"]) for each in daemons]
    if min(lags) == 0:
        raise MeasureError("an instance had no backlog left")
    context.say(f"{count} instances: {rate:.1f} messages/s")
    return rate


async def _until_shared(daemons: list[Running]) -> None:
    """Return once the partitions are divided evenly among all instances."""
    end = time.monotonic() + SETTLE_SECONDS
    wanted = [PARTITIONS // len(daemons)] * len(daemons)
    while (shares := [len((await each.status())["partitions"]) for each in daemons]) != wanted:
        if time.monotonic() > end:
            raise MeasureError(f"the partitions are divided {shares}")
        await asyncio.sleep(0.2)


async def _durable_per_second(deployment: Deployment, seconds: float) -> float:
    first, began = await deployment.transcribed(), time.monotonic()
    await asyncio.sleep(seconds)
    last, ended = await deployment.transcribed(), time.monotonic()
    if last <= first:
        raise MeasureError("no message was worked off")
    return (last - first) / (ended - began)
