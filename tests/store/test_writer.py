"""What comes back from `write` is in Postgres, once, whatever else is in the batch."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.store.conftest import Writing, no_unwritable, until
from tests.store.outcomes import coordinates, failure, segment, transcript
from v2td.config import DatabaseSettings
from v2td.errors import ErrorClass, ServiceError
from v2td.jobs import Failure, Outcome, Redo, Replay, Word
from v2td.store import Database, Writer, batch, ensure_partitions, open_database, redos
from v2td.store.connection import Connection
from v2td.store.rows import rows_of

# The end of the second seed, "Baseline Establishment", word for word.
PERCENTILES = """
-- Query p50, p95, p99 latencies
SELECT 
    provider,
    PERCENTILE_CONT(0.50) WITHIN GROUP (ORDER BY duration) as p50,
    PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY duration) as p95,
    PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY duration) as p99,
    COUNT(*) as total
FROM transcriptions
WHERE created_at > NOW() - INTERVAL '24 hours'
GROUP BY provider;
"""  # noqa: W291 (verbatim)

WAITING = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
TABLES = ("transcriptions", "transcript_segments", "failures")


async def write_all(writer: Writer, *outcomes: Outcome) -> list[Outcome]:
    return [each.outcome for each in await asyncio.gather(*map(writer.write, outcomes))]


async def counts(sql: Connection) -> tuple[int, ...]:
    return tuple([await sql.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES])


class DeadLetters(list[Failure]):
    """An `on_unwritable` that keeps what it is given, and sees that the row does not come first."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    async def __call__(self, failed: Failure) -> None:
        row_id = failed.coordinates.row_id()
        assert await self._sql.fetchval("SELECT count(*) FROM failures WHERE id = $1", row_id) == 0
        self.append(failed)


@pytest.fixture
def any_integer() -> Iterator[None]:
    """Lets json write integers of more than 4300 digits, which no message can bring in."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


async def test_a_transcript_is_stored_whole(writing: Writing, sql: Connection) -> None:
    spoken = (segment("xin chào", [Word(0.5, 0.9, " xin", 0.9)]), segment("\u202eعالم 🌍 '; DROP TABLE--\r\n\x1b[0m"))
    given = transcript(
        3,
        segments=spoken,
        at={"record_index": 2, "partition": 5},
        job={"tenant": "acme", "audio_url": "https://u:p@example.com/a.wav?X-Amz-Signature=secret"},
    )
    async with writing() as writer:
        assert (await writer.write(given)).outcome is given
    row = await sql.fetchrow("SELECT * FROM transcriptions")
    assert (row["id"], row["revision"], row["job_id"], row["tenant"]) == (given.job.id, 0, "job-3", "acme")
    where = ("cluster_id", "topic", "kafka_partition", "kafka_offset", "record_index")
    assert tuple(row[name] for name in where) == ("cluster", "jobs", 5, 3, 2)
    assert round(row["record_timestamp"].timestamp() * 1000) == given.job.coordinates.timestamp_ms
    assert (row["audio_url"], row["text"]) == ("https://example.com/a.wav", given.text)
    assert (row["duration"], row["timings"], row["speech_coverage_ratio"]) == (1.5, given.timings, 0.75)
    segments = await sql.fetch("SELECT * FROM transcript_segments ORDER BY segment_index")
    assert [stored["text"] for stored in segments] == [heard.text for heard in spoken]
    assert [stored["words"] for stored in segments] == [
        [{"start": 0.5, "end": 0.9, "word": " xin", "probability": 0.9}],
        None,
    ]
    assert {stored["created_at"] for stored in segments} == {row["created_at"]}


async def test_a_failure_is_stored_with_its_record(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await writer.write(failure(4))
    row = await sql.fetchrow("SELECT * FROM failures")
    assert (row["id"], row["kafka_offset"], row["attempts"]) == (coordinates(4).row_id(), 4, 1)
    assert (row["error_class"], row["reason"], row["replay_state"]) == ("not_audio", "this is text", None)
    assert (row["record_key"], row["payload"], row["headers"]) == (b"key", b'{"audio_url": "x"}', [["trace", "abc"]])


async def test_the_seeds_percentile_query_runs(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await write_all(writer, *(transcript(n, duration_seconds=float(n)) for n in range(101)))
    (row,) = await sql.fetch(PERCENTILES)
    assert dict(row) == {"provider": "local", "p50": 50.0, "p95": 95.0, "p99": 99.0, "total": 101}


async def test_outcomes_that_come_together_are_one_transaction(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await write_all(writer, *map(transcript, range(50)), *map(failure, range(50, 60)))
    assert await counts(sql) == (50, 100, 10)
    times = "SELECT count(DISTINCT created_at) FROM (" + " UNION ALL ".join(
        f"SELECT created_at FROM {table}" for table in TABLES
    )
    assert await sql.fetchval(times + ") rows") == 1


async def test_flush_rows_bounds_a_transaction(writing: Writing, sql: Connection) -> None:
    async with writing(flush_rows=20, flush_seconds=60) as writer:
        await asyncio.wait_for(write_all(writer, *map(transcript, range(40))), 20)
    assert await sql.fetchval("SELECT count(DISTINCT created_at) FROM transcriptions") == 2


async def test_a_replay_adds_nothing(writing: Writing, sql: Connection) -> None:
    outcomes: list[Outcome] = [*map(transcript, range(5)), *map(failure, range(5, 8))]
    for _ in range(3):
        async with writing() as writer:
            await write_all(writer, *outcomes)
    async with writing() as writer:  # heard differently the second time, and in company of a new one
        await write_all(writer, *(transcript(n, "other", "words", "now") for n in range(6)))
    assert await counts(sql) == (5, 10, 3)


async def test_the_same_offset_of_a_recreated_topic_is_another_job(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await write_all(writer, transcript(1), transcript(1, at={"timestamp_ms": 1}))
    assert await counts(sql) == (2, 4, 0)


@pytest.mark.parametrize("first", ["transcript", "failure"])
async def test_the_first_outcome_of_a_job_stays(first: str, writing: Writing, sql: Connection) -> None:
    one, other = (transcript(1), failure(1)) if first == "transcript" else (failure(1), transcript(1))
    expected = (1, 2, 0) if first == "transcript" else (0, 0, 1)
    async with writing() as writer:
        assert await write_all(writer, one, other) == [one, one]  # in one batch
        await writer.write(other)  # in the next
    assert await counts(sql) == expected


async def test_two_instances_leave_exactly_one_outcome_of_each_job(
    writing: Writing, sql: Connection, store: Database
) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(writing(flush_rows=7)) for _ in range(2)]
        await asyncio.gather(
            write_all(one, *map(transcript, range(200))), write_all(other, *map(failure, reversed(range(200))))
        )
    transcriptions, segments, failures = await counts(sql)
    assert transcriptions + failures == 200
    assert segments == 2 * transcriptions
    assert await sql.fetchval("SELECT count(*) FROM failures JOIN transcriptions USING (id)") == 0


@pytest.fixture(params=["read committed", "repeatable read"])
async def isolation(request: pytest.FixtureRequest, sql: Connection) -> str:
    """What the server's administrator has set as the default; who connects from now on gets it."""
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{request.param}'")
    return str(request.param)


async def test_no_good_row_is_refused_because_another_instance_has_it(
    isolation: str, writing: Writing, sql: Connection, settings: DatabaseSettings
) -> None:
    """Flushes of both kinds: those whose jobs are all new, and those of which another writer was first with some."""
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(open_database(settings)) for _ in range(3)]
        writers = [
            await stack.enter_async_context(writing(flush_rows=rows, database=database))
            for rows, database in zip((1, 8, 13), databases, strict=True)
        ]
        await asyncio.gather(
            *(write_all(writer, *(transcript(n, at={"partition": n % 3}) for n in range(300))) for writer in writers)
        )
    assert await counts(sql) == (300, 600, 0)
    times = "SELECT count(*) FROM transcript_segments JOIN transcriptions t ON t.id = transcription_id"
    assert await sql.fetchval(f"{times} WHERE t.created_at = transcript_segments.created_at") == 600


@pytest.mark.parametrize("second", [transcript(1), failure(1)], ids=["transcript", "failure"])
async def test_an_outcome_waits_for_the_others_transaction(
    second: Outcome, isolation: str, settings: DatabaseSettings, sql: Connection
) -> None:
    """The races of the tests above, made certain: what is not committed yet is not seen by a look."""
    await ensure_partitions(sql, 0)
    async with open_database(settings) as database, database.raw() as one, database.raw() as other:
        assert await other.fetchval("SHOW default_transaction_isolation") == isolation
        async with asyncio.TaskGroup() as group, one.transaction(isolation="read_committed"):
            await batch.insert(one, [rows_of(transcript(1))])
            inserting = group.create_task(batch.insert(other, [rows_of(second)]))
            await until(lambda: sql.fetchval(f"SELECT count(*) > 0 {WAITING}"))
    assert inserting.result() == batch.Written(0, 0, 0, new=frozenset())
    assert await counts(sql) == (1, 2, 0)


async def test_a_waiter_that_goes_takes_nobody_along(writing: Writing, sql: Connection, store: Database) -> None:
    async with writing() as writer, asyncio.TaskGroup() as group, store.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE transcriptions IN ACCESS EXCLUSIVE MODE")
        waiters = [group.create_task(writer.write(transcript(n))) for n in range(3)]
        await asyncio.sleep(0.2)
        waiters[1].cancel()
        await asyncio.sleep(0.05)
    assert [waiter.cancelled() for waiter in waiters] == [False, True, False]
    assert await counts(sql) == (3, 6, 0)


async def test_flush_and_close_do_not_wait_for_company(writing: Writing, sql: Connection) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, writing(flush_seconds=60) as writer:
        group.create_task(writer.write(transcript(1)))
        await asyncio.sleep(0)
        await writer.flush()
        assert await counts(sql) == (1, 2, 0)
        group.create_task(writer.write(transcript(2)))
        await asyncio.sleep(0)
    assert await counts(sql) == (2, 4, 0)


async def test_text_that_postgres_cannot_hold_is_cleaned(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await write_all(
            writer,
            transcript(1, "a\0b\ud800c", job={"job_id": "\0\udfffx", "metadata": {"k\0": ["v\ud800"]}}),
            failure(2, reason="\0why\ud8ff", job_id="\ud800"),
        )
    assert await sql.fetchval("SELECT text FROM transcriptions") == "abc"
    assert await sql.fetchval("SELECT text FROM transcript_segments") == "abc"
    assert await sql.fetchval("SELECT metadata FROM transcriptions") == {"k": ["v"]}
    assert await sql.fetchval("SELECT reason FROM failures") == r"\x00why\ud8ff"


async def test_metadata_comes_back_as_an_equal_json_value(writing: Writing, sql: Connection) -> None:
    numbers = [10**300, -(2**64), 0.1, -0.0, 5e-324, 1e22, 1.5e-7, True, None]
    metadata: dict[str, Any] = {"numbers": numbers, "": {"ключ": ["\u2028", "\\u0000", "🌍", []]}}
    async with writing() as writer:
        await writer.write(transcript(1, job={"metadata": metadata}))
    assert await sql.fetchval("SELECT metadata FROM transcriptions") == json.loads(json.dumps(metadata))


async def test_long_text_and_long_ids_are_stored(writing: Writing, sql: Connection) -> None:
    text = "nói " * 2_500_000
    async with writing() as writer:
        await write_all(writer, transcript(1, text, job={"job_id": "".join(map(chr, range(32, 20_000)))}))
    assert await sql.fetchval("SELECT text FROM transcriptions") == text.strip()
    assert await sql.fetchval("SELECT length(job_id) FROM transcriptions") == 20_000 - 32


UNWRITABLE: dict[str, dict[str, Any]] = {
    "a key too long for its index": {"audio_sha256": "".join(map(chr, range(32, 20_000)))},
    "a number too big for jsonb": {"job": {"metadata": {"n": 10**140_000}}},
    "a number too big for bigint": {"audio_bytes": 2**63},
    "what a CHECK forbids": {"language": "xx"},
}


@pytest.mark.parametrize("fault", UNWRITABLE)
async def test_one_bad_row_in_500_fails_alone(fault: str, writing: Writing, sql: Connection, any_integer: None) -> None:
    await sql.execute("ALTER TABLE transcriptions ADD CHECK (language <> 'xx')")
    outcomes: list[Outcome] = [transcript(n, "text") for n in range(500)]
    outcomes[321] = transcript(321, "text", **UNWRITABLE[fault])
    dead_letters = DeadLetters(sql)
    async with writing(dead_letters) as writer:
        written = await write_all(writer, *outcomes)
        assert writer.healthy.is_set()
    assert await counts(sql) == (499, 499, 1)
    (dead_letter,) = dead_letters
    assert dead_letter.error_class is ErrorClass.UNWRITABLE
    assert written[321] is dead_letter
    assert written[:321] + written[322:] == outcomes[:321] + outcomes[322:]
    row = await sql.fetchrow("SELECT * FROM failures")
    assert (row["id"], row["error_class"]) == (coordinates(321).row_id(), "unwritable")
    assert row["reason"].startswith("Postgres refuses the row: ")


async def test_several_bad_rows_fail_alone(writing: Writing, sql: Connection) -> None:
    bad = {0, 17, 18, 63}
    dead_letters = DeadLetters(sql)
    async with writing(dead_letters) as writer:
        await write_all(writer, *(transcript(n, audio_bytes=2**63 if n in bad else n) for n in range(64)))
    assert {failed.coordinates.offset for failed in dead_letters} == bad
    assert await counts(sql) == (60, 120, 4)


async def test_an_unwritable_failure_is_reduced_to_its_coordinates(writing: Writing, sql: Connection) -> None:
    await sql.execute("ALTER TABLE failures ADD CHECK (job_id <> 'cursed')")
    async with writing() as writer:
        written, _ = await writer.write(failure(1, job_id="cursed"))
    assert isinstance(written, Failure)
    row = await sql.fetchrow("SELECT * FROM failures")
    assert (row["kafka_offset"], row["error_class"]) == (1, "not_audio")
    assert (row["job_id"], row["audio_url"], row["payload"], row["record_key"], row["headers"]) == (*[None] * 4, [])


async def test_an_unwritable_failure_that_would_be_retried_is_a_dead_letter(writing: Writing, sql: Connection) -> None:
    """Its record that waits in the retry topic is not that of the bare row, so it would be requested for ever."""
    await sql.execute("ALTER TABLE failures ADD CHECK (job_id <> 'cursed')")
    cursed = failure(1, job_id="cursed", retried_later=True)
    dead_letters = DeadLetters(sql)
    async with writing(dead_letters) as writer:
        written, _ = await writer.write(cursed)
    assert isinstance(written, Failure)
    assert not written.retried_later
    (letter,) = dead_letters
    assert (letter.coordinates, letter.record, letter.retried_later) == (cursed.coordinates, cursed.record, False)
    assert letter.reason.startswith("Postgres refuses the row: ")
    assert await sql.fetchval("SELECT replay_state FROM failures WHERE kafka_offset = 1") is None


async def test_coordinates_that_cannot_be_stored_stop_the_writer(store: Database, settings: DatabaseSettings) -> None:
    writer = Writer(store, settings, no_unwritable)
    write = asyncio.create_task(writer.write(failure(2**63)))
    with pytest.raises(ServiceError, match="not even the bare coordinates"):
        await writer.run()
    with pytest.raises(ServiceError, match="not even the bare coordinates"):
        await write


async def test_who_comes_second_is_told_so(writing: Writing, store: Database) -> None:
    """Of two instances with the same job; and of a revision that is asked for, whichever way it ends."""
    await redos.note(store, "large", None, [redos.Wish(transcript(1).job.id, "ab")])
    redo = {"replay": Replay(coordinates(7)), "redo": Redo(1, "large")}
    async with writing() as writer:
        assert (await writer.write(transcript(1))).new
        assert (await writer.write(failure(2))).new
    async with writing() as writer:
        assert [
            each.new
            for each in await asyncio.gather(
                writer.write(failure(1)),
                writer.write(transcript(2)),
                writer.write(transcript(3)),
                writer.write(failure(4)),
            )
        ] == [False, False, True, True]
        assert (await writer.write(transcript(1, job=redo))).new
        other = {"replay": Replay(coordinates(8)), "redo": Redo(1, "large")}
        assert not (await writer.write(transcript(1, job=other))).new
        assert not (await writer.write(failure(1, replay=Replay(coordinates(9)), redo=Redo(1, "large")))).new
        await redos.note(store, "large", None, [redos.Wish(transcript(1).job.id, "ab")])
        assert (await writer.write(failure(1, replay=Replay(coordinates(10)), redo=Redo(2, "large")))).new
