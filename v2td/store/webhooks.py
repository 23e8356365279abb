"""Who is still to be told of ended jobs, by whom and when: the table `webhooks`.

Any instance sends any row. Who claims one moves its `next_at` ahead: until then nobody else takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from v2td.store.pool import Database

__all__ = [
    "DEAD",
    "DELIVERED",
    "STATES",
    "WAITING",
    "Claimed",
    "Event",
    "Notice",
    "Selection",
    "Stored",
    "claim",
    "count",
    "due_in",
    "end",
    "find",
    "forget",
    "give_back",
    "note",
    "postpone",
    "revive",
    "waiting",
]

WAITING, DELIVERED, DEAD = STATES = ("waiting", "delivered", "dead")
LOOKED_AT = 1000  # due rows among which a claim chooses
DELETED_AT_ONCE = 20_000
COUNTED_AT_MOST = 1_000_000

Event = Literal["transcribed", "failed"]


@dataclass(frozen=True, slots=True)
class Notice:
    """That somebody is to be told; `metadata` is that of a job that failed, None otherwise."""

    id: UUID
    job: UUID
    revision: int
    event: Event
    url: str
    host: str
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A notice that is ours to send for a while; `attempts` counts the one that begins."""

    id: UUID
    job: UUID
    revision: int
    event: Event
    url: str
    host: str
    metadata: dict[str, Any] | None
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as people are shown it, but that its URL is whole; `next_at` means nothing once it has ended."""

    id: UUID
    job: UUID
    revision: int
    event: Event
    url: str
    state: str
    attempts: int
    next_at: datetime
    last_error: str | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which deliveries are meant: those that fit all that is given."""

    ids: tuple[UUID, ...] = ()
    states: tuple[str, ...] = STATES
    since: datetime | None = None


_NOTE = """
INSERT INTO webhooks (id, job, revision, event, url, host, metadata)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::jsonb[])
ON CONFLICT DO NOTHING
"""
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT id, host, next_at FROM webhooks
    WHERE state = 'waiting' AND next_at <= now() AND host <> ALL($2::text[]) ORDER BY next_at LIMIT {LOOKED_AT}
), numbered AS (
    SELECT id, row_number() OVER (PARTITION BY host ORDER BY next_at) AS place, coalesce(busy.room, $5) AS room
    FROM due LEFT JOIN unnest($3::text[], $4::integer[]) AS busy (host, room) USING (host)
), ours AS (
    SELECT w.id FROM webhooks w JOIN numbered n USING (id)
    WHERE n.place <= n.room AND w.state = 'waiting' AND w.next_at <= now()
    ORDER BY w.next_at LIMIT $1 FOR UPDATE OF w SKIP LOCKED
)
UPDATE webhooks w SET attempts = w.attempts + 1, next_at = now() + make_interval(secs => $6)
FROM ours WHERE w.id = ours.id
RETURNING {", ".join(f"w.{name}" for name in Claimed.__slots__)}
"""  # noqa: S608 (our own column names)
_DUE_IN = """
SELECT extract(epoch FROM min(next_at) - clock_timestamp())::float8 FROM webhooks
WHERE state = 'waiting' AND host <> ALL($1::text[])
"""
_GIVE_BACK = """
UPDATE webhooks SET attempts = attempts - 1, next_at = now() WHERE id = $1 AND state = 'waiting' AND attempts = $2
"""
_POSTPONE = """
UPDATE webhooks SET next_at = now() + make_interval(secs => $3), last_error = $4
WHERE id = $1 AND state = 'waiting' AND attempts = $2
"""
_END = "UPDATE webhooks SET state = $2, last_error = $3, ended_at = now() WHERE id = $1 AND state = 'waiting'"
_WAITING = f"""
SELECT count(*) FROM (SELECT FROM webhooks WHERE state = 'waiting' LIMIT {COUNTED_AT_MOST}) counted
"""  # noqa: S608 (our own number)
_MATCHING = """
FROM webhooks
WHERE ($1::uuid[] = '{}' OR id = ANY($1) OR job = ANY($1)) AND state = ANY($2::text[])
  AND ($3::timestamptz IS NULL OR created_at >= $3)
"""
_FIND = f"SELECT {', '.join(Stored.__slots__)} {_MATCHING} ORDER BY created_at DESC, id LIMIT $4"
_COUNT = f"SELECT state, count(*) {_MATCHING} GROUP BY state ORDER BY state"
_REVIVE = """
UPDATE webhooks SET state = 'waiting', attempts = 0, next_at = now(), ended_at = NULL
WHERE id = ANY($1::uuid[]) AND (state <> 'waiting' OR next_at > now()) RETURNING id
"""
_FORGET = f"""
DELETE FROM webhooks WHERE id IN (
    SELECT id FROM webhooks WHERE state <> 'waiting' AND created_at < now() - make_interval(days => $1)
    LIMIT {DELETED_AT_ONCE}
)
"""  # noqa: S608 (our own number)


async def note(database: Database, notices: Sequence[Notice]) -> None:
    """Make it durable that somebody is to be told; what was noted before stays as it is. Raises ServiceError."""
    columns = [[getattr(each, name) for each in notices] for name in Notice.__slots__]
    async with database.acquire("note webhooks") as connection:
        await connection.execute(_NOTE, *columns)


async def claim(
    database: Database, limit: int, room: Mapping[str, int], usual_room: int, lease_seconds: float
) -> list[Claimed]:
    """Take at most `limit` notices that are due, and of each host as many as there is room for.

    `room` names hosts that have not the usual one. What is neither ended nor postponed within `lease_seconds` is
    due once more. Raises ServiceError.
    """
    full = [host for host, free in room.items() if free <= 0]
    busy = [(host, free) for host, free in room.items() if free > 0]
    hosts, free = [host for host, _ in busy], [free for _, free in busy]
    async with database.acquire("look for webhooks to send") as connection:
        rows = await connection.fetch(_CLAIM, limit, full, hosts, free, usual_room, lease_seconds)
    return [Claimed(**row) for row in rows]


async def due_in(database: Database, but: Sequence[str]) -> float | None:
    """Return the seconds until a notice is due, of other hosts than these; None: there is none. Raises ServiceError."""
    async with database.acquire("look for webhooks to send") as connection:
        seconds: float | None = await connection.fetchval(_DUE_IN, list(but))
    return seconds


async def give_back(database: Database, claimed: Claimed) -> None:
    """Let somebody else send it, now; the attempt does not count. Raises ServiceError."""
    async with database.acquire("give a webhook back") as connection:
        await connection.execute(_GIVE_BACK, claimed.id, claimed.attempts)


async def postpone(database: Database, claimed: Claimed, seconds: float, error: str) -> None:
    """Let it wait for its next attempt; raises ServiceError."""
    async with database.acquire("note how a webhook went") as connection:
        await connection.execute(_POSTPONE, claimed.id, claimed.attempts, seconds, error)


async def end(database: Database, claimed: Claimed, state: Literal["delivered", "dead"], error: str | None) -> None:
    """Note how it ended; raises ServiceError."""
    async with database.acquire("note how a webhook went") as connection:
        await connection.execute(_END, claimed.id, state, error)


async def waiting(database: Database) -> int:
    """Return how many wait, those of all instances; raises ServiceError."""
    async with database.acquire("count webhooks") as connection:
        number: int = await connection.fetchval(_WAITING)
    return number


async def find(database: Database, selection: Selection, limit: int | None = None) -> list[Stored]:
    """Return the deliveries that are meant, newest first; ids may be their own or jobs'. Raises ServiceError."""
    async with database.acquire("look up webhooks") as connection:
        rows = await connection.fetch(_FIND, list(selection.ids), list(selection.states), selection.since, limit)
    return [Stored(**row) for row in rows]


async def count(database: Database, selection: Selection) -> dict[str, int]:
    """Return how many deliveries are meant, by state; raises ServiceError."""
    async with database.acquire("count webhooks") as connection:
        return dict(await connection.fetch(_COUNT, list(selection.ids), list(selection.states), selection.since))


async def revive(database: Database, ids: Sequence[UUID]) -> set[UUID]:
    """Let deliveries be sent now, with all their attempts before them; return which. Raises ServiceError."""
    async with database.acquire("send webhooks once more") as connection:
        return {row["id"] for row in await connection.fetch(_REVIVE, list(ids))}


async def forget(database: Database, days: int) -> int:
    """Delete deliveries that ended, noted so many days ago; return how many. Raises ServiceError."""
    deleted = 0
    while True:
        async with database.acquire("forget old webhooks") as connection:
            status: str = await connection.execute(_FORGET, days)
        some = int(status.rpartition(" ")[2])
        deleted += some
        if some < DELETED_AT_ONCE:
            return deleted
