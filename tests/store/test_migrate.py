import asyncio

import asyncpg
import pytest

from v2td.errors import ServiceError
from v2td.store import latest_version, schema_version, upgrade
from v2td.store.connection import Connection
from v2td.store.migrate import migrations

CONTRACT = {
    "transcriptions": "id revision job_id cluster_id topic kafka_partition kafka_offset record_index record_timestamp"
    " tenant audio_url audio_sha256 options_sha256 audio_bytes audio_seconds speech_seconds language"
    " language_probability task provider model text duration timings speech_coverage_ratio truncated cached_from"
    " metadata created_at route cost request",
    "transcript_segments": "transcription_id revision segment_index channel speaker start_seconds end_seconds text"
    " avg_logprob no_speech_prob compression_ratio temperature words created_at",
    "failures": "id job_id cluster_id topic kafka_partition kafka_offset record_index record_timestamp audio_url"
    " error_class reason attempts record_key payload headers replay_state created_at record_timestamp_ms",
    "instances": "name host pid version slots cpu_seconds rss_bytes partitions seen_at",
    "redos": "id revision model provider record_sha256 sent_at failed created_at",
    "schema_migrations": "version name applied_at",
}


def test_versions_count_from_one_without_gaps() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, latest_version() + 1))


async def test_upgrade_brings_an_empty_database_to_the_latest_version_once(database: str) -> None:
    assert await schema_version(database) == 0
    assert await upgrade(database) == list(range(1, latest_version() + 1))
    assert await upgrade(database) == []
    assert await schema_version(database) == latest_version()


async def test_instances_may_upgrade_at_once(database: str) -> None:
    applied = await asyncio.gather(*(upgrade(database) for _ in range(4)))
    assert sorted(applied) == [[], [], [], list(range(1, latest_version() + 1))]


async def test_a_newer_database_is_refused_and_left_alone(sql: Connection, database: str) -> None:
    await sql.execute("INSERT INTO schema_migrations (version, name) VALUES (1000, 'the future')")
    with pytest.raises(ServiceError, match=r"version 1000.*newer v2td"):
        await upgrade(database)
    assert await schema_version(database) == 1000


async def test_a_failed_migration_leaves_nothing(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE instances (mine text)")  # in the way of the last table
    with pytest.raises(ServiceError, match="already exists"):
        await upgrade(database)
    assert await connection.fetchval("SELECT to_regclass('transcriptions')") is None
    assert await schema_version(database) == 0
    await connection.close()


async def test_the_columns_are_the_contract(sql: Connection) -> None:
    for table, names in CONTRACT.items():
        rows = await sql.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position", table
        )
        assert [row["column_name"] for row in rows] == names.split(), table


async def test_the_look_ups_have_their_indexes(sql: Connection) -> None:
    rows = await sql.fetch("SELECT tablename || ' ' || indexdef AS line FROM pg_indexes WHERE schemaname = 'public'")
    lines = [row["line"] for row in rows]
    for table, columns in [
        ("transcriptions", "(id, revision)"),
        ("transcriptions", "(cluster_id, topic, kafka_partition, kafka_offset, id)"),
        ("transcriptions", "(audio_sha256, options_sha256, created_at)"),
        ("transcriptions", "(job_id)"),
        ("transcriptions", "(created_at)"),
        ("transcript_segments", "(transcription_id, revision, segment_index, created_at)"),
        ("failures", "(id)"),
        ("failures", "(cluster_id, topic, kafka_partition, kafka_offset, id)"),
        ("replays", "(cluster_id, topic, kafka_partition, kafka_offset, record_id)"),
        ("instances", "(name)"),
    ]:
        assert any(line.startswith(f"{table} ") and line.endswith(columns) for line in lines), (table, columns)


async def test_no_server_is_told_with_a_hint_and_without_the_password() -> None:
    with pytest.raises(ServiceError, match="is Postgres running") as caught:
        await upgrade("postgresql://v2td:hunter2@127.0.0.1:1/v2td")
    assert "hunter2" not in str(caught.value)


async def test_no_such_database_is_told(database: str) -> None:
    with pytest.raises(ServiceError, match=r"does not exist.*create the database"):
        await schema_version(database + "x")


async def test_a_wrong_password_is_told(database: str) -> None:
    user, _, rest = database.partition("@")
    with pytest.raises(ServiceError, match=r"pg_hba\.conf"):
        await schema_version(f"{user.rpartition(':')[0]}:hunter2@{rest}")
