"""One flush: rows by COPY into their tables, or through staging tables when some of the jobs are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from v2td import failpoints
from v2td.jobs import Coordinates
from v2td.store.connection import Connection
from v2td.store.rows import REQUESTED, FailureRow, RedoRow, ReplayRow, Rows, SegmentRow, TranscriptionRow
from v2td.store.sanitise import clean_text

LOCK = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) key"  # of what `lock_keys` says


@dataclass(frozen=True, slots=True)
class Written:
    """Rows that a flush inserted; outcomes that were durable before add none. `redos` are those that failed.

    `new` holds the `name_of` each outcome that was inserted; None: all were.
    """

    transcriptions: int
    segments: int
    failures: int
    redos: int = 0
    new: frozenset[str] | None = None


def _columns(row: type[NamedTuple], alias: str = "") -> str:
    return ", ".join(alias + field for field in row._fields)


def _staging(table: str, row: type[NamedTuple]) -> str:
    columns = f"SELECT {_columns(row)} FROM {table} WITH NO DATA"  # noqa: S608 (our own column names)
    return f"CREATE TEMP TABLE staged_{table} ON COMMIT DELETE ROWS AS {columns};\n"


_CREATE_STAGING = (
    _staging("transcriptions", TranscriptionRow)
    + _staging("transcript_segments", SegmentRow)
    + _staging("failures", FailureRow)
    + _staging("replays", ReplayRow)
)

# A failure that is done again makes room for what came of it, once for each record that asked. What a person dropped
# meanwhile, or another replay made a transcription, stays.
_REPLAY = f"""
WITH asked AS (
    SELECT * FROM staged_replays s WHERE NOT EXISTS (SELECT FROM replays r WHERE r.record_id = s.record_id)
), freed AS (
    DELETE FROM failures f USING asked WHERE f.id = asked.replay_of AND f.replay_state = '{REQUESTED}'
)
INSERT INTO replays ({_columns(ReplayRow)}) SELECT {_columns(ReplayRow)} FROM asked ON CONFLICT DO NOTHING
"""  # noqa: S608 (our own column names)

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
    RETURNING id
)
SELECT (SELECT count(*) FROM written) AS transcriptions,
       (SELECT count(*) FROM segments) AS segments,
       (SELECT count(*) FROM failed) AS failures,
       ARRAY(SELECT id || '/' || revision FROM written UNION ALL SELECT id || '/failed' FROM failed) AS new
"""  # noqa: S608 (our own column names)

# The transcription stays as it was, and another revision of it may be there by now.
_FAIL_REDOS = """
WITH failed AS (
    UPDATE redos SET failed = ours.failed
    FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS ours (id, revision, failed)
    WHERE redos.id = ours.id AND redos.revision = ours.revision AND redos.failed IS NULL
      AND NOT EXISTS (SELECT FROM transcriptions t WHERE t.id = ours.id AND t.revision = ours.revision)
    RETURNING redos.id, redos.revision
)
SELECT array_agg(id || '/' || revision || '/failed') FROM failed
"""

# The time is the transaction's, which is the default of created_at in the other tables. A join, since `= ANY($1)` in a
# plan made for any array goes through the array for each row that it scans: 0.4 s for 5000 jobs and 25,000 rows.
_LOOK = """
SELECT now() AS now, EXISTS (SELECT FROM unnest($1::uuid[]) AS ours (id) JOIN transcriptions USING (id))
                  OR EXISTS (SELECT FROM unnest($1::uuid[]) AS ours (id) JOIN failures USING (id)) AS any_known,
       EXISTS (SELECT FROM unnest($1::uuid[]) AS ours (id) JOIN window_results USING (id))
                  OR EXISTS (SELECT FROM unnest($1::uuid[]) AS ours (id) JOIN child_deaths USING (id))
                  OR EXISTS (SELECT FROM unnest($1::uuid[]) AS ours (id)
                             JOIN job_commands c ON c.job = ours.id AND c.done_at IS NULL) AS any_begun
"""

FORGET = """
WITH windows AS (DELETE FROM window_results w USING unnest($1::uuid[]) AS ours (id) WHERE w.id = ours.id),
commands AS (
    UPDATE job_commands c SET done_at = now() FROM unnest($1::uuid[]) AS ours (id)
    WHERE c.job = ours.id AND c.done_at IS NULL
)
DELETE FROM child_deaths d USING unnest($1::uuid[]) AS ours (id) WHERE d.id = ours.id
"""


async def prepare(connection: Connection) -> None:
    """Make the staging tables of a new connection, which live as long as it does; the schema must be there."""
    await connection.execute(_CREATE_STAGING)


async def insert(connection: Connection, rows: Sequence[Rows]) -> Written:
    """Write the rows of different records in one transaction: all or none, and none twice.

    `connection` is one that `prepare` has seen.
    """
    replays = [each.replay for each in rows if each.replay]
    kept = _one_of_each_job(rows) if replays else rows
    transcriptions = [each.transcription for each in kept if each.transcription]
    segments = [row for each in kept for row in each.segments]
    failures = [each.failure for each in kept if each.failure]
    redos = [each.redo for each in kept if each.redo]
    jobs: list[TranscriptionRow | FailureRow | RedoRow] = [*transcriptions, *failures, *redos]
    # Another instance may hold an outcome of the same job, just after a rebalance. With one flush per Kafka partition
    # at a time, whoever comes second sees the first one's row: where each statement sees what is committed by then.
    async with connection.transaction(isolation="read_committed"):
        await failpoints.reach("write.begin")
        await connection.execute(LOCK, partition_keys((row.cluster_id, row.topic, row.kafka_partition) for row in jobs))
        look = await connection.fetchrow(_LOOK, [row.id for row in jobs])
        if look["any_begun"]:  # a job that is to be done again goes on from there
            again = {row.id for row in failures if row.replay_state == REQUESTED}
            await connection.execute(FORGET, [row.id for row in jobs if row.id not in again])
        if look["any_known"] or replays:
            await _copy(connection, "staged_transcriptions", TranscriptionRow._fields, transcriptions)
            await _copy(connection, "staged_transcript_segments", SegmentRow._fields, segments)
            await _copy(connection, "staged_failures", FailureRow._fields, failures)
            await _copy(connection, "staged_replays", ReplayRow._fields, replays)
            if replays:
                await connection.execute(_REPLAY)
            found = dict(await connection.fetchrow(_INSERT))
            columns = [list(column) for column in zip(*(row[:3] for row in redos), strict=True)]
            failed = await connection.fetchval(_FAIL_REDOS, *columns) if redos else None
            new = frozenset((*found.pop("new"), *(failed or ())))
            written = Written(**found, redos=len(failed or ()), new=new)
        else:  # as nearly always: much cheaper than by staging tables
            await _copy(connection, "transcriptions", TranscriptionRow._fields, transcriptions)
            stamped = [(*row, look["now"]) for row in segments]
            await _copy(connection, "transcript_segments", (*SegmentRow._fields, "created_at"), stamped)
            await _copy(connection, "failures", FailureRow._fields, failures)
            written = Written(len(transcriptions), len(segments), len(failures))
        await failpoints.reach("write.copied")
    await failpoints.reach("write.committed")
    return written


def name_of(rows: Rows) -> str:
    """Return what an outcome is called in `Written.new`."""
    if rows.transcription is not None:
        return f"{rows.transcription.id}/{rows.transcription.revision}"
    if rows.redo is not None:
        return f"{rows.redo.id}/{rows.redo.revision}/failed"
    return f"{rows.failure.id}/failed" if rows.failure is not None else ""


def lock_keys(jobs: Iterable[Coordinates]) -> list[int]:
    """Return the advisory locks that who writes of these jobs has to hold: see LOCK."""
    return partition_keys((clean_text(at.cluster_id), clean_text(at.topic), at.partition) for at in jobs)


def partition_keys(partitions: Iterable[tuple[str, str, int]]) -> list[int]:
    """Return one key for each (cluster, topic, partition) as in rows, in an order that is the same everywhere."""
    digests = (hashlib.sha256(repr(partition).encode()).digest() for partition in set(partitions))
    return sorted(int.from_bytes(digest[:8], "big", signed=True) for digest in digests)


async def _copy(connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        await connection.copy_records_to_table(table, records=rows, columns=columns)


def _one_of_each_job(rows: Sequence[Rows]) -> list[Rows]:
    """Keep one outcome of each job: of a replay rather than of the job's own record, whose outcome was there before.

    And a final one rather than one that waits for a replay, which may be the one whose outcome is here too. Revisions
    are apart, and of one that was tried twice the text is kept.
    """
    kept: dict[tuple[UUID, int], Rows] = {}
    for each in sorted(rows, key=lambda row: (row.replay is None, _waits(row), row.redo is not None)):
        if (revised := each.transcription or each.redo) is not None:
            kept.setdefault((revised.id, revised.revision), each)
        elif each.failure is not None:
            kept.setdefault((each.failure.id, 0), each)
    return list(kept.values())


def _waits(rows: Rows) -> bool:
    return rows.failure is not None and rows.failure.replay_state == REQUESTED
