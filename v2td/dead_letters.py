"""Failures done again: their records are sent once more, whole and under the row's id, or it is said why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from v2td.config import Settings
from v2td.errors import ServiceError, first_of
from v2td.intake import admin_client, client_options, explained
from v2td.jobs import Headers, SourceRecord
from v2td.messages.headers import REPLAY_OF, ROW_ID, TRACE, TRUNCATED, header
from v2td.store import Database, ledger, open_database

OURS = "v2td-"  # headers whose names begin so are v2td's, wherever they came from
AT_ONCE = 100  # failures asked for and sent together
LARGEST_RECORD = 1 << 30  # bytes; the brokers and the topic say what is too large
POLL_MS = 1000


class Result(StrEnum):
    """What became of the wish to do a failure again."""

    SENT = "sent"
    LEFT = "left"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Replayed:
    """One failure: `told` is where its record went (topic/partition/offset), or why it did not."""

    id: UUID
    result: Result
    told: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """The brokers' own id and the topics that are there."""

    id: str
    topics: frozenset[str]


@asynccontextmanager
async def open_replayer(
    settings: Settings, *, again: bool, dry_run: bool, database: Database | None = None
) -> AsyncIterator[Replayer]:
    """Connect to Kafka, and to Postgres unless it is open; what either refuses in the block too is a ServiceError.

    With `again` those that were asked for before are sent once more, which is done once all the same; with
    `dry_run` nothing is written or sent, but the dead letters are looked through.
    """
    kafka = settings.kafka
    async with AsyncExitStack() as stack:
        if database is None:
            database = await stack.enter_async_context(open_database(settings.database, "v2td dlq"))
        stack.enter_context(explained(kafka, "replay failures", quiet=True))
        async with admin_client(kafka) as admin:
            description = await admin.describe_cluster()
            cluster = Cluster(str(description.get("cluster_id") or ""), frozenset(await admin.list_topics()))
        producer = None
        if not dry_run:
            # Not idempotent, for the reason that DeadLetters gives; what arrives twice is done once.
            producer = AIOKafkaProducer(**client_options(kafka), acks="all", max_request_size=LARGEST_RECORD)
            stack.push_async_callback(producer.stop)
            await producer.start()
        yield Replayer(settings, database, cluster, producer, again=again)


class Replayer:
    """Asks for failures and sends their records to where they came from; made by `open_replayer`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        cluster: Cluster,
        producer: AIOKafkaProducer | None,
        *,
        again: bool,
    ) -> None:
        self._kafka = settings.kafka
        self._database = database
        self._cluster = cluster
        self._producer = producer
        self._again = again

    async def replay(self, ids: Sequence[UUID]) -> AsyncGenerator[Replayed, None]:
        """Yield what became of each failure, in no certain order. Raises ServiceError.

        Stopped at any point, a failure is untouched, or asked for and its record sent or not: `again` cures the last.
        """
        cut: set[UUID] = set()
        for start in range(0, len(ids), AT_ONCE):
            chunk = ids[start : start + AT_ONCE]
            found = await ledger.failed_records(self._database, chunk)
            for row_id in set(chunk) - {each.failure.id for each in found}:
                yield Replayed(row_id, Result.LEFT, "is no failure any more")
            whole = []
            for each in found:
                if (refusal := self._refusal(each)) is not None:
                    yield Replayed(each.failure.id, Result.REFUSED, refusal)
                elif each.failure.replay_state == ledger.REQUESTED and not self._again:
                    yield Replayed(each.failure.id, Result.LEFT, "was asked for before")
                elif each.cut:
                    cut.add(each.failure.id)
                else:
                    whole.append(each)
            for replayed in await self._send(whole):
                yield replayed
        async with aclosing(self._whole_letters(cut)) as letters:
            async for each in letters:
                for replayed in await self._send([each]):
                    yield replayed
        for row_id in cut:
            topic = self._kafka.dead_letter_topic
            yield Replayed(row_id, Result.REFUSED, f"its row has the beginning of its record, and {topic} has no more")

    def _refusal(self, failed: ledger.FailedRecord) -> str | None:
        failure = failed.failure
        topic = failure.topic
        unread = topic not in (*self._kafka.topics, self._kafka.retry_topic)
        refusals = {
            "it was dropped, and its record with it": failure.replay_state == ledger.DROPPED,
            "there is no record to send: it had no value, or none that its row could hold": failed.record.value is None,
            "its row, of a version before, does not tell its record's time: the job would get another id": (
                failed.coordinates is None
            ),
            f"it failed in another cluster: {failure.cluster_id}, and this is {self._cluster.id}": (
                failure.cluster_id != self._cluster.id
            ),
            f"there is no topic {topic} any more": topic not in self._cluster.topics,
            f"nobody would read it: {topic} is not in kafka.topics": unread,
        }
        return next((refusal for refusal, holds in refusals.items() if holds), None)

    async def _send(self, records: Sequence[ledger.FailedRecord]) -> list[Replayed]:
        """Ask for the failures, then send: a record that came before would be a job of its own."""
        if self._producer is None:
            return [Replayed(each.failure.id, Result.SENT, f"would go to {each.failure.topic}") for each in records]
        asked = await ledger.request(self._database, [each.failure.id for each in records], again=self._again)
        left = [each.failure.id for each in records if each.failure.id not in asked]
        sending = (self._send_one(self._producer, each) for each in records if each.failure.id in asked)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each) for each in sending]
        except ExceptionGroup as errors:
            if not isinstance(error := first_of(errors), KafkaError):
                raise
            cure = "some are asked for and not sent: run it once more with --again"
            raise ServiceError("send replays", f"{type(error).__name__}: {error}", cure) from None
        return [
            *(task.result() for task in tasks),
            *(Replayed(row_id, Result.LEFT, "changed meanwhile") for row_id in left),
        ]

    async def _send_one(self, producer: AIOKafkaProducer, failed: ledger.FailedRecord) -> Replayed:
        failure, record = failed.failure, failed.record
        headers = [*to_send(record.headers), (REPLAY_OF, str(failure.id).encode())]
        try:
            done = await producer.send_and_wait(failure.topic, key=record.key, value=record.value, headers=headers)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            if failure.replay_state is None:  # else a record of before may be on its way
                await ledger.withdraw(self._database, failure.id)
            return Replayed(failure.id, Result.REFUSED, f"its record is too large for {failure.topic}")
        return Replayed(failure.id, Result.SENT, f"{done.topic}/{done.partition}/{done.offset}")

    async def _whole_letters(self, wanted: set[UUID]) -> AsyncGenerator[ledger.FailedRecord, None]:
        """Go through the dead-letter topic once, and take from `wanted` those whose record is there whole."""
        topic = self._kafka.dead_letter_topic
        if not wanted or topic not in self._cluster.topics:
            return
        consumer = AIOKafkaConsumer(topic, **client_options(self._kafka), auto_offset_reset="earliest")
        try:
            await consumer.start()
            ends = await consumer.end_offsets(consumer.assignment())
            while wanted and any([await consumer.position(partition) < end for partition, end in ends.items()]):
                for letters in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                    for letter in letters:
                        row_id = letter_id(letter.headers)
                        if row_id not in wanted:
                            continue
                        for failed in await ledger.failed_records(self._database, [row_id]):
                            # Of a record that has no key the letter's is the row id.
                            keyless = failed.record.key is None and letter.key == str(row_id).encode()
                            key = None if keyless else letter.key
                            record = SourceRecord(key, letter.value, to_send(letter.headers))
                            if failed.is_beginning_of(record):
                                wanted.discard(row_id)
                                yield replace(failed, record=record, cut=False)
        finally:
            await consumer.stop()


def letter_id(headers: Headers) -> UUID | None:
    """Return the row id that a dead letter names, None where it has none or lacks its value (pure)."""
    named = dict(headers)
    if TRUNCATED in named:
        return None
    try:
        return UUID(named[ROW_ID].decode())
    except (KeyError, ValueError):  # some other tool's; UnicodeDecodeError is a ValueError
        return None


def without_ours(headers: Headers) -> Headers:
    """Return the headers that are the producer's own: what it claimed in v2td's name was ignored before (pure)."""
    return tuple((name, value) for name, value in headers if not name.startswith(OURS))


def to_send(headers: Headers) -> Headers:
    """Return the producer's own headers, and the trace of the try that failed, to which the next one links (pure)."""
    trace = header(headers, TRACE)
    return (*without_ours(headers), *(() if trace is None else ((TRACE, trace.encode()),)))
