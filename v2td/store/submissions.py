"""Jobs that came by the API: a row of `submissions` is noted before the record is sent, and completed behind it.

The row says which request a key stands for, so that the same one is not sent twice. A row without an id is being sent
by an instance that says so from time to time (`hold`), or by one that is gone: then another may take it over (`claim`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from v2td.store.pool import Database
from v2td.store.sanitise import clean_text

__all__ = [
    "Acknowledged",
    "Reservation",
    "Submission",
    "claim",
    "complete",
    "find",
    "hold",
    "release",
    "reserve",
    "windows_saved",
]

MAX_MATCHES = 20  # of a job_id that many messages share


@dataclass(frozen=True, slots=True)
class Reservation:
    """A request that is about to be sent; `audio_url` as it may be shown."""

    idempotency_key: str
    request_sha256: str
    job_id: str | None
    audio_url: str
    topic: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Where Kafka has the record of a key; `id` is the job's."""

    idempotency_key: str
    id: UUID
    kafka_partition: int
    kafka_offset: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A row of submissions; `id`, partition and offset are None until Kafka is known to have the record."""

    idempotency_key: str
    request_sha256: str
    id: UUID | None
    job_id: str | None
    audio_url: str
    topic: str
    kafka_partition: int | None
    kafka_offset: int | None
    created_at: datetime


_COLUMNS = ", ".join(field.name for field in fields(Submission))
# In one order of keys, so that two instances with the same ones do not wait for each other crosswise.
_RESERVE = """
INSERT INTO submissions (idempotency_key, request_sha256, job_id, audio_url, topic)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
AS ours (key, sha256, job_id, audio_url, topic) ORDER BY key
ON CONFLICT DO NOTHING RETURNING idempotency_key
"""
_KNOWN = f"SELECT {_COLUMNS} FROM submissions WHERE idempotency_key = ANY($1::text[])"  # noqa: S608 (our own names)
_COMPLETE = """
UPDATE submissions s SET id = ours.id, kafka_partition = ours.partition, kafka_offset = ours.kafka_offset
FROM (SELECT * FROM unnest($1::text[], $2::uuid[], $3::integer[], $4::bigint[])
      AS given (key, id, partition, kafka_offset) ORDER BY key) ours
WHERE s.idempotency_key = ours.key AND s.id IS NULL
RETURNING s.idempotency_key
"""
_HOLD = "UPDATE submissions SET held_at = now() WHERE idempotency_key = $1 AND id IS NULL"
_CLAIM = """
UPDATE submissions SET held_at = now()
WHERE idempotency_key = $1 AND id IS NULL AND held_at < now() - make_interval(secs => $2) RETURNING 1
"""
_RELEASE = "DELETE FROM submissions WHERE idempotency_key = $1 AND id IS NULL"
_FIND = f"SELECT {_COLUMNS} FROM submissions WHERE id = $1"  # noqa: S608 (our own names)
_FIND_NAMED = f"""
SELECT {_COLUMNS} FROM submissions WHERE job_id = $1 AND id IS NOT NULL ORDER BY created_at DESC LIMIT {MAX_MATCHES}
"""  # noqa: S608 (our own names)
_WINDOWS = 'SELECT count(DISTINCT "window") FROM window_results WHERE id = $1'


async def reserve(database: Database, wanted: Sequence[Reservation]) -> list[Submission | None]:
    """Note requests whose keys are new, all durable at once; return what was known of each key, None of a new one.

    No key may be twice among them. Raises ServiceError.
    """
    keys = [each.idempotency_key for each in wanted]
    known: dict[str, Submission] = {}
    missing = list(wanted)
    async with database.acquire("note what is submitted") as connection:
        while missing:
            columns = _columns(Reservation, missing)
            new = {row["idempotency_key"] for row in await connection.fetch(_RESERVE, *columns)}
            others = [each.idempotency_key for each in missing if each.idempotency_key not in new]
            if others:
                known |= {row["idempotency_key"]: Submission(**row) for row in await connection.fetch(_KNOWN, others)}
            # One that was there and is not any more was released in between: it is reserved after all.
            missing = [
                each for each in missing if each.idempotency_key not in new and each.idempotency_key not in known
            ]
    return [known.get(key) for key in keys]


async def complete(database: Database, acknowledged: Sequence[Acknowledged]) -> list[bool]:
    """Note where records are; False for a key that somebody else has completed meanwhile. Raises ServiceError."""
    columns = _columns(Acknowledged, acknowledged)
    async with database.acquire("note what Kafka has") as connection:
        done = {row["idempotency_key"] for row in await connection.fetch(_COMPLETE, *columns)}
    return [each.idempotency_key in done for each in acknowledged]


async def hold(database: Database, key: str) -> None:
    """Say that the key's record is still being sent; raises ServiceError."""
    async with database.acquire("hold a submission") as connection:
        await connection.execute(_HOLD, key)


async def claim(database: Database, key: str, seconds: float) -> bool:
    """Take over a key that nobody has held for so long; False when somebody has. Raises ServiceError."""
    async with database.acquire("take over a submission") as connection:
        return await connection.fetchval(_CLAIM, key, seconds) is not None


async def release(database: Database, key: str) -> None:
    """Forget a key whose record was surely not sent; raises ServiceError."""
    async with database.acquire("forget a submission") as connection:
        await connection.execute(_RELEASE, key)


async def find(database: Database, job: UUID | str) -> list[Submission]:
    """Return what was submitted under a row's id, or a message's own, newest first. Raises ServiceError."""
    async with database.acquire("look up a submission") as connection:
        if isinstance(job, UUID):
            return [Submission(**row) for row in await connection.fetch(_FIND, job)]
        return [Submission(**row) for row in await connection.fetch(_FIND_NAMED, clean_text(job))]


async def windows_saved(database: Database, job: UUID) -> int:
    """Return how many windows of an unfinished job are kept; raises ServiceError."""
    async with database.acquire("count finished windows") as connection:
        return int(await connection.fetchval(_WINDOWS, job))


def _columns(row: type, rows: Sequence[object]) -> list[list[object]]:
    return [[getattr(each, field.name) for each in rows] for field in fields(row)]
