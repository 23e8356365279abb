"""`v2td cancel`, `priority`, `pause`, `resume` and `audit` as people run them, on the database alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from tests.cli.conftest import Run
from tests.store.outcomes import coordinates, failure
from v2td.config import DatabaseSettings
from v2td.store import Database, Instance, audit, commands, open_database, report, upgrade
from v2td.store.batch import insert
from v2td.store.rows import rows_of

ESCAPE = "\x1b[31mred"


@pytest.fixture
async def store(database: str) -> AsyncIterator[Database]:
    await upgrade(database)
    async with open_database(DatabaseSettings(dsn=SecretStr(database), pool_min=0)) as opened:
        yield opened


@pytest.fixture
def env(database: str) -> dict[str, str]:
    return {"V2TD_DATABASE__DSN": database, "V2TD_KAFKA__GROUP_ID": "group"}


async def test_jobs_are_cancelled_and_hurried_by_name_or_id(v2td: Run, store: Database, env: dict[str, str]) -> None:
    """One that is known to Kafka alone, one that has ended, by its message's id; a word that names none is refused."""
    open_job, over = coordinates(1).row_id(), failure(2)
    async with store.raw() as connection:
        await insert(connection, [rows_of(over)])
    own, ended = over.job_id, over.coordinates.row_id()
    assert own is not None
    hurried, many, cancelled = await asyncio.gather(
        v2td("priority", str(open_job), "0", "--json", **env),
        v2td("cancel", str(open_job), str(coordinates(3).row_id()), **env),
        v2td("cancel", own, ESCAPE, str(uuid4()), str(open_job), **env),
    )
    assert hurried.code == 0, hurried.stderr
    assert json.loads(hurried.stdout)["jobs"] == [{"id": str(open_job), "result": "asked"}]
    assert many.code == 2
    assert "say --yes" in many.stderr
    assert cancelled.code == 1
    assert set(cancelled.stdout.splitlines()) == {f"{open_job}  asked", f"{ended}  ended"}
    assert "no such job; name the row's id" in cancelled.stderr
    assert "\x1b" not in cancelled.stderr
    found = [each async for page in commands.open_commands(store) for each in page]
    assert {(each.command.kind, each.command.job) for each in found} == {("cancel", open_job), ("priority", open_job)}
    assert all(each.actor.startswith("cli ") and "@" in each.actor for each in found)


async def test_the_intake_is_paused_and_resumed(v2td: Run, store: Database, env: dict[str, str]) -> None:
    await report(store, Instance("one", "host", 1, "1", 2, 0.0, 0, ()))
    unknown = await v2td("pause", "--instance", "two", **env)
    assert unknown.code == 2
    assert "'two' is none of one" in " ".join(unknown.stderr.split())
    paused = await v2td("pause", "--instance", "one", "--json", **env)
    assert json.loads(paused.stdout) == {"command": "pause", "group": "group", "instance": "one"}
    word = await commands.last_word(store, "group", "one")
    assert word is not None
    assert (word.command.kind, word.command.instance) == ("pause", "one")
    assert await commands.last_word(store, "group", "two") is None
    assert (await v2td("resume", **env)).stdout == "resume: the group group\n"
    word = await commands.last_word(store, "group", "one")
    assert word is not None
    assert (word.command.kind, word.command.instance) == ("resume", None)


async def test_the_audit_log_tells_who_did_what(v2td: Run, store: Database, env: dict[str, str]) -> None:
    failed = failure(1)
    async with store.raw() as connection:
        await insert(connection, [rows_of(failed)])
    row_id = failed.coordinates.row_id()
    await audit.note(store, f"api {ESCAPE}", "submit", "x", {"url": ESCAPE}, error="no room")
    assert (await v2td("dlq", "drop", str(row_id), **env)).code == 0
    lines, told = await asyncio.gather(v2td("audit", "list", **env), v2td("audit", "list", "--json", **env))
    assert lines.code == told.code == 0
    assert "\x1b" not in lines.stdout
    newest, oldest = lines.stdout.splitlines()
    assert "not done: no room" in oldest
    assert f"drop  {row_id}" in newest
    entries = json.loads(told.stdout)["entries"]
    assert [each["action"] for each in entries] == ["drop", "submit"]
    assert entries[0]["details"] == {"dropped": 1, "jobs": [str(row_id)]}
    assert UUID(entries[0]["target"]) == row_id
    assert entries[0]["error"] is None
    older = await v2td("audit", "list", "--json", "--before", str(entries[0]["id"]), **env)
    assert [each["action"] for each in json.loads(older.stdout)["entries"]] == ["submit"]
