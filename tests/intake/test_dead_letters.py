import asyncio
import json
import secrets
from dataclasses import replace
from functools import partial

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MakeTopic
from tests.intake.conftest import MakeSettings, everything_in
from v2td import metrics
from v2td.config import KafkaSettings, MessageSettings
from v2td.errors import ErrorClass, ServiceError
from v2td.intake import DeadLetters, admin_client, ensure_topic, sender
from v2td.intake.connection import CREATE
from v2td.intake.dead_letters import MAX_KEPT_BYTES, letter_headers
from v2td.jobs import MAX_REASON, Coordinates, Failure, Headers, SourceRecord
from v2td.messages import Known, jobs_of

AT = Coordinates("cluster", "jobs", 2, 41, 1_700_000_000_000, record_index=1)
MEGABYTE = 1_000_000


def failure(
    record: SourceRecord, reason: str = "not one of the formats", error_class: ErrorClass = ErrorClass.NOT_AUDIO
) -> Failure:
    return Failure(AT, error_class, reason, 3, record)


async def limited_topic(settings: KafkaSettings, max_bytes: int) -> None:
    """A dead-letter topic that its owner made with a limit of its own."""
    await configured_topic(settings, settings.dead_letter_topic, {"max.message.bytes": str(max_bytes)})


async def configured_topic(settings: KafkaSettings, topic: str, config: dict[str, str]) -> None:
    async with admin_client(settings) as admin:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=config)])


async def test_a_dead_letter_is_the_record_and_the_reason(settings_for: MakeSettings) -> None:
    settings = settings_for()
    record = SourceRecord(b"key", b'{"audio_url": "x"}', (("trace", b"\x00\xff"), ("v2td-id", b"an older one")))
    sent = metrics.DEAD_LETTERS.labels("no")._value.get()
    async with DeadLetters(settings) as letters:
        await letters.send(failure(record, "không phải âm thanh"))
    (letter,) = await everything_in(settings, settings.dead_letter_topic)
    assert (letter.key, letter.value) == (b"key", b'{"audio_url": "x"}')
    assert letter.headers[0] == ("trace", b"\x00\xff")
    assert dict(letter.headers[1:]) == {
        "v2td-id": str(AT.row_id()).encode(),
        "v2td-error-class": b"not_audio",
        "v2td-reason": "không phải âm thanh".encode(),
        "v2td-attempts": b"3",
        "v2td-cluster-id": b"cluster",
        "v2td-topic": b"jobs",
        "v2td-partition": b"2",
        "v2td-offset": b"41",
        "v2td-timestamp": b"1700000000000",
        "v2td-record-index": b"1",
    }
    assert metrics.DEAD_LETTERS.labels("no")._value.get() == sent + 1


@pytest.mark.parametrize("key", [None, b"", b"key"])
@pytest.mark.parametrize("value", [None, b"", b"value"])
async def test_a_record_may_lack_anything(settings_for: MakeSettings, key: bytes | None, value: bytes | None) -> None:
    settings = settings_for()
    async with DeadLetters(settings) as letters:
        await letters.send(failure(SourceRecord(key, value, ())))
    (letter,) = await everything_in(settings, settings.dead_letter_topic)
    assert letter.key == (str(AT.row_id()).encode() if key is None else key)
    assert (letter.value or None) == (value or None)
    assert "v2td-truncated" not in dict(letter.headers)


@pytest.mark.parametrize("key", [None, b"key", b"k" * 50_000])
@pytest.mark.parametrize("limit", [None, 30_000], ids=["the producer's limit", "the topic's limit"])
async def test_what_is_too_large_goes_without_its_value(
    settings_for: MakeSettings, key: bytes | None, limit: int | None
) -> None:
    settings = settings_for()
    if limit:
        await limited_topic(settings, limit)
    large = SourceRecord(key, secrets.token_bytes(2 * MEGABYTE if limit is None else 100_000), (("trace", b"1"),))
    small = SourceRecord(b"key", b"small", ())
    async with DeadLetters(settings) as letters:
        await letters.send(failure(small))
        await letters.send(failure(large))
        await letters.send(failure(small))  # the refused one leaves the idempotent producer in order
    first, truncated, last = await everything_in(settings, settings.dead_letter_topic)
    assert first.value == last.value == b"small"
    assert not truncated.value
    assert truncated.key == (key if key == b"key" else str(AT.row_id()).encode())
    assert dict(truncated.headers)["v2td-truncated"] == b"1"
    assert dict(truncated.headers)["trace"] == b"1"
    assert dict(truncated.headers)["v2td-id"] == str(AT.row_id()).encode()


async def test_a_thousand_failures_of_a_record_are_few_bytes_of_letters(settings_for: MakeSettings) -> None:
    settings = settings_for()
    value = json.dumps({"Records": [{}] * 1000, "padding": "x" * 200_000}).encode()
    record = SourceRecord(secrets.token_bytes(2000), value, (("trace", b"1"), ("long", secrets.token_bytes(2000))))
    failures = jobs_of(
        record, replace(AT, record_index=0), settings=MessageSettings(), known=Known(frozenset({"demo"}))
    )
    async with DeadLetters(settings) as letters, asyncio.TaskGroup() as group:
        for each in failures:
            assert isinstance(each, Failure)
            group.create_task(letters.send(each))
    found = {
        int(dict(letter.headers)["v2td-record-index"]): letter
        for letter in await everything_in(settings, settings.dead_letter_topic)
    }
    assert len(found) == 1000
    first = found.pop(0)
    assert (first.key, first.value, first.headers[:2]) == (record.key, value, record.headers)
    for letter in found.values():
        named = dict(letter.headers)
        assert not letter.value
        assert letter.key == named["v2td-id"]
        assert (named["v2td-truncated"], named["v2td-offset"], named["trace"]) == (b"1", b"41", b"1")
        assert named["v2td-whole-record"] == dict(first.headers)["v2td-id"]
        assert "long" not in named
        assert sum(len(name) + len(text) for name, text in letter.headers) < 2000


async def test_what_is_refused_even_without_its_value_hangs_nothing(settings_for: MakeSettings) -> None:
    settings = settings_for()
    await limited_topic(settings, 1000)
    stubborn = SourceRecord(secrets.token_bytes(10_000), b"", ())
    async with DeadLetters(settings) as letters:
        await letters.send(failure(stubborn))
        await letters.send(failure(SourceRecord(b"key", b"small", ())))
    (letter,) = await everything_in(settings, settings.dead_letter_topic)
    assert letter.value == b"small"


async def test_a_compacted_topic_takes_letters_of_records_without_a_key(settings_for: MakeSettings) -> None:
    settings = settings_for()
    await configured_topic(settings, settings.dead_letter_topic, {"cleanup.policy": "compact"})
    async with DeadLetters(settings) as letters, asyncio.timeout(20):
        await letters.send(failure(SourceRecord(None, b"value", ())))
        await letters.send(failure(SourceRecord(None, secrets.token_bytes(2 * MEGABYTE), ())))
    letter, truncated = await everything_in(settings, settings.dead_letter_topic)
    assert letter.key == truncated.key == str(AT.row_id()).encode()
    assert truncated.value == b"", "a null one would be a tombstone, and delete the letters of its key"


async def test_what_brokers_refuse_for_good_is_given_up(
    settings_for: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compacted topic refuses records without a key, and one that bounds timestamps all that is too old."""
    settings = settings_for(retry_topic=f"later-{secrets.token_hex(6)}")
    assert settings.retry_topic is not None
    await configured_topic(settings, settings.dead_letter_topic, {"message.timestamp.before.max.ms": "1000"})
    await configured_topic(settings, settings.retry_topic, {"cleanup.policy": "compact"})
    monkeypatch.setattr(sender, "REFUSED_SECONDS", 1.0)
    sent = [metrics.DEAD_LETTERS.labels(each)._value.get() for each in ("yes", "no")]
    async with DeadLetters(settings) as letters, asyncio.timeout(20):
        assert not await letters.delay(failure(SourceRecord(None, b"value", ())), 1)
        assert await letters.delay(failure(SourceRecord(b"key", b"value", ())), 1)
        now = letters._producer.send_and_wait
        monkeypatch.setattr(letters._producer, "send_and_wait", partial(now, timestamp_ms=1))
        await letters.send(failure(SourceRecord(b"key", b"old", ())))
        monkeypatch.setattr(letters._producer, "send_and_wait", now)
        await letters.send(failure(SourceRecord(b"key", b"now", ())))
    (letter,) = await everything_in(settings, settings.dead_letter_topic)
    assert letter.value == b"now"
    assert [metrics.DEAD_LETTERS.labels(each)._value.get() for each in ("yes", "no")] == [sent[0], sent[1] + 1]


async def test_a_topic_that_is_deleted_is_made_again(settings_for: MakeSettings) -> None:
    settings = settings_for(request_timeout_seconds=2, metadata_max_age_seconds=1)
    async with DeadLetters(settings) as letters, asyncio.timeout(60):
        await letters.send(failure(SourceRecord(b"key", b"before", ())))
        async with admin_client(settings) as admin:
            await admin.delete_topics([settings.dead_letter_topic])
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(letters.send(failure(SourceRecord(b"key", b"%d" % number, ()))))
    found = {letter.value for letter in await everything_in(settings, settings.dead_letter_topic)}
    assert found >= {b"0", b"1", b"2"}


async def test_a_topic_that_may_not_be_made_again_hangs_nothing(
    settings_for: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(request_timeout_seconds=1, metadata_max_age_seconds=1)

    async def refuse(_settings: KafkaSettings, topic: str) -> None:
        raise ServiceError(CREATE, topic)

    sent = metrics.DEAD_LETTERS.labels("no")._value.get()
    async with DeadLetters(settings) as letters, asyncio.timeout(30):
        async with admin_client(settings) as admin:
            await admin.delete_topics([settings.dead_letter_topic])
        monkeypatch.setattr(sender, "ensure_topic", refuse)
        monkeypatch.setattr(sender, "REFUSED_SECONDS", 1.0)
        await letters.send(failure(SourceRecord(b"key", b"value", ())))
    assert metrics.DEAD_LETTERS.labels("no")._value.get() == sent


async def test_many_letters_at_once(settings_for: MakeSettings) -> None:
    settings = settings_for()
    async with DeadLetters(settings) as letters, asyncio.TaskGroup() as group:
        for offset in range(200):
            value = secrets.token_bytes(1_500_000) if offset % 50 == 7 else b"%d" % offset
            one = failure(SourceRecord(b"%d" % offset, value, ()))
            group.create_task(letters.send(replace(one, coordinates=replace(AT, offset=offset))))
    found = await everything_in(settings, settings.dead_letter_topic)
    assert sorted(int(dict(letter.headers)["v2td-offset"]) for letter in found) == list(range(200))


async def test_the_topic_is_made_once_and_an_existing_one_is_left_alone(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    existing = await topic(3)
    settings = settings_for(dead_letter_topic=existing)
    await ensure_topic(settings, existing)
    fresh = settings_for()
    await asyncio.gather(*(ensure_topic(fresh, fresh.dead_letter_topic) for _ in range(3)))
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        assert len(await producer.partitions_for(existing)) == 3
        assert len(await producer.partitions_for(fresh.dead_letter_topic)) == 1


async def test_a_missing_broker_is_our_fault(settings_for: MakeSettings) -> None:
    with pytest.raises(ServiceError, match="connect to Kafka"):
        async with DeadLetters(settings_for(bootstrap_servers=["127.0.0.1:1"])):
            pytest.fail("it did connect")


ANY_TEXT = st.text(st.characters())
HEADERS = st.lists(
    st.tuples(st.text(max_size=20) | st.sampled_from(["v2td-id", "v2td-reason", "v2td-truncated"]), st.binary()),
    max_size=10,
).map(tuple)


@given(ANY_TEXT | ANY_TEXT.map(lambda text: text * 2000), HEADERS, st.booleans())
def test_headers_are_always_writable_and_ours_appear_once(reason: str, headers: Headers, truncated: bool) -> None:
    made = letter_headers(failure(SourceRecord(b"", b"", headers), reason), truncated=truncated)
    names = [name for name, _ in made]
    for name in ("v2td-id", "v2td-error-class", "v2td-reason", "v2td-offset"):
        assert names.count(name) == 1
    assert names.count("v2td-truncated") == int(truncated)
    kept = dict(made)["v2td-reason"].decode()
    assert len(kept) <= MAX_REASON
    if not truncated:
        ours = {"v2td-id", "v2td-reason", "v2td-truncated"}  # a letter that was sent in again is no letter yet
        assert made[: len(made) - 10] == tuple(each for each in headers if each[0] not in ours)


@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=20).map(lambda data: data * 300)), max_size=30))
def test_a_truncated_letter_keeps_few_headers(headers: list[tuple[str, bytes]]) -> None:
    made = letter_headers(failure(SourceRecord(b"", b"", tuple(headers))), truncated=True)
    kept = [each for each in made if not each[0].startswith("v2td-")]
    assert sum(len(name) + len(value) for name, value in kept) <= MAX_KEPT_BYTES
