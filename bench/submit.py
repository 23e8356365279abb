"""How long a submit takes at 200 a second, from the moment it is due until all in-sync replicas have the message.

The messages go through v2td's own submit path, in an open loop: they are due at fixed times whatever became of those
before, so that a stall counts for everyone who had to wait. All of them are read back from the topic's offsets.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np

from bench.context import Context, Distribution, Findings, Table
from bench.deployment import MeasureError, records
from v2td.config import KafkaSettings, Settings
from v2td.ops.submit import Submitter, open_submitter, prepare

KEY = "submit_p99_ms"
GOAL = 10
PER_SECOND = 200
PARTITIONS = 8
WARM_UP = 100
URL = "https://recordings.example.com/2030/01/31/call.ogg"


async def measure(context: Context) -> Findings:
    """Answer with `submit_p99_ms`."""
    count = int(context.by_size(4, 15, 120)) * PER_SECOND
    async with context.topic(PARTITIONS) as topic:
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=(context.services.kafka_bootstrap,)))
        async with open_submitter(topic, settings) as submitter:
            for _ in range(WARM_UP):
                await _submit(submitter, settings, time.monotonic())
            seconds = await _open_loop(submitter, settings, count)
        if (there := await records(context.services, topic, PARTITIONS)) != count + WARM_UP:
            raise MeasureError(f"{there} records instead of {count + WARM_UP}")
    milliseconds = np.array(seconds) * 1000
    p50, p99, p999 = np.percentile(milliseconds, (50, 99, 99.9))
    table = Table(
        "Submit latency",
        ("submits", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms"),
        ((count, PER_SECOND, *(round(float(each), 2) for each in (p50, p99, p999, milliseconds.max()))),),
        f"acks=all on one broker; goal p99 < {GOAL} ms.",
    )
    plot = Distribution("submit", "Submit latency at 200/s", "ms", (("submit", tuple(milliseconds.tolist())),))
    return Findings({KEY: float(p99)}, (table,), (plot,))


async def _open_loop(submitter: Submitter, settings: Settings, count: int) -> list[float]:
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(count):
            due = began + number / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(group.create_task(_submit(submitter, settings, due)))
    return [task.result() for task in tasks]


async def _submit(submitter: Submitter, settings: Settings, due: float) -> float:
    await submitter.send([prepare(URL, {"language": "en"}, settings)])
    return time.monotonic() - due
