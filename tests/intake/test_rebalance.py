"""Members that come and go: nothing is lost, nothing unfinished is committed, nothing is started twice."""

import asyncio
import gc
import time
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import CoordinatorLoadInProgressError, KafkaConnectionError
from aiokafka.protocol.commit import OffsetCommitRequest

from tests.conftest import MakeTopic
from tests.intake.conftest import Desk, MakeSettings, committed, intake_of, knows_nothing, produce, running, until
from v2td import metrics
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake import Intake
from v2td.jobs import Coordinates

PARTITIONS = 4


async def audit(settings: KafkaSettings, finished: list[set[Coordinates]], end: asyncio.Event) -> int:
    """Look again and again: everything below a committed offset must be finished. Returns how often it looked."""
    looks = 0
    while not end.is_set():
        for partition, offset in (await committed(settings)).items():  # the offsets first, then what is finished
            done = {at.offset for each in finished for at in each if at.partition == partition}
            missing = set(range(offset)) - done
            assert not missing, f"partition {partition} is committed up to {offset}, but {missing} is unfinished"
        looks += 1
        await asyncio.sleep(0.05)
    return looks


@pytest.mark.slow
async def test_members_come_and_go_without_loss(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic(PARTITIONS))
    desks = [Desk() for _ in range(3)]
    end = asyncio.Event()

    async def keep_producing() -> int:
        rounds = 0
        while not end.is_set():
            for partition in range(PARTITIONS):
                await produce(settings, [b"x"] * 5, partition=partition)
            rounds += 1
            await asyncio.sleep(0.2)
        return rounds

    async with asyncio.TaskGroup() as group, running(intake_of(settings, desks[0])) as first:
        producing = group.create_task(keep_producing())
        auditing = group.create_task(audit(settings, [desk.finished for desk in desks], end))
        await until(lambda: len(desks[0].finished) > 20)
        async with running(intake_of(settings, desks[1])) as second:
            await until(lambda: len(second.partitions) == len(first.partitions) == PARTITIONS // 2)
            await until(lambda: len(desks[1].finished) > 20)
            async with running(intake_of(settings, desks[2])) as third:
                await until(lambda: bool(third.partitions) and len(desks[2].finished) > 20)
        await until(lambda: len(first.partitions) == PARTITIONS)
        end.set()
        expected = {(partition, offset) for partition in range(PARTITIONS) for offset in range(5 * await producing)}

        def handled() -> set[tuple[int, int]]:
            return {(at.partition, at.offset) for desk in desks for at in desk.finished}

        await until(lambda: handled() >= expected)
        assert handled() == expected
    assert auditing.result() > 5
    assert await committed(settings) == dict.fromkeys(range(PARTITIONS), len(expected) // PARTITIONS)
    for desk in desks:
        assert len(desk.started) == len(set(desk.started)), "a member started a record twice"


@pytest.mark.slow
async def test_a_record_under_way_is_not_started_again_when_it_is_delivered_again(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    """A long job outlives the rebalance: where the partition stays it goes on, where it went it begins anew."""
    settings = settings_for(await topic(2))
    for partition in range(2):
        await produce(settings, [b"x"] * 3, partition=partition)
    stays, joins = Desk(slow={1}), Desk(slow={1})
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(intake_of(settings, stays)))
        await until(lambda: len(stays.finished) == 4)
        second = await stack.enter_async_context(running(intake_of(settings, joins)))
        await until(lambda: len(first.partitions) == len(second.partitions) == 1)
        kept, lost = first.partitions[0].partition, second.partitions[0].partition
        await until(lambda: joins.at_once == 1)
        await produce(settings, [b"y"], partition=kept)
        await until(lambda: Coordinates(*_key(stays, kept, 3)) in stays.finished)
        assert await committed(settings) == {0: 1, 1: 1}
        assert [(at.partition, at.offset) for at in stays.cancelled] == [(lost, 1)]
        assert [at for at in joins.started if at.partition == kept] == []
        stays.release.set()
        joins.release.set()
        await until(lambda: first.in_flight == second.in_flight == 0)
    assert sorted((at.partition, at.offset) for at in stays.started).count((kept, 1)) == 1
    assert await committed(settings) == {kept: 4, lost: 3}


def _key(desk: Desk, partition: int, offset: int) -> tuple[str, str, int, int, int]:
    at = next((each for each in desk.started if (each.partition, each.offset) == (partition, offset)), None)
    return (at.cluster_id, at.topic, partition, offset, at.timestamp_ms) if at else ("", "", 0, 0, 0)


async def test_progress_is_saved_before_partitions_go_and_before_the_end(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic(2))
    await produce(settings, [b"x"] * 3, partition=0)
    await produce(settings, [b"x"] * 3, partition=1)
    desk, other = Desk(slow={2}), Desk(slow={2})
    saved: list[dict[int, int]] = []

    async def save() -> None:
        saved.append(await committed(settings))
        if len(saved) == 1:
            raise ServiceError("save", "Postgres is away")

    intake = Intake(settings, desk.handle, knows_nothing, max_in_flight=9, blocked=lambda: False, before_revoke=save)
    async with running(intake, drain_seconds=0.3):
        await until(lambda: len(desk.finished) == 4)
        began = time.monotonic()
        async with running(intake_of(settings, other), drain_seconds=0.1):
            await until(lambda: other.at_once == 1 and len(intake.partitions) == 1)
            assert time.monotonic() - began < 3, "nobody waits half the timeout for a job that does not end"
            assert len(saved) == 1
            assert await committed(settings) == {0: 2, 1: 2}
    assert len(saved) >= 2
    assert saved[-1] == {0: 2, 1: 2}


@pytest.mark.slow
async def test_a_commit_is_tried_no_more_when_its_assignment_is_over(
    settings_for: MakeSettings, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka would try it as a member of the next generation, and set partitions back."""
    settings = settings_for(await topic(2))
    await produce(settings, [b"x"] * 3, partition=0)
    attempt, fails = GroupCoordinator._do_commit_offsets, True
    commits: list[
        tuple[object, set[int]]
    ] = []  # aiokafka's own object of a commit, and the generations it was tried in

    async def fail(coordinator: GroupCoordinator, assignment: object, offsets: object) -> None:
        generations = next((found for known, found in commits if known is offsets), None)
        if generations is None:
            commits.append((offsets, generations := set()))
        generations.add(coordinator.generation)
        if fails:
            raise CoordinatorLoadInProgressError
        await attempt(coordinator, assignment, offsets)

    monkeypatch.setattr(GroupCoordinator, "_do_commit_offsets", fail)
    async with running(intake_of(settings, Desk())) as first:
        await until(lambda: bool(commits))
        async with running(intake_of(settings, Desk())) as second:
            await until(lambda: len(first.partitions) == len(second.partitions) == 1)
            await asyncio.sleep(0.5)
            fails = False
            await until(lambda: len(commits) > 3)
    assert [generations for _, generations in commits if len(generations) > 1] == []
    assert len(set.union(*(generations for _, generations in commits))) > 1
    assert await committed(settings) == {0: 3}


async def test_a_commit_that_fails_after_its_time_leaves_nothing_in_the_log(
    settings_for: MakeSettings, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(await topic(), commit_timeout_seconds=0.2)
    await produce(settings, [b"x"])
    send, failed = GroupCoordinator._send_req, asyncio.Event()

    async def fail_late(coordinator: GroupCoordinator, request: object) -> object:
        if not isinstance(request, OffsetCommitRequest):
            return await send(coordinator, request)
        await asyncio.sleep(0.5)
        failed.set()
        raise KafkaConnectionError

    monkeypatch.setattr(GroupCoordinator, "_send_req", fail_late)
    async with running(intake_of(settings, Desk())):
        await until(failed.is_set)
    await asyncio.sleep(0.5)
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_what_a_rebalance_callback_raises_ends_the_run(settings_for: MakeSettings, topic: MakeTopic) -> None:
    """aiokafka would log it, and the intake would wait for the end of its assignment for ever."""
    settings = settings_for(await topic())

    async def look_up(*_: object) -> dict[int, frozenset[UUID]]:
        raise ZeroDivisionError

    async with intake_of(settings, Desk(), look_up) as intake:
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(intake.run(), 10)
    assert caught.group_contains(ZeroDivisionError)


async def test_a_rebalance_and_a_commit_are_timed(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic(2))
    rebalances = metrics.KAFKA_REBALANCE_SECONDS._sum.get()
    commits = metrics.KAFKA_COMMIT_SECONDS._sum.get()
    await produce(settings, [b"x"], partition=0)
    async with running(intake_of(settings, Desk())) as first:
        await until(lambda: len(first.partitions) == 2)
        assert metrics.KAFKA_REBALANCE_SECONDS._sum.get() == rebalances, "a first assignment is none"
        async with running(intake_of(settings, Desk())) as second:
            await until(lambda: len(first.partitions) == len(second.partitions) == 1)
            assert metrics.KAFKA_REBALANCE_SECONDS._sum.get() > rebalances
    assert metrics.KAFKA_COMMIT_SECONDS._sum.get() > commits
