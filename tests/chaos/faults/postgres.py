"""Postgres goes away, comes back, and answers with errors that pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg

from tests.chaos import servers
from tests.chaos.daemons import Daemon
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.recovery import failed_for_good
from tests.chaos.servers import PostgresServer, Shutdown
from tests.chaos.world import World

PER_SECOND = 60  # jobs that arrive all the time
AWAY_SECONDS = 2.0
FROZEN_SECONDS = 8.0  # longer than the timeouts below: every one of them passes
FROZEN_TIMEOUTS: dict[str, Any] = {"database__statement_seconds": 2, "database__connect_seconds": 2}
RESTARTED_DEADLINE = 5.0
FROZEN_DEADLINE = 10.0
DONE_SECONDS = 45.0
NOTICE_SECONDS = 20.0

# A context manager that has the world's Postgres in trouble from its beginning to its end.
Trouble = Callable[[], AbstractAsyncContextManager[None]]


async def restarted(world: World, size: Size, *, how: Shutdown) -> Result:
    """Postgres is shut down and started again."""

    async def run(own: World, server: PostgresServer) -> Result:
        @asynccontextmanager
        async def away() -> AsyncIterator[None]:
            await server.stop(how)
            yield
            await server.start()

        return await _again_and_again(own, away, size.pick(1, 10), AWAY_SECONDS, RESTARTED_DEADLINE)

    return await _on_own_server(world, run)


async def frozen(world: World, size: Size) -> Result:
    """Postgres answers nobody, for so long that all timeouts pass."""

    async def run(own: World, server: PostgresServer) -> Result:
        @asynccontextmanager
        async def away() -> AsyncIterator[None]:
            with server.frozen():
                yield

        return await _again_and_again(own, away, size.pick(1, 10), FROZEN_SECONDS, FROZEN_DEADLINE, **FROZEN_TIMEOUTS)

    return await _on_own_server(world, run)


async def out_of_connections(world: World, size: Size) -> Result:
    """All connections are in others' hands, the daemon's own were closed, and new ones are refused (53300)."""

    async def run(own: World, server: PostgresServer) -> Result:
        trouble = partial(_connections_taken, server.server.dsn)
        return await _again_and_again(own, trouble, size.pick(1, 10), 2.0, RESTARTED_DEADLINE, sqlstate="53300")

    return await _on_own_server(world, run)


async def disk_full(world: World, size: Size) -> Result:
    """The disk of the database is full to the last byte (53100), and then it is not."""

    async def run(own: World, server: PostgresServer) -> Result:
        @asynccontextmanager
        async def full() -> AsyncIterator[None]:
            if server.has_small_disk:
                with server.full_disk():
                    yield
            else:
                async with _raising(own.database, "53100"):
                    yield

        return await _again_and_again(own, full, size.pick(1, 10), 2.0, RESTARTED_DEADLINE, sqlstate="53100")

    small = servers.can_have_small_disk()
    if not small:
        world.say("postgres-disk-full: a small disk takes root (mount); a trigger raises 53100 instead")
    return await _on_own_server(world, run, small_disk=small)


async def serialization_failure(world: World, size: Size) -> Result:
    """Every transaction fails with 40001, and then none does. A trigger raises it: none of ours runs serializable."""
    trouble = partial(_raising, world.database, "40001")
    return await _again_and_again(world, trouble, size.pick(1, 10), 2.0, RESTARTED_DEADLINE, sqlstate="40001")


async def deadlock(world: World, size: Size) -> Result:
    """Somebody holds the table and waits for the lock that the daemon holds: Postgres ends the daemon's transaction."""
    trouble = partial(_deadlocked, world)
    return await _again_and_again(world, trouble, size.pick(1, 10), 0.0, RESTARTED_DEADLINE, sqlstate="40P01")


async def _on_own_server(
    world: World, run: Callable[[World, PostgresServer], Awaitable[Result]], *, small_disk: bool = False
) -> Result:
    async with servers.postgres_server(small_disk=small_disk) as server:
        services = replace(world.services, postgres_dsn=server.server.dsn)
        async with world.elsewhere(services) as own:
            return await run(own, server)


async def _again_and_again(
    world: World,
    trouble: Trouble,
    cycles: int,
    seconds: float,
    deadline: float,
    *,
    sqlstate: str | None = None,
    **settings: Any,
) -> Result:
    """Have trouble for `seconds` while jobs arrive, and measure how long it takes from its end to the next outcome.

    With `sqlstate` the trouble ends only after the daemon has met that error: else nothing was tried.
    """
    recoveries: list[float] = []
    problems: list[str] = []
    async with world.daemons.running(**settings) as daemon:
        async with world.producer.stream(PER_SECOND):
            await world.until_progress(PER_SECOND, NOTICE_SECONDS)
            for _ in range(cycles):
                met = daemon.log.read_text().count(f"SQLSTATE {sqlstate}")
                async with trouble():
                    await asyncio.sleep(seconds)
                    if sqlstate and not await _meets(daemon, sqlstate, met):
                        problems.append(f"the daemon met no {sqlstate}: nothing was tried")
                since = time.monotonic()
                recoveries.append(await world.until_progress(await world.done(), 3 * deadline, since=since))
        await world.until_all_done(DONE_SECONDS)
    problems += within(recoveries, deadline, "Postgres is back") + await failed_for_good(world)
    return await world.result(cycles, recoveries, problems)


async def _meets(daemon: Daemon, sqlstate: str, met: int) -> bool:
    end = time.monotonic() + NOTICE_SECONDS
    while time.monotonic() < end:
        if daemon.log.read_text().count(f"SQLSTATE {sqlstate}") > met:
            return True
        await asyncio.sleep(0.05)
    return False


@asynccontextmanager
async def _connections_taken(dsn: str) -> AsyncIterator[None]:
    """Take every connection of the server, and end those of the daemons again and again."""
    taken = [await asyncpg.connect(dsn)]

    async def take() -> None:
        while True:
            try:
                taken.append(await asyncpg.connect(dsn))
            except asyncpg.TooManyConnectionsError:
                await taken[0].execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname <> 'postgres'"
                )
                await asyncio.sleep(0.02)

    taking = asyncio.create_task(take())
    try:
        yield
    finally:
        taking.cancel()
        await asyncio.wait([taking])
        for connection in taken:
            connection.terminate()


@asynccontextmanager
async def _raising(dsn: str, sqlstate: str) -> AsyncIterator[None]:
    """Have every insert of outcomes fail with `sqlstate`."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            f"CREATE FUNCTION chaos() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'chaos' USING ERRCODE = '{sqlstate}'; END $$;"
            f"CREATE TRIGGER chaos BEFORE INSERT ON transcriptions EXECUTE FUNCTION chaos()"
        )
        yield
        await connection.execute("DROP FUNCTION chaos CASCADE")
    finally:
        await connection.close()


@asynccontextmanager
async def _deadlocked(world: World) -> AsyncIterator[None]:
    """Hold the table that the daemon is about to write to, and ask for the advisory lock that it holds by then."""
    connection = await asyncpg.connect(world.database)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE transcriptions IN EXCLUSIVE MODE")
            while not (held := await connection.fetch(_HELD)):
                await asyncio.sleep(0.01)
            await connection.execute("SELECT pg_advisory_xact_lock($1)", held[0]["key"])
        yield
    finally:
        await connection.close()


_HELD = """
SELECT (classid::bigint << 32 | objid::bigint) AS key FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

FAULTS = (
    Fault("postgres-fast", partial(restarted, how="fast"), "Postgres is restarted (fast)", (12, 80)),
    Fault("postgres-immediate", partial(restarted, how="immediate"), "Postgres is restarted (immediate)", (12, 80)),
    Fault("postgres-frozen", frozen, "Postgres is stopped for 8 s (SIGSTOP)", (18, 150)),
    Fault("postgres-connections", out_of_connections, "Postgres has no connection left (53300)", (12, 80)),
    Fault("postgres-disk-full", disk_full, "Postgres has no room left (53100)", (12, 80)),
    Fault("postgres-serialization", serialization_failure, "Postgres refuses to serialize (40001)", (8, 60)),
    Fault("postgres-deadlock", deadlock, "Postgres ends a deadlock (40P01)", (8, 60)),
)
