"""Gaps in the offsets: what was compacted away, the markers of transactions, and what they took back."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.chaos.cluster import cluster
from tests.chaos.fault import Fault, Result, Size
from tests.chaos.producer import Sent
from tests.chaos.recovery import until_finished
from tests.chaos.world import World

RECORDS = 200  # of a compacted topic, each time
KEYS = 10  # that most of them share
LONELY = 7  # every so many records one has a key that no other has: it stays
COMPACT_SECONDS = 30.0
DONE_SECONDS = 60.0
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "200",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
}


async def compacted(world: World, size: Size) -> Result:
    """Most records of a compacted topic are gone before they are read: here and there one is left."""
    cycles = size.pick(1, 5)
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(cluster(brokers=1))
        services = replace(world.services, kafka_bootstrap=one.bootstrap)
        own = await stack.enter_async_context(world.elsewhere(services, partitions=1, topic_config=COMPACTED))
        newest: dict[bytes, Sent] = {}
        for _ in range(cycles):
            await _write(own, newest, RECORDS)
            await asyncio.sleep(0.3)  # longer than segment.ms: the next record begins a segment
            await _write(own, newest, KEYS)
            kept = {record.offset for record in newest.values()}
            own.auditor.excuse(record for record in own.producer.acknowledged if record.offset not in kept)
            if not await _until_compacted(own):
                problems.append(f"not compacted after {COMPACT_SECONDS:g} s: nothing was tried")
            async with own.daemons.running() as daemon:
                await until_finished(own, newest.values(), DONE_SECONDS)
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


async def _write(world: World, newest: dict[bytes, Sent], count: int) -> None:
    """Write jobs, most of them with KEYS different keys; add them to the log, and to the newest of each key."""
    producer = AIOKafkaProducer(bootstrap_servers=world.services.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        for number in range(count):
            key = secrets.token_bytes(8) if number % LONELY == 0 else b"%d" % (number % KEYS)
            newest[key] = record = await _send(world, producer, 0, key=key)
            world.producer.acknowledged.append(record)
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
