"""A stored transcript as something to be written as a file."""

from __future__ import annotations

from v2td.admin.jobs_desk import DeskError, Text, Trouble
from v2td.desk.states import States
from v2td.formats import Document
from v2td.results.found import of_rows
from v2td.store import Database, Reader, StoredTranscription


async def text_of(database: Database, states: States, job: str, revision: int | None) -> Text:
    """Return a transcript, None: its newest revision; raises DeskError when there is none, ServiceError."""
    outcome = await states.ended(job)
    row = outcome if isinstance(outcome, StoredTranscription) else None
    reader = Reader(database)
    if row is not None and revision is not None and revision != row.revision:
        row = await reader.revision(row.id, revision)
    if row is None:
        told = "the job has no transcript" if revision is None else "the job has no such revision"
        raise DeskError(Trouble.UNKNOWN, told)
    found = of_rows(row, await reader.segments(row.id, row.revision))
    document = Document(found.segments, row.language, row.audio_seconds, row.model)
    return Text(document, f"{row.id}.{row.revision}" if row.revision else str(row.id))
