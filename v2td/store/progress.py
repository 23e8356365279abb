"""What a job leaves behind before it ends: finished windows, and how often it killed a child process.

Any instance goes on from there. The transaction that makes the job's outcome durable takes both away (batch.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from v2td.jobs import Coordinates
from v2td.store.batch import LOCK, lock_keys
from v2td.store.pool import Database

# Of a job that ended meanwhile nothing may stay; a failure that is to be done again is no end, and another revision
# that is asked for is a beginning.
_UNENDED = """
WHERE (NOT EXISTS (SELECT FROM transcriptions t WHERE t.id = ours.id) OR EXISTS (
    SELECT FROM redos r WHERE r.id = ours.id AND r.failed IS NULL
    AND NOT EXISTS (SELECT FROM transcriptions t WHERE t.id = r.id AND t.revision = r.revision)
))
  AND NOT EXISTS (SELECT FROM failures f WHERE f.id = ours.id AND f.replay_state IS DISTINCT FROM 'requested')
"""
_SAVE = f"""
INSERT INTO window_results (id, "window", options_sha256, result)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::jsonb[]) AS ours (id, "window", options_sha256, result)
{_UNENDED}
ON CONFLICT DO NOTHING
"""  # noqa: S608 (our own words)
_LOAD = 'SELECT "window", options_sha256, result FROM window_results WHERE id = $1 ORDER BY "window"'
_NOTE_DEATH = f"""
INSERT INTO child_deaths AS known (id, deaths) SELECT id, 1 FROM (SELECT $1::uuid AS id) ours
{_UNENDED}
ON CONFLICT (id) DO UPDATE SET deaths = known.deaths + 1, seen_at = now()
RETURNING deaths
"""  # noqa: S608 (our own words)
_FORGET = """
WITH windows AS (
    DELETE FROM window_results WHERE created_at < now() - make_interval(days => $1) RETURNING 1
), deaths AS (
    DELETE FROM child_deaths WHERE seen_at < now() - make_interval(days => $1) RETURNING 1
), replayed AS (
    DELETE FROM replays WHERE created_at < now() - make_interval(days => $1) RETURNING 1
), redone AS (
    DELETE FROM redos WHERE created_at < now() - make_interval(days => $1) RETURNING 1
), commanded AS (
    DELETE FROM job_commands c WHERE created_at < now() - make_interval(days => $1)
    AND (job IS NOT NULL OR EXISTS (
        SELECT FROM job_commands later WHERE later.group_id = c.group_id AND later.id > c.id
        AND (later.instance IS NULL OR later.instance = c.instance)
    )) RETURNING 1
), submitted AS (
    DELETE FROM submissions WHERE created_at < now() - make_interval(days => $1) RETURNING 1
)
SELECT (SELECT count(*) FROM windows) + (SELECT count(*) FROM deaths) + (SELECT count(*) FROM replayed)
     + (SELECT count(*) FROM redone) + (SELECT count(*) FROM commanded) + (SELECT count(*) FROM submitted)
"""


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A finished window of a job; `result` is JSON, in which NaN and the infinities become null."""

    job: Coordinates
    window: int
    options_sha256: str
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The jobs of which something is kept: ids of those with finished windows, deaths of children by id."""

    windows: frozenset[UUID]
    deaths: dict[UUID, int]


async def save_windows(database: Database, rows: Sequence[WindowRow]) -> None:
    """Make finished windows durable, all or none; those of jobs that have their outcome are left out.

    A window that is there already stays as it is. Raises ServiceError.
    """
    if not rows:
        return
    columns = (
        [row.job.row_id() for row in rows],
        [row.window for row in rows],
        [row.options_sha256 for row in rows],
        [row.result for row in rows],
    )
    operation = "keep finished windows"
    # With the locks of a flush, whose outcomes the INSERT then sees: it looks at what is committed by then.
    async with database.acquire(operation) as connection, connection.transaction(isolation="read_committed"):
        await connection.execute(LOCK, lock_keys(row.job for row in rows))
        await connection.execute(_SAVE, *columns)


async def load_windows(database: Database, job_id: UUID) -> list[tuple[int, str, dict[str, Any]]]:
    """Return (window, options_sha256, result) of a job's finished windows, in order; raises ServiceError."""
    async with database.acquire("look up finished windows") as connection:
        return [tuple(row) for row in await connection.fetch(_LOAD, job_id)]


async def unfinished(database: Database) -> Unfinished:
    """Return which jobs have left something behind; raises ServiceError."""
    async with database.acquire("look up unfinished jobs") as connection:
        windows = await connection.fetch("SELECT DISTINCT id FROM window_results")
        deaths = await connection.fetch("SELECT id, deaths FROM child_deaths")
    return Unfinished(frozenset(row["id"] for row in windows), {row["id"]: row["deaths"] for row in deaths})


async def note_death(database: Database, job: Coordinates) -> int:
    """Count one more child process that the job killed; return how many it were so far, 0 if the job has its outcome.

    Raises ServiceError.
    """
    operation = "note that a process died"
    async with database.acquire(operation) as connection, connection.transaction(isolation="read_committed"):
        await connection.execute(LOCK, lock_keys([job]))  # as of windows
        deaths: int | None = await connection.fetchval(_NOTE_DEATH, job.row_id())
    return deaths or 0


async def forget_old(database: Database, days: int) -> int:
    """Delete what jobs that never ended left behind so many days ago, and what was replayed or asked for then.

    Their records are gone: with the topic, or by its retention. A pause stays until a later word takes its place.
    Return the number of rows. Raises ServiceError.
    """
    async with database.acquire("forget what is old") as connection:
        deleted: int = await connection.fetchval(_FORGET, days)
    return deleted
