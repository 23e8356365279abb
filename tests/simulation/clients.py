"""The other two clients of Kafka that v2td has: the producer of dead letters and the admin client."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from tests.simulation.kafka import Kafka
from tests.simulation.network import Connection

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
                await self._connection.ask(self._kafka.letters.append, {"topic": topic, **message})
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
