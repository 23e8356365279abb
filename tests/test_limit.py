"""Who is let in, in which order, that no place is lost, and when a job is over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config import EngineSettings, PipelineSettings, Settings
from v2td.errors import ErrorClass, JobError
from v2td.limit import CURRENT, LARGE_BYTES, Deadlines, PreparedLimit, Priority, PriorityLimit, max_prepared


async def test_the_urgent_come_first_then_the_early() -> None:
    limit = PriorityLimit(1)
    order: list[str] = []

    async def visit(name: str, priority: int) -> None:
        async with limit.inside(priority):
            order.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name, priority in (("first", 9), ("b", 5), ("c", 5), ("urgent", 0), ("a", 4)):
            group.create_task(visit(name, priority))
    assert order == ["first", "urgent", "a", "b", "c"]


@given(size=st.integers(1, 4), cancelled=st.lists(st.booleans(), min_size=1, max_size=20), yields=st.integers(0, 3))
def test_cancelled_waits_take_no_place(size: int, cancelled: list[bool], yields: int) -> None:
    async def scenario() -> None:
        limit = PriorityLimit(size)
        inside = most = done = 0

        async def visit() -> None:
            nonlocal inside, most, done
            async with limit.inside(5):
                inside += 1
                most = max(most, inside)
                try:
                    await asyncio.sleep(0)
                finally:
                    inside -= 1
                done += 1

        tasks = [asyncio.create_task(visit()) for _ in cancelled]
        for _ in range(yields):
            await asyncio.sleep(0)
        for task, gone in zip(tasks, cancelled, strict=True):
            if gone:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= size
        assert done >= cancelled.count(False)
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:  # all places are free again
            for _ in range(size):
                group.create_task(visit())

    asyncio.run(scenario())


@given(changes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=20))
def test_who_gets_another_priority_waits_by_that(changes: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        limit = PriorityLimit(1)
        order: list[int] = []
        priorities = [Priority(5) for _ in range(5)]

        async def visit(number: int) -> None:
            CURRENT.set(priorities[number])
            async with limit.inside(9):  # what the job had when it came
                order.append(number)

        async with limit.inside(5):
            tasks = [asyncio.create_task(visit(number)) for number in range(5)]
            await asyncio.sleep(0)
            for number, value in changes:
                if number < 5:
                    priorities[number].change(value)
        await asyncio.wait(tasks)
        assert order == sorted(range(5), key=lambda number: (priorities[number].value, number))
        assert (limit._free, limit._moved) == (1, {})

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "large"), [(1, 1), (2, 1), (5, 2), (40, 20)])
async def test_long_recordings_leave_half_of_the_places_to_short_messages(size: int, large: int) -> None:
    limit = PreparedLimit(size)
    inside: list[int] = []
    leave = asyncio.Event()

    async def visit(audio_bytes: int) -> None:
        async with limit.inside(5, audio_bytes):
            inside.append(audio_bytes)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * size):
            group.create_task(visit(LARGE_BYTES + 1))
        await asyncio.sleep(0)
        assert len(inside) == large
        for _ in range(2 * size):
            group.create_task(visit(LARGE_BYTES))
        await asyncio.sleep(0)
        assert len(inside) == size
        leave.set()
    assert len(inside) == 4 * size


async def test_a_long_recording_that_is_cancelled_takes_no_place() -> None:
    limit = PreparedLimit(2)
    async with limit.inside(5, LARGE_BYTES + 1), limit.inside(5, 1):
        for audio_bytes in (LARGE_BYTES + 1, 1):  # one waits to be among the large, one to be among all
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), limit.inside(0, audio_bytes):
                    pytest.fail("it was let in")
    async with asyncio.timeout(1), limit.inside(5, LARGE_BYTES + 1), limit.inside(5, 1):
        pass


def test_there_are_places_enough_to_fill_the_batches() -> None:
    assert max_prepared(Settings(), 2) == 72
    assert max_prepared(Settings(engine=EngineSettings(window_mode="packed")), 2) == 192
    assert max_prepared(Settings(pipeline=PipelineSettings(max_prepared=3)), 2) == 3


HOUR = timedelta(hours=1)
LIMITS = PipelineSettings(attempt_seconds=1800, job_seconds=2700)


async def test_a_job_that_is_too_late_does_not_begin() -> None:
    deadlines = Deadlines(LIMITS, datetime.now(UTC) - HOUR)
    with pytest.raises(JobError, match="expired at") as caught:
        deadlines.start_attempt()
    assert caught.value.error_class is ErrorClass.EXPIRED


async def test_waiting_ends_when_the_job_expires_and_hearing_begins_the_clocks() -> None:
    deadlines = Deadlines(LIMITS, datetime.now(UTC) + HOUR)
    now = asyncio.get_running_loop().time()
    async with deadlines.expiry:
        deadlines.start_attempt()
        assert deadlines.expiry.when() == pytest.approx(now + 3600, abs=1)
        async with deadlines.attempt:
            assert deadlines.attempt.when() is None, "a backlog fails nothing"
            deadlines.heard(60)
            assert deadlines.expiry.when() is None
            assert deadlines.attempt.when() == pytest.approx(now + 1800, abs=1)
            deadlines.heard(7200)
            assert deadlines.attempt.when() == pytest.approx(now + 14_400, abs=1), "twice the audio"
        assert not deadlines.overdue()
        deadlines.start_attempt()
        assert deadlines.expiry.when() is not None, "the next attempt waits again"
        async with deadlines.attempt:
            assert deadlines.attempt.when() is None


async def test_a_window_that_ends_when_the_deadline_has_passed_raises_nothing() -> None:
    """The engine tells of it before the job's task has run: an error would be the engine's end."""
    deadlines = Deadlines(PipelineSettings.model_construct(attempt_seconds=0.0, job_seconds=0.0), None)
    deadlines.start_attempt()

    async def attempt() -> None:
        async with deadlines.attempt:
            await asyncio.sleep(60)

    task = asyncio.create_task(attempt())
    await asyncio.sleep(0)
    deadlines.heard(0.0)
    await asyncio.sleep(0)
    assert deadlines.attempt.expired()
    assert not task.done()
    deadlines.heard(0.0)
    with pytest.raises(TimeoutError):
        await task
    deadlines.heard(0.0)
    assert deadlines.overdue()
