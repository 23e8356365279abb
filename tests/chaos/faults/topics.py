"""What operators and brokers do to topics and offsets while jobs are in them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import NoError, for_code

from tests.chaos.daemons import Daemon
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.producer import Sent
from tests.chaos.recovery import until_every_partition_moves, until_finished
from tests.chaos.world import World

METADATA_SECONDS = 5.0  # the worlds' kafka.metadata_max_age_seconds
DEADLINE = METADATA_SECONDS + 15.0
DONE_SECONDS = 60.0


async def recreated(world: World, size: Size) -> Result:
    """The topic is deleted and made again: while a daemon runs, with less in it, and while none does, with more.

    Kafka forgets what was committed for a topic that is deleted. While no daemon runs it is committed once more, as
    by a daemon whose last commit came late: the offsets are in the new topic's range, and mean nothing there.
    """
    recoveries: list[float] = []
    problems: list[str] = []
    cycles = size.pick(1, 5)
    for _ in range(cycles):
        async with world.auditor.looking_away():  # what is committed speaks of the old topic
            async with world.daemons.running():
                await until_finished(world, await world.producer.send(120))
                since = await _make_anew(world)
                fewer = await world.producer.send(40)
                recoveries.append(await until_finished(world, fewer, 3 * DEADLINE, since=since))
            async with _admin(world) as admin:
                late = await admin.list_consumer_group_offsets(world.topic)
            await _make_anew(world)
            await _commit(world, late)
            more = await world.producer.send(200)
            since = time.monotonic()
            async with world.daemons.running() as daemon:
                recoveries.append(await until_finished(world, more, 3 * DEADLINE, since=since))
                problems += await _counted(daemon, "v2td_topics_recreated_total")
    problems += within(recoveries, DEADLINE, "the topic is there again")
    return await world.result(cycles, recoveries, problems)


async def partitions_added(world: World, size: Size) -> Result:
    """A topic gets more partitions while jobs arrive."""
    recoveries: list[float] = []
    cycles = size.pick(1, 5)
    async with world.daemons.running(), _admin(world) as admin:
        for _ in range(cycles):
            await world.producer.send(100)
            count = world.producer.partitions + 4
            await admin.create_partitions({world.topic: NewPartitions(count)})
            since = time.monotonic()
            await world.producer.reopen()  # it would learn of them too late
            world.producer.partitions = count
            recoveries.append(await until_every_partition_moves(world, 3 * DEADLINE, since=since))
        await world.until_all_done(DONE_SECONDS)
    return await world.result(cycles, recoveries, within(recoveries, DEADLINE, "there are more partitions"))


async def offsets_reset(world: World, size: Size) -> Result:
    """An operator sets the group's offsets to the earliest: nothing is done twice; to the latest: it is skipped."""
    problems: list[str] = []
    cycles = size.pick(1, 10)
    async with world.daemons.running():
        await until_finished(world, await world.producer.send(120))
    for _ in range(cycles):
        done = await world.done()
        await _set_offsets(world, to_end=False)
        async with world.daemons.running() as daemon:
            await until_finished(world, world.producer.acknowledged)
            if (known := (await daemon.metrics())["v2td_jobs_known_total"]) != done:
                problems.append(f"reset to the earliest: {known:.0f} of {done} jobs were known to be done")
        skipped = await world.producer.send(40)
        world.auditor.excuse(skipped)
        await _set_offsets(world, to_end=True)
        async with world.daemons.running():
            await until_finished(world, await world.producer.send(40))
        if not_skipped := len(skipped) - await _without_outcome(world, skipped):
            problems.append(f"reset to the latest: {not_skipped} jobs were done all the same")
    if world.daemons.redone_ratio:
        problems.append("work was done again")
    return await world.result(cycles, problems=problems)


async def retention(world: World, size: Size) -> Result:
    """Records are deleted before they are read: those that a new daemon finds gone, and those from under a busy one."""
    problems: list[str] = []
    cycles = size.pick(1, 5)
    for _ in range(cycles):
        async with world.daemons.running():
            await until_finished(world, await world.producer.send(80))
        gone = await world.producer.send(80)
        await _delete_up_to(world, gone)
        async with world.daemons.running() as daemon:
            await until_finished(world, await world.producer.send(40))
            problems += await _counted(daemon, "v2td_records_deleted_total", len(gone))

        slow = {"ECHO_SECONDS": "0.2", "ECHO_SLOTS": "2"}
        async with world.daemons.running(environment=slow, pipeline__max_in_flight=8) as daemon:
            at_risk = await world.producer.send(400)
            await until_finished(world, at_risk[:8])
            await _delete_up_to(world, at_risk)
            await until_finished(world, await world.producer.send(8))
            lost = await _without_outcome(world, at_risk)
            if not lost:
                problems.append("the daemon had read everything before it was deleted: nothing was tried")
            problems += await _counted(daemon, "v2td_records_deleted_total", lost)
    return await world.result(cycles, problems=problems)


async def _counted(daemon: Daemon, name: str, expected: float | None = None) -> list[str]:
    """Return a problem unless the daemon's counter has that value; without one, unless it has counted something."""
    value = (await daemon.metrics()).get(name, 0.0)
    wrong = value == 0 if expected is None else value != expected
    return [f"{name} is {value:g} instead of {expected or 'more'}"] if wrong else []


async def _without_outcome(world: World, records: Collection[Sent]) -> int:
    query = "SELECT job_id FROM transcriptions UNION SELECT job_id FROM failures"
    done = {row["job_id"] for row in await world.rows(query)}
    return sum(record.job_id not in done for record in records)


async def _make_anew(world: World) -> float:
    """Delete the topic and make it again; returns when it was there (time.monotonic())."""
    async with _admin(world) as admin:
        await admin.delete_topics([world.topic])
        while True:  # a broker says that it is deleted a moment before it is
            answer = await admin.create_topics([NewTopic(world.topic, world.producer.partitions, 1)])
            if all(for_code(error[1]) is NoError for error in answer.topic_errors):
                break
    since = time.monotonic()
    await world.producer.reopen()
    return since


async def _delete_up_to(world: World, records: Collection[Sent]) -> None:
    """Do what retention does: delete these records and all before them. They are excused."""
    world.auditor.excuse(records)
    ends: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        ends[partition] = max(record.offset + 1, ends.get(partition, 0))
    async with _admin(world) as admin:
        await admin.delete_records({partition: RecordsToDelete(end) for partition, end in ends.items()})


async def _set_offsets(world: World, *, to_end: bool) -> None:
    """Do as kafka-consumer-groups.sh --reset-offsets does, while nobody is in the group."""
    partitions = [TopicPartition(world.topic, each) for each in range(world.producer.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=world.services.kafka_bootstrap)
    await consumer.start()
    try:
        offsets = await (consumer.end_offsets if to_end else consumer.beginning_offsets)(partitions)
    finally:
        await consumer.stop()
    await _commit(world, offsets)


async def _commit(world: World, offsets: Mapping[TopicPartition, object]) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.services.kafka_bootstrap, group_id=world.topic, enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(list(offsets))
        await consumer.commit(offsets)
    finally:
        await consumer.stop()


@asynccontextmanager
async def _admin(world: World) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=world.services.kafka_bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


FAULTS = (
    Fault("topic-recreated", recreated, "a topic is deleted and made again with the same name", (25, 100)),
    Fault("partitions-added", partitions_added, "a topic gets more partitions", (15, 60)),
    Fault("offsets-reset", offsets_reset, "an operator sets the group's offsets to the earliest or latest", (12, 60)),
    Fault("retention", retention, "records are deleted before they are read", (20, 80)),
)
