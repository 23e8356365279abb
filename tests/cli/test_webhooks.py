"""`v2td webhooks` as people run it: deliveries are listed and sent once more, receivers are tried."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.cli.conftest import Run
from tests.webhooks.conftest import new_secret, receiving, status
from v2td.cli.app import app
from v2td.config import DatabaseSettings, Settings
from v2td.errors import ConfigError
from v2td.jobs import Coordinates
from v2td.ops.webhooks import send_example
from v2td.store import open_database, upgrade, webhooks

ESCAPE = "\x1b[31mred"
JOBS = [Coordinates("c", "jobs", 0, offset, 1_780_000_000_123).row_id() for offset in range(3)]


@pytest.fixture
async def env(database: str) -> dict[str, str]:
    await upgrade(database)
    notices = [
        webhooks.Notice(job, job, 0, "transcribed", "https://example.com/hook?token=canary", "example.com:443")
        for job in JOBS
    ]
    async with open_database(DatabaseSettings(dsn=SecretStr(database), pool_min=0)) as opened:
        await webhooks.note(opened, notices)
    connection = await asyncpg.connect(database)
    await connection.execute(
        "UPDATE webhooks SET state = 'dead', attempts = 10, last_error = $2, ended_at = now() WHERE id = $1",
        JOBS[0],
        ESCAPE,
    )
    await connection.execute("UPDATE webhooks SET state = 'delivered', attempts = 1 WHERE id = $1", JOBS[1])
    await connection.close()
    return {"V2TD_DATABASE__DSN": database}


async def test_deliveries_are_listed_and_sent_once_more(v2td: Run, env: dict[str, str], database: str) -> None:
    listed = await v2td("webhooks", "list", **env)
    assert listed.code == 0, listed.stderr
    assert listed.stderr == "1 dead, 1 delivered, 1 waiting\n"
    dead = next(line for line in listed.stdout.splitlines() if str(JOBS[0]) in line)
    assert "  dead  10  transcribed  " in dead
    assert dead.endswith("https://example.com/hook  \\x1b[31mred")
    assert "canary" not in listed.stdout
    found = json.loads((await v2td("webhooks", "list", "--state", "dead", "--since", "1h", "--json", **env)).stdout)
    assert (found["total"], found["by_state"]) == (1, {"dead": 1})
    (entry,) = found["webhooks"]
    assert (entry["job"], entry["url"], entry["attempts"]) == (str(JOBS[0]), "https://example.com/hook", 10)

    done = await v2td("webhooks", "retry", "--dead", "--yes", "--json", **env)
    assert json.loads(done.stdout) == {"sent": [str(JOBS[0])], "missing": []}
    nobody = Coordinates("c", "jobs", 0, 9, 0).row_id()
    named = await v2td("webhooks", "retry", str(JOBS[1]), str(nobody), **env)
    assert (named.code, named.stdout) == (1, f"{JOBS[1]}\n")
    assert f"{nobody}: no such delivery" in named.stderr
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT state, attempts, ended_at FROM webhooks")
    acts = await connection.fetch("SELECT action, target, details FROM audit_log ORDER BY id")
    await connection.close()
    assert {tuple(row) for row in rows} == {("waiting", 0, None)}
    assert [(act["action"], act["target"]) for act in acts] == [
        ("webhooks retry", str(JOBS[0])),
        ("webhooks retry", str(JOBS[1])),
    ]


async def test_a_receiver_is_tried(v2td: Run, tmp_path: Path) -> None:
    secret = new_secret()
    key = tmp_path / "secret"
    key.touch(mode=0o600)
    key.write_text(secret)
    ours = {"V2TD_WEBHOOKS__SECRET": f"file:{key}"}
    inside = {"V2TD_WEBHOOKS__ALLOWED_NETWORKS": "127.0.0.1/32", "V2TD_WEBHOOKS__ALLOWED_PORTS": "[]"}
    async with receiving() as receiver:
        taken = await v2td("webhooks", "test", receiver.url, "--json", **ours, **inside)
        assert taken.code == 0, taken.stderr
        report = json.loads(taken.stdout)
        (request,) = receiver.got
        assert (report["result"], report["status"], report["id"]) == ("delivered", 204, request.id)
        assert request.verified(secret)["type"] == "transcription.test"
        receiver.answers += [status(500)]
        refused = await v2td("webhooks", "test", V2TD_WEBHOOKS__URL=receiver.url, **ours, **inside)
        assert refused.code == 1
        assert refused.stdout.startswith("failed: the receiver answered 500 (")
        assert len(receiver.got) == 2


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "--dead", str(JOBS[0])], ["retry", "x"], ["test"]])
def test_who_says_too_little_or_too_much_is_asked_again(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["webhooks", *arguments], env={"V2TD_CONFIG": os.devnull}).exit_code == 2


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(ConfigError, match=r"webhooks\.secret = unset: nothing can be signed"):
        asyncio.run(send_example(Settings(), "https://example.com/"))
