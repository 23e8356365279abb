"""A database with v2td's schema, the pool on it, a connection to look behind the scenes, and a running writer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest
import uvloop
from pydantic import SecretStr

from v2td.config import DatabaseSettings
from v2td.jobs import Failure
from v2td.store import Database, Writer, open_database, upgrade
from v2td.store.connection import Connection, set_json_codec


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


Writing = Callable[..., AbstractAsyncContextManager[Writer]]


@pytest.fixture
def settings(database: str) -> DatabaseSettings:
    return DatabaseSettings(dsn=SecretStr(database), pool_min=0, pool_max=2, flush_seconds=0.02)


@pytest.fixture
async def schema(database: str) -> None:
    await upgrade(database)


@pytest.fixture
async def store(schema: None, settings: DatabaseSettings) -> AsyncIterator[Database]:
    async with open_database(settings) as opened:
        yield opened


@pytest.fixture
async def sql(database: str, schema: None) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database)
    await set_json_codec(connection)
    yield connection
    await connection.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def no_unwritable(failure: Failure) -> None:
    raise AssertionError(f"unwritable: {failure.reason}")


@pytest.fixture
def writing(store: Database, settings: DatabaseSettings) -> Writing:
    """`async with writing() as writer`: its run() is at work inside and has ended after."""

    @asynccontextmanager
    async def open_writer(
        on_unwritable: Callable[[Failure], Awaitable[None]] = no_unwritable,
        database: Database = store,
        **changes: Any,
    ) -> AsyncIterator[Writer]:
        writer = Writer(database, settings.model_copy(update=changes), on_unwritable)
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.run())
            try:
                yield writer
            finally:
                writer.close()

    return open_writer
