"""`v2td redo` as people run it: what is chosen, what is asked before, what is printed. No daemon is there."""

import asyncio
import json
import os
import signal
import sys
from uuid import UUID, uuid4

import asyncpg
import pytest
import typer
from pydantic import SecretStr

from tests.cli.conftest import Run, environment, start
from tests.conftest import MakeTopic
from tests.services.state import Services
from tests.store.outcomes import transcript
from v2td.cli.redo import term
from v2td.config import DatabaseSettings
from v2td.store import ensure_partitions, open_database, upgrade
from v2td.store.batch import insert
from v2td.store.redos import Term
from v2td.store.rows import rows_of


@pytest.fixture
async def env(services: Services, database: str, topic: MakeTopic) -> dict[str, str]:
    return {
        "V2TD_DATABASE__DSN": database,
        "V2TD_KAFKA__BOOTSTRAP_SERVERS": services.kafka_bootstrap,
        "V2TD_KAFKA__TOPICS": await topic(name="jobs"),
        "V2TD_ENGINE__MODEL": "other",
    }


@pytest.fixture
async def three(database: str) -> list[UUID]:
    """The ids of three transcriptions, the first 3 hours old, the last 1; the second is by another provider."""
    await upgrade(database)
    heard = [transcript(number, provider="api" if number == 1 else "local") for number in range(3)]
    async with open_database(DatabaseSettings(dsn=SecretStr(database), pool_min=0)) as store, store.raw() as connection:
        await ensure_partitions(connection, 1)
        await insert(connection, [rows_of(each) for each in heard])
        await connection.execute(
            "UPDATE transcriptions SET created_at = now() - (3 - kafka_offset) * interval '1 hour'"
        )
    return [each.job.id for each in heard]


async def noted(database: str) -> int:
    sql = await asyncpg.connect(database)
    try:
        return int(await sql.fetchval("SELECT count(*) FROM redos"))
    finally:
        await sql.close()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("provider='x'", Term("provider", "x")),
        (' model != "large v3" ', Term("model", "large v3", negated=True)),
        ("language=vi", Term("language", "vi")),
        ("tenant=''", Term("tenant", "")),
        ("topic='it''", None),
        ("text='x'", None),
        ("provider", None),
        ("provider=", None),
        ("provider='x' or 1=1", None),
        ("provider='x'; DROP TABLE transcriptions", None),
    ],
)
def test_terms(text: str, meant: Term | None) -> None:
    if meant is not None:
        assert term(text) == meant
        return
    with pytest.raises(typer.BadParameter):
        term(text)


async def test_which_are_meant(v2td: Run, env: dict[str, str], three: list[UUID]) -> None:
    async def chosen(*words: str) -> list[int]:
        answer = await v2td("redo", *words, "--model", "other", "--dry-run", "--json", **env)
        assert answer.code == 0, answer.stderr
        return [three.index(UUID(each["id"])) for each in json.loads(answer.stdout)["transcriptions"]]

    assert await chosen("--since", "1d") == [0, 1, 2]
    assert await chosen("--since", "150m", "--until", "90m") == [1]
    assert await chosen("--where", "provider='local'", "--where", "model!=large") == [0, 2]
    assert await chosen("--job", "job-2", "--job", str(three[0]).upper()) == [0, 2]
    assert await chosen("--since", "1d", "--limit", "2") == [0, 1]
    assert await chosen("--where", "language=vi") == []
    assert await noted(env["V2TD_DATABASE__DSN"]) == 0


async def test_what_is_wrong_is_said_before_anything_is_done(v2td: Run, env: dict[str, str], three: list[UUID]) -> None:
    for words, told in {
        ("--model", "other"): "say which transcriptions",
        ("--since", "yesterday"): "ISO 8601",
        ("--since", "1d", "--where", "text=x"): "'text' is none of provider, model,",
        ("--since", "1d", "--model", "large"): "large is none of other",
        ("--since", "1d", "--provider", "nobody"): "nobody is none of local",
        ("--since", "1d", "--model", "other"): "3 transcriptions are meant: say --yes",
    }.items():
        answer = await v2td("redo", *words, COLUMNS="200", **env)
        assert (answer.code, answer.stdout) == (2, "")
        assert told in answer.stderr
    assert await noted(env["V2TD_DATABASE__DSN"]) == 0


async def test_what_is_printed(v2td: Run, env: dict[str, str], three: list[UUID]) -> None:
    answer = await v2td("redo", "--since", "1d", "--yes", "--no-wait", **env)
    assert (answer.code, answer.stderr) == (0, "0 done, 3 sent, 0 left alone, 0 failed, 0 refused\n")
    topic = env["V2TD_KAFKA__TOPICS"]
    assert answer.stdout.splitlines() == [f"{each}  sent revision 1  is asked for in {topic}" for each in three]
    assert await noted(env["V2TD_DATABASE__DSN"]) == 3
    nobody = str(uuid4())
    answer = await v2td("redo", "--job", "job-1", "--job", nobody, "--model", "other", "--no-wait", "--json", **env)
    report = json.loads(answer.stdout)
    assert (answer.code, answer.stderr) == (1, f"{nobody}: no such transcription\n")
    assert (report["sent"], report["dry_run"], report["transcriptions"][0]["revision"]) == (1, False, 2)


async def test_who_waits_can_be_interrupted(v2td: Run, env: dict[str, str], three: list[UUID]) -> None:
    """Nobody does the work; a terminal that is closed says the same as Ctrl-C."""
    process = await start("redo", "--since", "1d", "--yes", "--model", "other", "--in-flight", "1", **env)
    while await noted(env["V2TD_DATABASE__DSN"]) < 1:
        assert process.returncode is None
    process.send_signal(signal.SIGTERM)
    out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert b"stopped after 0 of 3; what is asked for goes on, and the same command waits for it" in err
    assert await noted(env["V2TD_DATABASE__DSN"]) == 1


async def test_a_terminal_sees_how_far_it_is(env: dict[str, str], three: list[UUID]) -> None:
    """Two are left alone at once, as they are by that model; nobody does the third."""
    master, slave = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "v2td", "redo", "--since", "1d", "--yes", "--provider", "local", "--model", "demo"),
        env=environment(**env | {"V2TD_ENGINE__MODEL": "demo", "TERM": "xterm", "COLUMNS": "100"}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    async with asyncio.timeout(60):
        while b"2/3" not in seen:
            seen += await asyncio.to_thread(os.read, master, 4096)
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    os.close(master)


async def test_kafka_is_away(v2td: Run, env: dict[str, str], three: list[UUID]) -> None:
    env = env | {"V2TD_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    answer = await v2td("redo", "--job", "job-1", "--model", "other", **env)
    assert (answer.code, answer.stdout) == (1, "")
    assert "no broker at 127.0.0.1:1" in answer.stderr
    assert await noted(env["V2TD_DATABASE__DSN"]) == 0
