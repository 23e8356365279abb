"""The private Postgres: stopped, frozen, full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.chaos import servers
from tests.chaos.servers import PostgresServer, Shutdown

pytestmark = pytest.mark.slow


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with servers.postgres_server() as running:
        yield running


async def answers(dsn: str, seconds: float = 1.0) -> bool:
    try:
        async with asyncio.timeout(seconds):
            connection = await asyncpg.connect(dsn)
            await connection.close()
    except (OSError, asyncpg.PostgresError):
        return False
    return True


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_stopped_and_started_again(server: PostgresServer, how: Shutdown) -> None:
    dsn = await server.create_database()
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE kept (id int)")
    await connection.execute("INSERT INTO kept VALUES (1)")
    await server.stop(how)
    assert not await answers(dsn)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.execute("SELECT 1")
    connection.terminate()
    await server.start()
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT id FROM kept") == 1
    await connection.close()


async def test_frozen(server: PostgresServer) -> None:
    connection = await asyncpg.connect(await server.create_database())
    with server.frozen():
        began = time.monotonic()
        assert not await answers(server.server.dsn)
        query = asyncio.create_task(connection.fetchval("SELECT 1"))
        done, _ = await asyncio.wait([query], timeout=0.5)
        assert not done
        assert time.monotonic() - began < 3
    assert await query == 1
    assert await answers(server.server.dsn)
    await connection.close()


@pytest.mark.skipif(not servers.can_have_small_disk(), reason="a small disk takes root: the fault says so, too")
async def test_disk_full_and_not_any_more() -> None:
    async with servers.postgres_server(small_disk=True) as server:
        connection = await asyncpg.connect(await server.create_database())
        await connection.execute("CREATE TABLE filled (text text)")
        insert = "INSERT INTO filled SELECT repeat(md5(n::text), 20) FROM generate_series(1, 1000) n"
        await connection.execute(insert)
        with server.full_disk():
            assert server.free_bytes() == 0
            with pytest.raises(asyncpg.DiskFullError):
                await connection.execute(insert)
        await connection.execute(insert)
        assert await connection.fetchval("SELECT count(*) FROM filled") == 2000
        await connection.close()
