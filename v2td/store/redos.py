"""Transcriptions that are to be done again: which there are, what was asked for, and how that ended.

A row of `redos` is noted before its record is sent, and says which record may ask for the revision. It stays when the
revision is there, so that a record that comes again is known as done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from v2td.jobs import Coordinates, Redo, Replay, SourceRecord
from v2td.store import commands
from v2td.store.pool import Database
from v2td.store.reader import StoredTranscription
from v2td.store.replays import original
from v2td.store.sanitise import clean_text

__all__ = [
    "COLUMNS",
    "FOUND_AT_ONCE",
    "Asked",
    "Candidate",
    "Ended",
    "Failed",
    "Key",
    "Selection",
    "Term",
    "Wish",
    "asked",
    "coordinates_of",
    "ended",
    "find",
    "find_redo",
    "mark_sent",
    "note",
    "originals",
    "outcome",
    "withdraw",
]

# What a term may be about.
COLUMNS = ("provider", "model", "language", "topic", "tenant", "task")
FOUND_AT_ONCE = 5_000

Key = tuple[UUID, int]  # a transcription's id, and the revision that is to come


@dataclass(frozen=True, slots=True)
class Term:
    """A column has a value, or has not."""

    column: str
    value: str
    negated: bool = False

    def __post_init__(self) -> None:
        assert self.column in COLUMNS  # it becomes SQL


@dataclass(frozen=True, slots=True)
class Selection:
    """Which transcriptions are meant: those whose newest revision fits all that is given.

    `jobs` are row ids or messages' own ids; `since` and `until` say when that revision was written.
    """

    jobs: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transcription's newest revision."""

    id: UUID
    revision: int
    job_id: str | None
    model: str
    provider: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for last of a transcription, and the same model and provider; `done` when it is there."""

    revision: int
    record_sha256: str
    sent: bool
    failed: str | None
    done: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """A transcription that is to be done again by the record with this digest."""

    id: UUID
    record_sha256: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a wish ended: `failed` says why there is no such revision."""

    failed: str | None
    model: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no other revision of a transcription."""

    transcription: StoredTranscription
    error_class: str
    reason: str


_FIND = """
SELECT t.id, t.revision, t.job_id, t.model, t.provider, t.created_at FROM transcriptions t
WHERE (t.created_at, t.id) > ($1, $2)
  AND ($3::text[] IS NULL OR t.id = ANY($4::uuid[]) OR t.job_id = ANY($3))
  AND ($5::timestamptz IS NULL OR t.created_at >= $5)
  AND ($6::timestamptz IS NULL OR t.created_at < $6)
  {terms}
  AND NOT EXISTS (SELECT FROM transcriptions n WHERE n.id = t.id AND n.revision > t.revision)
ORDER BY t.created_at, t.id LIMIT $7
"""
_ASKED = """
SELECT DISTINCT ON (r.id) r.id, r.revision, r.record_sha256, r.sent_at IS NOT NULL AS sent, r.failed,
       EXISTS (SELECT FROM transcriptions t WHERE t.id = r.id AND t.revision = r.revision) AS done
FROM redos r WHERE r.id = ANY($1::uuid[]) AND r.model IS NOT DISTINCT FROM $2 AND r.provider IS NOT DISTINCT FROM $3
ORDER BY r.id, r.revision DESC
"""
_ORIGINALS = f"""
SELECT DISTINCT ON (id) {", ".join(StoredTranscription.__slots__)} FROM transcriptions WHERE id = ANY($1::uuid[])
ORDER BY id, revision DESC
"""  # noqa: S608 (our own column names)
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('v2td redo'))"  # one after the other takes numbers
_NOTE = """
INSERT INTO redos (id, revision, model, provider, record_sha256)
SELECT ours.id, 1 + greatest(
    coalesce((SELECT max(t.revision) FROM transcriptions t WHERE t.id = ours.id), 0),
    coalesce((SELECT max(r.revision) FROM redos r WHERE r.id = ours.id), 0)
), $3, $4, ours.record_sha256
FROM unnest($1::uuid[], $2::text[]) AS ours (id, record_sha256)
RETURNING id, revision
"""
_MARK_SENT = """
UPDATE redos SET sent_at = now() FROM unnest($1::uuid[], $2::integer[]) AS ours (id, revision)
WHERE redos.id = ours.id AND redos.revision = ours.revision
"""
_ENDED = """
SELECT r.id, r.revision, r.failed, t.model, t.provider, t.id IS NOT NULL AS done,
       EXISTS (SELECT FROM transcriptions a WHERE a.id = r.id) AS there
FROM unnest($1::uuid[], $2::integer[]) AS ours (id, revision)
JOIN redos r USING (id, revision) LEFT JOIN transcriptions t USING (id, revision)
"""
_OUTCOME = f"""
SELECT {", ".join(StoredTranscription.__slots__)} FROM transcriptions t WHERE id = $1
ORDER BY revision = $2 DESC, revision DESC LIMIT 1
"""  # noqa: S608 (our own column names)
_FIND_REDO = """
SELECT r.id, r.model, r.provider, r.failed IS NOT NULL
       OR EXISTS (SELECT FROM transcriptions d WHERE d.id = r.id AND d.revision = r.revision) AS done,
       t.cluster_id, t.topic, t.kafka_partition, t.kafka_offset, t.record_index
FROM redos r LEFT JOIN LATERAL (SELECT * FROM transcriptions t WHERE t.id = r.id LIMIT 1) t ON true
WHERE r.id = $1 AND r.revision = $2 AND r.record_sha256 = $3
"""


async def find(database: Database, selection: Selection) -> list[Candidate]:
    """Return the transcriptions that are meant, oldest first; raises ServiceError."""
    ids = []
    for job in selection.jobs:
        with suppress(ValueError):
            ids.append(UUID(job))
    jobs = [clean_text(job) for job in selection.jobs] or None
    terms = [
        f"AND t.{each.column} IS {'' if each.negated else 'NOT '}DISTINCT FROM ${number}"
        for number, each in enumerate(selection.terms, 8)
    ]
    query = _FIND.format(terms=" ".join(terms))
    values = [clean_text(each.value) for each in selection.terms]
    found: list[Candidate] = []
    last = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
    while True:
        arguments = (*last, jobs, ids, selection.since, selection.until, FOUND_AT_ONCE, *values)
        async with database.acquire("look up transcriptions") as connection:
            page = [Candidate(**row) for row in await connection.fetch(query, *arguments)]
        found += page
        if len(page) < FOUND_AT_ONCE:
            return found
        last = (page[-1].created_at, page[-1].id)


async def asked(database: Database, model: str | None, provider: str | None, ids: Sequence[UUID]) -> dict[UUID, Asked]:
    """Return what was asked for before of these two, of each transcription the last; raises ServiceError."""
    async with database.acquire("look up what was asked for") as connection:
        rows = [dict(row) for row in await connection.fetch(_ASKED, list(ids), model, provider)]
    return {row.pop("id"): Asked(**row) for row in rows}


async def originals(database: Database, ids: Sequence[UUID]) -> dict[UUID, StoredTranscription]:
    """Return the newest revisions of transcriptions; raises ServiceError."""
    async with database.acquire("read transcriptions") as connection:
        return {row["id"]: StoredTranscription(**row) for row in await connection.fetch(_ORIGINALS, list(ids))}


def coordinates_of(transcription: StoredTranscription) -> Coordinates | None:
    """Return where a transcription's job came from; None where the row cannot tell the record's time."""
    row = {name: getattr(transcription, name) for name in StoredTranscription.__slots__}
    return original(row | {"record_timestamp_ms": None})


async def note(database: Database, model: str | None, provider: str | None, wishes: Sequence[Wish]) -> dict[UUID, int]:
    """Note that transcriptions, each once, are to be done again; return each one's next revision by id.

    Raises ServiceError.
    """
    columns = [each.id for each in wishes], [each.record_sha256 for each in wishes]
    operation = "ask for transcriptions"
    async with database.acquire(operation) as connection, connection.transaction(isolation="read_committed"):
        await connection.execute(_LOCK)
        await commands.done(connection, columns[0])  # what was cancelled before was another revision
        return dict(await connection.fetch(_NOTE, *columns, model, provider))


async def mark_sent(database: Database, keys: Sequence[Key]) -> None:
    """Note that Kafka has the records; raises ServiceError."""
    async with database.acquire("note what is sent") as connection:
        await connection.execute(_MARK_SENT, [row_id for row_id, _ in keys], [revision for _, revision in keys])


async def withdraw(database: Database, key: Key) -> None:
    """Take back a wish whose record was surely not sent; raises ServiceError."""
    async with database.acquire("take back a wish") as connection:
        await connection.execute("DELETE FROM redos WHERE id = $1 AND revision = $2", *key)


async def ended(database: Database, keys: Sequence[Key]) -> dict[Key, Ended]:
    """Return how those of the wishes ended that have; raises ServiceError."""
    async with database.acquire("look up what was done again") as connection:
        rows = await connection.fetch(_ENDED, [row_id for row_id, _ in keys], [revision for _, revision in keys])
    found: dict[Key, Ended] = {}
    for row in rows:
        key = (row["id"], row["revision"])
        if row["done"]:
            found[key] = Ended(None, row["model"], row["provider"])
        elif row["failed"] is not None:
            found[key] = Ended(row["failed"])
        elif not row["there"]:
            found[key] = Ended("the transcription is gone")
    return found


async def outcome(database: Database, row_id: UUID, revision: int) -> StoredTranscription | Failed | None:
    """Return what came of a wish; None when nothing did. Asks the primary. Raises ServiceError."""
    async with database.acquire("look up what was done again") as connection:
        row = await connection.fetchrow(_OUTCOME, row_id, revision)
        why = await connection.fetchval("SELECT failed FROM redos WHERE id = $1 AND revision = $2", row_id, revision)
    if row is None:
        return None
    found = StoredTranscription(**row)
    if found.revision == revision:
        return found
    return None if why is None else Failed(found, *why.split(": ", 1))


async def find_redo(
    database: Database, row_id: UUID, revision: int, record: SourceRecord
) -> tuple[Coordinates, Redo] | Literal["done"] | None:
    """Return what the record asks for: another revision of the job with these coordinates.

    "done" says that it is there, or will never be, and None that the record's claim is to be ignored: nobody asked for
    that revision, or not by this record. Asks the primary. Raises ServiceError.
    """
    async with database.acquire("look up what is to be done again") as connection:
        row: Mapping[str, Any] | None = await connection.fetchrow(_FIND_REDO, row_id, revision, Replay.digest(record))
    if row is None:
        return None
    if row["done"] or row["topic"] is None:  # the transcription is gone
        return "done"
    coordinates = original(dict(row) | {"record_timestamp_ms": None})
    return None if coordinates is None else (coordinates, Redo(revision, row["model"], row["provider"]))
