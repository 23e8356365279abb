"""`v2td dlq` as people run it: what failed is listed, shown, sent once more and given up."""

import asyncio
import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
import typer
from aiokafka import AIOKafkaConsumer
from pydantic import SecretStr

from tests.cli.conftest import Run, start
from tests.conftest import MakeTopic
from tests.services.state import Services
from v2td.bundled import recordings
from v2td.cli.failures import moment, printable
from v2td.config import DatabaseSettings, KafkaSettings
from v2td.errors import ErrorClass
from v2td.intake import cluster_id
from v2td.jobs import Coordinates, Failure, SourceRecord
from v2td.store import Reader, StoredTranscription, open_database, upgrade
from v2td.store.batch import insert
from v2td.store.rows import rows_of

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ESCAPE = "\x1b[31mred"
KINDS = (ErrorClass.TIMEOUT, ErrorClass.TIMEOUT, ErrorClass.NOT_AUDIO)


@pytest.fixture
async def jobs_topic(topic: MakeTopic) -> str:
    return await topic(name="jobs")


@pytest.fixture
async def env(services: Services, database: str, jobs_topic: str, topic: MakeTopic) -> dict[str, str]:
    return {
        "V2TD_DATABASE__DSN": database,
        "V2TD_KAFKA__BOOTSTRAP_SERVERS": services.kafka_bootstrap,
        "V2TD_KAFKA__TOPICS": jobs_topic,
        "V2TD_KAFKA__DEAD_LETTER_TOPIC": await topic(name="dead"),
    }


@pytest.fixture
async def three(services: Services, database: str, jobs_topic: str) -> list[UUID]:
    """The ids of three failures at offsets 0 to 2, an hour apart, the newest an hour old."""
    await upgrade(database)
    cluster = await cluster_id(KafkaSettings(bootstrap_servers=(services.kafka_bootstrap,)))
    record = SourceRecord(b"key", b'{"audio_url": "https://example.com/a.wav"}', (("trace", b"\xff"), ("a", b"b")))
    failures = [
        Failure(
            Coordinates(cluster, jobs_topic, 0, offset, 1_780_000_000_123),
            kind,
            f"why {ESCAPE}",
            2,
            record,
            f"job-{offset}",
        )
        for offset, kind in enumerate(KINDS)
    ]
    async with open_database(DatabaseSettings(dsn=SecretStr(database), pool_min=0)) as store, store.raw() as connection:
        await insert(connection, [rows_of(failure) for failure in failures])
        await connection.execute("UPDATE failures SET created_at = now() - (3 - kafka_offset) * interval '1 hour'")
    return [failure.coordinates.row_id() for failure in failures]


async def states(database: str) -> list[str | None]:
    sql = await asyncpg.connect(database)
    try:
        return [row[0] for row in await sql.fetch("SELECT replay_state FROM failures ORDER BY kafka_offset")]
    finally:
        await sql.close()


async def keys(services: Services, topic: str) -> list[bytes]:
    """The values of header v2td-replay-of of all records in the topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=services.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        end = sum((await consumer.end_offsets(consumer.assignment())).values())
        found: list[bytes] = []
        while len(found) < end:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [dict(record.headers)["v2td-replay-of"] for record in records]
        return found
    finally:
        await consumer.stop()


async def test_list(v2td: Run, env: dict[str, str], three: list[UUID], jobs_topic: str) -> None:
    answer = await v2td("dlq", "list", **env)
    assert answer.code == 0
    assert answer.stderr == "3 failed: 2 timeout, 1 not_audio\n"
    lines = answer.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [str(row_id) for row_id in reversed(three)]
    assert lines[0].split("  ")[2:] == ["not_audio", f"{jobs_topic}/0/2", "failed", r"why \x1b[31mred"]
    answer = await v2td("dlq", "list", "--class", "timeout", "--limit", "1", "--json", **env)
    report = json.loads(answer.stdout)
    assert (report["total"], report["by_class"], len(report["failures"])) == (2, {"timeout": 2}, 1)
    (entry,) = report["failures"]
    assert (entry["id"], entry["state"], entry["kafka_offset"]) == (str(three[1]), "failed", 1)
    assert datetime.fromisoformat(entry["created_at"]).utcoffset() == timedelta(0)
    answer = await v2td("dlq", "list", "--since", "150m", "--until", "90m", "--topic", jobs_topic, **env)
    assert [line.split()[0] for line in answer.stdout.splitlines()] == [str(three[1])]
    answer = await v2td("dlq", "list", "--state", "dropped", **env)
    assert (answer.stdout, answer.stderr) == ("", "0 failed\n")


async def test_show(v2td: Run, env: dict[str, str], three: list[UUID], jobs_topic: str) -> None:
    answer = await v2td("dlq", "show", str(three[0]), **env)
    assert (answer.code, answer.stderr) == (0, "")
    told = dict(line.split("  ", 1) for line in answer.stdout.splitlines())
    told = {name.strip(): value.strip() for name, value in told.items()}
    assert (told["row"], told["job"], told["record"]) == (str(three[0]), "job-0", f"{jobs_topic}/0/0")
    assert (told["reason"], told["attempts"], told["state"]) == (r"why \x1b[31mred", "2", "failed")
    assert (told["header trace"], told["header a"], told["key"]) == (r"\xff", "b", "key")
    assert told["value"] == '{"audio_url": "https://example.com/a.wav"}'
    answer = await v2td("dlq", "show", "job-1", "--json", **env)
    (entry,) = json.loads(answer.stdout)["failures"]
    assert (entry["id"], entry["reason"], entry["cut"]) == (str(three[1]), r"why \x1b[31mred", False)
    assert (entry["key"], entry["headers"]) == ("key", [["trace", {"base64": "/w=="}], ["a", "b"]])
    answer = await v2td("dlq", "show", str(uuid4()), **env)
    assert (answer.code, answer.stdout) == (1, "")
    assert "there is no such failure" in answer.stderr


async def test_replay_by_name(
    v2td: Run, env: dict[str, str], three: list[UUID], services: Services, jobs_topic: str
) -> None:
    database = env["V2TD_DATABASE__DSN"]
    answer = await v2td("dlq", "replay", str(three[0]), "job-2", "--dry-run", **env)
    assert (answer.code, answer.stderr) == (0, "2 would be sent, 0 left alone, 0 refused\n")
    assert await states(database) == [None, None, None]
    answer = await v2td("dlq", "replay", str(three[0]).upper(), "job-2", **env)
    assert (answer.code, answer.stderr) == (0, "2 sent, 0 left alone, 0 refused\n")
    lines = sorted(line.split() for line in answer.stdout.splitlines())
    assert [line[:2] for line in lines] == sorted([str(three[n]), "sent"] for n in (0, 2))
    assert {line[2] for line in lines} == {f"{jobs_topic}/0/0", f"{jobs_topic}/0/1"}
    assert await states(database) == ["requested", None, "requested"]
    answer = await v2td("dlq", "replay", "job-2", "job-7", "--json", **env)
    assert answer.code == 1
    assert answer.stderr == "job-7: no such failure; dropped ones are found by --state dropped\n"
    report = json.loads(answer.stdout)
    assert (report["dry_run"], report["sent"], report["left"], report["refused"]) == (False, 0, 1, 0)
    assert report["failures"] == [{"id": str(three[2]), "result": "left", "detail": "was asked for before"}]
    answer = await v2td("dlq", "replay", "job-2", "--again", **env)
    assert answer.code == 0
    assert set(await keys(services, jobs_topic)) == {str(three[n]).encode() for n in (0, 2)}
    assert len(await keys(services, jobs_topic)) == 3


async def test_replay_by_filter(
    v2td: Run, env: dict[str, str], three: list[UUID], services: Services, jobs_topic: str
) -> None:
    answer = await v2td("dlq", "replay", "--class", "timeout", COLUMNS="200", **env)
    assert (answer.code, answer.stdout) == (2, "")
    assert "2 failures are meant: say --yes" in answer.stderr
    assert await states(env["V2TD_DATABASE__DSN"]) == [None, None, None]
    answer = await v2td("dlq", "replay", "--class", "timeout", "--yes", **env)
    assert (answer.code, answer.stderr) == (0, "2 sent, 0 left alone, 0 refused\n")
    assert await states(env["V2TD_DATABASE__DSN"]) == ["requested", "requested", None]
    answer = await v2td("dlq", "replay", "--until", "1s", "--limit", "1", **env)  # one need not be confirmed
    assert (answer.code, answer.stderr) == (0, "1 sent, 0 left alone, 0 refused\n")
    assert sorted(await keys(services, jobs_topic)) == sorted(str(row_id).encode() for row_id in three)
    answer = await v2td("dlq", "replay", "--class", "poison", "--yes", **env)
    assert (answer.code, answer.stderr) == (0, "0 sent, 0 left alone, 0 refused\n")


async def test_a_refusal_is_told_and_is_no_success(v2td: Run, env: dict[str, str], three: list[UUID]) -> None:
    env["V2TD_KAFKA__TOPICS"] = "another"
    answer = await v2td("dlq", "replay", "job-0", **env)
    assert (answer.code, answer.stderr) == (1, "0 sent, 0 left alone, 1 refused\n")
    assert "is not in kafka.topics" in answer.stdout


async def test_drop(v2td: Run, env: dict[str, str], three: list[UUID]) -> None:
    database = env["V2TD_DATABASE__DSN"]
    assert (await v2td("dlq", "replay", "job-0", **env)).code == 0
    answer = await v2td("dlq", "drop", "--class", "timeout", "--yes", "--dry-run", **env)
    assert (answer.code, answer.stderr) == (0, "1 would be dropped, 1 left alone\n")
    assert (await v2td("dlq", "drop", "--class", "timeout", "--until", "0s", **env)).code == 0  # one is dropped
    assert await states(database) == ["requested", "dropped", None]
    answer = await v2td("dlq", "drop", "job-0", "job-1", "job-2", "--json", **env)
    assert answer.code == 1
    assert answer.stderr.startswith("job-1: no such failure")
    assert json.loads(answer.stdout) == {"dry_run": False, "dropped": 1, "left": 1, "ids": [str(three[2])]}
    assert (await v2td("dlq", "drop", "--state", "requested", **env)).code == 0
    assert await states(database) == ["dropped", "dropped", "dropped"]
    assert (await v2td("dlq", "list", **env)).stdout == ""
    hidden = await v2td("dlq", "list", "--state", "dropped", **env)
    assert len(hidden.stdout.splitlines()) == 3
    refused = await v2td("dlq", "replay", "--state", "dropped", "--yes", **env)
    assert (refused.code, refused.stderr) == (1, "0 sent, 0 left alone, 3 refused\n")


@pytest.mark.parametrize("command", ["replay", "drop"])
async def test_everything_is_never_meant_by_accident(command: str, v2td: Run, env: dict[str, str]) -> None:
    answer = await v2td("dlq", command, "--yes", COLUMNS="200", **env)
    assert (answer.code, answer.stdout) == (2, "")
    assert "name the jobs, or say which ones" in answer.stderr


async def test_wrong_usage_and_no_database(v2td: Run) -> None:
    answer = await v2td("dlq", "list", "--since", "yesterday", COLUMNS="200")
    assert (answer.code, answer.stdout) == (2, "")
    assert "'yesterday' is not an ISO 8601 time" in answer.stderr
    assert (await v2td("dlq", "list", "--class", "no such class")).code == 2
    dsn = "postgresql://v2td:hunter2@127.0.0.1:1/v2td"
    answer = await v2td("dlq", "list", V2TD_DATABASE__DSN=dsn)
    assert (answer.code, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error: connect to Postgres")
    assert "hunter2" not in answer.stderr


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-05-01", datetime(2026, 5, 1, tzinfo=UTC)),
        ("2026-05-01T12:30:00+02:00", datetime(2026, 5, 1, 10, 30, tzinfo=UTC)),
    ],
)
def test_moments(text: str, meant: datetime) -> None:
    assert moment(text, NOW, "--since") == meant
    assert moment(None, NOW, "--since") is None


@pytest.mark.parametrize("text", ["", "3", "d", "3y", "-3d", "2026-13-01", "999999w"])
def test_what_is_no_moment_is_said_so(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="ISO 8601"):
        moment(text, NOW, "--since")


def test_nothing_steers_the_terminal() -> None:
    assert printable("tiếng Việt 🌍") == "tiếng Việt 🌍"
    assert printable("a\x1b]0;x\x07\r\n\u202e") == r"a\x1b]0;x\x07\r\n\u202e"


async def test_the_real_daemon_does_the_job_again(
    v2td: Run, env: dict[str, str], services: Services, bucket: str, tmp_path: Path
) -> None:
    """A recording comes too late: its job failed, is replayed, and has its text under the id that it had."""
    env |= {
        "V2TD_KAFKA__GROUP_ID": bucket,
        "V2TD_FETCH__FILE_ROOTS": str(tmp_path),
        "V2TD_ENGINE__MODEL": "demo",
        "V2TD_ENGINE__SLOTS": "1",
        "V2TD_ADMIN__ENABLED": "false",
    }
    assert (await v2td("db", "upgrade", **env)).code == 0
    late = tmp_path / "late.flac"
    late.write_bytes(b"not yet")
    process = await start("run", **env)
    try:
        failed = await v2td("submit", "--wait", "--json", late, **env)
        (job,) = json.loads(failed.stdout)["jobs"]
        assert job["state"] == "failed"
        recording = recordings()[0]
        late.write_bytes(recording.path.read_bytes())
        process.send_signal(signal.SIGSTOP)  # so that it finds two records that replay the same failure
        answers = await asyncio.gather(*(v2td("dlq", "replay", job["row_id"], "--again", **env) for _ in range(2)))
        process.send_signal(signal.SIGCONT)
        assert {answer.stderr for answer in answers} == {"1 sent, 0 left alone, 0 refused\n"}
        async with open_database(DatabaseSettings(dsn=SecretStr(env["V2TD_DATABASE__DSN"])), read_only=True) as store:
            async with asyncio.timeout(60), store.acquire() as connection:
                while await connection.fetchval("SELECT count(*) FROM replays") < 2:
                    await asyncio.sleep(0.1)
            (found,) = await Reader(store).find(job["row_id"])
        assert isinstance(found, StoredTranscription)
        assert (found.text, found.kafka_offset, found.job_id) == (recording.text, job["offset"], job["id"])
        assert (await v2td("dlq", "list", **env)).stdout == ""
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.communicate()
