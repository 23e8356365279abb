"""Messages as they still are in their topics: what rows do not keep, such as the query of a URL, is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import OffsetOutOfRangeError

from v2td.config import Settings
from v2td.intake import admin_client, client_options
from v2td.jobs import Coordinates, Job, SourceRecord
from v2td.messages import Known, jobs_of

READ_MS = 10_000  # longest wait for one record; an offset that compaction took has none
AT_ONCE = 1  # records


class Originals:
    """Reads single messages; made by `open_originals`."""

    def __init__(
        self, settings: Settings, cluster: str, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer
    ) -> None:
        self._settings = settings
        self._known = Known.of(settings)
        self._cluster = cluster
        self._admin = admin
        self._consumer = consumer
        self._partitions: dict[str, int] = {}

    async def find(self, at: Coordinates) -> Job | None:
        """Return the job that a message of this cluster asked for; None when it is there no more, or another one.

        Raises KafkaError.
        """
        if at.cluster_id != self._cluster or at.partition >= await self._count(at.topic):
            return None
        record = await self._record(at)
        if record is None:
            return None
        first = replace(at, record_index=0)
        found = jobs_of(record, first, settings=self._settings.messages, known=self._known)
        return next((each for each in found if isinstance(each, Job) and each.coordinates == at), None)

    async def _count(self, topic: str) -> int:
        if topic not in self._partitions:
            there = topic in await self._admin.list_topics()
            description = (await self._admin.describe_topics([topic]))[0] if there else {"partitions": []}
            self._partitions[topic] = len(description["partitions"])
        return self._partitions[topic]

    async def _record(self, at: Coordinates) -> SourceRecord | None:
        partition = TopicPartition(at.topic, at.partition)
        if self._consumer.assignment() != {partition}:
            self._consumer.assign([partition])
        starts, ends = (
            await self._consumer.beginning_offsets([partition]),
            await self._consumer.end_offsets([partition]),
        )
        if not starts[partition] <= at.offset < ends[partition]:
            return None
        self._consumer.seek(partition, at.offset)
        try:
            found = await self._consumer.getmany(partition, timeout_ms=READ_MS, max_records=AT_ONCE)
        except OffsetOutOfRangeError:  # deleted meanwhile
            return None
        for record in found.get(partition, []):
            # A topic that was created anew uses its offsets again: the time is that of the record.
            if record.offset == at.offset and record.timestamp == at.timestamp_ms:
                return SourceRecord(record.key, record.value, tuple(record.headers))
        return None


@asynccontextmanager
async def open_originals(settings: Settings) -> AsyncIterator[Originals]:
    """Connect to Kafka, as nobody's group; what it refuses is a KafkaError or a ServiceError."""
    kafka = settings.kafka
    consumer = AIOKafkaConsumer(**client_options(kafka), enable_auto_commit=False, auto_offset_reset="none")
    async with admin_client(kafka) as admin:
        cluster = str((await admin.describe_cluster()).get("cluster_id") or "")
        try:
            await consumer.start()
            yield Originals(settings, cluster, admin, consumer)
        finally:
            await consumer.stop()
