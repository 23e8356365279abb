"""What is told in kafka.results_topic, and when: real Kafka, real Postgres."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from tests.intake.conftest import everything_in
from tests.services.state import Services
from tests.store.outcomes import coordinates, failure, transcript
from v2td.config import DatabaseSettings, KafkaSettings
from v2td.delivery import Delivery
from v2td.intake import DeadLetters, ResultsTopic
from v2td.jobs import Redo, Replay, SourceRecord
from v2td.messages.headers import REDO_OF, REVISION
from v2td.store import Writer, open_database, redos, upgrade

RECORD = SourceRecord(b"key", b'{"audio_url": "x"}', ())


@pytest.fixture
def kafka(services: Services) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=(services.kafka_bootstrap,),
        dead_letter_topic=f"dead-{secrets.token_hex(6)}",
        retry_topic=f"later-{secrets.token_hex(6)}",
        results_topic=f"results-{secrets.token_hex(6)}",
    )


@pytest.fixture
async def delivery(kafka: KafkaSettings, database: str) -> AsyncIterator[Delivery]:
    await upgrade(database)
    settings = DatabaseSettings(dsn=SecretStr(database), pool_min=0, flush_seconds=0.01)
    async with (
        open_database(settings) as opened,
        DeadLetters(kafka) as letters,
        ResultsTopic(kafka) as results,
        asyncio.TaskGroup() as group,
    ):
        writer = Writer(opened, settings, letters.send)
        group.create_task(writer.run())
        yield Delivery(letters, writer, results, opened)
        writer.close()


async def told(kafka: KafkaSettings) -> list[dict[str, Any]]:
    assert kafka.results_topic is not None
    return [{"key": each.key, **json.loads(each.value)} for each in await everything_in(kafka, kafka.results_topic)]


async def test_outcomes_are_told_when_they_are_there(kafka: KafkaSettings, delivery: Delivery, database: str) -> None:
    heard = transcript(1, "xin chào", job={"record": RECORD}, timings={"outputs": ["s3://texts/1.json"]})
    await delivery.deliver(heard)
    await delivery.deliver(failure(2, record=replace(RECORD, key=None)))
    first, second = await told(kafka)
    assert (first["id"], first["status"], first["text"]) == (str(heard.job.id), "transcribed", "xin chào")
    assert (first["key"], first["offset"], first["outputs"]) == (b"key", 1, ["s3://texts/1.json"])
    assert (second["status"], second["error_class"], second["text"]) == ("failed", "not_audio", None)
    assert second["key"] == second["id"].encode(), "a record without a key"
    sql = await asyncpg.connect(database)
    (row,) = await sql.fetch("SELECT * FROM transcriptions")
    await sql.close()
    for name in ("job_id", "audio_url", "provider", "model", "language", "audio_seconds", "text", "revision", "topic"):
        assert first[name] == row[name]


async def test_what_is_tried_again_later_is_no_result_yet(kafka: KafkaSettings, delivery: Delivery) -> None:
    waiting = failure(1, record=RECORD, retried_later=True)
    await delivery.deliver(waiting)
    await delivery.tell_again([waiting.coordinates.row_id()], RECORD)
    assert await told(kafka) == []


async def test_a_record_that_comes_again_has_its_outcomes_told_again(kafka: KafkaSettings, delivery: Delivery) -> None:
    """A daemon that dies between the row and the result leaves the record unresolved."""
    heard, failed = (
        transcript(1, job={"record": RECORD}),
        failure(1, record=RECORD, coordinates=coordinates(1, record_index=1)),
    )
    await delivery.deliver(heard)
    await delivery.deliver(failed)
    before = await told(kafka)
    await delivery.tell_again([heard.job.id, failed.coordinates.row_id(), coordinates(9).row_id()], RECORD)
    assert (await told(kafka))[2:] == before


async def test_the_result_of_a_replay_is_told_again_for_its_own_record(
    kafka: KafkaSettings, delivery: Delivery
) -> None:
    replay = Replay(coordinates(7))
    heard = transcript(1, job={"record": RECORD, "replay": replay})
    await delivery.deliver(heard)
    await delivery.tell_again([replay.record.row_id()], RECORD)
    first, again = await told(kafka)
    assert first == again
    assert first["offset"] == 1


async def test_what_was_done_again_is_told_by_its_revision(
    kafka: KafkaSettings, delivery: Delivery, database: str
) -> None:
    """A revision is there, another failed; each is told again by the record that asked for it, and by no other."""
    first = transcript(1, "good morning")
    await delivery.deliver(first)
    settings = DatabaseSettings(dsn=SecretStr(database), pool_min=0)
    records = [replace(RECORD, value=b'{"audio_url": "x%d"}' % number) for number in range(3)]
    async with open_database(settings) as opened:
        for each in records[:2]:
            await redos.note(opened, "large", None, [redos.Wish(first.job.id, Replay.digest(each))])
    asked = [
        replace(each, headers=((REDO_OF, str(first.job.id).encode()), (REVISION, b"%d" % number)))
        for number, each in enumerate(records, 1)
    ]
    ats = [coordinates(offset) for offset in (7, 8, 9)]
    again = {"record": records[0], "replay": Replay(ats[0]), "redo": Redo(1, "large")}
    await delivery.deliver(transcript(1, "good evening", job=again, model="large"))
    failed = failure(1, record=records[1], replay=Replay(ats[1]), redo=Redo(2, "large"), retried_later=True)
    assert not (await delivery.deliver(failed)).retried_later  # type: ignore[union-attr]
    await delivery.deliver(
        transcript(9, job={"record": RECORD})
    )  # the record of a stranger who names the first one's row is a job of its own
    before = await told(kafka)
    for at, record in zip(ats, asked, strict=True):
        await delivery.tell_again([at.row_id()], record)
    after = await told(kafka)
    assert [(each["revision"], each["status"], each["text"]) for each in before[1:3]] == [
        (1, "transcribed", "good evening"),
        (2, "failed", None),
    ]
    attempts = {"attempts": None}  # nobody knows how many it were
    assert [each | attempts for each in after[4:]] == [each | attempts for each in before[1:4]]
    assert await everything_in(kafka, kafka.dead_letter_topic) == []


async def test_of_two_outcomes_of_a_job_the_one_that_was_kept_is_told(kafka: KafkaSettings, delivery: Delivery) -> None:
    """Another instance was quicker: by the time that we look, the recording is gone."""
    heard = transcript(1, "good morning", job={"record": RECORD})
    await delivery.deliver(heard)
    await delivery.deliver(failure(1, record=RECORD))
    await delivery.deliver(replace(heard, segments=()))
    assert [(each["status"], each["text"]) for each in await told(kafka)] == [("transcribed", "good morning")] * 3
