"""What `v2td redo` sends: a message that asks for the same, noted before, a few at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import SecretStr

from tests.conftest import MakeTopic
from tests.services.state import Services
from tests.store.outcomes import transcript
from tests.test_dead_letters import sent
from v2td.config import DatabaseSettings, KafkaSettings, Settings
from v2td.errors import ServiceError
from v2td.intake import cluster_id
from v2td.jobs import Coordinates, Job, Options, Output, Redo, Replay, SourceRecord, Transcript
from v2td.messages import Known, jobs_of
from v2td.ops.redo import Redone, Result, Target, open_redoer
from v2td.store import Database, Writer, open_database, redos, upgrade

OTHER = Target("other", None)

Write = Callable[[Transcript], Awaitable[UUID]]


@pytest.fixture
async def settings(services: Services, topic: MakeTopic, database: str) -> Settings:
    await upgrade(database)
    return Settings.model_validate(
        {
            "kafka": KafkaSettings(
                bootstrap_servers=(services.kafka_bootstrap,),
                topics=(await topic(name="jobs"), await topic(name="more")),
            ),
            "database": DatabaseSettings(dsn=SecretStr(database), pool_min=0, flush_seconds=0.01),
            "engine": {"model": "other"},
        }
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings.database) as opened:
        yield opened


@pytest.fixture
async def write(settings: Settings, store: Database) -> AsyncIterator[Write]:
    """Make a transcript durable, as the daemon does; its row's id."""

    async def unwritable(failure: Any) -> None:
        raise AssertionError(failure.reason)

    writer = Writer(store, settings.database, unwritable)

    async def durable(heard: Transcript) -> UUID:
        await writer.write(heard)
        return heard.job.id

    async with asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        yield durable
        writer.close()


async def redo(settings: Settings, *ids: UUID, target: Target = OTHER, **how: Any) -> dict[UUID, Redone]:
    """Ask, and do not wait unless `in_flight` is said."""
    options: dict[str, Any] = {"again": False, "dry_run": False, "in_flight": None} | how
    async with open_redoer(settings, target, **options) as redoer:
        done = [each async for each in redoer.redo(ids)]
    assert len(done) == len(ids)
    return {each.id: each for each in done}


def headers(record: ConsumerRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


async def produced(settings: Settings, value: bytes, key: bytes | None = b"key", index: int = 0) -> Job:
    """The job of a message that is in the topic."""
    producer = AIOKafkaProducer(bootstrap_servers=list(settings.kafka.bootstrap_servers))
    await producer.start()
    done = await producer.send_and_wait(settings.kafka.topics[0], value, key=key)
    await producer.stop()
    at = Coordinates(await cluster_id(settings.kafka), done.topic, done.partition, done.offset, done.timestamp)
    found = jobs_of(SourceRecord(key, value, ()), at, settings=settings.messages, known=Known.of(settings))[index]
    assert isinstance(found, Job)
    return found


async def test_the_message_asks_for_the_same(settings: Settings, store: Database, write: Write) -> None:
    options = Options(
        language="vi",
        task="translate",
        prompt="Tên",
        hotwords="v2td",
        beam_size=3,
        word_timestamps=True,
        channels="split",
    )
    job = {
        "options": options,
        "audio_url": "s3://calls/a b?c.wav",
        "version_id": "v7",
        "tenant": "acme",
        "metadata": {"n": [1, "ñ"]},
        "output": Output("texts", "a/b", ("json", "srt")),
        "record": SourceRecord(b"\xff", b"whatever", (("trace", b"1"),)),
        "priority": 0,
    }
    row_id = await write(transcript(1, job=job))
    (done,) = (await redo(settings, row_id)).values()
    assert (done.result, done.revision) == (Result.SENT, 1)
    (record,) = await sent(settings)
    assert record.key == b"\xff"
    assert headers(record) == {"v2td-redo-of": str(row_id), "v2td-revision": "1"}
    assert json.loads(record.value) == {
        "id": "job-1",
        "audio_url": "s3://calls/a b?c.wav",
        "version_id": "v7",
        "task": "translate",
        "tenant": "acme",
        "metadata": {"n": [1, "ñ"]},
        "priority": 9,
        "model": "other",
        "language": "vi",
        "prompt": "Tên",
        "hotwords": "v2td",
        "beam_size": 3,
        "word_timestamps": True,
        "channels": "split",
        "output": {"bucket": "texts", "key": "a/b", "formats": ["json", "srt"]},
    }
    source = SourceRecord(record.key, record.value, tuple(record.headers))
    found = await redos.find_redo(store, row_id, 1, source)
    assert isinstance(found, tuple), "the daemon takes it"
    (parsed,) = jobs_of(source, found[0], settings=settings.messages, known=Known.of(settings))
    assert isinstance(parsed, Job)
    assert parsed.options == options


async def test_what_the_row_has_not_is_read_from_the_topic(settings: Settings, store: Database, write: Write) -> None:
    """A URL with a query, and the row of a version before, which knows nothing of the prompt."""
    url = "https://user:hunter2@example.com/a.wav?X-Amz-Signature=hunter2"
    secret = await produced(settings, json.dumps({"id": "secret", "audio_url": url, "prompt": "Hm."}).encode())
    older = await produced(settings, b'{"audio_url": "https://example.com/b.wav", "beam_size": 2}', None)
    ids = [await write(replace(transcript(0), job=each)) for each in (secret, older)]
    async with store.acquire() as connection:
        await connection.execute("UPDATE transcriptions SET request = NULL WHERE id = $1", ids[1])
        assert "hunter2" not in str([tuple(row) for row in await connection.fetch("SELECT * FROM transcriptions")])
    done = await redo(settings, *ids)
    assert {each.result for each in done.values()} == {Result.SENT}
    by_id = {headers(each)["v2td-redo-of"]: each for each in await sent(settings) if each.headers}
    first, second = (by_id[str(row_id)] for row_id in ids)
    message = json.loads(first.value)
    assert (message["audio_url"], message["prompt"], message["id"]) == (url, "Hm.", "secret")
    assert (first.key, second.key) == (b"key", str(ids[1]).encode())
    assert json.loads(second.value)["beam_size"] == 2


async def test_one_of_the_recordings_that_a_notification_names(
    settings: Settings, store: Database, write: Write
) -> None:
    entries = [
        {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "calls"}, "object": {"key": f"{n}.wav"}}}
        for n in range(3)
    ]
    job = await produced(settings, json.dumps({"Records": entries}).encode(), index=2)
    row_id = await write(replace(transcript(0), job=job))
    async with store.acquire() as connection:
        await connection.execute("UPDATE transcriptions SET request = NULL")
    await redo(settings, row_id)
    *_, record = await sent(settings)
    assert json.loads(record.value)["audio_url"] == "s3://calls/2.wav"
    found = await redos.find_redo(store, row_id, 1, SourceRecord(record.key, record.value, ()))
    assert isinstance(found, tuple)
    assert found[0].record_index == 2


async def test_what_cannot_be_asked_for_is_said_and_not_noted(
    settings: Settings, store: Database, write: Write
) -> None:
    job = await produced(settings, b'{"audio_url": "https://example.com/a.wav?b=c"}')
    at = job.coordinates
    url = {"audio_url": job.audio_url}
    lost: dict[str, dict[str, Any]] = {
        "another record is there": {"timestamp_ms": at.timestamp_ms + 1},
        "not yet there": {"offset": at.offset + 100},
        "no such partition": {"partition": 7},
        "no such topic": {"topic": "no-such-topic"},
        "another cluster": {"cluster_id": "elsewhere"},
    }
    ids = {
        await write(transcript(1, job=url | {"coordinates": replace(at, **each)})): why for why, each in lost.items()
    }
    timeless = await write(transcript(5, at={"timestamp_ms": 1 << 50}))
    wrong = await write(transcript(6, job={"metadata": {"a": 1}, "audio_url": "x" * 9000}))
    done = await redo(settings, *ids, timeless, wrong)
    assert {each.result for each in done.values()} == {Result.REFUSED}
    for row_id, why in ids.items():
        assert "not all of its URL" in done[row_id].told, why
    assert "does not tell its record's time" in done[timeless].told
    assert done[wrong].told.startswith("audio_url: ")
    async with store.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM redos") == 0
    assert len(await sent(settings)) == 1, "that of the test"


async def test_a_message_that_is_too_large_is_taken_back(
    settings: Settings, services: Services, store: Database, write: Write
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)
    await admin.start()
    small = f"{settings.kafka.topics[0]}-small"
    await admin.create_topics([NewTopic(small, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    await admin.close()
    kafka = settings.kafka.model_copy(update={"topics": (small,)})
    row_id = await write(transcript(1, job={"metadata": {"long": [str(n) for n in range(2000)]}}))
    (done,) = (await redo(settings.model_copy(update={"kafka": kafka}), row_id)).values()
    assert (done.result, done.told) == (Result.REFUSED, f"its message is too large for {small}")
    assert await redos.asked(store, "other", None, [row_id]) == {}


async def test_a_dry_run_does_nothing(settings: Settings, store: Database, write: Write) -> None:
    row_id = await write(transcript(1))
    (done,) = (await redo(settings, row_id, dry_run=True)).values()
    assert (done.result, done.told) == (Result.SENT, f"would go to {settings.kafka.topics[0]}")
    assert await redos.asked(store, "other", None, [row_id]) == {}
    assert await sent(settings) == []


async def test_only_so_many_are_under_way(settings: Settings, store: Database, write: Write) -> None:
    """A stand-in for the daemon does one after the other, and looks how many wait."""
    heard = [transcript(number) for number in range(12)]
    jobs = {await write(each): each.job for each in heard}
    most = 0

    async def daemon() -> None:
        nonlocal most
        done = 0
        while done < len(heard):
            async with store.acquire() as connection:
                waiting = await connection.fetch(
                    "SELECT id, revision FROM redos r WHERE sent_at IS NOT NULL AND NOT EXISTS "
                    "(SELECT FROM transcriptions t WHERE t.id = r.id AND t.revision = r.revision)"
                )
            most = max(most, len(waiting))
            for row_id, revision in waiting[:1]:
                at = Coordinates("cluster", "redo", 0, done, 1)
                again = replace(jobs[row_id], replay=Replay(at), redo=Redo(revision, "other"))
                await write(replace(heard[0], job=again, model="other"))
                done += 1
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(daemon())
        done = await redo(settings, *jobs, in_flight=3)
    assert {(each.result, each.revision, each.told) for each in done.values()} == {(Result.DONE, 1, "other by local")}
    assert 1 <= most <= 3


async def test_what_was_noted_and_perhaps_not_sent_keeps_its_number(
    settings: Settings, store: Database, write: Write
) -> None:
    row_id = await write(transcript(1))
    await redo(settings, row_id)
    async with store.acquire() as connection:
        await connection.execute("UPDATE redos SET sent_at = NULL")
    assert (await redo(settings, row_id))[row_id].revision == 1
    assert (await redo(settings, row_id))[row_id].told == f"is asked for in {settings.kafka.topics[0]}"
    first, second = await sent(settings)
    assert (first.key, first.value, first.headers) == (second.key, second.value, second.headers)
    assert (await redo(settings, row_id, again=True))[row_id].revision == 1, "sent once more, and done once"
    assert len(await sent(settings)) == 3
    async with store.acquire() as connection:
        await connection.execute("UPDATE transcriptions SET tenant = 'another'")
    assert (await redo(settings, row_id, again=True))[row_id].revision == 2, "another message, another revision"


async def test_what_is_there_is_left_alone(settings: Settings, store: Database, write: Write) -> None:
    heard = transcript(1)
    row_id = await write(heard)
    assert (await redo(settings, row_id, target=Target("demo", None)))[row_id].told == "is by demo of local"
    assert (await redo(settings, row_id, target=Target("demo", "local")))[row_id].result == Result.LEFT
    by_rules = Target(None, None)
    assert (await redo(settings, row_id, target=by_rules))[row_id].result == Result.SENT
    again = replace(heard.job, replay=Replay(Coordinates("cluster", "redo", 0, 1, 1)), redo=Redo(1))
    await write(replace(heard, job=again))
    assert (await redo(settings, row_id, target=by_rules))[row_id].told == "was done before"
    assert (await redo(settings, row_id, target=by_rules, again=True))[row_id].revision == 2
    gone = heard.job.coordinates
    async with store.acquire() as connection:
        await connection.execute("DELETE FROM transcriptions")
    assert (await redo(settings, gone.row_id()))[gone.row_id()].told == "is no transcription any more"


async def test_a_topic_that_is_not_there_is_said(settings: Settings) -> None:
    kafka = settings.kafka.model_copy(update={"topics": ("no-such-topic",)})
    with pytest.raises(ServiceError, match="no such topic"):
        await redo(settings.model_copy(update={"kafka": kafka}))
