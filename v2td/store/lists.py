"""Lists of what has ended, page by page and the newest first, whatever is added meanwhile.

A page goes on behind a position (time and id), which no new row changes. It looks at SCANNED rows at most, in the order
of the index on their time: where few of them fit, the page is short, or even empty, and says where the next begins.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from v2td.store.connection import Connection
from v2td.store.ledger import FAILED
from v2td.store.pool import Database
from v2td.store.reader import StoredFailure
from v2td.store.sanitise import clean_text, moment_of

SCANNED = 5_000  # rows of a table for one page: some 20 ms
STATEMENT_MS = 5_000
BEGINNING = 200  # characters of a text

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ListedTranscription:
    """A row of transcriptions in short; seconds. `beginning` is that of the text."""

    id: UUID
    revision: int
    job_id: str | None
    topic: str
    kafka_partition: int
    kafka_offset: int
    tenant: str | None
    audio_url: str
    audio_seconds: float
    language: str | None
    provider: str
    model: str
    duration: float
    beginning: str
    created_at: datetime


Listed = ListedTranscription | StoredFailure


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a list: behind the row of this time and id."""

    created_at: datetime
    id: UUID

    def __str__(self) -> str:
        text = f"{self.created_at.isoformat()} {self.id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, cursor: str) -> Position:
        """Return what `str` made a cursor of; ValueError when it did not."""
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        except binascii.Error as error:
            raise ValueError("no base64") from error
        at, _, row_id = text.partition(" ")
        position = cls(moment_of(at), UUID(row_id))
        if str(position) != cursor:
            raise ValueError("not as it was given")
        return position


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows, the newest first; `next` is where the next page begins, None: there is none."""

    rows: tuple[R, ...]
    next: Position | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows are meant: those that fit all that is given, none older than `since` and all older than `until`."""

    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    behind: Position | None = None


@dataclass(frozen=True, slots=True)
class _Scan(Generic[R]):
    """Rows of one table that fit, and how far down that is all of them: None: to the end."""

    rows: list[R]
    known_to: Position | None


def _columns(row: type) -> str:
    return ", ".join("t." + field.name for field in fields(row) if field.name != "beginning")


def _scan(table: str, revision: str, looked_at: str, fitting: str) -> str:
    """Return the statement that looks at rows of a table, and tells which of them fit, and which was the last."""
    return f"""
WITH scanned AS MATERIALIZED (
    SELECT id, {revision} AS revision, created_at, topic, {looked_at} FROM {table}
    WHERE ($1::timestamptz IS NULL OR created_at >= $1) AND ($2::timestamptz IS NULL OR created_at < $2)
      AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid))
    ORDER BY created_at DESC, id DESC LIMIT $7
), fitting AS (
    SELECT id, revision, created_at FROM scanned s WHERE ($6::text IS NULL OR topic = $6) AND {fitting}
    ORDER BY created_at DESC, id DESC LIMIT $5
)
SELECT (SELECT array_agg(id) FROM fitting) AS ids, (SELECT array_agg(revision) FROM fitting) AS revisions,
       (SELECT count(*) FROM scanned) AS seen, last.created_at, last.id
FROM (SELECT 1) one LEFT JOIN (SELECT created_at, id FROM scanned ORDER BY created_at, id LIMIT 1) last ON true
"""  # noqa: S608 (our own names)


_SCAN_TRANSCRIPTIONS = _scan(
    "transcriptions",
    "revision",
    "language",
    """($8::text IS NULL OR language = $8)
      AND NOT EXISTS (SELECT FROM transcriptions n WHERE n.id = s.id AND n.revision > s.revision)""",
)
_SCAN_FAILURES = _scan(
    "failures",
    "0",
    "error_class, replay_state",
    f"""($8::text[] IS NULL OR error_class = ANY($8)) AND NOT error_class = ANY($9::text[])
      AND ($10::text IS NULL OR coalesce(replay_state, '{FAILED}') = $10)""",
)
_TRANSCRIPTIONS = f"""
SELECT {_columns(ListedTranscription)}, left(t.text, {BEGINNING}) AS beginning
FROM transcriptions t JOIN unnest($1::uuid[], $2::integer[]) AS ours (id, revision) USING (id, revision)
"""  # noqa: S608 (our own names)
_FAILURES = f"""
SELECT {_columns(StoredFailure)} FROM failures t WHERE id = ANY($1::uuid[]) AND cardinality($2::integer[]) > 0
"""  # noqa: S608 (our own names)
_SOON = f"SET LOCAL statement_timeout = {STATEMENT_MS}"


async def transcriptions(database: Database, wanted: Wanted, language: str | None = None) -> Page[ListedTranscription]:
    """Return a page of transcriptions, each job's newest revision; raises ServiceError."""
    async with database.read("list transcripts") as connection, connection.transaction(readonly=True):
        await connection.execute(_SOON)
        return _merged(wanted, await _scanned_transcriptions(connection, wanted, language))


async def jobs(
    database: Database,
    wanted: Wanted,
    *,
    transcribed: bool = True,
    failed: bool = True,
    classes: Sequence[str] | None = None,
    not_classes: Sequence[str] = (),
    replay_state: str | None = None,
) -> Page[Listed]:
    """Return a page of jobs that have ended, or wait to be done again; raises ServiceError.

    `classes`, `not_classes` and `replay_state` choose among the failed ones, as ledger.STATES names them.
    """
    scans: list[_Scan[Any]] = []
    async with (
        database.read("list jobs") as connection,
        # One moment of both tables: a job that is replayed meanwhile leaves the one for the other.
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(_SOON)
        if transcribed:
            scans.append(await _scanned_transcriptions(connection, wanted, None))
        if failed:
            chosen = (None if classes is None else list(classes), list(not_classes), replay_state)
            scans.append(await _scanned(connection, _SCAN_FAILURES, _FAILURES, StoredFailure, wanted, *chosen))
    return _merged(wanted, *scans)


async def _scanned_transcriptions(
    connection: Connection, wanted: Wanted, language: str | None
) -> _Scan[ListedTranscription]:
    made = (_SCAN_TRANSCRIPTIONS, _TRANSCRIPTIONS, ListedTranscription)
    return await _scanned(connection, *made, wanted, None if language is None else clean_text(language))


async def _scanned(
    connection: Connection, scan: str, select: str, row_type: Callable[..., R], wanted: Wanted, *more: object
) -> _Scan[R]:
    behind = (wanted.behind.created_at, wanted.behind.id) if wanted.behind else (None, None)
    topic = None if wanted.topic is None else clean_text(wanted.topic)
    # Where nothing but their place is asked of rows nearly all fit: what was done again is there more than once.
    at_most = SCANNED if topic is not None or any(more) else min(SCANNED, 2 * (wanted.limit + 1))
    found = await connection.fetchrow(
        scan, wanted.since, wanted.until, *behind, wanted.limit + 1, topic, at_most, *more
    )
    ids, revisions = found["ids"] or [], found["revisions"] or []
    rows = [row_type(**row) for row in await connection.fetch(select, ids, revisions)] if ids else []
    rows.sort(key=_position, reverse=True)
    if len(ids) > wanted.limit:  # there may be more behind them
        return _Scan(rows, _position(rows[-1]) if rows else None)
    end = Position(found["created_at"], found["id"]) if found["seen"] == at_most else None
    return _Scan(rows, end)


def _merged(wanted: Wanted, *scans: _Scan[R]) -> Page[R]:
    """Return the rows of all tables, down to where all of them are known."""
    known_to = max((scan.known_to for scan in scans if scan.known_to is not None), default=None)
    rows = sorted((row for scan in scans for row in scan.rows), key=_position, reverse=True)
    known = [row for row in rows if known_to is None or _position(row) >= known_to]
    shown = tuple(known[: wanted.limit])
    return Page(shown, _position(shown[-1]) if len(known) > wanted.limit else known_to)


def _position(row: Any) -> Position:
    return Position(row.created_at, row.id)
