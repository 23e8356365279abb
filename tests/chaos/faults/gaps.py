"""Gaps in the offsets: what was compacted away, the markers of transactions, and what they took back."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.chaos.cluster import cluster
from tests.chaos.fault import Fault, Result, Size
from tests.chaos.producer import Sent
from tests.chaos.world import World

KEYS = 10  # different ones in a compacted topic: so many records of it stay, of each batch
COMPACT_SECONDS = 30.0
DONE_SECONDS = 60.0
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "200",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
}


async def compacted(world: World, size: Size) -> Result:
    """Most records of a compacted topic are gone before they are read."""
    async with cluster(brokers=1) as one:
        services = replace(world.services, kafka_bootstrap=one.bootstrap)
        async with world.elsewhere(services, partitions=1, topic_config=COMPACTED) as own:
            cycles = size.pick(1, 5)
            problems: list[str] = []
            for _ in range(cycles):
                written = len(own.producer.acknowledged)
                await _write(own, 20 * KEYS)
                superseded = own.producer.acknowledged[written:][:-KEYS]
                own.auditor.excuse(superseded)
                await asyncio.sleep(0.3)  # longer than segment.ms: the next record begins a segment
                await _write(own, KEYS)
                own.auditor.excuse(own.producer.acknowledged[-2 * KEYS : -KEYS])
                if not await _until_compacted(own):
                    problems.append(f"not compacted after {COMPACT_SECONDS:g} s: nothing was tried")
                async with own.daemons.running() as daemon:
                    await own.until_all_done(DONE_SECONDS)
                    if deleted := (await daemon.metrics()).get("v2td_records_deleted_total"):
                        problems.append(f"{deleted:g} records count as deleted by retention")
            return await own.result(cycles, problems=problems)


async def transactions(world: World, size: Size) -> Result:
    """Records come in transactions, some of which are taken back; each leaves a marker at its end."""
    problems: list[str] = []
    cycles = size.pick(1, 5)
    async with world.daemons.running() as daemon:
        for _ in range(cycles):
            await _in_transactions(world, 20)
            await world.until_all_done(DONE_SECONDS)
        if deleted := (await daemon.metrics()).get("v2td_records_deleted_total"):
            problems.append(f"{deleted:g} records count as deleted by retention")
    return await world.result(cycles, problems=problems)


async def _write(world: World, count: int) -> None:
    """Write jobs with KEYS different keys, and add them to the log."""
    producer = AIOKafkaProducer(bootstrap_servers=world.services.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        for number in range(count):
            world.producer.acknowledged.append(await _send(world, producer, 0, key=b"%d" % (number % KEYS)))
    finally:
        await producer.stop()


async def _in_transactions(world: World, count: int) -> None:
    """Write so many transactions of a few records each; every other one is aborted, and nobody is to hear of it."""
    producer = AIOKafkaProducer(bootstrap_servers=world.services.kafka_bootstrap, transactional_id=secrets.token_hex(4))
    await producer.start()
    try:
        for number in range(count):
            await producer.begin_transaction()
            sent = [await _send(world, producer, partition) for partition in range(world.producer.partitions)]
            if number % 2:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
                world.producer.acknowledged += sent
    finally:
        await producer.stop()


async def _send(world: World, producer: AIOKafkaProducer, partition: int, key: bytes | None = None) -> Sent:
    job, now = f"{world.topic}-{secrets.token_hex(6)}", int(time.time() * 1000)
    value = json.dumps({"id": job, "audio_url": f"{world.web}/echo/1", "language": "en", "prompt": job}).encode()
    at = await producer.send_and_wait(world.topic, value, key=key, partition=partition, timestamp_ms=now)
    return Sent(world.topic, partition, at.offset, now, job)


async def _until_compacted(world: World) -> bool:
    """Wait until at most a third of the offsets hold a record; False when that takes too long."""
    end = time.monotonic() + COMPACT_SECONDS
    while time.monotonic() < end:
        if await _records(world) * 3 < len(world.producer.acknowledged):
            return True
        await asyncio.sleep(0.3)
    return False


async def _records(world: World) -> int:
    """Return how many records the topic's one partition has left."""
    consumer = AIOKafkaConsumer(bootstrap_servers=world.services.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition(world.topic, 0)
        consumer.assign([partition])
        (end,) = (await consumer.end_offsets([partition])).values()
        count = 0
        while await consumer.position(partition) < end:
            count += sum(len(records) for records in (await consumer.getmany(timeout_ms=200)).values())
        return count
    finally:
        await consumer.stop()


FAULTS = (
    Fault("compaction", compacted, "most records are compacted away before they are read", (20, 60)),
    Fault("transactions", transactions, "records in transactions, half of which are aborted", (8, 40)),
)
