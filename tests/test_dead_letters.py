"""What `v2td dlq replay` sends: the whole record, to where it came from, once it is asked for in its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import SecretStr

from tests.conftest import MakeTopic
from tests.services.state import Services
from v2td.config import DatabaseSettings, KafkaSettings, Settings
from v2td.dead_letters import Replayed, Result, letter_id, open_replayer, without_ours
from v2td.errors import ErrorClass, ServiceError
from v2td.intake import DeadLetters, admin_client, cluster_id
from v2td.jobs import Coordinates, Failure, SourceRecord
from v2td.store import Database, Writer, find_replay, ledger, open_database, upgrade

VALUE = b'{"audio_url": "https://example.com/a.wav"}'
LONG = b"v" * 200_000
OTHER_CLUSTER = "not-this-cluster"

Fail = Callable[..., Awaitable[Failure]]


@pytest.fixture
async def settings(services: Services, topic: MakeTopic, database: str) -> Settings:
    await upgrade(database)
    kafka = KafkaSettings(
        bootstrap_servers=(services.kafka_bootstrap,),
        topics=(await topic(name="jobs"),),
        dead_letter_topic=await topic(partitions=2, name="dead"),
    )
    return Settings(kafka=kafka, database=DatabaseSettings(dsn=SecretStr(database), pool_min=0, flush_seconds=0.01))


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings.database) as opened:
        yield opened


@pytest.fixture
async def fail(settings: Settings, store: Database) -> AsyncIterator[Fail]:
    """`await fail(record, offset=1, topic=…)` leaves a failure as the daemon does: dead letter, then row."""

    async def unwritable(failure: Failure) -> None:
        raise AssertionError(failure.reason)

    cluster = await cluster_id(settings.kafka)
    writer = Writer(store, settings.database, unwritable)
    async with DeadLetters(settings.kafka) as letters, asyncio.TaskGroup() as group:

        async def leave(
            record: SourceRecord, *, letter: bool = True, whole_in: Coordinates | None = None, **at: Any
        ) -> Failure:
            where: dict[str, Any] = {
                "cluster_id": cluster,
                "topic": settings.kafka.topics[0],
                "partition": 0,
                "offset": 1,
            } | at
            where.setdefault("timestamp_ms", 1_780_000_000_123)
            failure = Failure(Coordinates(**where), ErrorClass.TIMEOUT, "too slow", 3, record, whole_in=whole_in)
            if letter:
                await letters.send(failure)
            written, _ = await writer.write(failure)
            assert isinstance(written, Failure)
            return written

        group.create_task(writer.run())
        yield leave
        writer.close()


def row_id(failure: Failure) -> UUID:
    return failure.coordinates.row_id()


async def replay(settings: Settings, *ids: UUID, again: bool = False, dry_run: bool = False) -> dict[UUID, Replayed]:
    async with open_replayer(settings, again=again, dry_run=dry_run) as replayer:
        done = [each async for each in replayer.replay(ids)]
    assert len(done) == len(ids)
    return {each.id: each for each in done}


async def state(store: Database, failure: Failure) -> str | None:
    (found,) = await ledger.failed_records(store, [row_id(failure)])
    return found.failure.replay_state


async def sent(settings: Settings, topic: str | None = None) -> list[ConsumerRecord]:
    """All that is in the topic of jobs."""
    async with AsyncExitStack() as stack:
        consumer = AIOKafkaConsumer(
            topic or settings.kafka.topics[0],
            bootstrap_servers=list(settings.kafka.bootstrap_servers),
            auto_offset_reset="earliest",
        )
        stack.push_async_callback(consumer.stop)
        await consumer.start()
        end = sum((await consumer.end_offsets(consumer.assignment())).values())
        found: list[ConsumerRecord] = []
        while len(found) < end:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += records
        return found


async def test_the_record_goes_where_it_came_from(settings: Settings, store: Database, fail: Fail) -> None:
    forged = ("v2td-replay-of", str(uuid4()).encode())
    record = SourceRecord(b"key", VALUE, (("trace", b"\xff\0"), forged, ("v2td-not-before", b"9"), ("trace", b"2")))
    failure = await fail(record)
    (done,) = (await replay(settings, row_id(failure))).values()
    assert done == Replayed(row_id(failure), Result.SENT, f"{settings.kafka.topics[0]}/0/0")
    (message,) = await sent(settings)
    assert (message.key, message.value) == (b"key", VALUE)
    ours = ("v2td-replay-of", str(row_id(failure)).encode())
    assert message.headers == (("trace", b"\xff\0"), ("trace", b"2"), ours)
    assert await state(store, failure) == "requested"
    arrived = SourceRecord(message.key, message.value, message.headers)
    at = Coordinates("", message.topic, 0, 0, message.timestamp)
    assert await find_replay(store, row_id(failure), arrived, at) == failure.coordinates


async def test_a_record_from_before_1970(settings: Settings, store: Database, fail: Fail) -> None:
    """Kafka takes any time but those in the future; it takes part in the job's id."""
    failure = await fail(SourceRecord(None, VALUE, ()), timestamp_ms=-7)
    (done,) = (await replay(settings, row_id(failure))).values()
    assert done.result is Result.SENT
    (message,) = await sent(settings)
    arrived = SourceRecord(message.key, message.value, message.headers)
    at = Coordinates("", message.topic, 0, 0, message.timestamp)
    assert await find_replay(store, row_id(failure), arrived, at) == failure.coordinates


async def test_a_row_that_does_not_tell_the_records_time_is_refused(
    settings: Settings, store: Database, fail: Fail
) -> None:
    failure = await fail(SourceRecord(None, VALUE, ()), timestamp_ms=-7)
    async with store.acquire() as connection:
        await connection.execute("UPDATE failures SET record_timestamp_ms = NULL")  # as a version before left it
    (done,) = (await replay(settings, row_id(failure))).values()
    assert done.result is Result.REFUSED
    assert "does not tell its record's time" in done.told
    assert await sent(settings) == []
    assert await state(store, failure) is None


async def test_what_was_asked_for_is_left_alone_unless_again(settings: Settings, store: Database, fail: Fail) -> None:
    failure = await fail(SourceRecord(None, VALUE, ()))
    await replay(settings, row_id(failure))
    (second,) = (await replay(settings, row_id(failure))).values()
    assert (second.result, second.told) == (Result.LEFT, "was asked for before")
    assert len(await sent(settings)) == 1
    (third,) = (await replay(settings, row_id(failure), again=True)).values()
    assert (third.result, len(await sent(settings))) == (Result.SENT, 2)
    assert await state(store, failure) == "requested"


async def test_nothing_happens_on_a_dry_run(settings: Settings, store: Database, fail: Fail) -> None:
    short = await fail(SourceRecord(None, VALUE, ()))
    long = await fail(SourceRecord(None, LONG, ()), offset=2)
    lost = await fail(SourceRecord(None, LONG, ()), offset=3, letter=False)
    done = await replay(settings, *map(row_id, (short, long, lost)), dry_run=True)
    assert [done[row_id(each)].result for each in (short, long, lost)] == [Result.SENT, Result.SENT, Result.REFUSED]
    assert done[row_id(long)].told == f"would go to {settings.kafka.topics[0]}"
    assert await sent(settings) == []
    assert [await state(store, each) for each in (short, long, lost)] == [None, None, None]


async def test_a_long_record_is_taken_from_the_dead_letters(settings: Settings, store: Database, fail: Fail) -> None:
    many = await asyncio.gather(*(fail(SourceRecord(b"%d" % n, LONG, (("n", b"x"),)), offset=n) for n in range(20)))
    wanted = many[3::4]
    done = await replay(settings, *map(row_id, wanted))
    assert {each.result for each in done.values()} == {Result.SENT}
    messages = await sent(settings)
    assert {message.key for message in messages} == {failure.record.key for failure in wanted}
    for message in messages:
        assert (message.value, message.headers[0]) == (LONG, ("n", b"x"))
        named = UUID(message.headers[1][1].decode())
        arrived = SourceRecord(message.key, message.value, message.headers)
        at = Coordinates("", message.topic, 0, message.offset, message.timestamp)
        assert isinstance(await find_replay(store, named, arrived, at), Coordinates)
    assert [await state(store, failure) for failure in many].count("requested") == len(wanted)


async def test_headers_that_found_no_room_come_from_the_dead_letter(settings: Settings, fail: Fail) -> None:
    headers = (("a", b"1"), ("b", b"x" * 70_000), ("c", b"2"))
    failure = await fail(SourceRecord(None, VALUE, headers))
    await replay(settings, row_id(failure))
    (message,) = await sent(settings)
    assert message.headers[:-1] == headers
    assert message.key is None  # as it was, though the letter has one


async def test_a_record_that_is_nowhere_whole_is_refused(settings: Settings, store: Database, fail: Fail) -> None:
    truncated = await fail(SourceRecord(None, b"v" * 2_000_000, ()))  # too large for a dead letter
    lost = await fail(SourceRecord(None, LONG, ()), offset=2, letter=False)
    other = await fail(SourceRecord(None, LONG, ()), offset=3, letter=False)
    async with DeadLetters(settings.kafka) as letters:  # of another record, under the id of that one
        await letters.send(Failure(other.coordinates, ErrorClass.TIMEOUT, "", 1, SourceRecord(None, b"w" + LONG, ())))
        await letters.send(Failure(other.coordinates, ErrorClass.TIMEOUT, "", 1, SourceRecord(b"k", LONG, ())))
    short = await fail(SourceRecord(None, VALUE, ()), offset=4)
    done = await replay(settings, *map(row_id, (truncated, lost, other, short)))
    assert done.pop(row_id(short)).result is Result.SENT
    assert {each.result for each in done.values()} == {Result.REFUSED}
    assert settings.kafka.dead_letter_topic in done[row_id(lost)].told
    assert len(await sent(settings)) == 1
    assert [await state(store, each) for each in (truncated, lost, other)] == [None, None, None]


async def test_of_the_failures_of_a_large_record_the_first_is_sent_and_the_others_are_refused(
    settings: Settings, fail: Fail
) -> None:
    record = SourceRecord(None, LONG, ())
    first = await fail(record)
    other = await fail(record, record_index=1, whole_in=first.coordinates)
    done = await replay(settings, row_id(first), row_id(other))
    assert (done[row_id(first)].result, done[row_id(other)].result) == (Result.SENT, Result.REFUSED)
    assert "there is no record to send" in done[row_id(other)].told
    assert [message.value for message in await sent(settings)] == [LONG]


async def test_letters_of_others_are_passed_over(settings: Settings, services: Services, fail: Fail) -> None:
    failure = await fail(SourceRecord(None, LONG, ()), letter=False)
    async with AsyncExitStack() as stack:
        producer = AIOKafkaProducer(bootstrap_servers=services.kafka_bootstrap)
        stack.push_async_callback(producer.stop)
        await producer.start()
        for headers in ([], [("v2td-id", b"\xff")], [("v2td-id", b"no id")], [("v2td-id", str(uuid4()).encode())]):
            await producer.send_and_wait(settings.kafka.dead_letter_topic, b"x", headers=headers)
        await producer.send_and_wait(
            settings.kafka.dead_letter_topic, LONG, headers=[("v2td-id", str(row_id(failure)).encode())]
        )
    (done,) = (await replay(settings, row_id(failure))).values()
    assert done.result is Result.SENT


async def test_what_cannot_be_done_again_is_refused(
    settings: Settings, store: Database, fail: Fail, topic: MakeTopic
) -> None:
    record = SourceRecord(None, VALUE, ())
    refused = {
        "another cluster": await fail(record, cluster_id=OTHER_CLUSTER),
        "no topic": await fail(record, topic="v2td-gone"),
        "not in kafka.topics": await fail(record, topic=await topic(name="unread")),
        "no record to send": await fail(SourceRecord(b"key", None, ())),
        "dropped": await fail(record, offset=5),
    }
    await ledger.drop(store, [row_id(refused["dropped"])])
    done = await replay(settings, *map(row_id, refused.values()), again=True)
    for why, failure in refused.items():
        assert done[row_id(failure)].result is Result.REFUSED
        assert why in done[row_id(failure)].told
    assert await sent(settings) == []


async def test_the_retry_topic_is_read_too(settings: Settings, fail: Fail, topic: MakeTopic) -> None:
    waiting = await topic(name="retry")
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"retry_topic": waiting})})
    failure = await fail(SourceRecord(None, VALUE, ()), topic=waiting)
    await replay(settings, row_id(failure))
    assert len(await sent(settings, waiting)) == 1


async def test_a_failure_that_went_meanwhile_is_left_alone(settings: Settings) -> None:
    gone = uuid4()
    assert await replay(settings, gone) == {gone: Replayed(gone, Result.LEFT, "is no failure any more")}


async def test_more_than_go_at_once(settings: Settings, fail: Fail) -> None:
    failures = await asyncio.gather(*(fail(SourceRecord(b"%d" % n, VALUE, ()), offset=n) for n in range(250)))
    done = await replay(settings, *map(row_id, failures))
    assert {each.result for each in done.values()} == {Result.SENT}
    assert {message.key for message in await sent(settings)} == {b"%d" % n for n in range(250)}


async def test_a_record_that_its_topic_refuses_is_not_asked_for(
    services: Services, settings: Settings, store: Database, fail: Fail
) -> None:
    name = f"small-{uuid4()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs={"max.message.bytes": "1000"})])
        settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"topics": (name,)})})
        failure = await fail(SourceRecord(None, b"v" * 2000, ()), topic=name)
        (done,) = (await replay(settings, row_id(failure))).values()
        assert (done.result, done.told) == (Result.REFUSED, f"its record is too large for {name}")
        assert await state(store, failure) is None
        await ledger.request(store, [row_id(failure)], again=False)
        await replay(settings, row_id(failure), again=True)
        assert await state(store, failure) == "requested"  # the record of before may be on its way
    finally:
        await admin.delete_topics([name])
        await admin.close()


async def test_a_broker_that_does_not_take_it(settings: Settings, store: Database, fail: Fail) -> None:
    failure = await fail(SourceRecord(None, VALUE, ()))
    kafka = settings.kafka.model_copy(update={"request_timeout_seconds": 2})
    async with open_replayer(settings.model_copy(update={"kafka": kafka}), again=False, dry_run=False) as replayer:
        async with admin_client(kafka) as admin:
            await admin.delete_topics([kafka.topics[0]])
        with pytest.raises(ServiceError, match=r"send replays: .*run it once more with --again"):
            await anext(replayer.replay([row_id(failure)]))
    assert await state(store, failure) == "requested"
    async with admin_client(kafka) as admin:
        await admin.create_topics([NewTopic(kafka.topics[0], 1, 1)])
    (done,) = (await replay(settings, row_id(failure), again=True)).values()
    assert done.result is Result.SENT


async def test_no_broker(settings: Settings) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": ("127.0.0.1:1",)})
    with pytest.raises(ServiceError, match=r"connect to Kafka: no broker at 127\.0\.0\.1:1"):
        await replay(settings.model_copy(update={"kafka": nowhere}), uuid4())


def test_a_letters_id() -> None:
    row = uuid4()
    named = ("v2td-id", str(row).encode())
    assert letter_id((named,)) == row
    assert letter_id((("v2td-id", str(uuid4()).encode()), named)) == row  # ours are the last
    assert letter_id((named, ("v2td-truncated", b"1"))) is None
    assert letter_id(()) is None
    assert without_ours((named, ("a", b""), ("v2td", b"x"))) == (("a", b""), ("v2td", b"x"))
