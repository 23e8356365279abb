"""Commands to jobs and to the intake: given once, read by every instance, open until the job has its outcome.

The transaction that writes a job's outcome closes the job's commands (batch.FORGET), and so does who asks for the job
anew (ledger.request, redos.note): what was asked of the job before has nothing to say to it. So an open command is
one that still counts, whatever clocks say and whoever died in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from v2td.store import audit
from v2td.store.connection import Connection
from v2td.store.pool import Database
from v2td.store.rows import REQUESTED
from v2td.store.sanitise import clean_text

CHANNEL = "v2td_commands"
AT_ONCE = 1000  # rows of a page, and commands of a transaction

Kind = Literal["cancel", "priority", "pause", "resume"]
JOB_KINDS = ("cancel", "priority")

_COLUMNS = "id, command, job, priority, group_id, instance, actor, created_at"
# A job has ended when it has an outcome, and nobody has asked for another since.
_ENDED = f"""
SELECT ours.id FROM unnest($1::uuid[]) AS ours (id)
WHERE EXISTS (SELECT FROM failures f WHERE f.id = ours.id AND f.replay_state IS DISTINCT FROM '{REQUESTED}')
   OR EXISTS (SELECT FROM transcriptions t WHERE t.id = ours.id) AND NOT EXISTS (
    SELECT FROM redos r WHERE r.id = ours.id AND r.failed IS NULL
    AND NOT EXISTS (SELECT FROM transcriptions t WHERE t.id = r.id AND t.revision = r.revision)
)
"""  # noqa: S608 (our own words)
_GIVE = """
INSERT INTO job_commands (command, job, priority, group_id, instance, actor, done_at)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN now() END) RETURNING id
"""
_NOTIFY = f"SELECT pg_notify('{CHANNEL}', $1)"
_OPEN = f"""
SELECT {_COLUMNS} FROM job_commands WHERE job IS NOT NULL AND done_at IS NULL AND id > $1 ORDER BY id LIMIT {AT_ONCE}
"""  # noqa: S608 (our own words)
_THESE = f"""
SELECT {_COLUMNS} FROM job_commands WHERE id = ANY($1::bigint[]) AND done_at IS NULL ORDER BY id
"""  # noqa: S608 (our own words)
_WORD = f"""
SELECT {_COLUMNS} FROM job_commands WHERE group_id = $1 AND (instance IS NULL OR instance = $2)
ORDER BY id DESC LIMIT 1
"""  # noqa: S608 (our own words)
_OF_JOB = f"""
SELECT {_COLUMNS} FROM job_commands WHERE job = $1 AND done_at IS NULL ORDER BY id
"""  # noqa: S608 (our own words)
_DONE = "UPDATE job_commands SET done_at = now() WHERE job = ANY($1::uuid[]) AND done_at IS NULL"
_CALLED = """
SELECT job_id, id FROM failures WHERE job_id = ANY($1::text[])
UNION SELECT job_id, id FROM transcriptions WHERE job_id = ANY($1::text[])
UNION SELECT job_id, id FROM submissions WHERE job_id = ANY($1::text[]) AND id IS NOT NULL
"""
_INSTANCES = "SELECT name FROM instances WHERE seen_at > now() - make_interval(days => $1) ORDER BY name"


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks for; ValueError when it does not say enough.

    `job` is a row's id, of cancel and priority; `priority` runs from 0 (most urgent) to 9. `group_id` is the consumer
    group, of pause and resume, and `instance` one of it alone, as named in `instances`.
    """

    kind: Kind
    job: UUID | None = None
    priority: int | None = None
    group_id: str | None = None
    instance: str | None = None

    def __post_init__(self) -> None:
        of_job = self.kind in JOB_KINDS
        if (self.job is not None) != of_job or (self.group_id is not None) == of_job:
            raise ValueError(f"{self.kind} takes a {'job' if of_job else 'group_id'} and no other")
        if (self.priority is not None) != (self.kind == "priority"):
            raise ValueError("priority, and nothing else, takes a priority")
        if self.priority is not None and not 0 <= self.priority <= 9:
            raise ValueError("priority runs from 0 to 9")
        if self.instance is not None and of_job:
            raise ValueError("a job's command reaches every instance")


@dataclass(frozen=True, slots=True)
class Given:
    """A command that was given: `id` grows with time, nearly; `at` is the server's clock."""

    id: int
    command: Command
    actor: str
    at: datetime


async def give(database: Database, command: Command, actor: str) -> int:
    """Give a command, tell every instance and write it into the audit log, all or nothing; return its id.

    What is asked of a job that has ended already has no effect. Raises ServiceError.
    """
    (given,) = await give_all(database, [command], actor)
    return given


async def give_all(database: Database, commands: Sequence[Command], actor: str) -> list[int]:
    """Give commands as `give` does, a thousand in a transaction; raises ServiceError."""
    given: list[int] = []
    for start in range(0, len(commands), AT_ONCE):
        async with database.acquire("give commands") as connection, connection.transaction():
            given += await _give(connection, commands[start : start + AT_ONCE], audit.line(actor))
    return given


async def _give(connection: Connection, commands: Sequence[Command], actor: str) -> list[int]:
    jobs = [command.job for command in commands if command.job is not None]
    over = {row["id"] for row in await connection.fetch(_ENDED, jobs)} if jobs else set()
    given: list[int] = []
    acts: list[audit.Act] = []
    insert, notify = await connection.prepare(_GIVE), await connection.prepare(_NOTIFY)
    for each in commands:
        ended = each.job in over
        named = (each.group_id and clean_text(each.group_id), each.instance and clean_text(each.instance))
        number = await insert.fetchval(each.kind, each.job, each.priority, *named, actor, ended)
        if not ended:
            await notify.fetchval(str(number))
        given.append(number)
        details = {"command": number, "priority": each.priority, "group": each.group_id}
        said = {name: value for name, value in details.items() if value is not None}
        target = str(each.job) if each.job is not None else each.instance
        acts.append((actor, each.kind, target, said, "the job has ended" if ended else None))
    await audit.note_all(connection, acts)
    return given


async def ended(database: Database, jobs: Collection[UUID]) -> set[UUID]:
    """Return which of the jobs have ended, so that no command can reach them; raises ServiceError."""
    async with database.acquire("look up ended jobs") as connection:
        return {row["id"] for row in await connection.fetch(_ENDED, list(jobs))}


async def called(database: Database, names: Collection[str]) -> dict[str, set[UUID]]:
    """Return the jobs that messages called so, as far as Postgres knows them yet; raises ServiceError."""
    found: dict[str, set[UUID]] = {}
    async with database.acquire("look up jobs") as connection:
        for row in await connection.fetch(_CALLED, [clean_text(name) for name in names]):
            found.setdefault(row["job_id"], set()).add(row["id"])
    return found


async def instances(database: Database, days: int = 1) -> list[str]:
    """Return the names of the instances that were seen within so many days; raises ServiceError."""
    async with database.acquire("look up instances") as connection:
        return [row["name"] for row in await connection.fetch(_INSTANCES, days)]


async def open_commands(database: Database) -> AsyncIterator[list[Given]]:
    """Yield the open commands to jobs in pages, in order of their ids; raises ServiceError."""
    last = 0
    while True:
        async with database.acquire("read commands") as connection:
            page = [_given(row) for row in await connection.fetch(_OPEN, last)]
        if page:
            yield page
        if len(page) < AT_ONCE:
            return
        last = page[-1].id


async def open_of(database: Database, job: UUID) -> list[Given]:
    """Return the open commands to a job, in order of their ids; raises ServiceError."""
    async with database.acquire("read commands") as connection:
        return [_given(row) for row in await connection.fetch(_OF_JOB, job)]


async def these(database: Database, ids: Collection[int]) -> list[Given]:
    """Return those commands that are open, in order of their ids; raises ServiceError."""
    async with database.acquire("read commands") as connection:
        return [_given(row) for row in await connection.fetch(_THESE, list(ids))]


async def last_word(database: Database, group_id: str, instance: str) -> Given | None:
    """Return the newest pause or resume that is meant for an instance; raises ServiceError.

    The last word counts, whether it was for the group or for the instance by name.
    """
    async with database.acquire("read commands") as connection:
        row = await connection.fetchrow(_WORD, clean_text(group_id), clean_text(instance))
    return None if row is None else _given(row)


async def done(connection: Connection, jobs: Collection[UUID]) -> None:
    """Close the commands to jobs that are asked for anew, in the transaction that asks."""
    await connection.execute(_DONE, list(jobs))


def _given(row: Any) -> Given:
    command = Command(row["command"], row["job"], row["priority"], row["group_id"], row["instance"])
    return Given(row["id"], command, row["actor"], row["created_at"])
