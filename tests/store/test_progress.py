"""What an unfinished job leaves behind is there for any instance, and goes with the job's outcome."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.store.conftest import Writing, until
from tests.store.outcomes import coordinates, failure, transcript
from v2td.jobs import Outcome, Redo, Replay
from v2td.store import (
    Database,
    Unfinished,
    WindowRow,
    batch,
    forget_old,
    load_windows,
    note_death,
    redos,
    save_windows,
    unfinished,
)
from v2td.store.connection import Connection
from v2td.store.rows import rows_of

OPTIONS = "cd" * 32
NOTHING = Unfinished(frozenset(), {})


def window(offset: int, index: int = 0, result: dict[str, Any] | None = None, **at: Any) -> WindowRow:
    return WindowRow(coordinates(offset, **at), index, OPTIONS, {"text": f"w{index}"} if result is None else result)


async def test_windows_come_back_as_they_were_saved(store: Database) -> None:
    awkward = {"segments": [{"text": "a\0b\ud800 🌍", "logprob": float("nan"), "words": [[0.1, 1e-300]]}], "k\0": None}
    await save_windows(store, [window(1, 1), window(1, 0, awkward), window(2, 7, {})])
    assert await load_windows(store, coordinates(1).row_id()) == [
        (0, OPTIONS, {"segments": [{"text": "ab 🌍", "logprob": None, "words": [[0.1, 1e-300]]}], "k": None}),
        (1, OPTIONS, {"text": "w1"}),
    ]
    assert await load_windows(store, coordinates(3).row_id()) == []
    assert await unfinished(store) == Unfinished(frozenset({coordinates(1).row_id(), coordinates(2).row_id()}), {})


async def test_a_window_that_is_there_stays_as_it_is(store: Database) -> None:
    await save_windows(store, [window(1, 0, {"n": 1}), window(1, 0, {"n": 2})])
    await save_windows(store, [window(1, 0, {"n": 3}), window(1, 1, {"n": 4})])
    assert [row[2] for row in await load_windows(store, coordinates(1).row_id())] == [{"n": 1}, {"n": 4}]
    await save_windows(store, [])


async def test_many_windows_of_many_jobs_go_at_once(store: Database) -> None:
    await save_windows(store, [window(n // 50, n % 50, partition=n % 7) for n in range(5000)])
    assert len((await unfinished(store)).windows) == 700


async def test_deaths_are_counted_for_each_job(store: Database) -> None:
    one, other = coordinates(1), coordinates(2)
    assert [await note_death(store, job) for job in (one, other, one)] == [1, 1, 2]
    assert await unfinished(store) == Unfinished(frozenset(), {one.row_id(): 2, other.row_id(): 1})
    assert sorted(await asyncio.gather(*(note_death(store, one) for _ in range(5)))) == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("outcome", [transcript(1), failure(1)], ids=["transcript", "failure"])
async def test_the_outcome_takes_its_jobs_progress_with_it(outcome: Outcome, writing: Writing, store: Database) -> None:
    await save_windows(store, [window(1, 0), window(1, 1), window(2)])
    await note_death(store, coordinates(1))
    await note_death(store, coordinates(2))
    async with writing() as writer:
        await writer.write(outcome)
    other = coordinates(2).row_id()
    assert await unfinished(store) == Unfinished(frozenset({other}), {other: 1})


async def test_a_job_that_is_retried_later_keeps_its_progress(writing: Writing, store: Database) -> None:
    row_id = coordinates(1).row_id()
    await save_windows(store, [window(1)])
    await note_death(store, coordinates(1))
    async with writing() as writer:
        await writer.write(failure(1, retried_later=True))
        assert await unfinished(store) == Unfinished(frozenset({row_id}), {row_id: 1})
        await save_windows(store, [window(1, 1)])
        assert len(await load_windows(store, row_id)) == 2
        assert await note_death(store, coordinates(1)) == 2
        await writer.write(transcript(1, job={"replay": Replay(coordinates(9, topic="retry"))}))
    assert await unfinished(store) == NOTHING


@pytest.mark.parametrize("outcome", [transcript(1), failure(1)], ids=["transcript", "failure"])
async def test_what_comes_after_the_outcome_is_left_out(outcome: Outcome, writing: Writing, store: Database) -> None:
    async with writing() as writer:
        await writer.write(outcome)
    await save_windows(store, [window(1), window(2)])
    assert await note_death(store, coordinates(1)) == 0
    assert await unfinished(store) == Unfinished(frozenset({coordinates(2).row_id()}), {})


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
async def test_another_revision_has_progress_until_it_ends(writing: Writing, store: Database, *, fails: bool) -> None:
    row_id = coordinates(1).row_id()
    redo: dict[str, Any] = {"replay": Replay(coordinates(9, topic="redo")), "redo": Redo(1, "large")}
    async with writing() as writer:
        await writer.write(transcript(1))
        await redos.note(store, "large", None, [redos.Wish(row_id, "ab")])
        await save_windows(store, [window(1), window(1, 1)])
        assert await note_death(store, coordinates(1)) == 1
        assert await unfinished(store) == Unfinished(frozenset({row_id}), {row_id: 1})
        await writer.write(failure(1, **redo) if fails else transcript(1, job=redo))
        assert await unfinished(store) == NOTHING
        await save_windows(store, [window(1)])
        assert await note_death(store, coordinates(1)) == 0
    assert await unfinished(store) == NOTHING


@pytest.mark.parametrize(
    "leave",
    [lambda store: save_windows(store, [window(1)]), lambda store: note_death(store, coordinates(1))],
    ids=["windows", "a death"],
)
async def test_what_is_left_behind_waits_for_an_outcome_that_is_being_written(
    leave: Callable[[Database], Coroutine[Any, Any, object]], store: Database, sql: Connection
) -> None:
    async with store.raw() as connection, asyncio.TaskGroup() as group:
        async with connection.transaction(isolation="read_committed"):
            await batch.insert(connection, [rows_of(failure(1))])
            leaving = group.create_task(leave(store))
            waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()"
            await until(lambda: sql.fetchval(f"{waiting} AND wait_event = 'advisory'"))
        await leaving
    assert await unfinished(store) == NOTHING


async def test_nothing_is_left_however_it_races_with_outcomes(writing: Writing, store: Database) -> None:
    async with writing(flush_seconds=0.001, flush_rows=7) as writer, asyncio.TaskGroup() as group:
        for n in range(100):
            group.create_task(writer.write(transcript(n) if n % 2 else failure(n)))
            group.create_task(save_windows(store, [window(n, index) for index in range(3)]))
            group.create_task(note_death(store, coordinates(n)))
    assert await unfinished(store) == NOTHING


async def test_what_is_old_is_forgotten(writing: Writing, store: Database, sql: Connection) -> None:
    old, new = coordinates(1).row_id(), coordinates(2).row_id()
    await save_windows(store, [window(1), window(2)])
    await note_death(store, coordinates(1))
    await note_death(store, coordinates(2))
    await sql.execute("UPDATE window_results SET created_at = now() - interval '8 days' WHERE id = $1", old)
    await sql.execute("UPDATE child_deaths SET seen_at = now() - interval '8 days' WHERE id = $1", old)
    async with writing() as writer:
        for offset in (3, 4):
            await writer.write(failure(offset, replay=Replay(coordinates(offset, topic="replays"))))
    await sql.execute("UPDATE replays SET created_at = now() - interval '8 days' WHERE kafka_offset = 3")
    assert await forget_old(store, 9) == 0
    assert await forget_old(store, 7) == 3
    assert await unfinished(store) == Unfinished(frozenset({new}), {new: 1})
    assert [row["kafka_offset"] for row in await sql.fetch("SELECT kafka_offset FROM replays")] == [4]
