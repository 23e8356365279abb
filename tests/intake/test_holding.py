"""Records of the retry topic wait for their time; nothing else does."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MakeTopic
from tests.intake.conftest import Desk, MakeSettings, committed, intake_of, running, until
from v2td import metrics
from v2td.config import KafkaSettings
from v2td.intake import holding
from v2td.intake.holding import not_before
from v2td.messages.headers import NOT_BEFORE


@given(st.integers(0, 10**15))
def test_the_moment_is_what_the_header_says(milliseconds: int) -> None:
    assert not_before(((NOT_BEFORE, str(milliseconds).encode()),)) == milliseconds / 1000


@given(st.binary(max_size=40))
def test_no_header_is_too_strange(value: bytes) -> None:
    moment = not_before(((NOT_BEFORE, value),))
    assert moment is None or moment == int(value) / 1000


def test_the_last_header_counts_and_others_do_not() -> None:
    assert not_before(()) is None
    assert not_before((("other", b"5000"),)) is None
    assert not_before(((NOT_BEFORE, b"1000"), (NOT_BEFORE, b"2000"), ("other", b"3000"))) == 2.0
    for strange in (b"", b"-1", b"1e9", b" 1", "٣".encode(), b"9" * 17):
        assert not_before(((NOT_BEFORE, strange),)) is None


async def test_a_clock_that_jumps_neither_holds_for_ever_nor_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(holding, "LOOK_SECONDS", 0.01)
    waiting = asyncio.create_task(holding.until_due(1900.0, longest=60))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    now[0] = 1901.0  # it jumped forward
    await asyncio.wait_for(waiting, 1)
    now[0] = -1e9  # and far back
    began = time.monotonic()
    await holding.until_due(1900.0, longest=0.2)
    assert 0.1 < time.monotonic() - began < 1


async def send(settings: KafkaSettings, topic: str, delays: list[float]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        for delay in delays:
            due = str(int((time.time() + delay) * 1000)).encode()
            await producer.send_and_wait(topic, b"x", headers=[(NOT_BEFORE, due)])


async def test_records_wait_for_their_time_and_hold_up_nothing_else(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic(), retry_topic=await topic())
    jobs, retry = settings.topics[0], str(settings.retry_topic)
    began = time.time()
    await send(settings, retry, [-5, 4.0, 4.2])
    await send(settings, jobs, [3600] * 8)
    desk = Desk()
    rebalances = metrics.KAFKA_REBALANCES._value.get()
    async with running(intake_of(settings, desk, max_in_flight=2)) as intake:
        await until(lambda: len(desk.finished) == 9)  # all of the jobs, and the one that is due
        assert time.time() - began < 3.5
        assert intake.in_flight == 0
        assert [at.offset for at in desk.started if at.topic == retry] == [0]
        await send(settings, retry, [-5])  # behind ones that are not due: their partition is paused
        await asyncio.sleep(0.5)
        assert [at.offset for at in desk.started if at.topic == retry] == [0]
        await until(lambda: len(desk.finished) == 12)
        assert 4.2 <= time.time() - began < 8
    assert sorted(at.offset for at in desk.started if at.topic == retry) == [0, 1, 2, 3]
    assert metrics.KAFKA_REBALANCES._value.get() == rebalances + 1


async def test_held_records_delay_no_shutdown_and_come_again(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic(), retry_topic=await topic())
    await send(settings, str(settings.retry_topic), [-1, 2.5, 2.5])
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 1)
        await asyncio.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert await committed(settings) == {0: 1}
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 3)
    assert desk.offsets == [0, 1, 2]
    assert desk.cancelled == []
    assert await committed(settings) == {0: 3}


async def test_no_record_waits_longer_than_records_are_made_to(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic(), retry_topic=await topic(), retry_delay_seconds=1)
    await send(settings, str(settings.retry_topic), [3600])
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 1, seconds=5)


async def test_a_retry_topic_that_is_not_there_is_made(settings_for: MakeSettings, topic: MakeTopic) -> None:
    name = f"{await topic()}-retry"
    settings = settings_for(await topic(), retry_topic=name)
    desk = Desk()
    async with running(intake_of(settings, desk)) as intake:
        await until(lambda: len(intake.partitions) == 2)
        await send(settings, name, [0.2])
        await until(lambda: len(desk.finished) == 1)
