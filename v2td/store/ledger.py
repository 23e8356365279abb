"""The ledger of failures: which there are, what was in their records, and which are to be done again or given up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from v2td.jobs import Coordinates, Headers, SourceRecord
from v2td.store import commands
from v2td.store.batch import FORGET, LOCK, partition_keys
from v2td.store.encoding import CUT, MAX_PAYLOAD_BYTES, decode_bytes
from v2td.store.pool import Database
from v2td.store.reader import StoredFailure
from v2td.store.replays import is_of, original
from v2td.store.rows import DROPPED, REQUESTED
from v2td.store.sanitise import clean_text

__all__ = [
    "DROPPED",
    "FAILED",
    "REQUESTED",
    "STATES",
    "FailedRecord",
    "Selection",
    "count_by_class",
    "drop",
    "failed_records",
    "failures",
    "request",
    "withdraw",
]

FAILED = "failed"  # a failure with which nobody has done anything; NULL in its row
STATES = (FAILED, REQUESTED, DROPPED)

_COLUMNS = ", ".join(field.name for field in fields(StoredFailure))
_MATCHING = f"""
FROM failures
WHERE ($1::text[] IS NULL OR id = ANY($2::uuid[]) OR job_id = ANY($1))
  AND ($3::text[] IS NULL OR error_class = ANY($3))
  AND ($4::text[] IS NULL OR topic = ANY($4))
  AND ($5::timestamptz IS NULL OR created_at >= $5)
  AND ($6::timestamptz IS NULL OR created_at < $6)
  AND coalesce(replay_state, '{FAILED}') = ANY($7::text[])
"""
_SELECT = f"SELECT {_COLUMNS} {_MATCHING} ORDER BY created_at DESC, id LIMIT $8"
_COUNT = f"SELECT error_class, count(*) {_MATCHING} GROUP BY error_class ORDER BY count(*) DESC, error_class"
_RECORDS = f"""
SELECT {_COLUMNS}, record_timestamp_ms, record_key, payload, headers FROM failures WHERE id = ANY($1::uuid[])
"""  # noqa: S608 (our own column names)
_REQUEST = f"""
UPDATE failures SET replay_state = '{REQUESTED}'
WHERE id = ANY($1::uuid[]) AND (replay_state IS NULL OR $2 AND replay_state = '{REQUESTED}') RETURNING id
"""  # noqa: S608 (our own words)
_WITHDRAW = f"""
UPDATE failures SET replay_state = NULL WHERE id = $1 AND replay_state = '{REQUESTED}'
"""  # noqa: S608 (our own words)
_PARTITIONS = "SELECT DISTINCT cluster_id, topic, kafka_partition FROM failures WHERE id = ANY($1::uuid[])"
_DROP = f"""
UPDATE failures SET replay_state = '{DROPPED}', record_key = NULL, payload = NULL, headers = '[]'
WHERE id = ANY($1::uuid[]) AND coalesce(replay_state, '{FAILED}') = ANY($2::text[]) RETURNING id
"""  # noqa: S608 (our own words)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which failures are meant: those that fit all that is given; `jobs` are row ids or messages' own ids."""

    jobs: tuple[str, ...] = ()
    error_classes: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    states: tuple[str, ...] = (FAILED, REQUESTED)


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A failure with what its row keeps of the record; `cut` says that this is not all of it.

    `coordinates` are the job's, None where a row of a version before does not tell the record's time.
    """

    failure: StoredFailure
    record: SourceRecord
    cut: bool
    coordinates: Coordinates | None

    def is_beginning_of(self, record: SourceRecord) -> bool:
        """Tell whether the record may be the one that failed: the daemon asks the same of a replay."""
        return is_of(record, self.record.key, self.record.value)


async def failures(database: Database, selection: Selection, limit: int | None = None) -> list[StoredFailure]:
    """Return the failures that are meant, newest first; raises ServiceError."""
    async with database.acquire("look up failures") as connection:
        rows = await connection.fetch(_SELECT, *_arguments(selection), limit)
    return [StoredFailure(**row) for row in rows]


async def count_by_class(database: Database, selection: Selection) -> dict[str, int]:
    """Return how many failures are meant, by class of error, most first; raises ServiceError."""
    async with database.acquire("count failures") as connection:
        return dict(await connection.fetch(_COUNT, *_arguments(selection)))


async def failed_records(database: Database, ids: Sequence[UUID]) -> list[FailedRecord]:
    """Return failures with their records, in the order of the ids that are there; raises ServiceError."""
    async with database.acquire("read failed records") as connection:
        rows = {row["id"]: dict(row) for row in await connection.fetch(_RECORDS, ids)}
    return [_failed_record(rows[row_id]) for row_id in ids if row_id in rows]


async def request(database: Database, ids: Sequence[UUID], *, again: bool) -> set[UUID]:
    """Mark failures as to be done again; return which are now.

    Those marked before are among them with `again` only, and dropped ones never. Raises ServiceError.
    """
    async with database.acquire("ask for replays") as connection, connection.transaction(isolation="read_committed"):
        asked = {row["id"] for row in await connection.fetch(_REQUEST, ids, again)}
        await commands.done(connection, asked)  # who asks now wants them, whatever was cancelled before
    return asked


async def withdraw(database: Database, row_id: UUID) -> None:
    """Take back a request whose record was surely not sent; raises ServiceError."""
    async with database.acquire("take back a replay") as connection:
        await connection.execute(_WITHDRAW, row_id)


async def drop(database: Database, ids: Sequence[UUID], states: Sequence[str] = (FAILED,)) -> set[UUID]:
    """Give up failures in these states; return which were. Raises ServiceError.

    What their records held is forgotten, and what their jobs left behind: nobody will go on from there.
    """
    async with database.acquire("drop failures") as connection, connection.transaction(isolation="read_committed"):
        partitions = [tuple(row) for row in await connection.fetch(_PARTITIONS, ids)]
        await connection.execute(LOCK, partition_keys(partitions))  # windows that are being saved are seen, or see it
        dropped = {row["id"] for row in await connection.fetch(_DROP, ids, states)}
        await connection.execute(FORGET, list(dropped))
    return dropped


def _arguments(selection: Selection) -> tuple[object, ...]:
    jobs, *others, states = astuple(selection)
    ids = []
    for job in jobs:
        with suppress(ValueError):
            ids.append(UUID(job))
    return ([clean_text(job) for job in jobs] or None, ids, *(other or None for other in others), states)


def _failed_record(row: dict[str, Any]) -> FailedRecord:
    key, payload, headers = row.pop("record_key"), row.pop("payload"), row.pop("headers")
    cut = any(len(part or b"") >= MAX_PAYLOAD_BYTES for part in (key, payload)) or [CUT, ""] in headers
    record = SourceRecord(key, payload, _decoded([header for header in headers if header != [CUT, ""]]))
    coordinates = original(row)
    del row["record_timestamp_ms"]
    return FailedRecord(StoredFailure(**row), record, cut, coordinates)


def _decoded(headers: list[list[Any]]) -> Headers:
    """Return what `rows.encode_headers` was given."""
    return tuple((name, decode_bytes(value)) for name, value in headers)
