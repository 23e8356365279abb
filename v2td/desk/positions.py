"""How many records are before one in its partition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake import admin_client
from v2td.logs import get_logger

log = get_logger(__name__)

Committed = Callable[[str, int], int | None]  # of a topic's partition; None: not known here

OLD_SECONDS = 2.0  # as long what Kafka said of partitions of others counts
ASK_SECONDS = 2.0


class Positions:
    """Knows the group's committed offsets: `here` tells those of our own partitions, Kafka the others."""

    def __init__(self, settings: KafkaSettings, here: Committed) -> None:
        self._settings = settings
        self._here = here
        self._asking = asyncio.Lock()
        self._offsets: dict[TopicPartition, int] = {}
        self._asked = -OLD_SECONDS  # time.monotonic()

    async def of(self, topic: str, partition: int, offset: int) -> int | None:
        """Return how many records before this one are not done; None when that is not known."""
        committed = self._here(topic, partition)
        if committed is None:
            committed = (await self._elsewhere()).get(TopicPartition(topic, partition))
        return None if committed is None else max(0, offset - committed)

    async def _elsewhere(self) -> dict[TopicPartition, int]:
        async with self._asking:
            if time.monotonic() - self._asked < OLD_SECONDS:
                return self._offsets
            try:
                async with asyncio.timeout(ASK_SECONDS), admin_client(self._settings) as admin:
                    found = await admin.list_consumer_group_offsets(self._settings.group_id)
                self._offsets = {tp: each.offset for tp, each in found.items() if each.offset >= 0}
            except (KafkaError, ServiceError, OSError) as error:  # TimeoutError is an OSError
                log.info("committed offsets not known", error=str(error))
                self._offsets = {}
            self._asked = time.monotonic()
            return self._offsets
