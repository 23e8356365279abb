"""Offsets that are not what they were: topics created anew, offsets reset by an operator, records deleted unread."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import CoordinatorLoadInProgressError

from tests.conftest import MakeTopic
from tests.intake.conftest import Desk, MakeSettings, committed, intake_of, produce, running, until
from v2td import metrics
from v2td.config import KafkaSettings
from v2td.intake import admin_client
from v2td.intake.offsets import Partition
from v2td.intake.topics import Commit, TopicIds, from_metadata, to_metadata


def test_metadata_of_others_names_no_topic() -> None:
    topic_id = uuid4()
    assert from_metadata(to_metadata(topic_id)) == topic_id
    for other in (None, "", "topic_id=", "NO_METADATA", f"x topic_id={topic_id}", to_metadata(None)):
        assert from_metadata(other) is None


async def test_topics_have_ids_that_change_when_they_are_created_anew(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic(), await topic())
    first, second = settings.topics
    async with TopicIds(settings) as ids:
        before = await ids.current([first, second, "not-there"])
        assert set(before) == {first, second}
        assert len(set(before.values())) == 2
        assert await ids.of_commits([Partition(first, 0)]) == {Partition(first, 0): Commit(None, None)}
        await create_anew(settings, first)

        async def changed() -> bool:
            now = await ids.current([first, second])
            return first in now and now[first] != before[first] and now[second] == before[second]

        await until(changed)


async def create_anew(settings: KafkaSettings, topic: str, partitions: int = 1) -> None:
    async with admin_client(settings) as admin:
        await admin.delete_topics([topic])
        await until(lambda: _gone(admin, topic))
        await admin.create_topics([NewTopic(topic, partitions, 1)])
        await until(lambda: _there(admin, topic))


async def _gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return topic not in await admin.list_topics()


async def _there(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return not await _gone(admin, topic)


async def commit_as_a_tool_does(settings: KafkaSettings, offset: int, metadata: str = "") -> None:
    async with AIOKafkaConsumer(
        bootstrap_servers=list(settings.bootstrap_servers), group_id=settings.group_id, enable_auto_commit=False
    ) as consumer:
        tp = TopicPartition(settings.topics[0], 0)
        consumer.assign([tp])
        await consumer.commit({tp: (offset, metadata)})


def is_committed(settings: KafkaSettings, offset: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await committed(settings) == {0: offset}

    return check


async def test_a_topic_created_anew_while_nobody_looked_is_read_from_its_beginning(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"old"] * 5)
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 5)
    async with TopicIds(settings) as ids:
        (old,) = (await ids.of_commits([Partition(settings.topics[0], 0)])).values()
        assert old == Commit(5, (await ids.current(settings.topics))[settings.topics[0]])
    await create_anew(settings, settings.topics[0])
    await produce(settings, [b"new"] * 9)
    # The brokers forget a deleted topic's offsets, some time later; here a commit of the old one has survived.
    await asyncio.sleep(1)
    await commit_as_a_tool_does(settings, 5, to_metadata(old.topic_id))
    asked = []

    async def look_up(_cluster: str, _topic: str, partition: int, first: int) -> dict[int, frozenset[UUID]]:
        asked.append((partition, first))
        return {}

    desk = Desk()
    recreated = metrics.TOPICS_RECREATED.labels(settings.topics[0])
    async with running(intake_of(settings, desk, look_up)):
        await until(lambda: len(desk.finished) == 9)
        await until(is_committed(settings, 9))
    assert recreated._value.get() == 1
    assert asked == [(0, 0)]
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await produce(settings, [b"later"])
        await until(lambda: len(desk.finished) == 1)
    assert recreated._value.get() == 1, "the commit names the new topic"


@pytest.mark.parametrize("question", ["of_commits", "current"])
@pytest.mark.parametrize("seconds", [0, 5], ids=["once", "longer than an assignment may last"])
async def test_nothing_is_read_before_it_is_known_of_which_topic_a_commit_is(
    settings_for: MakeSettings, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, question: str, seconds: float
) -> None:
    settings = settings_for(await topic(), metadata_max_age_seconds=1, commit_timeout_seconds=2)
    await produce(settings, [b"new"] * 9)
    await commit_as_a_tool_does(settings, 5, to_metadata(uuid4()))
    answer, ends = getattr(TopicIds, question), []

    async def fail_at_first(ids: TopicIds, about: object) -> object:
        ends.append(time.monotonic() + seconds)
        if len(ends) == 1 or time.monotonic() < ends[0]:
            raise CoordinatorLoadInProgressError
        return await answer(ids, about)

    monkeypatch.setattr(TopicIds, question, fail_at_first)
    desk = Desk()
    async with running(intake_of(settings, desk)):
        while time.monotonic() < (ends[0] if ends else math.inf) - 0.5:
            await asyncio.sleep(0.1)
            assert not desk.started
            assert await committed(settings) == {0: 5}
        await until(lambda: len(desk.finished) == 9)
        await until(is_committed(settings, 9))
    assert sorted(desk.offsets) == list(range(9))


async def test_what_waited_goes_on_at_the_commit_of_its_own_topic(
    settings_for: MakeSettings, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(await topic(2), metadata_max_age_seconds=1, commit_timeout_seconds=1)
    await produce(settings, [b"x"] * 5, partition=0)
    async with running(intake_of(settings, desk := Desk())):
        await until(lambda: len(desk.finished) == 5)
    await produce(settings, [b"x"] * 5, partition=0)
    await produce(settings, [b"x"] * 3, partition=1)
    answer, knows = TopicIds.of_commits, asyncio.Event()

    async def hang(ids: TopicIds, partitions: Collection[Partition]) -> object:
        await knows.wait()
        return await answer(ids, partitions)

    monkeypatch.setattr(TopicIds, "of_commits", hang)
    async with running(intake_of(settings, desk := Desk())) as intake:
        await until(intake.joined.is_set)
        assert intake.partitions == ()
        knows.set()
        await until(lambda: len(desk.finished) == 8)
    assert sorted((at.partition, at.offset) for at in desk.started) == [
        *((0, offset) for offset in range(5, 10)),
        *((1, offset) for offset in range(3)),
    ]
    assert await committed(settings) == {0: 10, 1: 3}


@pytest.mark.slow
async def test_a_topic_created_anew_while_we_read_it_is_read_from_its_beginning(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic(), metadata_max_age_seconds=1)
    await produce(settings, [b"old"] * 5)
    desk = Desk(slow={4})
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 4)
        await create_anew(settings, settings.topics[0])
        await produce(settings, [b"new"] * 12)  # our position is in the middle of them

        def new_ones() -> set[int]:
            return {at.offset for at in desk.started if desk.records[at].value == b"new"}

        await until(lambda: new_ones() == set(range(12)), seconds=40)
        await asyncio.sleep(0.5)
        assert (await committed(settings))[0] <= 4
        desk.release.set()
        await until(is_committed(settings, 12))


@pytest.mark.parametrize("offset", [0, 3, 10])
async def test_an_operator_who_resets_the_offsets_is_obeyed(
    settings_for: MakeSettings, topic: MakeTopic, offset: int
) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 6)
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 6)
    await produce(settings, [b"x"] * 6)
    await commit_as_a_tool_does(settings, offset)
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 12 - offset)
    assert sorted(desk.offsets) == list(range(offset, 12))
    assert await committed(settings) == {0: 12}


async def delete_records(settings: KafkaSettings, before: int) -> None:
    async with admin_client(settings) as admin:
        await admin.delete_records({TopicPartition(settings.topics[0], 0): RecordsToDelete(before_offset=before)})


async def test_records_deleted_before_an_assignment_are_counted_once(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 3)
    async with running(intake_of(settings, desk := Desk())):
        await until(lambda: len(desk.finished) == 3)
    await produce(settings, [b"x"] * 7)
    await delete_records(settings, 10)
    deleted = metrics.RECORDS_DELETED.labels(settings.topics[0])
    async with running(intake_of(settings, desk := Desk())) as intake:
        await until(intake.joined.is_set)
        assert deleted._value.get() == 7
        await until(is_committed(settings, 10))
    async with running(intake_of(settings, desk)):
        await produce(settings, [b"x"] * 2)
        await until(lambda: len(desk.finished) == 2)
    assert deleted._value.get() == 7


def _has_finished(desk: Desk, count: int) -> bool:
    return len(desk.finished) == count


async def test_records_deleted_while_we_read_are_counted_and_gaps_are_not(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic())
    stopped = asyncio.Event()
    deleted = metrics.RECORDS_DELETED.labels(settings.topics[0])
    async with (
        AIOKafkaProducer(
            bootstrap_servers=list(settings.bootstrap_servers), transactional_id=settings.group_id
        ) as producer,
        running(intake_of(settings, desk := Desk(), blocked=stopped.is_set)),
    ):
        for number in range(4):  # a marker behind each
            async with producer.transaction():
                await producer.send_and_wait(settings.topics[0], b"x")
            await until(partial(_has_finished, desk, number + 1))
        assert desk.offsets == [0, 2, 4, 6]
        stopped.set()
        await asyncio.sleep(0.5)
        await produce(settings, [b"y"] * 10)  # 8 to 17
        await delete_records(settings, 15)
        stopped.clear()
        await until(lambda: len(desk.finished) == 7)
        await until(lambda: deleted._value.get() > 0)
        await asyncio.sleep(0.3)
    assert desk.offsets[4:] == [15, 16, 17]
    assert deleted._value.get() in (7, 8), "8 to 14, and perhaps the marker at 7"
    assert await committed(settings) == {0: 18}
