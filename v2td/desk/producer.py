"""The way to Kafka: one producer that stays, and is replaced once something went wrong with it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake import acknowledged_time, admin_client, client_options
from v2td.jobs import Coordinates, Headers
from v2td.logs import get_logger

log = get_logger(__name__)


class Producer:
    """Sends records that all replicas in sync acknowledge, each once; an async context manager.

    Idempotent, so that what it tries again by itself is not there twice. It tries for ever while no broker answers.
    After anything that a broker refuses aiokafka's sequence numbers may be out of order for good, and so another
    takes its place.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._replacing = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()  # those that were replaced

    async def __aenter__(self) -> Self:
        async with admin_client(self._settings) as admin:
            self.cluster_id = str((await admin.describe_cluster()).get("cluster_id") or "")
            if self._topic not in await admin.list_topics():  # one that is misspelt must not come about
                raise ServiceError("take jobs", f"there is no topic {self._topic}", "create it, or set api.jobs_topic")
        self._producer = await self._started()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._stop(self._producer), *self._stopping)

    async def send(self, key: bytes, value: bytes, headers: Headers) -> Coordinates:
        """Return where the record is, however long that takes; raises KafkaError when it surely is nowhere.

        A cancellation leaves open whether it is sent.
        """
        producer = self._producer
        now = int(time.time() * 1000)
        try:
            sent = await producer.send(self._topic, value, key=key, timestamp_ms=now, headers=list(headers))
            record = await sent
        except KafkaError:
            await self._replace(producer)
            raise
        timestamp_ms = acknowledged_time(record, now)
        return Coordinates(self.cluster_id, record.topic, record.partition, record.offset, timestamp_ms)

    async def partition_of(self, topic: str, key: bytes) -> int:
        """Return the partition that records with the key go to; raises KafkaError."""
        numbers = sorted(await self._producer.partitions_for(topic))
        return int(DefaultPartitioner()(key, numbers, numbers))

    async def _started(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(**client_options(self._settings), acks="all", enable_idempotence=True)
        try:
            await producer.start()
        except BaseException:
            await self._stop(producer)
            raise
        return producer

    async def _replace(self, broken: AIOKafkaProducer) -> None:
        async with self._replacing:
            if self._producer is not broken:
                return
            try:
                self._producer = await self._started()
            except KafkaError as error:  # the broken one may mend yet, and is tried again before another
                log.warning("producer not replaced", error=str(error))
                return
        task = asyncio.create_task(self._stop(broken))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        seconds = self._settings.commit_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await producer.stop()
        except TimeoutError:
            log.warning("a producer did not stop in time", what="submission")
            # It would try to send what it has for ever, and keep the event loop from closing.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await producer._sender.close()  # noqa: SLF001 (what `stop` does behind its flush)
                    await producer.client.close()
