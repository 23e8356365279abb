"""Look-ups by content: the text that a recording got before, under one of the digests asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from v2td.store.pool import Database
from v2td.store.reader import StoredSegment, StoredTranscription


def _columns(row: type) -> str:
    return ", ".join(field.name for field in fields(row))


# For each digest its newest row: the last one in the index up to there, if it is one of that digest. Asked for with
# `=`, hold music, of which there may be a million rows, tempts Postgres to go through all rows by their time.
_NEWEST = f"""
SELECT newest.* FROM unnest($2::text[]) AS asked (digest) CROSS JOIN LATERAL (
    SELECT {_columns(StoredTranscription)} FROM transcriptions
    WHERE (audio_sha256, options_sha256, created_at) <= ($1, asked.digest, 'infinity')
    ORDER BY audio_sha256 DESC, options_sha256 DESC, created_at DESC LIMIT 1
) newest
WHERE newest.audio_sha256 = $1 AND newest.options_sha256 = asked.digest
ORDER BY newest.created_at DESC LIMIT 1
"""  # noqa: S608 (our own column names)
_SEGMENTS = f"""
SELECT {_columns(StoredSegment)} FROM transcript_segments
WHERE transcription_id = $1 AND revision = $2 AND created_at = $3 ORDER BY segment_index
"""  # noqa: S608 (our own column names)


async def find_result(
    database: Database, audio_sha256: str, text_sha256s: Sequence[str]
) -> tuple[StoredTranscription, tuple[StoredSegment, ...]] | None:
    """Return the newest transcription of that audio under any of the digests, with its segments.

    None where there is none, or where the segments have gone already. Revisions count as rows of their own. Asks the
    replica where there is one: it may not know the newest yet. Raises ServiceError.
    """
    async with database.read("look up a result") as connection:
        row = await connection.fetchrow(_NEWEST, audio_sha256, list(text_sha256s))
        if row is None:
            return None
        transcription = StoredTranscription(**row)
        key = (transcription.id, transcription.revision, transcription.created_at)
        segments = tuple(StoredSegment(**each) for each in await connection.fetch(_SEGMENTS, *key))
    return (transcription, segments) if _text(segments) == transcription.text else None


def _text(segments: Sequence[StoredSegment]) -> str:
    """Return the text as the transcript's row has it; a partition of segments may be dropped before that row."""
    return " ".join(stripped for segment in segments if (stripped := segment.text.strip()))
