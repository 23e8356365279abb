"""Where in its recordings a transcript says what was searched for, and which of its words those are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from v2td.store.connection import Connection

MOST = 3  # passages of a transcript
MARKED = 5_000  # characters of a passage in which words are marked; people say a few hundred at a time
APART = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # as 0007_search.sql
)

_LEXEME = re.compile(r"(!?)'((?:[^']|'')*)'")  # of a tsquery as text
_WORD = re.compile(rf"[{APART}]|[^\W{APART}]+(?:['’-][^\W{APART}]+)*")

# Of each transcript the segments in which most of the words are, and of these the first.
_PASSAGES = """
SELECT ours.id, said.*
FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[]) AS ours (id, revision, at, any_of)
JOIN transcriptions t ON t.id = ours.id AND t.revision = ours.revision
CROSS JOIN LATERAL (
    SELECT s.segment_index, s.channel, s.start_seconds, s.end_seconds, s.text,
           v2td_text_search(t.language)::text AS config
    FROM (
        SELECT s.*, v2td_text_vector(v2td_text_search(t.language), s.text) AS vector FROM transcript_segments s
        WHERE s.transcription_id = ours.id AND s.revision = ours.revision AND s.created_at = ours.at
        OFFSET 0  -- a vector is made once
    ) s
    WHERE s.vector @@ ours.any_of::tsquery
    ORDER BY ts_rank(s.vector, ours.any_of::tsquery) DESC, s.segment_index LIMIT $5
) said
ORDER BY ours.id, said.segment_index
"""
_HITS = """
SELECT word, config, any_of FROM unnest($1::text[], $2::text[], $3::text[]) AS ours (word, config, any_of)
WHERE v2td_text_vector(config::regconfig, word) @@ any_of::tsquery
"""


@dataclass(frozen=True, slots=True)
class Passage:
    """A segment that says it; times in seconds of the recording, `marks` where in `text` the words are (from, to)."""

    segment_index: int
    channel: int | None
    start_seconds: float
    end_seconds: float
    text: str
    marks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A transcription's revision, and the tsquery (as text) that found it."""

    id: UUID
    revision: int
    created_at: datetime
    query: str


async def passages(connection: Connection, wanted: Sequence[Wanted]) -> dict[UUID, tuple[Passage, ...]]:
    """Return the passages of transcripts, in order, at most MOST of each."""
    any_of = {each.id: _any_of(each.query) for each in wanted}
    asked = [each for each in wanted if any_of[each.id]]
    rows = await connection.fetch(
        _PASSAGES,
        [each.id for each in asked],
        [each.revision for each in asked],
        [each.created_at for each in asked],
        [any_of[each.id] for each in asked],
        MOST,
    )
    words = {
        (found[0], row["config"], any_of[row["id"]]) for row in rows for found in _WORD.finditer(row["text"], 0, MARKED)
    }
    columns = [list(column) for column in zip(*words, strict=True)] or [[], [], []]
    hits = {tuple(row) for row in await connection.fetch(_HITS, *columns)}
    said: dict[UUID, list[Passage]] = {}
    for row in rows:
        said.setdefault(row["id"], []).append(_passage(row, any_of[row["id"]], hits))
    return {row_id: tuple(found) for row_id, found in said.items()}


def _any_of(query: str) -> str:
    """Return the query that any of the words answers which are to be there."""
    return " | ".join(sorted({f"'{word}'" for negated, word in _LEXEME.findall(query) if not negated}))


def _passage(row: Mapping[str, Any], any_of: str, hits: set[tuple[str, str, str]]) -> Passage:
    marks: list[tuple[int, int]] = []
    for found in _WORD.finditer(row["text"], 0, MARKED):
        if (found[0], row["config"], any_of) in hits:
            start, end = found.span()
            if marks and marks[-1][1] == start:  # characters of one word
                start = marks.pop()[0]
            marks.append((start, end))
    return Passage(
        row["segment_index"], row["channel"], row["start_seconds"], row["end_seconds"], row["text"], tuple(marks)
    )
