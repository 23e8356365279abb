"""The auditor: while faults rage it reads the committed offsets, then what is durable, and compares the two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.chaos.producer import Producer, Sent
from tests.chaos.verdict import Durable, Key, Outcome, Verdict, judge, key_of

TICK_SECONDS = 0.3
PATIENCE_SECONDS = 40.0  # for the verdict, until Kafka and Postgres answer
ANSWER_SECONDS = 5.0
LETTERS_MS = 200

_MILLISECONDS = "round(extract(epoch FROM record_timestamp) * 1000)::bigint"
_UNDONE = f"""
SELECT topic, part, off, ms
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS asked (topic, part, off, ms)
WHERE NOT EXISTS (SELECT FROM transcriptions r WHERE r.cluster_id = $5 AND r.topic = asked.topic
    AND kafka_partition = part AND kafka_offset = off AND {_MILLISECONDS} = ms)
  AND NOT EXISTS (SELECT FROM failures r WHERE r.cluster_id = $5 AND r.topic = asked.topic
    AND kafka_partition = part AND kafka_offset = off AND {_MILLISECONDS} = ms)
  AND NOT EXISTS (SELECT FROM replays r WHERE r.cluster_id = $5 AND r.topic = asked.topic
    AND kafka_partition = part AND kafka_offset = off)
"""
_OUTCOMES = f"""
SELECT id::text, topic, kafka_partition, kafka_offset, record_index, {_MILLISECONDS} AS timestamp_ms, job_id, text,
    coalesce(segments, 0) AS segments, coalesce(distinct_segments, 0) AS distinct_segments, false AS waits
FROM transcriptions LEFT JOIN (
    SELECT transcription_id, count(*) AS segments, count(DISTINCT segment_index) AS distinct_segments
    FROM transcript_segments GROUP BY transcription_id
) AS counted ON transcription_id = id
UNION ALL
SELECT id::text, topic, kafka_partition, kafka_offset, record_index, {_MILLISECONDS}, job_id, NULL, 0, 0,
    coalesce(replay_state = 'requested', false)
FROM failures
"""
_STRAY_SEGMENTS = """
SELECT DISTINCT transcription_id FROM transcript_segments s
WHERE NOT EXISTS (SELECT FROM transcriptions t WHERE t.id = s.transcription_id AND t.revision = s.revision)
"""


class Auditor:
    """Looks on as long as it is open, on connections of its own; an async context manager.

    `problems` are what it saw while it looked: a committed offset above a record without a durable outcome, a failure
    without its dead letter. `audits` is how often it compared.
    """

    def __init__(self, bootstrap: str, dsn: str, group: str, dead_letters: str, producer: Producer) -> None:
        self.audits = 0
        self.early = 0  # records that were not durable when their offset was committed
        self.problems: list[str] = []
        self._bootstrap, self._dsn, self._group, self._dead_letters = bootstrap, dsn, group, dead_letters
        self._producer = producer
        self._taken = 0  # of the producer's log
        self._waiting: dict[Key, Sent] = {}  # acknowledged, and not yet below the committed offset
        self._excused: set[Key] = set()
        self._may_look = asyncio.Lock()
        self._closing = asyncio.Event()
        self._cluster: str | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()  # not cancelled: aiokafka would leave connections behind
        await self._task

    @property
    def excused(self) -> int:
        """How many records need no outcome."""
        return len(self._excused)

    def excuse(self, records: Iterable[Sent]) -> None:
        """Let these records have an outcome or none: an operator skipped them, or retention deleted them."""
        self._excused |= {key_of(record) for record in records}

    @asynccontextmanager
    async def looking_away(self) -> AsyncIterator[None]:
        """Compare nothing inside the block: offsets of a topic that was just made anew are the old one's."""
        async with self._may_look:
            yield

    async def committed(self) -> dict[TopicPartition, int]:
        """Return the group's committed offsets."""
        async with asyncio.timeout(ANSWER_SECONDS):
            admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
            try:
                await admin.start()
                self._cluster = (await admin.describe_cluster())["cluster_id"]
                found = await admin.list_consumer_group_offsets(self._group)
                return {tp: each.offset for tp, each in found.items() if each.offset >= 0}
            finally:
                await admin.close()

    async def verdict(self) -> Verdict:
        """Compare everything, and say what is wrong; what was seen meanwhile is in it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                await self.audit()
                durable = await self._durable()
                break
            except (OSError, TimeoutError, KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(TICK_SECONDS)
        found = judge(
            self._producer.acknowledged, durable, unsure=self._producer.unsure, excused=frozenset(self._excused)
        )
        found.problems += self.problems
        return found

    async def audit(self) -> None:
        """Read the committed offsets, then what is durable; everything below the former has to be in the latter."""
        async with self._may_look:
            committed = await self.committed()
            log = self._producer.acknowledged
            self._waiting |= {key_of(record): record for record in log[self._taken :]}
            self._taken = len(log)
            below = [
                (key, record)
                for key, record in self._waiting.items()
                if record.offset < committed.get(TopicPartition(record.topic, record.partition), 0)
            ]
            undone = await self._undone([key for key, _ in below])
            for key, _ in below:
                del self._waiting[key]
            early = [record for key, record in below if key in undone and key not in self._excused]
            self.early += len(early)
            if early:
                at = f"{early[0].topic}/{early[0].partition}/{early[0].offset}"
                self.problems.append(f"{len(early)} × committed above a record that is not durable: {at}")
            self.audits += 1

    async def _look_on(self) -> None:
        while not self._closing.is_set():
            with suppress(OSError, TimeoutError, KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self.audit()  # what does not answer now is the fault at work
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), TICK_SECONDS)

    async def _undone(self, keys: list[Key]) -> set[Key]:
        if not keys:
            return set()
        rows = await self._fetch(_UNDONE, *map(list, zip(*keys, strict=True)), self._cluster)
        return {(row["topic"], row["part"], row["off"], row["ms"]) for row in rows}

    async def _durable(self) -> Durable:
        """Offsets before outcomes, failures before letters: in the order in which the daemon makes them, backwards."""
        committed = {(tp.topic, tp.partition): offset for tp, offset in (await self.committed()).items()}
        outcomes = [Outcome(*row) for row in await self._fetch(_OUTCOMES)]
        replays = await self._fetch("SELECT topic, kafka_partition, kafka_offset FROM replays")
        letters = await self._letters() if any(each.text is None for each in outcomes) else frozenset()
        return Durable(
            outcomes,
            letters,
            {tuple(row) for row in replays},
            committed,
            cluster=self._cluster or "",
            windows=await self._ids("SELECT DISTINCT id FROM window_results"),
            deaths=await self._ids("SELECT id FROM child_deaths"),
            stray_segments=await self._ids(_STRAY_SEGMENTS),
        )

    async def _ids(self, query: str) -> list[str]:
        return [str(row[0]) for row in await self._fetch(query)]

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        async with asyncio.timeout(6 * ANSWER_SECONDS):
            connection = await asyncpg.connect(self._dsn, timeout=ANSWER_SECONDS)
            try:
                return list(await connection.fetch(query, *arguments))
            finally:
                connection.terminate()  # a frozen server would not say good-bye

    async def _letters(self) -> frozenset[str]:
        """Return the ids of all dead letters."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        found: set[str] = set()
        try:
            partitions = [TopicPartition(self._dead_letters, 0)]
            consumer.assign(partitions)
            (end,) = (await consumer.end_offsets(partitions)).values()
            while await consumer.position(partitions[0]) < end:
                for records in (await consumer.getmany(timeout_ms=LETTERS_MS)).values():
                    found |= {value.decode() for each in records for name, value in each.headers if name == "v2td-id"}
        finally:
            await consumer.stop()
        return frozenset(found)
