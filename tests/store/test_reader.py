import asyncio
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from tests.store.conftest import Writing
from tests.store.outcomes import coordinates, failure, segment, transcript
from v2td.config import DatabaseSettings
from v2td.errors import ServiceError
from v2td.jobs import Outcome, Word
from v2td.store import (
    Database,
    Reader,
    StoredFailure,
    StoredTranscription,
    durable_jobs,
    ensure_partitions,
    open_database,
    upgrade,
)
from v2td.store.connection import Connection
from v2td.store.reader import DURABLE_AT_ONCE


@pytest.fixture
def reader(store: Database) -> Reader:
    return Reader(store)


async def write(writing: Writing, *outcomes: Outcome) -> None:
    async with writing() as writer:
        for outcome in outcomes:
            await writer.write(outcome)


async def test_a_job_is_found_by_its_row_id(writing: Writing, reader: Reader) -> None:
    heard, failed = transcript(1), failure(2)
    await write(writing, heard, failed)
    (transcription,) = await reader.find(str(heard.job.id))
    assert isinstance(transcription, StoredTranscription)
    assert (transcription.id, transcription.text, transcription.metadata) == (heard.job.id, heard.text, {})
    (found,) = await reader.find(str(coordinates(2).row_id()))
    assert isinstance(found, StoredFailure)
    assert (found.error_class, found.reason, found.attempts) == ("not_audio", "this is text", 1)


async def test_a_messages_own_id_is_found_and_all_its_matches_are_listed(writing: Writing, reader: Reader) -> None:
    shared = {"job": {"job_id": "same"}}
    await write(writing, transcript(1), transcript(2, **shared), transcript(3, **shared), failure(4, job_id="same"))
    assert [found.kafka_offset for found in await reader.find("job-1")] == [1]
    assert [found.kafka_offset for found in await reader.find("same")] == [3, 2, 4]
    assert await reader.find("no such job") == ()
    assert await reader.find(str(uuid4())) == ()


async def test_a_messages_own_id_may_look_like_a_row_id_or_be_unclean(writing: Writing, reader: Reader) -> None:
    own = str(uuid4())
    await write(writing, transcript(1, job={"job_id": own}), transcript(2, job={"job_id": "a\0\ud800"}))
    assert [found.kafka_offset for found in await reader.find(own)] == [1]
    assert [found.kafka_offset for found in await reader.find("a\0\ud800")] == [2]


async def test_outcomes_at_coordinates(writing: Writing, reader: Reader) -> None:
    await write(
        writing,
        transcript(1, at={"record_index": 1}),
        failure(1),
        transcript(1, at={"timestamp_ms": 1_000}),
        transcript(1, at={"partition": 1}),
    )
    at = ("cluster", "jobs", 0, 1)
    found = await reader.at(*at, timestamp_ms=coordinates(1).timestamp_ms)
    assert [(type(outcome), outcome.record_index) for outcome in found] == [
        (StoredTranscription, 1),
        (StoredFailure, 0),
    ]
    assert len(await reader.at(*at)) == 3
    assert len(await reader.at(*at, timestamp_ms=1_000)) == 1
    assert await reader.at("cluster", "jobs", 0, 2) == ()


async def test_the_newest_revision_and_its_segments_are_shown(
    writing: Writing, reader: Reader, sql: Connection
) -> None:
    words = [Word(0.5, 0.9, " one", 0.5)]
    heard = transcript(1, segments=(segment("one", words), segment("two", start=3.0)))
    await write(writing, heard)
    segments = await reader.segments(heard.job.id)
    assert [(s.segment_index, s.text, s.start_seconds, s.end_seconds) for s in segments] == [
        (0, "one", 0.5, 2.5),
        (1, "two", 3.0, 5.0),
    ]
    assert segments[0].words == [{"start": 0.5, "end": 0.9, "word": " one", "probability": 0.5}]
    await sql.execute("CREATE TEMP TABLE again AS SELECT * FROM transcriptions")
    await sql.execute("UPDATE again SET revision = 1, text = 'better', created_at = now()")
    await sql.execute("INSERT INTO transcriptions SELECT * FROM again")
    await sql.execute(
        "INSERT INTO transcript_segments"
        " SELECT id, 1, 0, NULL, NULL, 0, 1, text, 0, 0, 1, 0, NULL, created_at FROM again"
    )
    (found,) = await reader.find("job-1")
    assert isinstance(found, StoredTranscription)
    assert (found.revision, found.text) == (1, "better")
    assert [s.text for s in await reader.segments(heard.job.id)] == ["better"]


async def test_durable_jobs_tells_what_need_not_run_again(writing: Writing, store: Database) -> None:
    outcomes: list[Outcome] = [transcript(4), transcript(5), transcript(5, at={"record_index": 1}), failure(7)]
    await write(writing, *outcomes, transcript(5, at={"partition": 1}), transcript(6, at={"topic": "other"}))
    durable = await durable_jobs(store, "cluster", "jobs", 0, 5)
    assert durable == {
        5: frozenset({coordinates(5).row_id(), coordinates(5, record_index=1).row_id()}),
        7: frozenset({coordinates(7).row_id()}),
    }
    recreated = coordinates(5, timestamp_ms=coordinates(5).timestamp_ms + 1)
    assert recreated.row_id() not in durable[5]


MANY = """
INSERT INTO failures (id, cluster_id, topic, kafka_partition, kafka_offset, record_index, error_class, reason, attempts,
    headers)
SELECT gen_random_uuid(), 'cluster', 'jobs', 0, n / 70, n % 70, 'timeout', '', 1, '[]' FROM generate_series(0, $1) n
"""
MANY_REPLAYS = """
INSERT INTO replays (record_id, replay_of, cluster_id, topic, kafka_partition, kafka_offset, record_sha256)
SELECT gen_random_uuid(), gen_random_uuid(), 'cluster', 'jobs', 0, n, '' FROM generate_series(0, $1) n
"""


async def test_many_durable_jobs_come_in_pages(settings: DatabaseSettings, sql: Connection) -> None:
    """After the group's offsets were set back it is all that was ever done; the writer needs connections meanwhile."""
    await sql.execute(MANY, 2 * DURABLE_AT_ONCE)
    await sql.execute(MANY_REPLAYS, DURABLE_AT_ONCE)
    turns = 0

    async def use(database: Database) -> None:
        nonlocal turns
        while True:
            async with database.acquire():
                turns += 1

    async with open_database(settings.model_copy(update={"pool_max": 1})) as one:
        other = asyncio.create_task(use(one))
        durable = await durable_jobs(one, "cluster", "jobs", 0, 5)
        other.cancel()
        await asyncio.wait([other])
    rows = await sql.fetch("SELECT kafka_offset, id FROM failures UNION SELECT kafka_offset, record_id FROM replays")
    expected: dict[int, set[UUID]] = {}
    for offset, row_id in rows:
        if offset >= 5:
            expected.setdefault(offset, set()).add(row_id)
    assert durable == expected
    assert turns >= 3


async def test_look_ups_go_to_the_replica(
    settings: DatabaseSettings, schema: None, database: str, sql: Connection, services: object
) -> None:
    """Another database stands for the replica: what is asked there is seen not to come from the primary."""
    replica = database + "_replica"
    await sql.execute(f'CREATE DATABASE "{replica.rpartition("/")[2]}"')
    try:
        await upgrade(replica)
        both = settings.model_copy(update={"read_dsn": SecretStr(replica)})
        async with open_database(both) as opened:
            assert await Reader(opened).find("x") == ()
            async with opened.read("ask") as reading, opened.acquire() as writing:
                names = [await c.fetchval("SELECT current_database()") for c in (reading, writing)]
            assert names == [replica.rpartition("/")[2], database.rpartition("/")[2]]
        async with open_database(both, read_only=True) as opened, opened.acquire() as connection:
            assert await connection.fetchval("SELECT current_database()") == replica.rpartition("/")[2]
            assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'staged%'") == 0
    finally:
        await sql.execute(f'DROP DATABASE "{replica.rpartition("/")[2]}" WITH (FORCE)')


async def test_a_look_up_that_fails_is_our_fault(reader: Reader, sql: Connection) -> None:
    await ensure_partitions(sql, 0)
    await sql.execute("DROP TABLE transcript_segments")
    with pytest.raises(ServiceError, match=r"look up segments.*v2td db upgrade"):
        await reader.segments(UUID(int=0))
