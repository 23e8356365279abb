"""Kafka, Postgres and the admin address as they are asked, and as they fail."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import SecretStr

from tests.cli.conftest import Run
from tests.services.state import Services
from v2td import store
from v2td.config import Settings
from v2td.ops import top
from v2td.ops.top import open_monitor
from v2td.ops.top_admin import usual_address

HOSTILE = "\x1b]0;owned\x07\x1b[2J"
OUTCOMES = """
INSERT INTO transcriptions (id, cluster_id, topic, kafka_partition, kafka_offset, record_index, audio_url, audio_sha256,
    options_sha256, audio_bytes, audio_seconds, speech_seconds, task, provider, model, text, duration, timings,
    truncated, metadata, created_at, cached_from)
SELECT gen_random_uuid(), 'c', 't', 0, n, 0, 'u', 's', 'o', 1, 30, 20, 'transcribe', $1, 'm', 'x', n, '{}', false, '{}',
    now() - make_interval(secs => $2), $3
FROM generate_series(1, $4) AS n
"""
FAILURE = """
INSERT INTO failures (id, cluster_id, topic, kafka_partition, kafka_offset, record_index, error_class, reason, attempts,
    headers)
VALUES (gen_random_uuid(), 'c', 't', 0, 1, 0, 'timeout', $1, 1, '[]')
"""
INSTANCE = """
INSERT INTO instances VALUES ($1, 'host', 1, '1.0', 2, $2, 1000000000, '{a/0,a/1}', now() - make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET (cpu_seconds, seen_at) = (excluded.cpu_seconds, excluded.seen_at)
"""


@pytest.fixture
async def filled(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A database with 100 recent transcriptions, 20 of them from the cache, an old one, a failure, two instances."""
    await store.upgrade(database)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(OUTCOMES, "local", 10, None, 80)
        await connection.execute(OUTCOMES, "local", 10, "00000000-0000-0000-0000-000000000001", 20)
        await connection.execute(OUTCOMES, "old", 4000, None, 1)
        await connection.execute(FAILURE, f"no answer {HOSTILE}")
        await connection.execute(INSTANCE, "live", 10, 10)
        await connection.execute(INSTANCE, f"gone{HOSTILE}", 10, 600)
        yield connection
    finally:
        await connection.close()


async def backlogged(services: Services, topic: str, group: str) -> None:
    """Write 10 records and commit 4 of them."""
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka_bootstrap)
    await producer.start()
    try:
        for _ in range(10):
            await producer.send_and_wait(topic, b"{}", partition=0)
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=services.kafka_bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.commit({TopicPartition(topic, 0): 4})
    finally:
        await consumer.stop()


async def test_kafka_and_postgres_alone(
    services: Services, topic: Callable[..., Awaitable[str]], filled: asyncpg.Connection, database: str, v2td: Run
) -> None:
    """As the seed has it: no config, `--kafka` and `--db`; the topics are those that the group has committed."""
    jobs = await topic(partitions=2, name="jobs")
    await backlogged(services, jobs, jobs)
    where = ("--kafka", services.kafka_bootstrap, "--db", database, "--group", jobs)
    answer, table = await asyncio.gather(
        v2td("top", *where, "--once", "--interval", "0.5", "--json"), v2td("top", *where, "--once", "--interval", "0.5")
    )
    assert (answer.code, answer.stderr, table.code, table.stderr) == (0, "", 0, "")
    figures = json.loads(answer.stdout)
    assert figures["messages"]["topics"] == [
        {"topic": jobs, "partitions": 2, "lag": 6, "in_per_minute": 0.0, "out_per_minute": 0.0}
    ]
    (local,) = figures["providers"]
    assert (local["provider"], local["jobs"], local["cached"], local["per_minute"]) == ("local", 100, 20, 20)
    assert [local[f"p{part}_seconds"] for part in (50, 95, 99)] == pytest.approx([40.5, 76.05, 79.21])
    assert (figures["jobs"]["transcribed"], figures["jobs"]["errors"]) == (100, {"timeout": 1})
    assert (figures["backlog"]["records"], figures["backlog"]["audio_seconds"]) == (6, 180)
    assert figures["backlog"]["drain_seconds"] == pytest.approx(18)
    assert [(each["stale"], each["partitions"]) for each in figures["instances"]] == [(False, 2), (True, 2)]
    assert figures["daemons"] == []
    assert "\x1b" not in table.stdout + answer.stdout
    assert r"no answer \x1b]0;owned\x07\x1b[2J" in table.stdout
    assert "gone 10 min ago" in table.stdout
    assert urlsplit(database).password
    assert str(urlsplit(database).password) not in table.stdout + answer.stdout


async def test_once_waits_for_the_cpu_of_the_instances(filled: asyncpg.Connection, database: str) -> None:
    settings = _settings(database=database)
    async with open_monitor(settings, topics=(), admin=(), interval_seconds=5) as monitor:
        looking = asyncio.create_task(monitor.once(None))
        await asyncio.sleep(0.3)
        await filled.execute(INSTANCE, "live", 15, 0)
        live, gone = (await looking).instances
    assert live.cpu_percent == pytest.approx(50, rel=0.2)
    assert gone.cpu_percent is None


async def test_sources_come_back(
    services: Services, topic: Callable[..., Awaitable[str]], filled: asyncpg.Connection, database: str
) -> None:
    """What is cut off is told, and asked again with new connections."""
    jobs = await topic(name="jobs")
    host, port = services.kafka_bootstrap.split(":")
    away = asyncio.Event()
    open_ones: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if away.is_set():
            writer.close()
            return
        open_ones.add(writer)
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))

    async with _listening(serve) as address:
        settings = _settings(kafka=address, database=database)
        async with open_monitor(settings, topics=(jobs,), admin=(), interval_seconds=1) as monitor:
            assert (await monitor.look()).messages is not None
            away.set()
            for writer in open_ones:
                writer.close()
            await filled.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'v2td top'"
            )
            await filled.execute("ALTER TABLE failures RENAME TO elsewhere")
            found = await monitor.look()
            assert "Postgres" in found.trouble
            away.clear()
            await filled.execute("ALTER TABLE elsewhere RENAME TO failures")
            async with asyncio.timeout(30):
                while (found := await monitor.look()).trouble:
                    await asyncio.sleep(0.1)
            assert found.messages is not None
            assert found.jobs is not None


async def test_what_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "LOOK_SECONDS", 0.5)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with _listening(silent) as address:
        settings = _settings(kafka=address, database=f"postgresql://u:hunter2@{address}/x")
        async with open_monitor(settings, topics=None, admin=(f"http://{address}",), interval_seconds=1) as monitor:
            found = await monitor.once(None)
    assert set(found.trouble.values()) == {"no answer within 0.5 s"}
    assert len(found.trouble) == 3
    assert found.reached == 0


async def test_nothing_reached_is_exit_code_1(v2td: Run) -> None:
    arguments = ("top", "--once", "--kafka", "127.0.0.1:1", "--db", "postgresql://u:hunter2@127.0.0.1:1/x")
    answer = await v2td(*arguments, "--admin", "http://127.0.0.1:1", "--json")
    assert (answer.code, answer.stderr) == (1, "")
    assert set(json.loads(answer.stdout)["trouble"]) == {"Kafka", "Postgres", "http://127.0.0.1:1"}
    assert "hunter2" not in answer.stdout


@pytest.mark.parametrize(
    ("admin", "address"),
    [
        ({}, "http://127.0.0.1:9464"),
        ({"port": 0}, None),
        ({"enabled": False}, None),
        ({"host": "0.0.0.0", "token": SecretStr("x" * 16)}, "http://127.0.0.1:9464"),
        ({"host": "::1"}, "http://[::1]:9464"),
        ({"socket": Path("/run/v2td/admin")}, "unix:/run/v2td/admin"),
        ({"tls_cert_file": Path("/a"), "tls_key_file": Path("/b")}, "https://127.0.0.1:9464"),
    ],
)
def test_where_the_daemon_of_a_config_is_asked(admin: dict[str, object], address: str | None) -> None:
    assert usual_address(Settings().admin.model_copy(update=admin)) == address


def _settings(*, kafka: str = "127.0.0.1:1", database: str) -> Settings:
    defaults = Settings()
    return defaults.model_copy(
        update={
            "kafka": defaults.kafka.model_copy(update={"bootstrap_servers": (kafka,)}),
            "database": defaults.database.model_copy(update={"dsn": SecretStr(database)}),
            "admin": defaults.admin.model_copy(update={"enabled": False}),
        }
    )


@asynccontextmanager
async def _listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65_536):
        writer.write(chunk)
    writer.close()
