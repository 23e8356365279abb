"""The index that search uses: made and dropped while the daemons write, and told how large it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg

from v2td.errors import ServiceError
from v2td.store.connection import Connection
from v2td.store.faults import connecting, explained, server_of
from v2td.store.search import INDEX

CONNECT_SECONDS = 10
LOOK_SECONDS = 0.5
STOP_SECONDS = 5.0
STOPPED_LOOK_SECONDS = 0.05
LOCK_KEY = 0x763274645F736978  # "v2td_six": held while the index is made

_CREATE = f"""
CREATE INDEX CONCURRENTLY {INDEX} ON transcriptions
USING gin (v2td_text_vector(v2td_text_search(language), text))
"""
_DROP = f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}"
_STATE = """
SELECT indisvalid AS whole, pg_relation_size(indexrelid) AS size_bytes
FROM pg_index WHERE indexrelid = to_regclass($1)
"""
_PROGRESS = """
SELECT phase, blocks_done, blocks_total FROM pg_stat_progress_create_index WHERE pid = $1
"""

_ACTIVE = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')"


@dataclass(frozen=True, slots=True)
class IndexState:
    """The index in the database; not `whole` when its making was interrupted, and so of no use."""

    whole: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Building:
    """How far the making is: Postgres's word for the phase, and blocks of the table, 0 where it counts none."""

    phase: str
    blocks_done: int
    blocks_total: int


async def look(dsn: str) -> IndexState | None:
    """Return the index as it is, None where there is none; raises ServiceError."""
    async with _connection(dsn, "look for the search index") as connection:
        return await _state(connection)


async def build(dsn: str, on_progress: Callable[[Building], None]) -> IndexState:
    """Make the index, and return it; at once where it is there. What an interrupted making left is made anew.

    Nothing is locked but for other changes of the table: daemons write meanwhile. Takes as long as it takes, and
    waits for transactions that were open before. Cancelled, it leaves an index that is not whole, for the next call.
    Raises ServiceError, also where it is being made already.
    """
    async with _connection(dsn, "make the search index") as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
            raise ServiceError("make the search index", "it is being made already", "wait for the other command")
        state = await _state(connection)
        if state is not None and state.whole:
            return state
        await connection.execute(_DROP)
        async with _connection(dsn, "look how far the search index is") as other:
            pid = connection.get_server_pid()
            looking = asyncio.create_task(_tell(other, pid, on_progress))
            try:
                await connection.execute(_CREATE)
            except asyncio.CancelledError:
                await _ended(looking)
                await _stop(other, pid)
                raise
            finally:
                await _ended(looking)
        made = await _state(connection)
    if made is None:
        raise ServiceError("make the search index", "somebody dropped it at once", "run the command again")
    return made


async def drop(dsn: str) -> bool:
    """Drop the index while the daemons write; tell whether there was one. Raises ServiceError."""
    async with _connection(dsn, "drop the search index") as connection:
        there = await _state(connection) is not None
        await connection.execute(_DROP)
        return there


async def _state(connection: Connection) -> IndexState | None:
    row = await connection.fetchrow(_STATE, INDEX)
    return None if row is None else IndexState(**row)


async def _tell(connection: Connection, pid: int, on_progress: Callable[[Building], None]) -> None:
    """Tell how far the other connection is, until cancelled; that it cannot be seen is no reason to stop."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        while True:
            row = await connection.fetchrow(_PROGRESS, pid)
            if row is not None:
                on_progress(Building(row["phase"], row["blocks_done"] or 0, row["blocks_total"] or 0))
            await asyncio.sleep(LOOK_SECONDS)


async def _ended(looking: asyncio.Task[None]) -> None:
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking


async def _stop(connection: Connection, pid: int) -> None:
    """Have the other connection's making stopped, which would go on to its end; wait until it is."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # TimeoutError is an OSError
        async with asyncio.timeout(STOP_SECONDS):
            await connection.fetchval("SELECT pg_cancel_backend($1)", pid)
            while await connection.fetchval(_ACTIVE, pid):  # noqa: ASYNC110 (Postgres tells nobody)
                await asyncio.sleep(STOPPED_LOOK_SECONDS)


@asynccontextmanager
async def _connection(dsn: str, operation: str) -> AsyncIterator[Connection]:
    """Connect outside the pool, whose statements may take so long and no longer."""
    with connecting(server_of(dsn)):
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": "v2td db search-index", "statement_timeout": "0"},
        )
    try:
        with explained(operation):
            yield connection
    finally:
        connection.terminate()
