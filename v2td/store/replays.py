"""Whether a record that says it replays a failure does so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from v2td.jobs import Coordinates, Replay, SourceRecord
from v2td.store.encoding import MAX_PAYLOAD_BYTES
from v2td.store.pool import Database
from v2td.store.rows import REQUESTED

_FAILURE = """
SELECT id, cluster_id, topic, kafka_partition, kafka_offset, record_index, record_timestamp_ms,
       record_key, payload
FROM failures WHERE id = $1 AND replay_state = $2
"""
_HAS_OUTCOME = """
SELECT EXISTS (SELECT FROM transcriptions WHERE id = $1) OR EXISTS (SELECT FROM failures WHERE id = $1)
"""
_DONE = """
SELECT EXISTS (SELECT FROM replays WHERE record_id = $1),
       EXISTS (SELECT FROM replays WHERE replay_of = $2 AND record_sha256 = $3)
"""


async def find_replay(
    database: Database, row_id: UUID, record: SourceRecord, at: Coordinates
) -> Coordinates | Literal["done"] | None:
    """Return the coordinates of the failed job that the record at `at` may replay.

    "done" says that the same record was replayed before, and None that its claim is to be ignored: no replay of that
    failure was asked for, or not of this record. Asks the primary. Raises ServiceError.
    """
    async with database.acquire("look up what is replayed") as connection:
        this_one, one_like_it = await connection.fetchrow(_DONE, at.row_id(), row_id, Replay.digest(record))
        if this_one:
            return "done"
        found = await connection.fetchrow(_FAILURE, row_id, REQUESTED)
    if found is None:
        return "done" if one_like_it else None
    return original(found) if is_of(record, found["record_key"], found["payload"]) else None


async def has_outcome(database: Database, row_id: UUID) -> bool:
    """Tell whether a job has a row, be it one that says that the job will be tried again. Asks the primary.

    Raises ServiceError.
    """
    async with database.acquire("look up a job") as connection:
        return bool(await connection.fetchval(_HAS_OUTCOME, row_id))


def is_of(record: SourceRecord, stored_key: bytes | None, stored_payload: bytes | None) -> bool:
    """Tell whether a record is the one of which a failure's row keeps the beginning."""
    return _beginning(record.key) == stored_key and _beginning(record.value) == stored_payload


def original(row: Mapping[str, Any]) -> Coordinates | None:
    """Return the coordinates in a row of failures; None where they cannot be told, as they do not have the row's id.

    A row of a version before has the record's time in the first 48 bits of its id only: 0 stands for no time too, and
    for one before 1970.
    """
    row_id: UUID = row["id"]
    time = row["record_timestamp_ms"]
    for timestamp_ms in (row_id.int >> 80, -1) if time is None else (time,):
        coordinates = Coordinates(
            row["cluster_id"],
            row["topic"],
            row["kafka_partition"],
            row["kafka_offset"],
            timestamp_ms,
            row["record_index"],
        )
        if coordinates.row_id() == row_id:
            return coordinates
    return None


def _beginning(value: bytes | None) -> bytes | None:
    return None if value is None else value[:MAX_PAYLOAD_BYTES]
