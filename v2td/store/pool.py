"""Connections to Postgres: one pool for writes, and one for look-ups where a replica is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager

import asyncpg

from v2td.config.settings import DatabaseSettings
from v2td.errors import ServiceError
from v2td.store import batch
from v2td.store.connection import Connection, set_json_codec
from v2td.store.faults import connecting, explained, server_of


class Database:
    """Lends connections; made by `open_database`."""

    def __init__(self, primary: asyncpg.Pool, readers: asyncpg.Pool, acquire_seconds: float) -> None:
        self._primary = primary
        self._readers = readers
        self._acquire_seconds = acquire_seconds

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[Connection]:
        """Lend a connection to the primary; errors come as asyncpg has them, for who goes by SQLSTATE."""
        # The timeout also bounds the release: a frozen backend would hold it up for ever.
        with _cancellable():
            async with _expiring(self._primary), self._primary.acquire(timeout=self._acquire_seconds) as connection:
                yield connection

    def acquire(self, operation: str = "use Postgres") -> AbstractAsyncContextManager[Connection]:
        """Lend a connection to the primary; raises ServiceError, also for what goes wrong inside."""
        return self._lend(self._primary, operation)

    def read(self, operation: str) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection for look-ups, to the replica where there is one; raises ServiceError as `acquire`."""
        return self._lend(self._readers, operation)

    @asynccontextmanager
    async def _lend(self, pool: asyncpg.Pool, operation: str) -> AsyncIterator[Connection]:
        with explained(operation), _cancellable():
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(_expiring(pool))
                with connecting():
                    connection = await stack.enter_async_context(pool.acquire(timeout=self._acquire_seconds))
                yield connection


@asynccontextmanager
async def _expiring(pool: asyncpg.Pool) -> AsyncIterator[None]:
    """Make new connections after one has failed: the others went the same way, and each would cost a timeout."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError):  # TimeoutError is an OSError
        await pool.expire_connections()
        raise


@contextmanager
def _cancellable() -> Iterator[None]:
    """Let a cancellation through.

    asyncpg shields the release of a connection: when that outlasts its timeout on a frozen backend, a TimeoutError
    takes the place of the CancelledError, and whoever retries would go on for ever.
    """
    try:
        yield
    except (TimeoutError, ServiceError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        raise


@asynccontextmanager
async def open_database(
    settings: DatabaseSettings, application_name: str = "v2td", *, read_only: bool = False
) -> AsyncIterator[Database]:
    """Open the pools and close them at the end; raises ServiceError where the primary cannot be reached.

    The schema must be there (migrate.upgrade). The replica is first asked when something is looked up, so that a
    start does not depend on it. `read_only` is for commands that look things up and nothing else: they need
    neither the primary, where there is a replica, nor the right to make temporary tables.
    """
    async with AsyncExitStack() as stack:
        primary = readers = None
        if not read_only:
            dsn = settings.dsn.get_secret_value()
            primary = await stack.enter_async_context(_pool(dsn, settings, application_name, writes=True))
        if read_only or settings.read_dsn is not None:
            dsn = (settings.read_dsn or settings.dsn).get_secret_value()
            readers = await stack.enter_async_context(_pool(dsn, settings, application_name, writes=False))
        yield Database(primary or readers, readers or primary, settings.connect_seconds)


@asynccontextmanager
async def _pool(
    dsn: str, settings: DatabaseSettings, application_name: str, *, writes: bool
) -> AsyncIterator[asyncpg.Pool]:
    async def init(connection: Connection) -> None:
        await set_json_codec(connection)
        if writes:
            await batch.prepare(connection)

    milliseconds = str(max(1, round(settings.statement_seconds * 1000)))
    with connecting(server_of(dsn)):
        pool = await asyncpg.create_pool(
            dsn,
            min_size=settings.pool_min if writes else 0,
            max_size=settings.pool_max,
            max_inactive_connection_lifetime=settings.recycle_seconds,
            timeout=settings.connect_seconds,
            command_timeout=settings.statement_seconds + 1,  # the server is to give up first, in good order
            server_settings={
                "application_name": application_name,
                "statement_timeout": milliseconds,
                # An instance that vanished in mid-transaction must not keep the others from its partitions.
                "idle_in_transaction_session_timeout": milliseconds,
            },
            init=init,
        )
    try:
        if writes:
            with connecting(server_of(dsn)):  # with pool_min = 0 nothing has been tried yet
                async with pool.acquire(timeout=settings.connect_seconds):
                    pass
        yield pool
    finally:
        try:
            async with asyncio.timeout(settings.connect_seconds):
                await pool.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # TimeoutError is an OSError
            pool.terminate()
