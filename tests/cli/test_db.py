import asyncio
import json

import pytest
from typer.testing import CliRunner

from v2td.cli.app import app
from v2td.store import latest_version, schema_version


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.delenv("V2TD_CONFIG", raising=False)
    return CliRunner()


async def test_upgrade_and_version(run: CliRunner, database: str) -> None:
    def answer(*command: str) -> str:
        result = run.invoke(app, ["db", *command], env={"V2TD_DATABASE__DSN": database})
        assert result.exit_code == 0, result.output
        return result.output

    latest = latest_version()
    assert await asyncio.to_thread(answer, "version") == f"database: 0, this v2td: {latest}\n"
    assert f"the schema has version {latest}" in await asyncio.to_thread(answer, "upgrade")
    assert await schema_version(database) == latest
    assert await asyncio.to_thread(answer, "upgrade") == f"the schema is up to date: version {latest}\n"
    assert await asyncio.to_thread(answer, "version") == f"database: {latest}, this v2td: {latest}\n"
    assert json.loads(await asyncio.to_thread(answer, "upgrade", "--json")) == {"applied": [], "version": latest}
    assert json.loads(await asyncio.to_thread(answer, "version", "--json")) == {"database": latest, "v2td": latest}


@pytest.mark.parametrize("command", ["upgrade", "version"])
def test_no_server_is_an_error_without_the_password(run: CliRunner, command: str) -> None:
    result = run.invoke(app, ["db", command], env={"V2TD_DATABASE__DSN": "postgresql://v2td:hunter2@127.0.0.1:1/v2td"})
    assert result.exit_code == 1
    assert result.stderr.startswith("error: connect to Postgres at ")
    assert "hunter2" not in result.output
    assert result.stdout == ""


def test_a_bad_setting_is_an_error(run: CliRunner) -> None:
    result = run.invoke(app, ["db", "version"], env={"V2TD_DATABASE__POOL_MAX": "many"})
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "database.pool_max" in result.stderr
