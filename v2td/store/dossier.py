"""All that the tables know of one job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from v2td.messages import without_secrets
from v2td.store.ledger import FailedRecord, failed_records
from v2td.store.pool import Database
from v2td.store.reader import StoredTranscription
from v2td.store.sanitise import clean_text

MAX_ROWS = 50  # of each kind

Row = dict[str, Any]

_REVISIONS = f"""
SELECT {", ".join(field.name for field in fields(StoredTranscription))} FROM transcriptions WHERE id = $1
ORDER BY revision DESC LIMIT {MAX_ROWS}
"""  # noqa: S608 (our own column names)
# By the content's index: there is none of cached_from, and copies have the same content.
_COPIES = f"""
SELECT DISTINCT id FROM transcriptions WHERE audio_sha256 = $2 AND options_sha256 = $3 AND cached_from = $1
LIMIT {MAX_ROWS}
"""  # noqa: S608 (our own number)
# What other tables say of a job, whatever columns they have. Of the audit log only its newest part is looked at.
_OTHERS: Mapping[str, str] = {
    "submissions": "SELECT * FROM submissions WHERE id = $1 ORDER BY created_at",
    "redos": "SELECT * FROM redos WHERE id = $1 ORDER BY revision",
    "replays": "SELECT * FROM replays WHERE replay_of = $1 ORDER BY created_at",
    "commands": "SELECT * FROM job_commands WHERE job = $1 ORDER BY id",
    "audit": """
        SELECT * FROM (SELECT * FROM audit_log ORDER BY id DESC LIMIT 100000) newest WHERE target = $1::uuid::text
        ORDER BY id
    """,
    "webhooks": "SELECT * FROM webhooks WHERE job = $1 ORDER BY created_at",
    "windows": """
        SELECT count(*) AS finished, min(created_at) AS first_at, max(created_at) AS last_at
        FROM window_results WHERE id = $1 HAVING count(*) > 0
    """,
    "deaths": "SELECT deaths, seen_at FROM child_deaths WHERE id = $1",
}
_UNDER_WAY = """
SELECT DISTINCT id FROM (
    SELECT id FROM submissions WHERE (id = $1 OR job_id = $2) AND id IS NOT NULL
    UNION ALL SELECT id FROM window_results WHERE id = $1
    UNION ALL SELECT id FROM child_deaths WHERE id = $1
    UNION ALL SELECT job FROM job_commands WHERE job = $1
    UNION ALL SELECT replay_of FROM replays WHERE record_id = $1
) known LIMIT 20
"""


@dataclass(frozen=True, slots=True)
class Dossier:
    """A job: its revisions, newest first, or its failure, or neither while it has not ended.

    `copies` are the transcriptions whose text is this one's. `others` are rows of other tables, by what they tell of:
    submissions, redos, replays, commands, audit, webhooks, windows, deaths.
    """

    id: UUID
    revisions: tuple[StoredTranscription, ...]
    failure: FailedRecord | None
    copies: tuple[UUID, ...]
    segments: int
    others: dict[str, list[Row]]


async def dossier(database: Database, job: UUID) -> Dossier:
    """Return all that is known of a job; raises ServiceError."""
    async with database.read("look a job up") as connection:
        revisions = tuple(StoredTranscription(**row) for row in await connection.fetch(_REVISIONS, job))
        copies: list[UUID] = []
        segments = 0
        if revisions:
            newest = revisions[0]
            content = newest.audio_sha256, newest.options_sha256
            copies = [row["id"] for row in await connection.fetch(_COPIES, job, *content)]
            segments = await connection.fetchval(
                "SELECT count(*) FROM transcript_segments WHERE transcription_id = $1 AND revision = $2 "
                "AND created_at = $3",
                *(job, newest.revision, newest.created_at),
            )
        others = {
            name: [dict(row) for row in await connection.fetch(f"{query} LIMIT {MAX_ROWS}", job)]
            for name, query in _OTHERS.items()
        }
    for row in others["webhooks"]:
        row["url"] = without_secrets(row["url"])
    failed = await failed_records(database, [job])
    return Dossier(job, revisions, failed[0] if failed else None, tuple(copies), segments, others)


async def under_way(database: Database, job: str) -> list[UUID]:
    """Return the ids of jobs without an outcome that JOB may mean; raises ServiceError."""
    try:
        row_id: UUID | None = UUID(job)
    except ValueError:
        row_id = None
    async with database.read("look a job up") as connection:
        return [row["id"] for row in await connection.fetch(_UNDER_WAY, row_id, clean_text(job))]
