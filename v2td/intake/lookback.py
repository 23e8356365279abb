"""What is known of partitions when they become ours: where reading begins, and what is durable from there on.

Without the committed offset, and the ids of its topic and of the one that is there now, a partition cannot be read: the
offset might be one of an older topic of the same name, and what is below it in the new one would be lost. What else is
not known costs work, nothing else: such an answer that does not come in time counts as "nothing known".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from v2td import metrics
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.callbacks import LookUp
from v2td.intake.gaps import count_deleted
from v2td.intake.offsets import Partition
from v2td.intake.topics import Commit, TopicIds
from v2td.jobs import Coordinates
from v2td.logs import get_logger

log = get_logger(__name__)

K = TypeVar("K")
T = TypeVar("T")

RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Past:
    """Of one partition. `committed` and `begin` (where reading begins) are None when nothing was committed.

    `recreated`: the consumer would begin elsewhere, as the committed offset is one of another topic of the same name.
    """

    committed: int | None
    begin: int | None
    recreated: bool
    durable: dict[int, frozenset[UUID]]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is known of partitions that became ours, those of which enough is; and the ids of their topics."""

    topic_ids: dict[str, UUID | None]
    partitions: dict[Partition, Past]


class LookBack:
    """Asks the brokers for at most the time of a commit, and the database for half of the rebalance timeout.

    The latter is long as what the database does not tell is done again: all there is, once offsets were set back.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, topic_ids: TopicIds, look_up: LookUp, cluster_id: str, settings: KafkaSettings
    ) -> None:
        self._consumer = consumer
        self._topic_ids = topic_ids
        self._look_up = look_up
        self._cluster_id = cluster_id
        self._seconds = settings.commit_timeout_seconds
        self._look_up_seconds = settings.rebalance_timeout_seconds / 2

    async def assigned(self, partitions: Collection[Partition]) -> Assignment:
        """Return what is known of partitions that were assigned, of those of which enough is."""
        tps = [TopicPartition(*each) for each in partitions]
        ids, commits, starts = await asyncio.gather(
            self.topic_ids({each.topic for each in partitions}),
            self._insist("committed offsets", lambda: self._topic_ids.of_commits(partitions)),
            self._answer("log starts", self._consumer.beginning_offsets(tps), {}, self._seconds),
        )
        known = [each for each in partitions if each.topic in ids and each in commits]
        begins = [_begin(each, commits[each], starts.get(TopicPartition(*each)), ids[each.topic]) for each in known]
        durable = await asyncio.gather(
            *(self.durable(each, begin or 0) for each, (begin, _) in zip(known, begins, strict=True))
        )
        return Assignment(
            ids,
            {
                each: Past(commits[each].offset, *begin, rows)
                for each, begin, rows in zip(known, begins, durable, strict=True)
            },
        )

    async def topic_ids(self, topics: Collection[str]) -> dict[str, UUID | None]:
        """Return the ids of topics that are there now, None for those that have none; nothing when nobody answers."""
        return await self._insist("topic ids", lambda: self._topic_ids.current(topics))

    async def durable(self, partition: Partition, first: int) -> dict[int, frozenset[UUID]]:
        """Return the ids of what is durable from an offset on."""
        rows = self._look_up(self._cluster_id, *partition, first)
        return await self._answer("finished records", rows, {}, self._look_up_seconds)

    async def _insist(self, what: str, ask: Callable[[], Awaitable[dict[K, T]]]) -> dict[K, T]:
        """Ask until there is an answer, or the time is up."""
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    try:
                        return await ask()
                    except KafkaError as error:
                        log.warning("not looked up yet", what=what, error=f"{type(error).__name__}: {error}")
                        await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            log.warning("not looked up", what=what, seconds=self._seconds)
            return {}

    async def _answer(self, what: str, question: Awaitable[T], nothing: T, seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await question
        except (KafkaError, ServiceError, TimeoutError) as error:
            log.warning("not looked up", what=what, error=f"{type(error).__name__}: {error}")
            return nothing


def _begin(partition: Partition, commit: Commit, start: int | None, topic_id: UUID | None) -> tuple[int | None, bool]:
    """Return where reading begins, and whether that is so as the topic was created anew."""
    if commit.topic_id is not None and topic_id is not None and commit.topic_id != topic_id:
        return start or 0, True
    if commit.offset is not None and start is not None and commit.offset < start:
        count_deleted(partition, commit.offset, start)
        return start, False  # the consumer finds that out by itself
    return commit.offset, False


def say_recreated(topic: str) -> None:
    """Say that a topic is another one of the same name."""
    metrics.TOPICS_RECREATED.labels(topic).inc()
    log.warning("the topic was created anew: reading it from its beginning", topic=topic)


class Durable:
    """What was durable already when partitions were assigned; counts what of it comes again, and what in between."""

    def __init__(self) -> None:
        self._known: dict[Partition, dict[int, frozenset[UUID]]] = {}
        self._newest: dict[Partition, int] = {}
        self._skipped = self._redone = 0

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
