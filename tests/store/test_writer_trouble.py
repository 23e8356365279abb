"""Postgres in trouble: nothing is lost, nothing comes twice, and intake is told to pause."""

import asyncio
import secrets

import asyncpg
import pytest
from prometheus_client import REGISTRY

from tests.services.state import Services
from tests.store.conftest import Writing, no_unwritable, until
from tests.store.outcomes import failure, transcript
from tests.store.test_writer import counts, write_all
from v2td.config import DatabaseSettings
from v2td.errors import ServiceError
from v2td.store import Database, Writer, ensure_partitions, open_database
from v2td.store.connection import Connection
from v2td.store.partitions import partition_of

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def unhealthy(writer: Writer) -> bool:
    return not writer.healthy.is_set()


async def test_backends_that_are_terminated_in_mid_write(writing: Writing, sql: Connection, database: str) -> None:
    before = REGISTRY.get_sample_value("v2td_write_retries_total") or 0
    blocker = await asyncpg.connect(database)
    async with writing() as writer:
        await writer.write(transcript(0))  # the staging tables of this connection are used once before
        block = blocker.transaction()
        await block.start()
        await blocker.execute("LOCK TABLE failures IN ACCESS EXCLUSIVE MODE")
        writes = asyncio.create_task(write_all(writer, *map(transcript, range(1, 30)), failure(30)))
        for _ in range(3):
            await until(lambda: sql.fetchval(f"SELECT count(*) > 0 {OTHERS} AND wait_event_type = 'Lock'"))
            await sql.execute(f"SELECT pg_terminate_backend(pid) {OTHERS} AND wait_event_type = 'Lock'")
            await until(lambda: unhealthy(writer))
        assert not writes.done()
        await block.rollback()
        await asyncio.wait_for(writes, 10)
        assert writer.healthy.is_set()
    await blocker.close()
    assert await counts(sql) == (30, 60, 1)
    assert (REGISTRY.get_sample_value("v2td_write_retries_total") or 0) >= before + 3


async def test_idle_connections_that_died_are_replaced(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        for n in range(3):
            await writer.write(transcript(n))
            await sql.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
    assert await counts(sql) == (3, 6, 0)


async def test_a_server_that_refuses_connections_is_waited_for(
    writing: Writing, sql: Connection, database: str, services: Services
) -> None:
    name = database.rpartition("/")[2]
    server = await asyncpg.connect(services.postgres_dsn)
    async with writing() as writer:
        await server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')  # SQLSTATE 55000
        await sql.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
        write = asyncio.create_task(writer.write(transcript(1)))
        await until(lambda: unhealthy(writer))
        await server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await asyncio.wait_for(write, 10)
        assert writer.healthy.is_set()
    await server.close()
    assert await counts(sql) == (1, 2, 0)


async def test_a_missing_partition_is_made(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await write_all(writer, *map(transcript, range(3)))  # the fixtures made no partition
        (month,) = await sql.fetch("SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS first")
        await sql.execute(f"DROP TABLE {partition_of(month['first']).name}")
        await write_all(writer, *map(transcript, range(3, 6)))
        assert writer.healthy.is_set()
    assert await counts(sql) == (6, 6, 0)
    assert await ensure_partitions(sql, 3) == []


async def test_a_missing_table_stops_the_writer_and_tells_everybody(
    store: Database, settings: DatabaseSettings, sql: Connection
) -> None:
    writer = Writer(store, settings, no_unwritable)
    await sql.execute("DROP TABLE failures CASCADE")
    writes = [asyncio.create_task(writer.write(transcript(n))) for n in range(3)]
    with pytest.raises(ServiceError, match=r"SQLSTATE 42P01.*v2td db upgrade"):
        await writer.run()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results] == [ServiceError] * 3
    with pytest.raises(ServiceError, match="SQLSTATE 42"):
        await writer.write(transcript(9))
    assert await sql.fetchval("SELECT count(*) FROM transcriptions") == 0


async def test_a_user_that_may_no_longer_log_in_stops_the_writer(
    settings: DatabaseSettings, sql: Connection, database: str
) -> None:
    role, password = f"v2td_{secrets.token_hex(4)}", secrets.token_hex(8)
    await sql.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'")
    host = database.partition("@")[2]
    theirs = type(settings).model_validate(
        settings.model_dump() | {"dsn": f"postgresql://{role}:{password}@{host}", "pool_min": 1}
    )
    try:
        async with open_database(theirs) as opened:
            writer = Writer(opened, theirs, no_unwritable)
            await sql.execute(f"ALTER ROLE {role} NOLOGIN")
            await sql.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
            write = asyncio.create_task(writer.write(transcript(1)))
            with pytest.raises(ServiceError, match=r"SQLSTATE 28") as caught:
                await writer.run()
            assert password not in str(caught.value)
            with pytest.raises(ServiceError, match=r"SQLSTATE 28"):
                await write
    finally:
        await sql.execute(f"DROP ROLE {role}")


async def test_a_writer_that_is_cancelled_tells_everybody(
    store: Database, settings: DatabaseSettings, sql: Connection, database: str
) -> None:
    writer = Writer(store, settings, no_unwritable)
    running = asyncio.create_task(writer.run())
    blocker = await asyncpg.connect(database)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE failures IN ACCESS EXCLUSIVE MODE")
        write = asyncio.create_task(writer.write(failure(1)))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(ServiceError, match="the writer has ended"):
            await write
    await blocker.close()
    assert await counts(sql) == (0, 0, 0)
