"""Postgres goes away while jobs are under way: nothing is lost, and a stop does not wait for it for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.daemon.conftest import Daemon, World
from tests.daemon.proxy import Proxy
from v2td import bundled

SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[Proxy]:
    parts = urlsplit(world.database)
    async with Proxy(str(parts.hostname), int(parts.port or 5432)).running() as running:
        yield running


def through(proxy: Proxy, dsn: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"))


async def until_in_trouble(daemon: Daemon) -> None:
    async with asyncio.timeout(20):
        while (await daemon.status())["database_healthy"]:
            await asyncio.sleep(0.1)


async def test_work_waits_for_postgres_and_goes_on(world: World, proxy: Proxy) -> None:
    await world.submit(*({"id": f"{n}", "audio_url": SHORT[n % len(SHORT)].path.as_uri()} for n in range(40)))
    async with world.daemon(database__dsn=through(proxy, world.database)) as daemon:
        await world.until_finished(5, 60)
        proxy.cut()
        await until_in_trouble(daemon)
        assert (await daemon.status())["not_ready_because"] == "Postgres is in trouble"
        while_away = await world.finished()
        await asyncio.sleep(1)
        assert await world.finished() == while_away < 40
        proxy.mend()
        await world.until_finished(40, 60)
        assert (await daemon.status())["ready"] is True
        assert await daemon.terminate() == 0
    assert await world.rows("SELECT job_id FROM transcriptions GROUP BY job_id HAVING count(*) > 1") == []
    assert await world.uncommitted() == {}


async def test_a_stop_does_not_wait_for_a_frozen_postgres(world: World, proxy: Proxy) -> None:
    """Nothing is refused, nothing answers: asyncpg turns the cancellation of who waits into a timeout."""
    await world.submit(*({"id": f"{n}", "audio_url": SHORT[n % len(SHORT)].path.as_uri()} for n in range(12)))
    settings = {"database__connect_seconds": 2, "pipeline__drain_seconds": 2, "pipeline__stop_seconds": 5}
    async with world.daemon(database__dsn=through(proxy, world.database), **settings) as daemon:
        await world.until_finished(1, 60)
        proxy.freeze()
        await asyncio.sleep(4)
        started = time.monotonic()
        assert await daemon.terminate() == 0
        assert time.monotonic() - started < 2 + 5 + 5 + 5  # drain, flush, stop, and a slow machine
    async with world.daemon() as daemon:
        await world.until_finished(12, 60)
        assert await daemon.terminate() == 0
    assert await world.uncommitted() == {}


async def test_a_stop_does_not_wait_for_postgres(world: World, proxy: Proxy) -> None:
    await world.submit(*({"id": f"{n}", "audio_url": SHORT[n % len(SHORT)].path.as_uri()} for n in range(12)))
    dsn = through(proxy, world.database)
    async with world.daemon(database__dsn=dsn, pipeline__drain_seconds=2) as daemon:
        await world.until_finished(1, 60)
        proxy.cut()
        await until_in_trouble(daemon)
        started = time.monotonic()
        assert await daemon.terminate() == 0
        assert time.monotonic() - started < 2 + 5 + 10  # drain, flush, stop
    done = await world.finished()
    assert sum((await world.uncommitted()).values()) >= 12 - done
    async with world.daemon() as daemon:
        await world.until_finished(12, 60)
        assert await daemon.terminate() == 0
    assert await world.rows("SELECT job_id FROM transcriptions GROUP BY job_id HAVING count(*) > 1") == []
    assert await world.uncommitted() == {}
