"""What is known of partitions when they become ours: where reading begins, and what is durable from there on.

Not knowing costs work, nothing else: each answer that does not come in time counts as "nothing known".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from v2td import metrics
from v2td.errors import ServiceError
from v2td.intake.callbacks import LookUp
from v2td.intake.gaps import count_deleted
from v2td.intake.offsets import Partition
from v2td.intake.topics import TopicIds
from v2td.jobs import Coordinates
from v2td.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Past:
    """Of one partition. `committed` and `begin` (where reading begins) are None when nothing was, or is known.

    `seek`: the consumer would begin elsewhere, as the committed offset is one of another topic of the same name.
    """

    committed: int | None
    begin: int | None
    seek: bool
    durable: dict[int, frozenset[UUID]]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is known of all partitions that became ours, and the ids of their topics."""

    topic_ids: dict[str, UUID]
    partitions: dict[Partition, Past]


class LookBack:
    """Asks the brokers and the database, at most `seconds` each."""

    def __init__(
        self, consumer: AIOKafkaConsumer, topic_ids: TopicIds, look_up: LookUp, cluster_id: str, seconds: float
    ) -> None:
        self._consumer = consumer
        self._topic_ids = topic_ids
        self._look_up = look_up
        self._cluster_id = cluster_id
        self._seconds = seconds

    async def assigned(self, partitions: Collection[Partition]) -> Assignment:
        """Return what is known of partitions that were assigned."""
        tps = [TopicPartition(*each) for each in partitions]
        ids, meant, starts, *committed = await asyncio.gather(
            self.topic_ids({each.topic for each in partitions}),
            self._answer("topics of the commits", self._topic_ids.of_commits(partitions), {}),
            self._answer("log starts", self._consumer.beginning_offsets(tps), {}),
            *(self._answer("committed offset", self._consumer.committed(tp), None) for tp in tps),
        )
        begins = [
            _begin(partition, offset, starts.get(partition), _is_other(meant.get(partition), ids.get(partition.topic)))
            for partition, offset in zip(partitions, committed, strict=True)
        ]
        durable = await asyncio.gather(
            *(self.durable(partition, begin or 0) for partition, (begin, _) in zip(partitions, begins, strict=True))
        )
        pasts = (Past(offset, *begin, known) for offset, begin, known in zip(committed, begins, durable, strict=True))
        return Assignment(ids, dict(zip(partitions, pasts, strict=True)))

    async def topic_ids(self, topics: Collection[str]) -> dict[str, UUID]:
        """Return the ids of topics that are there now."""
        return await self._answer("topic ids", self._topic_ids.current(topics), {})

    async def durable(self, partition: Partition, first: int) -> dict[int, frozenset[UUID]]:
        """Return the ids of what is durable from an offset on."""
        return await self._answer("finished records", self._look_up(self._cluster_id, *partition, first), {})

    async def _answer(self, what: str, question: Awaitable[T], nothing: T) -> T:
        try:
            async with asyncio.timeout(self._seconds):
                return await question
        except (KafkaError, ServiceError, TimeoutError) as error:
            log.warning("not looked up", what=what, error=f"{type(error).__name__}: {error}")
            return nothing


def _is_other(meant: UUID | None, current: UUID | None) -> bool:
    return meant is not None and current is not None and meant != current


def _begin(partition: Partition, committed: int | None, start: int | None, recreated: bool) -> tuple[int | None, bool]:
    """Return where reading begins, and whether the consumer must be told."""
    if recreated:
        say_recreated(partition.topic)
        return start or 0, True
    if committed is not None and start is not None and committed < start:
        count_deleted(partition, committed, start)
        return start, False  # the consumer finds that out by itself
    return committed, False


def say_recreated(topic: str) -> None:
    """Say that a topic is another one of the same name."""
    metrics.TOPICS_RECREATED.labels(topic).inc()
    log.warning("the topic was created anew: reading it from its beginning", topic=topic)


class Durable:
    """What was durable already when partitions were assigned; counts what of it comes again, and what in between."""

    def __init__(self, known: Mapping[Partition, dict[int, frozenset[UUID]]] | None = None) -> None:
        self._known: dict[Partition, dict[int, frozenset[UUID]]] = {}
        self._newest: dict[Partition, int] = {}
        self._skipped = self._redone = 0
        for partition, ids in (known or {}).items():
            self.replace(partition, ids)

    def replace(self, partition: Partition, ids: dict[int, frozenset[UUID]]) -> None:
        """Take what is known of a partition from now on."""
        self._known.pop(partition, None)
        self._newest.pop(partition, None)
        if ids:
            self._known[partition] = dict(ids)
            self._newest[partition] = max(ids)

    def claim(self, at: Coordinates) -> frozenset[UUID]:
        """Return the ids of durable jobs at a record's offset, once; count the record as skipped or redone.

        Of a record with several jobs the first one decides.
        """
        partition = Partition(at.topic, at.partition)
        newest = self._newest.get(partition)
        if newest is None:
            return frozenset()
        ids = self._known[partition].pop(at.offset, frozenset())
        if at.row_id() in ids:
            self._skipped += 1
        elif at.offset <= newest and (not ids or any(_time_of(each) == _time_of(at.row_id()) for each in ids)):
            # Not so what an older topic of the same name left at its offset, which says nothing about this record.
            self._redone += 1
            metrics.JOBS_REDONE.inc()
        if at.offset >= newest:
            self.replace(partition, {})
            if not self._newest:
                log.info("what was durable already has come again", skipped=self._skipped, redone=self._redone)
        return ids


def _time_of(row_id: UUID) -> int:
    """Return the record's time in a row's id, which the jobs of a record share."""
    return row_id.int >> 80
