"""What `v2td top` sees in Kafka: where the group stands, asked from outside, without joining it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code

from v2td.config import KafkaSettings
from v2td.intake import admin_client, client_options, explained
from v2td.ops.top_seen import KafkaSeen, Offsets

CLOSE_SECONDS = 2.0


class KafkaSource:
    """Looks at a group, over connections that are kept while they work; an async context manager.

    `topics` None: those for which the group has committed offsets, and those of `kafka.topics` that are there.
    """

    def __init__(self, settings: KafkaSettings, topics: Collection[str] | None) -> None:
        self._settings = settings
        self._topics = topics
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def look(self) -> KafkaSeen:
        """Return where the group stands; ServiceError, and new connections next time, when Kafka does not say."""
        try:
            with explained(self._settings, "ask Kafka", quiet=True):
                return await self._look()
        except BaseException:
            await self._leave()
            raise

    async def _look(self) -> KafkaSeen:
        admin, consumer = self._clients or await self._connect()
        group = self._settings.group_id
        committed = {
            each: offset.offset
            for each, offset in (await admin.list_consumer_group_offsets(group)).items()
            if offset.offset >= 0
        }
        partitions = await self._partitions(admin, committed)
        first = await consumer.beginning_offsets(partitions) if partitions else {}
        end = await consumer.end_offsets(partitions) if partitions else {}
        state, members = await _members(admin, group)
        offsets = {
            (each.topic, each.partition): Offsets(first[each], end[each], committed.get(each)) for each in partitions
        }
        return KafkaSeen(state, members, offsets)

    async def _partitions(
        self, admin: AIOKafkaAdminClient, committed: Collection[TopicPartition]
    ) -> list[TopicPartition]:
        wanted = set(self._topics or self._settings.topics)
        if self._topics is None:
            wanted |= {each.topic for each in committed}
        # All topics: asked for one that is not there, a broker may create it.
        return [
            TopicPartition(topic["topic"], each["partition"])
            for topic in await admin.describe_topics()
            if topic["topic"] in wanted
            for each in topic["partitions"]
        ]

    async def _connect(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        admin = await self._open.enter_async_context(admin_client(self._settings))
        consumer = AIOKafkaConsumer(**client_options(self._settings))
        self._open.push_async_callback(consumer.stop)
        await consumer.start()
        self._clients = admin, consumer
        return self._clients

    async def _leave(self) -> None:
        """Close what is open; a broker that hangs is not waited for."""
        opened, self._open, self._clients = self._open, AsyncExitStack(), None
        closing = asyncio.create_task(opened.aclose())
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
        if not closing.done():
            closing.cancel()
        elif not closing.cancelled():
            closing.exception()  # seen: it says what the look said


async def _members(admin: AIOKafkaAdminClient, group: str) -> tuple[str, int]:
    (answer,) = await admin.describe_consumer_groups([group])
    described: dict[str, Any] = answer.to_object()["groups"][0]
    if described["error_code"]:
        raise for_code(described["error_code"])(group)
    return str(described["state"]), len(described["members"])
