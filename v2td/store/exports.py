"""What an export reads: the newest revisions in pages, oldest first, and their segments piece by piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from v2td.jobs import Segment, Word
from v2td.store.pool import Database

HEADS_AT_ONCE = 200
SECONDS_AT_ONCE = 4 * 3600.0  # of recordings whose segments are asked for together: some 5000 rows
SEGMENTS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Head:
    """A transcription's newest revision, without its text."""

    id: UUID
    revision: int
    job_id: str | None
    language: str | None
    model: str
    audio_seconds: float
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """Which transcriptions are meant: those whose newest revision fits all that is given."""

    since: datetime | None = None
    until: datetime | None = None
    language: str | None = None


_COLUMNS = ", ".join(f"t.{field.name}" for field in fields(Head))
_NEWEST = "NOT EXISTS (SELECT FROM transcriptions n WHERE n.id = t.id AND n.revision > t.revision)"
_MEANT = f"""
($1::timestamptz IS NULL OR t.created_at >= $1) AND ($2::timestamptz IS NULL OR t.created_at < $2)
AND ($3::text IS NULL OR t.language = $3) AND {_NEWEST}
"""
_COUNT = f"SELECT count(*) FROM transcriptions t WHERE {_MEANT}"  # noqa: S608 (our own words)
_HEADS = f"""
SELECT {_COLUMNS} FROM transcriptions t WHERE (t.created_at, t.id) > ($4, $5) AND {_MEANT}
ORDER BY t.created_at, t.id LIMIT $6
"""  # noqa: S608 (our own column names)
_HEADS_OF = f"SELECT {_COLUMNS} FROM transcriptions t WHERE t.id = ANY($1::uuid[]) AND {_NEWEST}"  # noqa: S608
# With the bounds of created_at only the months' partitions that matter are looked into.
_SEGMENTS = """
SELECT s.transcription_id, s.segment_index, s.channel, s.start_seconds, s.end_seconds, s.text, s.avg_logprob,
       s.no_speech_prob, s.compression_ratio, s.temperature, s.words
FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS ours (id, revision, at)
JOIN transcript_segments s ON s.transcription_id = ours.id AND s.revision = ours.revision AND s.created_at = ours.at
WHERE s.created_at BETWEEN $4 AND $5 AND (s.transcription_id, s.segment_index) > ($6, $7)
ORDER BY s.transcription_id, s.segment_index LIMIT $8
"""


async def count(database: Database, selection: Selection) -> int:
    """Return how many transcriptions are meant; raises ServiceError."""
    async with database.read("count transcriptions") as connection:
        found: int = await connection.fetchval(_COUNT, selection.since, selection.until, selection.language)
    return found


async def heads(database: Database, selection: Selection) -> AsyncGenerator[list[Head], None]:
    """Yield the transcriptions that are meant in pages, oldest first; raises ServiceError."""
    last = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
    while True:
        async with database.read("read transcriptions") as connection:
            rows = await connection.fetch(
                _HEADS, selection.since, selection.until, selection.language, *last, HEADS_AT_ONCE
            )
        if rows:
            yield [Head(**row) for row in rows]
        if len(rows) < HEADS_AT_ONCE:
            return
        last = (rows[-1]["created_at"], rows[-1]["id"])


async def heads_of(database: Database, ids: Sequence[UUID]) -> AsyncGenerator[list[Head], None]:
    """Yield transcriptions in pages, in the order of the ids that are there; raises ServiceError."""
    for first in range(0, len(ids), HEADS_AT_ONCE):
        page = list(ids[first : first + HEADS_AT_ONCE])
        async with database.read("read transcriptions") as connection:
            found = {row["id"]: Head(**row) for row in await connection.fetch(_HEADS_OF, page)}
        yield [found[row_id] for row_id in page if row_id in found]


async def with_segments(
    database: Database, page: Sequence[Head]
) -> AsyncGenerator[tuple[Head, tuple[Segment, ...]], None]:
    """Yield transcriptions, each with its segments in order; at no time more than one that is long.

    Raises ServiceError.
    """
    for group in _groups(page):
        said: dict[UUID, list[Segment]] = {}
        last = (UUID(int=0), -1)
        while True:
            rows = await _rows(database, group, last)
            for row in rows:
                said.setdefault(row["transcription_id"], []).append(_segment(row))
            if len(rows) < SEGMENTS_AT_ONCE:
                break
            last = (rows[-1]["transcription_id"], rows[-1]["segment_index"])
        for head in group:
            yield head, tuple(said.pop(head.id, ()))


def _groups(page: Sequence[Head]) -> Iterator[list[Head]]:
    """Yield transcriptions that are short enough to be read together, or one that is long."""
    group: list[Head] = []
    seconds = 0.0
    for head in page:
        if group and seconds + head.audio_seconds > SECONDS_AT_ONCE:
            yield group
            group, seconds = [], 0.0
        group.append(head)
        seconds += head.audio_seconds
    if group:
        yield group


async def _rows(database: Database, group: Sequence[Head], last: tuple[UUID, int]) -> list[Any]:
    times = [head.created_at for head in group]
    columns = [head.id for head in group], [head.revision for head in group], times
    async with database.read("read segments") as connection:
        rows: list[Any] = await connection.fetch(_SEGMENTS, *columns, min(times), max(times), *last, SEGMENTS_AT_ONCE)
    return rows


def _segment(row: Any) -> Segment:
    words = row["words"]
    return Segment(
        row["start_seconds"],
        row["end_seconds"],
        row["text"],
        row["avg_logprob"],
        row["no_speech_prob"],
        row["compression_ratio"],
        row["temperature"],
        None
        if words is None
        else tuple(Word(each["start"], each["end"], each["word"], each["probability"]) for each in words),
        row["channel"],
    )
