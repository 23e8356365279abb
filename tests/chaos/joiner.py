"""A plain consumer that joins the daemons' group, so that they have to give up partitions, and leaves it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaConsumer

from tests.chaos.world import World

LEAVE_SECONDS = 5.0


@asynccontextmanager
async def joining(world: World, session_seconds: float = 3.0) -> AsyncIterator[asyncio.Task[None]]:
    """Begin to join; the task ends when partitions were assigned. Reads and commits nothing; leaves at the end."""
    consumer = AIOKafkaConsumer(
        world.topic,
        bootstrap_servers=world.services.kafka_bootstrap,
        group_id=world.topic,
        enable_auto_commit=False,
        session_timeout_ms=int(session_seconds * 1000),
        heartbeat_interval_ms=int(session_seconds * 1000 / 3),
        rebalance_timeout_ms=12_000,
    )
    task = asyncio.create_task(consumer.start())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await consumer.stop()
