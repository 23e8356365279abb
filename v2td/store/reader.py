"""Look-ups: what became of a job, and what was said in it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from v2td.store.encoding import record_time
from v2td.store.pool import Database
from v2td.store.sanitise import clean_text

MAX_MATCHES = 20  # of a job_id that many messages share
DURABLE_AT_ONCE = 5_000  # rows, which the event loop takes in about 10 ms


@dataclass(frozen=True, slots=True)
class StoredTranscription:
    """A row of transcriptions; seconds, bytes."""

    id: UUID
    revision: int
    job_id: str | None
    cluster_id: str
    topic: str
    kafka_partition: int
    kafka_offset: int
    record_index: int
    record_timestamp: datetime | None
    tenant: str | None
    audio_url: str
    audio_sha256: str
    options_sha256: str
    audio_bytes: int
    audio_seconds: float
    speech_seconds: float
    language: str | None
    language_probability: float | None
    task: str
    provider: str
    model: str
    text: str
    duration: float
    timings: dict[str, Any]
    speech_coverage_ratio: float | None
    truncated: bool
    cached_from: UUID | None
    metadata: dict[str, Any]
    route: dict[str, Any] | None
    cost: float | None
    request: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredFailure:
    """A row of failures without the record itself."""

    id: UUID
    job_id: str | None
    cluster_id: str
    topic: str
    kafka_partition: int
    kafka_offset: int
    record_index: int
    record_timestamp: datetime | None
    audio_url: str | None
    error_class: str
    reason: str
    attempts: int
    replay_state: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A row of transcript_segments; times in seconds of the recording."""

    segment_index: int
    channel: int | None
    speaker: str | None
    start_seconds: float
    end_seconds: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: list[dict[str, Any]] | None


StoredOutcome = StoredTranscription | StoredFailure


def _columns(row: type, alias: str = "") -> str:
    return ", ".join(alias + field.name for field in fields(row))


# `{}` stands for the condition. A job that was transcribed again shows its newest revision.
_TRANSCRIPTIONS = f"""
SELECT * FROM (
    SELECT DISTINCT ON (id) {_columns(StoredTranscription)} FROM transcriptions WHERE {{}} ORDER BY id, revision DESC
) newest ORDER BY created_at DESC, record_index LIMIT {MAX_MATCHES}
"""  # noqa: S608 (our own column names)
_FAILURES = f"""
SELECT {_columns(StoredFailure)} FROM failures WHERE {{}} ORDER BY created_at DESC, record_index LIMIT {MAX_MATCHES}
"""  # noqa: S608 (our own column names)
_AT = """
cluster_id = $1 AND topic = $2 AND kafka_partition = $3 AND kafka_offset = $4
AND ($5::timestamptz IS NULL OR record_timestamp = $5)
"""
_SEGMENTS = f"""
SELECT {_columns(StoredSegment, "s.")} FROM transcript_segments s
JOIN (
    SELECT id, revision, created_at FROM transcriptions
    WHERE id = $1 AND ($2::integer IS NULL OR revision = $2) ORDER BY revision DESC LIMIT 1
) t
ON s.transcription_id = t.id AND s.revision = t.revision AND s.created_at = t.created_at
ORDER BY s.segment_index
"""  # noqa: S608 (our own column names)
_REVISION = f"SELECT {_columns(StoredTranscription)} FROM transcriptions WHERE id = $1 AND revision = $2"  # noqa: S608


def _next_durable(table: str, row_id: str) -> str:
    """Of a table the rows behind one row, in an order that its index has."""
    return f"""(
    SELECT kafka_offset, {row_id} AS id FROM {table}
    WHERE cluster_id = $1 AND topic = $2 AND kafka_partition = $3 AND (kafka_offset, {row_id}) > ($4, $5)
    ORDER BY kafka_offset, {row_id} LIMIT {DURABLE_AT_ONCE}
)"""  # noqa: S608 (our own names)


_DURABLE = f"""
{_next_durable("transcriptions", "id")}
UNION ALL {_next_durable("failures", "id")}
UNION ALL {_next_durable("replays", "record_id")}
ORDER BY kafka_offset, id LIMIT {DURABLE_AT_ONCE}
"""
_REPLAYED = "SELECT replay_of FROM replays WHERE record_id = ANY($1::uuid[])"
_NEWEST = f"""
SELECT DISTINCT ON (id) {_columns(StoredTranscription)} FROM transcriptions WHERE id = ANY($1::uuid[])
ORDER BY id, revision DESC
"""  # noqa: S608 (our own column names)
_FAILURES_OF = f"SELECT {_columns(StoredFailure)} FROM failures WHERE id = ANY($1::uuid[])"  # noqa: S608


class Reader:
    """Looks outcomes up, on the replica where there is one; every method raises ServiceError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, job: str) -> tuple[StoredOutcome, ...]:
        """Return the outcomes that JOB may mean: a row's id, or a message's own id.

        One is the answer; of several (at most MAX_MATCHES of each kind, newest first) a person must choose.
        """
        try:
            row_id = UUID(job)
        except ValueError:
            found: tuple[StoredOutcome, ...] = ()
        else:
            found = await self._outcomes("id = $1", row_id)
        return found or await self._outcomes("job_id = $1", clean_text(job))

    async def at(
        self, cluster_id: str, topic: str, partition: int, offset: int, timestamp_ms: int | None = None
    ) -> tuple[StoredOutcome, ...]:
        """Return the outcomes of the record at an offset: more than one when it named several jobs.

        A recreated topic uses its offsets again: name the record's timestamp to be sure.
        """
        timestamp = None if timestamp_ms is None else record_time(timestamp_ms)
        return await self._outcomes(_AT, cluster_id, topic, partition, offset, timestamp)

    async def revision(self, transcription_id: UUID, revision: int) -> StoredTranscription | None:
        """Return a certain revision; None when there is no such."""
        async with self._database.read("look up a transcript") as connection:
            row = await connection.fetchrow(_REVISION, transcription_id, revision)
        return None if row is None else StoredTranscription(**row)

    async def segments(self, transcription_id: UUID, revision: int | None = None) -> tuple[StoredSegment, ...]:
        """Return the segments of a revision, None: the newest one, in order."""
        async with self._database.read("look up segments") as connection:
            rows = await connection.fetch(_SEGMENTS, transcription_id, revision)
        return tuple(StoredSegment(**row) for row in rows)

    async def _outcomes(self, condition: str, *arguments: object) -> tuple[StoredOutcome, ...]:
        async with self._database.read("look up a job") as connection:
            transcriptions = await connection.fetch(_TRANSCRIPTIONS.format(condition), *arguments)
            failures = await connection.fetch(_FAILURES.format(condition), *arguments)
        return (*(StoredTranscription(**row) for row in transcriptions), *(StoredFailure(**row) for row in failures))


async def outcomes(database: Database, ids: Collection[UUID]) -> list[StoredOutcome]:
    """Return the newest outcomes of jobs, or of what the records of these ids replayed, in no certain order.

    Asks the primary. Raises ServiceError.
    """
    async with database.acquire("look up outcomes") as connection:
        replayed = await connection.fetch(_REPLAYED, list(ids))
        jobs = [*ids, *(row["replay_of"] for row in replayed)]
        transcriptions = await connection.fetch(_NEWEST, jobs)
        failures = await connection.fetch(_FAILURES_OF, jobs)
    return [*(StoredTranscription(**row) for row in transcriptions), *(StoredFailure(**row) for row in failures)]


async def durable_jobs(
    database: Database, cluster_id: str, topic: str, partition: int, first_offset: int
) -> dict[int, frozenset[UUID]]:
    """Return the row ids of all jobs at and beyond an offset that have ended already, by offset.

    A record received there is done when the ids of all its jobs are among them: the id holds the record's
    timestamp, so a recreated topic is not mistaken for the old one. Of a record that replayed a failure it is the
    record's own id; its outcome has the failure's. Asks the primary, since a replica may lag.
    Raises ServiceError.
    """
    durable: dict[int, frozenset[UUID]] = {}
    last = (first_offset, UUID(int=0))
    while True:
        # A connection for each page: of many partitions that are looked up at once, all get their turns.
        async with database.acquire("look up what is done already") as connection:
            page = await connection.fetch(_DURABLE, cluster_id, topic, partition, *last)
        for offset, row_id in page:
            known = durable.get(offset)
            durable[offset] = frozenset((row_id,)) if known is None else known | {row_id}
        if len(page) < DURABLE_AT_ONCE:
            return durable
        last = tuple(page[-1])
