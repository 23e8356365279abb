import asyncpg
import pytest
from pydantic import SecretStr

from tests.store.conftest import until
from v2td.config import DatabaseSettings
from v2td.errors import ServiceError
from v2td.store import Database, open_database
from v2td.store.connection import Connection


async def test_sessions_carry_our_name_and_limits(schema: None, settings: DatabaseSettings) -> None:
    limited = settings.model_copy(update={"statement_seconds": 1.5})
    async with open_database(limited, "v2td-7") as opened, opened.acquire() as connection:
        for name, value in [
            ("application_name", "v2td-7"),
            ("statement_timeout", "1500ms"),
            ("idle_in_transaction_session_timeout", "1500ms"),
        ]:
            assert await connection.fetchval(f"SHOW {name}") == value


async def test_the_pool_is_bounded_and_says_so_in_time(schema: None, settings: DatabaseSettings) -> None:
    hasty = settings.model_copy(update={"connect_seconds": 0.3})
    async with open_database(hasty) as opened, opened.acquire(), opened.acquire():
        with pytest.raises(ServiceError, match=r"connect to Postgres: TimeoutError"):
            async with opened.read("look up"):
                pass


async def test_who_goes_by_sqlstate_gets_it(store: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with store.raw() as connection:
            await connection.execute("TABLE nonsense")
    with pytest.raises(ServiceError, match=r"try: .*42P01"):
        async with store.acquire("try") as connection:
            await connection.execute("TABLE nonsense")


async def test_json_goes_there_and_back(store: Database) -> None:
    value = {"a": [1, 2.5, None, "ü\u2028"], "b": {}}
    async with store.acquire() as connection:
        assert await connection.fetchval("SELECT $1::jsonb", value) == value


async def test_no_schema_is_told_with_its_cure(database: str) -> None:
    settings = DatabaseSettings(dsn=SecretStr(database), pool_min=1, pool_max=2)
    with pytest.raises(ServiceError, match=r"v2td db upgrade"):
        async with open_database(settings):
            pass


async def test_no_server_is_told_without_the_password() -> None:
    settings = DatabaseSettings(dsn=SecretStr("postgresql://v2td:hunter2@127.0.0.1:1/v2td"))
    with pytest.raises(ServiceError, match="is Postgres running") as caught:
        async with open_database(settings):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_replica_that_is_away_stops_no_start(schema: None, settings: DatabaseSettings) -> None:
    for dsn, complaint in [("postgresql://v2td:hunter2@127.0.0.1:1/v2td", "is Postgres running"), ("nonsense", "%XX")]:
        async with open_database(settings.model_copy(update={"read_dsn": SecretStr(dsn)})) as opened:
            async with opened.acquire() as connection:
                assert await connection.fetchval("SELECT 1") == 1
            with pytest.raises(ServiceError, match=complaint) as caught:
                async with opened.read("look up"):
                    pass
            assert "hunter2" not in str(caught.value)


async def test_closing_leaves_no_connection(schema: None, settings: DatabaseSettings, sql: Connection) -> None:
    async with open_database(settings, "v2td-closing") as opened, opened.acquire():
        pass
    await until(
        lambda: sql.fetchval("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'v2td-closing'")
    )
