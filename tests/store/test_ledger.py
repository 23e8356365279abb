import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from tests.store.conftest import Writing, until
from tests.store.outcomes import coordinates, failure
from v2td.errors import ErrorClass
from v2td.jobs import SourceRecord
from v2td.store import Database, Unfinished, WindowRow, batch, ledger, note_death, save_windows, unfinished
from v2td.store.connection import Connection
from v2td.store.ledger import DROPPED, FAILED, REQUESTED, Selection

NOW = datetime.now(UTC)
WINDOW_COLUMNS = ("id", "window", "options_sha256", "result")


def row_id(offset: int) -> UUID:
    return coordinates(offset).row_id()


@pytest.fixture
async def four(writing: Writing, sql: Connection) -> None:
    """Offsets 1 to 4, a day apart, of which the last was dropped and the one before asked for."""
    async with writing() as writer:
        await writer.write(failure(1))
        await writer.write(failure(2, error_class=ErrorClass.TIMEOUT, job_id="job-1"))
        await writer.write(failure(3, coordinates=coordinates(3, topic="other")))
        await writer.write(failure(4))
    await sql.execute("UPDATE failures SET created_at = now() - (5 - kafka_offset) * interval '1 day'")
    await sql.execute("UPDATE failures SET replay_state = 'requested' WHERE kafka_offset = 3")
    await sql.execute("UPDATE failures SET replay_state = 'dropped' WHERE kafka_offset = 4")


@pytest.mark.parametrize(
    ("selection", "offsets"),
    [
        (Selection(), [3, 2, 1]),
        (Selection(states=(DROPPED,)), [4]),
        (Selection(states=ledger.STATES), [4, 3, 2, 1]),
        (Selection(states=(REQUESTED,)), [3]),
        (Selection(states=(FAILED,)), [2, 1]),
        (Selection(error_classes=("timeout", "poison")), [2]),
        (Selection(topics=("other",)), [3]),
        (Selection(topics=("jobs",), error_classes=("not_audio",)), [1]),
        (Selection(since=NOW - timedelta(days=3.5)), [3, 2]),
        (Selection(until=NOW - timedelta(days=3.5)), [1]),
        (Selection(jobs=("job-1",)), [2, 1]),
        (Selection(jobs=(str(row_id(1)), "job-3\0")), [3, 1]),
        (Selection(jobs=("job-4",)), []),
        (Selection(jobs=(str(uuid4()),)), []),
    ],
    ids=[
        "all",
        "dropped",
        "any state",
        "requested",
        "untouched",
        "classes",
        "topic",
        "both",
        "since",
        "until",
        "own id",
        "several",
        "dropped by id",
        "unknown",
    ],
)
async def test_a_selection_is_all_that_it_says(
    selection: Selection, offsets: list[int], four: None, store: Database
) -> None:
    everything = await ledger.failures(store, selection)
    assert [found.kafka_offset for found in everything] == offsets
    assert await ledger.failures(store, selection, 1) == everything[:1]
    assert sum((await ledger.count_by_class(store, selection)).values()) == len(offsets)


async def test_counts_by_class(four: None, store: Database) -> None:
    assert await ledger.count_by_class(store, Selection()) == {"not_audio": 2, "timeout": 1}


@pytest.mark.parametrize(
    ("record", "cut"),
    [
        (SourceRecord(b"key", b"value", (("a", b"\xff\0"), ("a", b"text"), ("", b""))), False),
        (SourceRecord(None, None, ()), False),
        (SourceRecord(b"", b"x" * 65_535, ()), False),
        (SourceRecord(b"", b"x" * 65_536, ()), True),
        (SourceRecord(b"x" * 70_000, b"", ()), True),
        (SourceRecord(b"", b"", (("a", b"1"), ("b", b"x" * 70_000))), True),
    ],
    ids=["odd headers", "nothing", "just whole", "maybe cut", "key cut", "headers cut"],
)
async def test_a_record_comes_back_whole_or_is_said_to_be_cut(
    record: SourceRecord, cut: bool, writing: Writing, store: Database
) -> None:
    async with writing() as writer:
        await writer.write(failure(1, record=record))
    (found,) = await ledger.failed_records(store, [uuid4(), row_id(1)])
    assert (found.failure.id, found.cut) == (row_id(1), cut)
    assert cut or found.record == record


async def test_records_come_in_the_order_asked_for(four: None, store: Database) -> None:
    found = await ledger.failed_records(store, [row_id(2), row_id(1)])
    assert [each.failure.kafka_offset for each in found] == [2, 1]


async def test_requests(four: None, store: Database) -> None:
    other = coordinates(3, topic="other").row_id()
    everything = [row_id(1), row_id(2), other, row_id(4), uuid4()]
    assert await ledger.request(store, everything, again=False) == {row_id(1), row_id(2)}
    assert await ledger.request(store, everything, again=False) == set()
    assert await ledger.request(store, everything, again=True) == {row_id(1), row_id(2), other}
    await ledger.withdraw(store, row_id(1))
    await ledger.withdraw(store, row_id(4))
    found = await ledger.failures(store, Selection(states=(FAILED, DROPPED)))
    assert [(each.kafka_offset, each.replay_state) for each in found] == [(4, DROPPED), (1, None)]


async def test_a_dropped_failure_forgets_what_its_job_left_behind(four: None, store: Database) -> None:
    at, other = coordinates(3, topic="other"), coordinates(9)
    await save_windows(store, [WindowRow(job, 0, "ab", {}) for job in (at, other)])
    await note_death(store, at)
    await note_death(store, other)
    assert await ledger.drop(store, [at.row_id()], (FAILED,)) == set()
    assert (await unfinished(store)).windows == {at.row_id(), other.row_id()}
    assert await ledger.drop(store, [at.row_id()], (REQUESTED,)) == {at.row_id()}
    assert await unfinished(store) == Unfinished(frozenset({other.row_id()}), {other.row_id(): 1})
    await save_windows(store, [WindowRow(at, 1, "ab", {})])
    assert (await unfinished(store)).windows == {other.row_id()}


async def test_a_drop_waits_for_windows_that_are_being_saved(four: None, store: Database, sql: Connection) -> None:
    at = coordinates(3, topic="other")
    async with asyncio.TaskGroup() as group:
        async with sql.transaction():
            await sql.execute(batch.LOCK, batch.lock_keys([at]))
            dropping = group.create_task(ledger.drop(store, [at.row_id()], (REQUESTED,)))
            waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()"
            await until(lambda: sql.fetchval(f"{waiting} AND wait_event = 'advisory'"))
            window = [(at.row_id(), 0, "ab", {"text": "late"})]
            await sql.copy_records_to_table("window_results", records=window, columns=WINDOW_COLUMNS)
        assert await dropping == {at.row_id()}
    assert (await unfinished(store)).windows == frozenset()


async def test_a_dropped_failure_keeps_its_reason_and_forgets_its_record(four: None, store: Database) -> None:
    other = coordinates(3, topic="other").row_id()
    assert await ledger.drop(store, [row_id(1), other, row_id(4), uuid4()]) == {row_id(1)}
    assert await ledger.drop(store, [other], (REQUESTED,)) == {other}
    (found,) = await ledger.failed_records(store, [row_id(1)])
    assert (found.failure.reason, found.failure.replay_state) == ("this is text", DROPPED)
    assert found.record == SourceRecord(None, None, ())
    assert [each.kafka_offset for each in await ledger.failures(store, Selection())] == [2]
