"""What is sent of an ended job: made of its rows when it is sent, the same at every attempt."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from v2td import announcements, store
from v2td.intake import Result
from v2td.store import StoredFailure, StoredTranscription, webhooks
from v2td.store.webhooks import Claimed

MAX_BODY_BYTES = 1_000_000  # with more, the text is left out
TYPES = {"transcribed": "transcription.completed", "failed": "transcription.failed"}


async def body_of(database: store.Database, claimed: webhooks.Claimed) -> str | None:
    """Return the body of a request; None where the row that it tells of is not there any more. Raises ServiceError."""
    if claimed.event == "transcribed":
        return await _of_transcription(database, claimed)
    return await _of_failure(database, claimed)


def rendered(kind: str, at: datetime, result: Result, metadata: dict[str, Any] | None) -> str:
    """Return the JSON text; where it would be too long the text is left out, and `transcript` says where it is."""
    whole = _json(kind, at, result.fields(MAX_BODY_BYTES), metadata)
    if len(whole.encode()) <= MAX_BODY_BYTES or result.text is None:
        return whole
    return _json(kind, at, result.fields(0), metadata)


def _json(kind: str, at: datetime, data: dict[str, Any], metadata: dict[str, Any] | None) -> str:
    data = data | {"metadata": metadata}
    if data["text_omitted"]:
        data["transcript"] = f"/v1/transcripts/{data['id']}"
    message = {"type": kind, "timestamp": at.astimezone(UTC).isoformat(), "data": data}
    return json.dumps(message, ensure_ascii=False, default=str)


async def _of_transcription(database: store.Database, claimed: Claimed) -> str | None:
    row = await store.redos.outcome(database, claimed.job, claimed.revision)
    if not isinstance(row, StoredTranscription):
        return None
    return rendered(TYPES["transcribed"], claimed.created_at, announcements.transcribed(row), row.metadata)


async def _of_failure(database: store.Database, claimed: Claimed) -> str | None:
    if claimed.revision:
        found = await store.redos.outcome(database, claimed.job, claimed.revision)
        result = None if found is None else announcements.done_again(found, claimed.revision)
    else:
        rows = await store.outcomes(database, [claimed.job])
        result = next((announcements.failed(row) for row in rows if isinstance(row, StoredFailure)), None)
    if result is None or result.status != "failed":
        return None
    return rendered(TYPES["failed"], claimed.created_at, result, claimed.metadata)
