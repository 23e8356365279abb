"""Versioned migrations: migrations/NNNN_name.sql, applied in order, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources

import asyncpg

from v2td.errors import ServiceError
from v2td.store.connection import Connection
from v2td.store.faults import connecting, explained, server_of

LOCK_KEY = 0x763274645F6D6967  # "v2td_mig": held while migrations are applied
CONNECT_SECONDS = 10

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Return the migrations that this code brings, in order."""
    found = []
    for file in resources.files("v2td.store").joinpath("migrations").iterdir():
        stem, _, suffix = file.name.rpartition(".")
        if suffix == "sql":
            version, _, name = stem.partition("_")
            found.append(Migration(int(version), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


def latest_version() -> int:
    """Return the version of the schema that this code works with."""
    return migrations()[-1].version


async def schema_version(dsn: str) -> int:
    """Return the version that the database is at, 0 when it has no schema yet; raises ServiceError."""
    async with _connection(dsn, "read the schema version") as connection:
        return await _version(connection)


async def upgrade(dsn: str) -> list[int]:
    """Bring the database to the latest version; return the versions applied, none when it is there already.

    Instances that start at once wait for each other. Raises ServiceError where the database is newer than this
    code, or cannot be reached. Cancelled or failed, it leaves the migrations before the current one applied.
    """
    async with _connection(dsn, "upgrade the database") as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)  # the session's: ends with the connection
        current = await _version(connection)
        if current > latest_version():
            raise ServiceError(
                "upgrade the database",
                f"its schema has version {current}, this v2td knows up to {latest_version()}",
                "install the newer v2td; a schema is never taken back",
            )
        await connection.execute(_LEDGER)
        applied = []
        for migration in migrations():
            if migration.version > current:
                async with connection.transaction():
                    await connection.execute(migration.sql)
                    await connection.execute(
                        "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
                        migration.version,
                        migration.name,
                    )
                applied.append(migration.version)
        return applied


async def _version(connection: Connection) -> int:
    if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        return 0
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations")
    return version


@asynccontextmanager
async def _connection(dsn: str, operation: str) -> AsyncIterator[Connection]:
    with connecting(server_of(dsn)):
        connection = await asyncpg.connect(
            dsn, timeout=CONNECT_SECONDS, server_settings={"application_name": "v2td db"}
        )
    try:
        with explained(operation):
            yield connection
    finally:
        connection.terminate()  # nothing is left to say; a polite goodbye could hang on a frozen server
