"""The audit log: what people changed, when, who they were, and how it went. Nothing is ever taken out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from v2td.store.connection import Connection
from v2td.store.pool import Database
from v2td.store.sanitise import clean_json, clean_text

MAX_TEXT = 500  # characters of an actor, a target or an error

_NOTE = "INSERT INTO audit_log (actor, action, target, details, error) VALUES ($1, $2, $3, $4, $5)"
_ENTRIES = """
SELECT id, at, actor, action, target, details, error FROM audit_log
WHERE ($1::bigint IS NULL OR id < $1) AND ($2::timestamptz IS NULL OR at >= $2)
ORDER BY id DESC LIMIT $3
"""

Act = tuple[str, str, str | None, Mapping[str, Any], str | None]  # actor, action, target, details, error


@dataclass(frozen=True, slots=True)
class Entry:
    """An act; `id` grows, and is the cursor of `entries`. `error` says why it was not done, None: it was."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str | None
    details: dict[str, Any]
    error: str | None


async def note(
    database: Database,
    actor: str,
    action: str,
    target: str | None,
    details: Mapping[str, Any],
    *,
    error: str | None = None,
) -> None:
    """Write an act down; raises ServiceError."""
    async with database.acquire("write the audit log") as connection:
        await note_all(connection, [(actor, action, target, details, error)])


async def note_all(connection: Connection, acts: Sequence[Act]) -> None:
    """Write acts down in the connection's transaction."""
    rows = [
        (line(actor), line(action), target and line(target), clean_json(dict(details)), error and line(error))
        for actor, action, target, details, error in acts
    ]
    await connection.executemany(_NOTE, rows)


async def entries(
    database: Database, *, before: int | None = None, since: datetime | None = None, limit: int = 100
) -> list[Entry]:
    """Return acts, the newest first: those with an id below `before`, none older than `since`. Raises ServiceError."""
    async with database.read("read the audit log") as connection:
        return [Entry(**row) for row in await connection.fetch(_ENTRIES, before, since, limit)]


def line(text: str) -> str:
    """Return text as one printable line that Postgres holds: who says who he is may say anything."""
    cut = clean_text(text)[:MAX_TEXT]
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)[:MAX_TEXT]
