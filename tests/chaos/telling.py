"""Daemons that also tell their results and write files: whether any of them is missing in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.chaos.fault import Result
from tests.chaos.world import World
from tests.services import minio
from v2td.messages.headers import ROW_ID, header

_ENDED = "SELECT id::text FROM failures WHERE replay_state IS DISTINCT FROM 'requested'"
SHOWN = 3


@dataclass(slots=True)
class Telling:
    """`settings` are what the daemons are to be started with."""

    world: World
    topic: str

    @property
    def settings(self) -> dict[str, Any]:
        """Results to a topic, a text of each transcript to the bucket."""
        return {
            "kafka__results_topic": self.topic,
            "output__formats": ["txt"],
            "output__bucket": self.world.bucket,
            "output__key": "{id}",
        }

    async def judge(self, result: Result) -> Result:
        """Return the result of a fault whose daemons have ended, with what is missing among its problems."""
        return replace(result, problems=[*result.problems, *await self.problems()])

    async def problems(self) -> list[str]:
        """Say which durable outcomes were never told, and which transcripts have no file."""
        transcribed = {row["id"] for row in await self.world.rows("SELECT id::text FROM transcriptions")}
        failed = {row["id"] for row in await self.world.rows(_ENDED)}
        untold = (transcribed | failed) - await self._told()
        without = transcribed - await self._files()
        found = [("were never told", untold), ("have no file", without)]
        return [f"{len(ids)} outcomes {what}: {', '.join(sorted(ids)[:SHOWN])}" for what, ids in found if ids]

    async def _told(self) -> set[str]:
        told: set[str] = set()
        consumer = AIOKafkaConsumer(bootstrap_servers=self.world.services.kafka_bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            partition = TopicPartition(self.topic, 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            end = (await consumer.end_offsets([partition]))[partition]
            while await consumer.position(partition) < end:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    told |= {str(header(record.headers, ROW_ID)) for record in records}
        finally:
            await consumer.stop()
        return told

    async def _files(self) -> set[str]:
        services = self.world.services
        async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.world.bucket)
            return {each["Key"].removesuffix(".txt") async for page in pages for each in page.get("Contents", ())}


@asynccontextmanager
async def telling(world: World) -> AsyncIterator[Telling]:
    """Make the topic of the results."""
    topic = f"{world.topic}-results"
    admin = AIOKafkaAdminClient(bootstrap_servers=world.services.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
        yield Telling(world, topic)
        await admin.delete_topics([topic])
    finally:
        await admin.close()
