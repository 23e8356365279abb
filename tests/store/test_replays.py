"""A failure that is done again: its row makes room for one outcome, however many records ask and however they race."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.store.conftest import Writing, no_unwritable, until
from tests.store.outcomes import MAY_2026_MS, coordinates, failure, transcript
from v2td.config import DatabaseSettings
from v2td.errors import ErrorClass
from v2td.jobs import Coordinates, Failure, Outcome, Replay, SourceRecord, Transcript
from v2td.store import Database, Writer, batch, durable_jobs, ensure_partitions, find_replay, ledger, open_database
from v2td.store.connection import Connection
from v2td.store.encoding import MAX_PAYLOAD_BYTES
from v2td.store.rows import rows_of

RECORD = SourceRecord(b"key", b'{"audio_url": "x"}', (("v2td-replay-of", b"..."),))
FAILED = coordinates(1)
JOB = FAILED.row_id()


def asking(offset: int) -> Coordinates:
    return coordinates(offset, topic="replays")


def heard(by: int, text: str = "at last") -> Transcript:
    return transcript(1, text, job={"record": RECORD, "replay": Replay(asking(by))})


def failed_again(by: int, **changes: Any) -> Failure:
    return failure(1, **({"reason": "again", "record": RECORD, "replay": Replay(asking(by))} | changes))


async def request(sql: Connection, job: UUID = JOB) -> None:
    assert await sql.execute("UPDATE failures SET replay_state = 'requested' WHERE id = $1", job) == "UPDATE 1"


async def outcome(sql: Connection) -> tuple[str | None, str | None, str | None]:
    """The job's text, its reason and replay_state: it has a text or a reason, and one of each."""
    texts = await sql.fetch("SELECT text FROM transcriptions WHERE id = $1", JOB)
    reasons = await sql.fetch("SELECT reason, replay_state FROM failures WHERE id = $1", JOB)
    assert len(texts) + len(reasons) == 1
    return (texts[0][0], None, None) if texts else (None, *reasons[0])


async def answered(sql: Connection) -> set[UUID]:
    return {row[0] for row in await sql.fetch("SELECT record_id FROM replays")}


@pytest.fixture
async def requested(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await writer.write(failure(1))
    await request(sql)


async def test_a_transcript_takes_the_failures_place(requested: None, writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        assert isinstance((await writer.write(heard(by=7))).outcome, Transcript)
    assert await outcome(sql) == ("at last", None, None)
    assert await sql.fetchval("SELECT count(*) FROM transcript_segments WHERE transcription_id = $1", JOB) == 1
    row = await sql.fetchrow("SELECT * FROM replays")
    assert (row["record_id"], row["replay_of"], row["kafka_offset"]) == (asking(7).row_id(), JOB, 7)
    assert (row["cluster_id"], row["topic"], row["kafka_partition"]) == ("cluster", "replays", 0)


async def test_a_replay_may_fail_again_and_be_asked_for_again(
    requested: None, writing: Writing, store: Database, sql: Connection
) -> None:
    async with writing() as writer:
        await writer.write(failed_again(by=7))
        assert await outcome(sql) == (None, "again", None)
        assert await find_replay(store, JOB, RECORD, asking(8)) == "done"
        await request(sql)
        assert await find_replay(store, JOB, RECORD, asking(7)) == "done"
        assert await find_replay(store, JOB, RECORD, asking(8)) == FAILED
        await writer.write(failed_again(by=7, reason="a late repetition of the first"))
        assert await outcome(sql) == (None, "again", "requested")
        await writer.write(heard(by=8))
    assert await outcome(sql) == ("at last", None, None)
    assert await answered(sql) == {asking(7).row_id(), asking(8).row_id()}


async def test_a_retry_that_is_put_off_again_may_be_replayed(
    requested: None, writing: Writing, sql: Connection
) -> None:
    async with writing() as writer:
        await writer.write(failed_again(by=7, retried_later=True))
        assert await outcome(sql) == (None, "again", "requested")
        await writer.write(heard(by=8))
    assert await outcome(sql) == ("at last", None, None)


async def test_replayed_twice_is_done_once(requested: None, writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await asyncio.gather(
            writer.write(heard(7, "one")), writer.write(failed_again(8)), writer.write(heard(9, "two"))
        )
    assert await outcome(sql) == ("one", None, None)
    assert await answered(sql) == {asking(by).row_id() for by in (7, 8, 9)}
    assert await sql.fetchval("SELECT count(*) FROM transcript_segments") == 1


@pytest.mark.parametrize("second", [heard(8, "second"), failed_again(8)], ids=["transcript", "failure"])
async def test_the_second_replay_waits_for_the_firsts_transaction(
    second: Outcome, requested: None, store: Database, sql: Connection
) -> None:
    await ensure_partitions(sql, 0)
    async with store.raw() as one, store.raw() as other, asyncio.TaskGroup() as group:
        async with one.transaction(isolation="read_committed"):
            await batch.insert(one, [rows_of(heard(7, "first"))])
            inserting = group.create_task(batch.insert(other, [rows_of(second)]))
            waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
            await until(lambda: sql.fetchval(f"SELECT count(*) > 0 {waiting}"))
        assert await inserting == batch.Written(0, 0, 0, new=frozenset())
    assert await outcome(sql) == ("first", None, None)
    assert await answered(sql) == {asking(7).row_id(), asking(8).row_id()}


async def test_instances_that_replay_the_same_failures_write_each_once(
    settings: DatabaseSettings, writing: Writing, sql: Connection
) -> None:
    jobs = range(60)
    async with writing(flush_rows=20) as writer:
        await asyncio.gather(*(writer.write(failure(n)) for n in jobs))
    await sql.execute("UPDATE failures SET replay_state = 'requested'")
    async with AsyncExitStack() as stack:
        writes = []
        for instance, rows in enumerate((1, 7, 60)):
            database = await stack.enter_async_context(open_database(settings))
            writer = await stack.enter_async_context(writing(flush_rows=rows, database=database))
            for n in jobs:
                replay = Replay(asking(100 * instance + n))
                again = transcript(n, job={"record": RECORD, "replay": replay})
                writes.append(writer.write(again if instance else failure(n, record=RECORD, replay=replay)))
        await asyncio.gather(*writes)
    kinds = "SELECT id FROM transcriptions UNION ALL SELECT id FROM failures"
    assert await sql.fetchval(f"SELECT count(*) FROM ({kinds}) outcomes") == 60
    assert await sql.fetchval(f"SELECT count(DISTINCT id) FROM ({kinds}) outcomes") == 60
    assert await sql.fetchval("SELECT count(*) FROM failures WHERE replay_state IS NOT NULL") == 0
    assert len(await answered(sql)) == 180


@pytest.mark.parametrize("state", [None, "dropped"])
async def test_a_failure_nobody_asked_for_stays(
    state: str | None, writing: Writing, store: Database, sql: Connection
) -> None:
    async with writing() as writer:
        await writer.write(failure(1))
        await sql.execute("UPDATE failures SET replay_state = $1", state)
        assert await find_replay(store, JOB, RECORD, asking(7)) is None
        await writer.write(heard(by=7))
    assert await outcome(sql) == (None, "this is text", state)
    assert await answered(sql) == {asking(7).row_id()}


async def test_a_late_outcome_of_the_jobs_own_record_changes_nothing(
    requested: None, writing: Writing, sql: Connection
) -> None:
    async with writing() as writer:
        await writer.write(transcript(1, "late"))
        assert await outcome(sql) == (None, "this is text", "requested")
        await asyncio.gather(writer.write(failure(1, reason="late too")), writer.write(heard(by=7)))
    assert await outcome(sql) == ("at last", None, None)


async def test_a_failure_that_vanished_is_no_reason_to_lose_the_outcome(writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await writer.write(heard(by=7))
    assert await outcome(sql) == ("at last", None, None)


async def test_replays_and_new_jobs_share_a_flush(requested: None, writing: Writing, sql: Connection) -> None:
    async with writing(flush_rows=50) as writer:
        await asyncio.gather(*(writer.write(transcript(n)) for n in range(10, 58)), writer.write(heard(by=7)))
    assert await outcome(sql) == ("at last", None, None)
    assert await sql.fetchval("SELECT count(*) FROM transcriptions") == 49
    assert await sql.fetchval("SELECT count(*) FROM transcript_segments") == 48 * 2 + 1


async def test_a_replay_that_postgres_refuses_fails_as_a_replay(
    requested: None, store: Database, settings: DatabaseSettings, sql: Connection, writing: Writing
) -> None:
    letters: list[Failure] = []

    async def keep(failed: Failure) -> None:
        letters.append(failed)

    refused = transcript(1, audio_bytes=2**63, job={"record": RECORD, "replay": Replay(asking(7))})
    async with writing(keep) as writer:
        written, _ = await writer.write(refused)
    assert isinstance(written, Failure)
    assert [letter.error_class for letter in letters] == [ErrorClass.UNWRITABLE]
    text, reason, state = await outcome(sql)
    assert (text, state) == (None, None)
    assert reason is not None
    assert reason.startswith("Postgres refuses the row")
    assert await answered(sql) == {asking(7).row_id()}


async def test_a_record_that_replayed_is_durable_at_its_own_offset(
    requested: None, writing: Writing, store: Database
) -> None:
    async with writing() as writer:
        await writer.write(heard(by=7))
    assert await durable_jobs(store, "cluster", "replays", 0, 7) == {7: frozenset({asking(7).row_id()})}
    assert await durable_jobs(store, "cluster", "replays", 0, 8) == {}
    assert await durable_jobs(store, "cluster", "jobs", 0, 0) == {1: frozenset({JOB})}


async def test_a_claim_holds_for_the_same_record_only(requested: None, store: Database) -> None:
    assert await find_replay(store, JOB, RECORD, asking(7)) == FAILED
    others = [
        SourceRecord(key, value, ()) for key, value in ((b"key", b"{}"), (b"k", RECORD.value), (None, RECORD.value))
    ]
    assert [await find_replay(store, JOB, other, asking(7)) for other in others] == [None, None, None]
    assert await find_replay(store, uuid4(), RECORD, asking(7)) is None


async def test_after_it_was_done_only_the_same_record_is_a_repetition(
    requested: None, writing: Writing, store: Database
) -> None:
    async with writing() as writer:
        await writer.write(heard(by=7))
    assert await find_replay(store, JOB, RECORD, asking(7)) == "done"
    assert await find_replay(store, JOB, RECORD, asking(8)) == "done"
    assert await find_replay(store, JOB, SourceRecord(b"key", b"{}", ()), asking(8)) is None


@pytest.mark.parametrize(
    ("at", "record"),
    [
        ({"record_index": 3, "partition": 5}, RECORD),
        ({"timestamp_ms": -1}, RECORD),
        ({"timestamp_ms": 0}, RECORD),
        ({"timestamp_ms": -7}, RECORD),
        ({"timestamp_ms": -(2**63)}, RECORD),
        ({"timestamp_ms": 2**63 - 1}, RECORD),
        ({"timestamp_ms": 253_402_300_800_000}, RECORD),
        ({}, SourceRecord(None, b"", ())),
        ({}, SourceRecord(b"", None, ())),
        ({}, SourceRecord(b"k" * 70_000, b"v" * 1_000_000, ())),
    ],
    ids=[
        "an index",
        "no time",
        "1970",
        "1969",
        "least",
        "most",
        "the year 10000",
        "no key",
        "no value",
        "a long record",
    ],
)
async def test_the_coordinates_come_back_exactly(
    at: dict[str, Any], record: SourceRecord, writing: Writing, store: Database, sql: Connection
) -> None:
    where = coordinates(1, **at)
    async with writing() as writer:
        await writer.write(failure(1, coordinates=where, record=record))
    await request(sql, where.row_id())
    assert await find_replay(store, where.row_id(), record, asking(7)) == where


@pytest.mark.parametrize(("timestamp_ms", "told"), [(MAY_2026_MS, True), (-1, True), (-7, False)])
async def test_in_a_row_of_a_version_before_the_time_is_in_the_id(
    timestamp_ms: int, told: bool, writing: Writing, store: Database, sql: Connection
) -> None:
    where = coordinates(1, timestamp_ms=timestamp_ms)
    async with writing() as writer:
        await writer.write(failure(1, coordinates=where))
    await sql.execute("UPDATE failures SET replay_state = 'requested', record_timestamp_ms = NULL")
    expected = where if told else None
    assert await find_replay(store, where.row_id(), RECORD, asking(7)) == expected
    (found,) = await ledger.failed_records(store, [where.row_id()])
    assert found.coordinates == expected


async def test_of_a_long_record_the_beginning_counts(writing: Writing, store: Database, sql: Connection) -> None:
    value = b"v" * MAX_PAYLOAD_BYTES
    async with writing() as writer:
        await writer.write(failure(1, record=SourceRecord(None, value + b"1", ())))
    await request(sql)
    assert await find_replay(store, JOB, SourceRecord(None, b"w" + value, ()), asking(7)) is None
    assert await find_replay(store, JOB, SourceRecord(None, value + b"1", ()), asking(7)) == FAILED


async def test_a_lost_answer_to_the_commit_does_not_replay_twice(
    requested: None, store: Database, settings: DatabaseSettings, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is committed and its answer lost; before the second try a person asks for the job again."""
    insert, answers = batch.insert, 0

    async def lose_the_first_answer(connection: Connection, rows: Any) -> batch.Written:
        nonlocal answers
        written = await insert(connection, rows)
        answers += 1
        if answers == 1:
            await request(sql)
            raise ConnectionResetError
        return written

    monkeypatch.setattr(batch, "insert", lose_the_first_answer)
    writer = Writer(store, settings, no_unwritable)
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        await writer.write(failed_again(by=7))
        writer.close()
    assert answers == 2
    assert await outcome(sql) == (None, "again", "requested")
