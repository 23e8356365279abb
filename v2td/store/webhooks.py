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
    "HOSTS_AT_ONCE",
    "STATES",
    "WAITING",
    "Claimed",
    "Event",
    "Notice",
    "Selection",
    "Stored",
    "claim",
    "count",
    "end",
    "find",
    "forget",
    "give_back",
    "hosts",
    "note",
    "postpone",
    "revive",
    "waiting",
]

WAITING, DELIVERED, DEAD = STATES = ("waiting", "delivered", "dead")
HOSTS_AT_ONCE = 500
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
# One host after the other, each by a step in the index: of one that is down a million may wait, and are not looked at.
_HOSTS = f"""
WITH RECURSIVE found AS (
    (SELECT host, next_at, 1 AS number FROM webhooks
     WHERE state = 'waiting' AND host > $1 ORDER BY host, next_at LIMIT 1)
    UNION ALL
    SELECT next.host, next.next_at, found.number + 1 FROM found CROSS JOIN LATERAL (
        SELECT host, next_at FROM webhooks WHERE state = 'waiting' AND host > found.host ORDER BY host, next_at LIMIT 1
    ) next WHERE found.number < {HOSTS_AT_ONCE}
)
SELECT host, extract(epoch FROM next_at - clock_timestamp())::float8 FROM found
"""  # noqa: S608 (our own number)
_CLAIM = f"""
WITH ours AS (
    SELECT due.id FROM unnest($2::text[], $3::integer[]) AS asked (host, room) CROSS JOIN LATERAL (
        SELECT id, next_at FROM webhooks w WHERE w.state = 'waiting' AND w.host = asked.host AND w.next_at <= now()
        ORDER BY w.next_at LIMIT asked.room FOR UPDATE SKIP LOCKED
    ) due ORDER BY due.next_at LIMIT $1
)
UPDATE webhooks w SET attempts = w.attempts + 1, next_at = now() + make_interval(secs => $4)
FROM ours WHERE w.id = ours.id
RETURNING {", ".join(f"w.{name}" for name in Claimed.__slots__)}
"""  # noqa: S608 (our own column names)
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


async def hosts(database: Database, after: str = "") -> dict[str, float]:
    """Return the hosts that are to be told anything, and in how many seconds next: below 0 where that is due.

    At most HOSTS_AT_ONCE, in order, those `after` one: with that many there may be more. Raises ServiceError.
    """
    async with database.acquire("look for webhooks to send") as connection:
        return dict(await connection.fetch(_HOSTS, after))


async def claim(database: Database, limit: int, room: Mapping[str, int], lease_seconds: float) -> list[Claimed]:
    """Take at most `limit` notices that are due, of each host in `room` at most so many, the oldest first.

    What is neither ended nor postponed within `lease_seconds` is due once more. Raises ServiceError.
    """
    async with database.acquire("look for webhooks to send") as connection:
        rows = await connection.fetch(_CLAIM, limit, list(room), list(room.values()), lease_seconds)
    return [Claimed(**row) for row in rows]


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
