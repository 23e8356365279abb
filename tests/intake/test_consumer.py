"""The intake against the real Kafka: what is handled, and above all what is committed."""

import asyncio
import time
from uuid import UUID, uuid4

import pytest
import structlog
from aiokafka import AIOKafkaProducer
from prometheus_client import REGISTRY

from tests.conftest import MakeTopic
from tests.intake.conftest import Desk, MakeSettings, committed, intake_of, produce, running, until
from v2td import failpoints, metrics
from v2td.errors import ServiceError
from v2td.intake import cluster_id
from v2td.intake.consumer import FETCH_BYTES
from v2td.intake.poller import Polled
from v2td.jobs import Coordinates, SourceRecord


async def test_records_reach_the_handler_as_they_are(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        headers = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b"")]
        await producer.send_and_wait(settings.topics[0], b"value", key=b"key", headers=headers, timestamp_ms=1_700_000)
        await producer.send_and_wait(settings.topics[0], None, key=b"only a key", timestamp_ms=1_700_001)
        await producer.send_and_wait(settings.topics[0], b"", timestamp_ms=1_700_002)
    desk = Desk()
    async with running(intake_of(settings, desk)) as intake:
        await until(lambda: len(desk.finished) == 3)
        assert intake.joined.is_set()
        assert [tuple(each) for each in intake.partitions] == [(settings.topics[0], 0)]
    cluster = await cluster_id(settings)
    assert desk.records == {
        Coordinates(cluster, settings.topics[0], 0, 0, 1_700_000): SourceRecord(b"key", b"value", tuple(headers)),
        Coordinates(cluster, settings.topics[0], 0, 1, 1_700_001): SourceRecord(b"only a key", None, ()),
        Coordinates(cluster, settings.topics[0], 0, 2, 1_700_002): SourceRecord(None, b"", ()),
    }


async def test_a_record_larger_than_a_fetch_arrives_too(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    sizes = [10, 5 * FETCH_BYTES, 10]
    for size in sizes:  # each in a batch of its own
        await produce(settings, [b"x" * size])
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) == 3)
    assert [len(record.value or b"") for record in desk.records.values()] == sizes


async def test_a_slow_record_holds_the_commit_back(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 100)
    desk = Desk(slow={40})
    async with running(intake_of(settings, desk, max_in_flight=200)) as intake:
        await until(lambda: len(desk.finished) == 99)
        await asyncio.sleep(0.5)  # several commit intervals
        assert await committed(settings) == {0: 40}
        (shown,) = intake.status()
        assert (shown["topic"], shown["partition"]) == (settings.topics[0], 0)
        assert (shown["committed"], shown["lag"]) == (40, 60)
        desk.release.set()

        async def done() -> bool:
            return await committed(settings) == {0: 100}

        await until(done)
        assert intake.status()[0]["lag"] == 0


async def test_stop_drains_commits_and_a_restart_goes_on_from_there(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic(), commit_interval_seconds=60, commit_batch=1000)
    await produce(settings, [b"x"] * 30)
    desk = Desk(slow={7})
    async with running(intake_of(settings, desk)) as intake:
        await until(lambda: len(desk.finished) == 29)
        asyncio.get_running_loop().call_later(0.3, desk.release.set)
        intake.stop(5)
        assert intake.stopping
    assert len(desk.finished) == 30
    assert await committed(settings) == {0: 30}
    await produce(settings, [b"y"] * 5)
    later = Desk()
    async with running(intake_of(settings, later)):
        await until(lambda: len(later.finished) == 5)
    assert sorted(later.offsets) == list(range(30, 35))


async def test_what_the_drain_cannot_wait_for_is_delivered_again(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 10)
    desk = Desk(slow={4})
    async with running(intake_of(settings, desk), drain_seconds=0.5):
        await until(lambda: len(desk.finished) == 9)
        began = time.monotonic()
    assert 0.4 < time.monotonic() - began < 4
    assert [at.offset for at in desk.cancelled] == [4]
    assert await committed(settings) == {0: 4}
    later = Desk()
    async with running(intake_of(settings, later)):
        await until(lambda: len(later.finished) == 6)
    assert sorted(later.offsets) == list(range(4, 10))
    assert await committed(settings) == {0: 10}


async def test_our_own_fault_ends_the_run_and_consumes_nothing(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 10)
    desk = Desk(slow=set(range(10)))

    async def handle(at: Coordinates, record: SourceRecord, durable: frozenset[UUID]) -> None:
        if at.offset == 3:
            raise ServiceError("write", "no schema")
        await desk.handle(at, record, durable)

    intake = intake_of(settings, desk)
    intake._handle = handle
    async with intake:
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(intake.run(), 10)
    assert caught.group_contains(ServiceError, match="no schema")
    assert intake.in_flight == 0
    assert len(desk.cancelled) == len(desk.started)
    assert await committed(settings) == {}


async def test_intake_pauses_at_its_limit_and_resumes(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic(3))
    for partition in range(3):
        await produce(settings, [b"x"] * 40, partition=partition)
    desk = Desk(slow=set(range(40)))
    async with running(intake_of(settings, desk, max_in_flight=10)) as intake:
        await until(lambda: intake.in_flight == 10)
        await asyncio.sleep(0.6)
        assert (intake.in_flight, len(desk.started)) == (10, 10)
        assert metrics.KAFKA_PAUSED._value.get() == 1
        desk.release.set()
        await until(lambda: len(desk.finished) == 120)
        assert desk.most_at_once == 10
        await until(lambda: metrics.KAFKA_PAUSED._value.get() == 0)
    assert await committed(settings) == {0: 40, 1: 40, 2: 40}


@pytest.mark.slow
async def test_a_paused_member_stays_in_the_group(settings_for: MakeSettings, topic: MakeTopic) -> None:
    """Polling goes on while nothing is taken: max_poll_interval is not exceeded."""
    settings = settings_for(await topic(), max_poll_interval_seconds=6)
    await produce(settings, [b"x"] * 3)
    desk = Desk(slow={0, 1, 2})
    rebalances = metrics.KAFKA_REBALANCES._value.get()
    async with running(intake_of(settings, desk, max_in_flight=1)) as intake:
        await asyncio.sleep(8)
        assert desk.offsets == [0]
        assert not intake.stalled(1)
        desk.release.set()
        await until(lambda: len(desk.finished) == 3)
    assert metrics.KAFKA_REBALANCES._value.get() == rebalances + 1
    assert await committed(settings) == {0: 3}


async def test_nothing_is_taken_while_another_room_says_so(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    trouble = asyncio.Event()
    trouble.set()
    desk = Desk()
    async with running(intake_of(settings, desk, blocked=trouble.is_set)) as intake:
        await until(intake.joined.is_set)
        await produce(settings, [b"x"] * 5)
        await asyncio.sleep(0.6)
        assert desk.started == []
        trouble.clear()
        await until(lambda: len(desk.finished) == 5)


async def test_what_a_poll_brings_meanwhile_is_read_again_later(
    settings_for: MakeSettings, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An assignment resumes its partitions in the middle of a poll: a paused instance that starts would take some."""
    settings = settings_for(await topic(partitions=2))
    await produce(settings, [b"x"] * 20)
    trouble, met = asyncio.Event(), asyncio.Event()
    desk = Desk()
    intake = intake_of(settings, desk, blocked=trouble.is_set)
    async with running(intake):
        poll = intake._poller.poll

        async def poll_until_trouble(max_records: int) -> Polled:
            polled = await poll(max_records)
            if polled.batches and not met.is_set():
                met.set()
                trouble.set()
            return polled

        monkeypatch.setattr(intake._poller, "poll", poll_until_trouble)
        async with asyncio.timeout(20):
            await met.wait()
        await asyncio.sleep(0.6)
        assert desk.started == []
        trouble.clear()
        await until(lambda: len(desk.finished) == 20)
    assert len(desk.started) == 20
    assert sum((await committed(settings)).values()) == 20


async def test_the_distance_to_the_oldest_unfinished_record_is_bounded(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic(), max_uncommitted_records=20)
    await produce(settings, [b"x"] * 100)
    desk = Desk(slow={0})
    async with running(intake_of(settings, desk, max_in_flight=8)):
        await until(lambda: len(desk.finished) >= 19)
        await asyncio.sleep(0.5)
        assert max(desk.offsets) < 20 + 8
        desk.release.set()
        await until(lambda: len(desk.finished) == 100)
    assert await committed(settings) == {0: 100}


async def test_aborted_records_are_never_seen_and_hold_nothing_back(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic())
    async with AIOKafkaProducer(
        bootstrap_servers=list(settings.bootstrap_servers), transactional_id=settings.group_id
    ) as producer:
        for values, commit in (("ab", True), ("XY", False), ("cd", True), ("Z", False), ("e", True)):
            await producer.begin_transaction()
            for value in values:
                await producer.send_and_wait(settings.topics[0], value.encode())
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    desk = Desk()
    async with running(intake_of(settings, desk)):
        await until(lambda: len(desk.finished) >= 5)
    assert sorted(record.value or b"" for record in desk.records.values()) == [b"a", b"b", b"c", b"d", b"e"]
    last = max(desk.offsets)
    assert last > 8, "the gaps are real"
    assert await committed(settings) == {0: last + 1}


async def test_what_was_finished_behind_the_committed_offset_is_told_to_the_handler(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 6)
    first = Desk(slow={2})
    async with running(intake_of(settings, first), drain_seconds=0.2):
        await until(lambda: len(first.finished) == 5)
    known = {3: frozenset({uuid4()}), 5: frozenset({uuid4(), uuid4()})}
    asked = []

    async def look_up(cluster: str, topic_name: str, partition: int, offset: int) -> dict[int, frozenset[UUID]]:
        asked.append((cluster, topic_name, partition, offset))
        return dict(known)

    second = Desk()
    async with running(intake_of(settings, second, look_up)):
        await until(lambda: len(second.finished) == 4)
    assert asked == [(await cluster_id(settings), settings.topics[0], 0, 2)]
    assert {at.offset: ids for at, ids in second.durable.items()} == {2: frozenset(), 4: frozenset(), **known}


async def test_what_comes_again_is_counted_as_skipped_or_redone(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 9)
    first = Desk(slow={2, 4, 7, 8})
    async with running(intake_of(settings, first), drain_seconds=0.2):
        await until(lambda: len(first.finished) == 5)

    async def look_up(*_: object) -> dict[int, frozenset[UUID]]:
        other = {4: frozenset({uuid4()})}  # of a record that had that offset before
        return other | {at.offset: frozenset({at.row_id()}) for at in first.finished if at.offset >= 2}

    redone = metrics.JOBS_REDONE._value.get()
    second = Desk()
    with structlog.testing.capture_logs() as logs:
        async with running(intake_of(settings, second, look_up)):
            await until(lambda: len(second.finished) == 7)
    assert metrics.JOBS_REDONE._value.get() == redone + 1, "2; what is known of 4 is another's, of 7 and 8 nothing"
    (said,) = [each for each in logs if "redone" in each]
    assert (said["skipped"], said["redone"]) == (3, 1)


async def test_a_poll_loop_that_hangs_in_its_own_part_is_seen(
    settings_for: MakeSettings, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog is fed by it."""
    settings = settings_for(await topic())
    monkeypatch.setenv(failpoints.ARMED_VARIABLE, "")  # which arm() sets for children
    monkeypatch.setenv(failpoints.VARIABLE, "intake.received=sleep1.5")
    failpoints.arm()
    try:
        async with running(intake_of(settings, Desk())) as intake:
            await asyncio.sleep(1)
            assert not intake.stalled(0.5)  # waiting for records is no hanging
            await produce(settings, [b"x"])
            await until(lambda: intake.stalled(0.5))
            await until(lambda: not intake.stalled(0.5))
    finally:
        monkeypatch.delenv(failpoints.VARIABLE)
        failpoints.arm()


async def test_records_under_way_are_published_by_partition(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic(2))
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        for age, partition in ((900, 0), (600, 1), (300, 1)):
            written = int((time.time() - age) * 1000)
            await producer.send_and_wait(settings.topics[0], b"x", partition=partition, timestamp_ms=written)

    def published(name: str) -> list[float | None]:
        labels = {"topic": settings.topics[0]}
        return [REGISTRY.get_sample_value(f"v2td_kafka_{name}", labels | {"partition": each}) for each in "01"]

    desk = Desk(slow={0, 1})
    async with running(intake_of(settings, desk)):
        await until(lambda: published("in_flight_records") == [1, 2])
        assert published("oldest_unfinished_seconds") == [pytest.approx(900, abs=10), pytest.approx(600, abs=10)]
        desk.release.set()
        await until(lambda: published("in_flight_records") == published("oldest_unfinished_seconds") == [0, 0])


async def test_a_database_that_cannot_be_asked_holds_nothing_up(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    await produce(settings, [b"x"] * 3)

    async def look_up(*_: object) -> dict[int, frozenset[UUID]]:
        raise ServiceError("look up", "Postgres is away")

    desk = Desk()
    async with running(intake_of(settings, desk, look_up)):
        await until(lambda: len(desk.finished) == 3)


async def test_a_long_look_up_is_waited_for(settings_for: MakeSettings, topic: MakeTopic) -> None:
    """After the group's offsets were set back: what was not looked up is done again, and it may be much."""
    settings = settings_for(await topic(), commit_timeout_seconds=0.5)
    await produce(settings, [b"x"])
    known = {0: frozenset({uuid4()})}

    async def look_up(*_: object) -> dict[int, frozenset[UUID]]:
        await asyncio.sleep(1.5)
        return known

    desk = Desk()
    async with running(intake_of(settings, desk, look_up)):
        await until(lambda: len(desk.finished) == 1)
    assert {at.offset: ids for at, ids in desk.durable.items()} == known


async def test_a_missing_broker_is_our_fault_and_named(settings_for: MakeSettings) -> None:
    settings = settings_for("jobs", bootstrap_servers=["127.0.0.1:1"])
    with pytest.raises(ServiceError, match=r"no broker at 127\.0\.0\.1:1"):
        async with intake_of(settings, Desk()):
            pytest.fail("it did connect")
