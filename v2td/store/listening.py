"""A connection that hears what others NOTIFY: of its own, since those of a pool are handed around."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg

from v2td.config.settings import DatabaseSettings
from v2td.store.connection import Connection
from v2td.store.faults import connecting, explained, server_of

CLOSE_SECONDS = 1.0  # nothing is lost with it


class Line:
    """The open connection; `lost` is set when it has ended, for whatever reason."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: self.lost.set())

    async def check(self) -> None:
        """See that the server still answers; raises ServiceError."""
        with explained("ask whether commands can be heard"):
            await self._connection.fetchval("SELECT 1")


@asynccontextmanager
async def listening(
    settings: DatabaseSettings, channel: str, told: Callable[[str], None], lost: Callable[[], None]
) -> AsyncIterator[Line]:
    """Call `told` with what is notified on the channel, and `lost` when the connection ends; raises ServiceError."""
    dsn = settings.dsn.get_secret_value()
    with connecting(server_of(dsn)):
        connection: Connection = await asyncpg.connect(
            dsn,
            timeout=settings.connect_seconds,
            command_timeout=settings.statement_seconds,
            server_settings={"application_name": channel},
        )
    try:
        line = Line(connection)
        connection.add_termination_listener(lambda _connection: lost())
        with explained(f"listen to {channel}"):
            await connection.add_listener(channel, lambda _connection, _pid, _channel, payload: told(payload))
        yield line
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # TimeoutError is an OSError
            await connection.close(timeout=CLOSE_SECONDS)
        connection.terminate()
