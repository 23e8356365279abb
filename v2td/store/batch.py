"""One flush: outcomes by COPY into their tables, or through staging tables when some of them are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from v2td.jobs import Outcome, Transcript
from v2td.store.connection import Connection
from v2td.store.rows import (
    FailureRow,
    SegmentRow,
    TranscriptionRow,
    coordinates_of,
    failure_row,
    segment_rows,
    transcription_row,
)


@dataclass(frozen=True, slots=True)
class Written:
    """Rows that a flush inserted; outcomes that were durable before add none."""

    transcriptions: int
    segments: int
    failures: int


def _columns(row: type[NamedTuple], alias: str = "") -> str:
    return ", ".join(alias + field for field in row._fields)


def _staging(table: str, row: type[NamedTuple]) -> str:
    columns = f"SELECT {_columns(row)} FROM {table} WITH NO DATA"  # noqa: S608 (our own column names)
    return f"CREATE TEMP TABLE staged_{table} ON COMMIT DELETE ROWS AS {columns};\n"


_CREATE_STAGING = (
    _staging("transcriptions", TranscriptionRow)
    + _staging("transcript_segments", SegmentRow)
    + _staging("failures", FailureRow)
)

# Exactly one of transcription and failure: who came first stays. Segments only for the rows inserted here, so a
# replay adds none. now() is the transaction's, the same in all rows.
_INSERT = f"""
WITH written AS (
    INSERT INTO transcriptions ({_columns(TranscriptionRow)}, created_at)
    SELECT {_columns(TranscriptionRow, "s.")}, now() FROM staged_transcriptions s
    WHERE NOT EXISTS (SELECT FROM failures f WHERE f.id = s.id)
    ON CONFLICT DO NOTHING
    RETURNING id, revision, created_at
), segments AS (
    INSERT INTO transcript_segments ({_columns(SegmentRow)}, created_at)
    SELECT {_columns(SegmentRow, "s.")}, w.created_at FROM staged_transcript_segments s
    JOIN written w ON w.id = s.transcription_id AND w.revision = s.revision
    RETURNING 1
), failed AS (
    INSERT INTO failures ({_columns(FailureRow)}, created_at)
    SELECT {_columns(FailureRow, "s.")}, now() FROM staged_failures s
    WHERE NOT EXISTS (SELECT FROM transcriptions t WHERE t.id = s.id)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM written) AS transcriptions,
       (SELECT count(*) FROM segments) AS segments,
       (SELECT count(*) FROM failed) AS failures
"""  # noqa: S608 (our own column names)


# The time is the transaction's, which is the default of created_at in the other tables.
_LOOK = """
SELECT now() AS now, EXISTS (SELECT FROM transcriptions WHERE id = ANY($1::uuid[]))
                  OR EXISTS (SELECT FROM failures WHERE id = ANY($1::uuid[])) AS any_known
"""


async def prepare(connection: Connection) -> None:
    """Make the staging tables of a new connection, which live as long as it does; the schema must be there."""
    await connection.execute(_CREATE_STAGING)


async def insert(connection: Connection, outcomes: Sequence[Outcome]) -> Written:
    """Write outcomes of different jobs in one transaction: all or none, and none twice.

    `connection` is one that `prepare` has seen.
    """
    transcripts = [outcome for outcome in outcomes if isinstance(outcome, Transcript)]
    transcriptions = [transcription_row(transcript) for transcript in transcripts]
    segments = [row for transcript in transcripts for row in segment_rows(transcript)]
    failures = [failure_row(outcome) for outcome in outcomes if not isinstance(outcome, Transcript)]
    async with connection.transaction():
        # Another instance may hold an outcome of the same job, just after a rebalance. With one flush per Kafka
        # partition at a time, whoever comes second sees the first one's row.
        await connection.execute("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) key", _locks(outcomes))
        look = await connection.fetchrow(_LOOK, [*(row.id for row in transcriptions), *(row.id for row in failures)])
        if not look["any_known"]:  # as nearly always: much cheaper than by staging tables
            await _copy(connection, "transcriptions", TranscriptionRow._fields, transcriptions)
            stamped = [(*row, look["now"]) for row in segments]
            await _copy(connection, "transcript_segments", (*SegmentRow._fields, "created_at"), stamped)
            await _copy(connection, "failures", FailureRow._fields, failures)
            return Written(len(transcriptions), len(segments), len(failures))
        await _copy(connection, "staged_transcriptions", TranscriptionRow._fields, transcriptions)
        await _copy(connection, "staged_transcript_segments", SegmentRow._fields, segments)
        await _copy(connection, "staged_failures", FailureRow._fields, failures)
        return Written(**await connection.fetchrow(_INSERT))


async def _copy(connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        await connection.copy_records_to_table(table, records=rows, columns=columns)


def _locks(outcomes: Iterable[Outcome]) -> list[int]:
    """Return one lock key for each Kafka partition, in an order that is the same everywhere."""
    partitions = {(at.cluster_id, at.topic, at.partition) for at in map(coordinates_of, outcomes)}
    digests = (hashlib.sha256(repr(partition).encode()).digest() for partition in partitions)
    return sorted(int.from_bytes(digest[:8], "big", signed=True) for digest in digests)
