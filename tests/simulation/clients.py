"""The other two clients of Kafka that v2td has: the producer of dead letters and the admin client."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, Self
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.kafka import Kafka
from tests.simulation.network import Connection
from v2td.intake.offsets import Partition
from v2td.intake.topics import Commit, from_metadata

MAX_MESSAGE_BYTES = 4096
CLUSTER = "simulated"


class SimulatedProducer:
    """See AIOKafkaProducer; not idempotent, so a letter may be there twice."""

    def __init__(self, kafka: Kafka, connection: Connection) -> None:
        self._kafka, self._connection = kafka, connection

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def send_and_wait(self, topic: str, **message: Any) -> None:
        """Retries for a while, as aiokafka does within its request timeout."""
        if len(message.get("value") or b"") > MAX_MESSAGE_BYTES:
            raise MessageSizeTooLargeError
        for tries in range(3):
            try:
                await self._connection.ask(self._kafka.produce, topic, message)
            except KafkaError as error:
                if tries == 2 or not error.retriable:
                    raise
                await asyncio.sleep(0.1)
            else:
                return


class SimulatedAdmin:
    """See AIOKafkaAdminClient."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def list_topics(self) -> list[str]:
        return [*{tp.topic for tp in self._kafka.logs}, "dead"]

    async def describe_cluster(self) -> dict[str, Any]:
        return {"cluster_id": CLUSTER, "brokers": [None]}

    async def create_topics(self, _topics: list[Any]) -> Any:
        return SimpleNamespace(topic_errors=[])


class SimulatedTopicIds:
    """See v2td.intake.topics.TopicIds: it speaks the wire protocol, of which there is nothing here."""

    def __init__(self, kafka: Kafka, connection: Connection) -> None:
        self._kafka, self._connection = kafka, connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def current(self, topics: Collection[str]) -> dict[str, UUID | None]:
        found: dict[str, UUID] = await self._connection.ask(lambda: dict(self._kafka.topic_ids))
        return {topic: found[topic] for topic in topics}

    async def of_commits(self, partitions: Collection[Partition]) -> dict[Partition, Commit]:
        committed = await self._connection.ask(lambda: dict(self._kafka.committed))
        found = {each: committed.get(TopicPartition(*each), OffsetAndMetadata(None, "")) for each in partitions}
        return {each: Commit(commit.offset, from_metadata(commit.metadata)) for each, commit in found.items()}
