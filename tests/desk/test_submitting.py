"""What a key promises: one job, whoever asks again, and however the one before went."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import RecordMetadata
from pydantic import SecretStr

from tests.daemon.proxy import Proxy
from tests.desk.conftest import Office, ask, served
from v2td.admin.jobs_desk import DeskError, Trouble
from v2td.desk import submitting
from v2td.desk.positions import Positions
from v2td.errors import ServiceError
from v2td.intake import acknowledged_time, admin_client, cluster_id
from v2td.jobs import Coordinates
from v2td.store import forget_old, open_database, submissions

BODY = {"audio_url": "https://user:canary@example.com/a.wav?sig=canary", "metadata": {"b": 1, "a": [1.5, None]}}
VALUE = json.dumps(BODY).encode()


async def test_one_key_is_one_record_however_many_ask(office: Office) -> None:
    async with office.desk() as desk, office.desk() as other:
        answers = await asyncio.gather(*(desk.submit(VALUE, "a-key") for _ in range(20)))
        ids = {submitted.id for submitted, _ in answers}
        assert len(ids) == 1
        assert sorted(repeated for _, repeated in answers) == [False] + [True] * 19
        async with asyncio.timeout(10):
            while (await office.sql("SELECT id FROM submissions"))[0]["id"] is None:
                await asyncio.sleep(0.01)
        assert await other.submit(VALUE, "a-key") == (answers[0][0], True)
        with pytest.raises(DeskError) as caught:
            await other.submit(b'{"audio_url": "https://example.com/b.wav"}', "a-key")
        assert caught.value.trouble is Trouble.INVALID
        both = await asyncio.gather(desk.submit(VALUE, None), desk.submit(VALUE, None))
        assert len(ids | {submitted.id for submitted, _ in both}) == 3
    record = (await office.records())[0]
    assert record.key == b"https://example.com/a.wav"
    assert json.loads(record.value) == BODY
    at = Coordinates(
        await cluster_id(office.settings.kafka), record.topic, record.partition, record.offset, record.timestamp
    )
    assert at.row_id() in ids | {submitted.id for submitted, _ in both}
    assert len(await office.records()) == 3
    assert "canary" not in str(await office.sql("SELECT * FROM submissions"))


async def test_the_callers_trace_goes_with_the_record(office: Office) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with office.desk() as desk, served(desk) as session:
        for given in (trace, "00-0-0-01", "ff" + trace[2:], trace + "\xe9"):
            assert (await ask(session, "POST", "/v1/jobs", data=VALUE, headers={"traceparent": given}))[0] == 202
    told = [dict(record.headers).get("traceparent") for record in await office.records()]
    assert sorted(told, key=str) == [None, None, None, trace.encode()]


async def test_many_at_once_are_all_there(office: Office) -> None:
    async with office.desk() as desk:
        taken = await asyncio.gather(*(desk.submit(VALUE, f"key-{number}") for number in range(200)))
    cluster = await cluster_id(office.settings.kafka)
    ids = {
        Coordinates(cluster, each.topic, each.partition, each.offset, each.timestamp).row_id()
        for each in await office.records()
    }
    assert ids == {submitted.id for submitted, _ in taken}  # also of those that went in one batch
    assert len(ids) == 200


async def test_what_kafka_had_of_an_instance_that_is_gone_is_found_and_not_sent_again(office: Office) -> None:
    async with office.desk() as desk:
        (submitted, _) = await desk.submit(VALUE, "acknowledged")
        await _leave_unfinished(office, "acknowledged")
        again, repeated = await desk.submit(VALUE, "acknowledged")
        assert (again.id, again.partition, again.offset) == (submitted.id, submitted.partition, submitted.offset)
        assert repeated
        assert len(await office.records()) == 1
        await _leave_unfinished(office, "never sent", request=VALUE)
        _, repeated = await desk.submit(VALUE, "never sent")
        assert not repeated
        assert len(await office.records()) == 2


async def test_what_another_instance_sends_is_left_to_it(office: Office) -> None:
    async with office.desk() as desk, served(desk) as session:
        await _leave_unfinished(office, "held", request=VALUE, seconds=1)
        async with session.post("/v1/jobs", data=VALUE, headers={"Idempotency-Key": "held"}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (409, "5")
        assert await office.records() == []


async def _leave_unfinished(office: Office, key: str, request: bytes | None = None, seconds: float = 3600) -> None:
    """Leave a key as an instance does that dies between its record and its row, so long ago."""
    async with asyncio.timeout(10):
        while request is None and await office.sql("SELECT 1 FROM submissions WHERE id IS NULL"):
            await asyncio.sleep(0.01)
    if request is not None:
        canonical = json.dumps(json.loads(request), sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(canonical).hexdigest()
        given = submissions.Reservation(key, digest, None, "https://example.com/a.wav", office.settings.kafka.topics[0])
        assert await submissions.reserve(office.database, [given]) == [None]
    await office.sql(
        "UPDATE submissions SET id = NULL, held_at = now() - make_interval(secs => $2) WHERE idempotency_key = $1",
        key,
        seconds,
    )


async def test_who_waits_too_long_is_told_the_key_to_come_again_with(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office.desk() as desk, served(desk) as session:
        with monkeypatch.context() as patch:
            patch.setattr(submitting, "ANSWER_SECONDS", 0.0)
            async with session.post("/v1/jobs", data=VALUE) as answer:
                assert (answer.status, answer.content_type) == (503, "application/problem+json")
                assert int(answer.headers["Retry-After"]) > 0
                key = answer.headers["Idempotency-Key"]
        status, submitted = await ask(session, "POST", "/v1/jobs", data=VALUE, headers={"Idempotency-Key": key})
        assert status == 200
        assert (await ask(session, "GET", f"/v1/jobs/{submitted['id']}"))[1]["state"] == "queued"
        assert len(await office.records()) == 1


async def test_a_topic_that_takes_nothing_of_that_size_is_named_and_the_others_go_on(office: Office) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    admin = AIOKafkaAdminClient(bootstrap_servers=list(office.settings.kafka.bootstrap_servers))
    await admin.start()
    topic = office.settings.kafka.topics[0]
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "1000"})])
    await admin.close()
    async with office.desk() as desk:
        large = json.dumps(BODY | {"prompt": "x" * 4000}).encode()
        for _ in range(2):
            with pytest.raises(DeskError, match="of this size") as caught:
                await desk.submit(large, "large")
            assert caught.value.trouble is Trouble.TOO_LARGE
            await desk.submit(VALUE, None)
    assert len(await office.records()) == 2
    assert await office.sql("SELECT 1 FROM submissions WHERE idempotency_key = 'large'") == []


async def test_without_postgres_nothing_is_sent_and_soon_said(office: Office) -> None:
    host, _, port = office.dsn.split("@")[-1].split("/")[0].partition(":")
    async with Proxy(host, int(port)).running() as proxy:
        dsn = office.dsn.replace(f"{host}:{port}", f"127.0.0.1:{proxy.port}")
        settings = office.settings.database.model_copy(update={"dsn": SecretStr(dsn), "connect_seconds": 1.0})
        async with open_database(settings) as database, office.desk(database=database) as desk, served(desk) as session:
            proxy.cut()
            assert (await ask(session, "POST", "/v1/jobs", data=VALUE))[0] == 503
            assert (await ask(session, "GET", "/v1/jobs/unknown"))[0] == 503
            assert await office.records() == []
            proxy.mend()
            assert (await ask(session, "POST", "/v1/jobs", data=VALUE))[0] == 202


BAD = (
    (b"", 400, "empty"),
    (b"[]", 400, "not a JSON object"),
    (b'{"audio_url": "a", "audio_url": "b"}', 400, "duplicate key"),
    (b'{"audio_ulr": "https://example.com/a.wav"}', 400, "did you mean 'audio_url'?"),
    (b'{"audio_url": "https://example.com/a.wav", "priority": 11}', 422, "priority: "),
    (b'{"audio_url": "https://example.com/a.wav", "model": "none"}', 422, "model: 'none'"),
    (b'{"audio_url": "a\\u0000b"}', 422, "audio_url: text with a NUL"),
    (b'{"audio_url": "a", "id": "\\ud800"}', 422, "id: text with a lone surrogate"),
    (b'{"audio_url": "a", "metadata": {"x": 1e999}}', 422, "metadata: a number"),
    (b'{"Records": []}', 400, "unknown key 'Records'"),
    (b"[" * 1000, 400, "nested deeper"),
    (b"\xff\xfe", 400, "not UTF-8"),
)
BAD_KEYS = ("", " ", "a b", "é", "x" * 256, "a\tb")


async def test_what_is_bad_is_refused_with_field_value_and_cure(office: Office) -> None:
    async with office.desk() as desk, served(desk) as session:
        for body, status, named in BAD:
            answered, problem = await ask(session, "POST", "/v1/jobs", data=body)
            assert (answered, problem["status"]) == (status, status), body
            assert named in problem["detail"]
        for key in BAD_KEYS:
            status, problem = await ask(session, "POST", "/v1/jobs", data=VALUE, headers={"Idempotency-Key": key})
            assert status == 400, key
            assert problem["detail"].startswith("Idempotency-Key: ")
    assert await office.records() == []
    assert await office.sql("SELECT 1 FROM submissions") == []


@pytest.mark.parametrize(
    ("told", "kind", "expected"),
    [(999, 0, 1000), (-1, 0, 1000), (1007, 1, 1007), (0, 1, 100_000_000)],
    ids=["the first one's of its batch", "none", "the broker's own", "a mock broker's"],
)
def test_the_time_of_a_record_is_its_own(told: int, kind: int, expected: int) -> None:
    sent = max(1000, expected) if told == 0 else 1000
    metadata = RecordMetadata("t", 0, TopicPartition("t", 0), 5, told, kind, 0)
    assert acknowledged_time(metadata, sent) == expected


async def test_a_topic_that_is_not_there_is_named_at_the_start(office: Office) -> None:
    api = office.settings.api.model_copy(update={"jobs_topic": "not-there"})
    with pytest.raises(ServiceError, match=r"no topic not-there \(create it, or set api\.jobs_topic\)"):
        async with office.desk(office.settings.model_copy(update={"api": api})):
            pass


async def test_the_position_is_what_the_group_has_not_committed(office: Office) -> None:
    positions = Positions(office.settings.kafka, lambda _topic, _partition: None)
    (topic,), group = office.settings.kafka.topics, office.settings.kafka.group_id
    assert await positions.of(topic, 0, 5) is None
    servers = list(office.settings.kafka.bootstrap_servers)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    await consumer.commit({TopicPartition(topic, 0): 3})
    await consumer.stop()
    positions = Positions(office.settings.kafka, lambda _topic, _partition: None)
    assert [await positions.of(topic, 0, offset) for offset in (2, 3, 5)] == [0, 0, 2]
    assert await positions.of(topic, 1, 5) is None
    assert await Positions(office.settings.kafka, lambda _topic, _partition: 4).of(topic, 0, 5) == 1


async def test_old_keys_are_forgotten(office: Office) -> None:
    async with office.desk() as desk:
        await desk.submit(VALUE, "old")
        await desk.submit(VALUE, "new")
    await office.sql("UPDATE submissions SET created_at = now() - interval '31 days' WHERE idempotency_key = 'old'")
    assert await forget_old(office.database, 30) == 1
    assert [row["idempotency_key"] for row in await office.sql("SELECT * FROM submissions")] == ["new"]


async def test_nobody_waits_for_ever_for_a_topic_that_takes_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "ANSWER_SECONDS", 0.5)
    kafka = office.settings.kafka.model_copy(update={"commit_timeout_seconds": 1.0})
    began = time.monotonic()
    async with office.desk(office.settings.model_copy(update={"kafka": kafka})) as desk, served(desk) as session:
        assert (await ask(session, "POST", "/v1/jobs", data=VALUE))[0] == 202
        async with admin_client(kafka) as admin:
            await admin.delete_topics(list(kafka.topics))
        key = {"Idempotency-Key": "waits"}
        statuses = [(await ask(session, "POST", "/v1/jobs", data=VALUE, headers=key))[0] for _ in range(2)]
        assert statuses == [503, 503]
    assert time.monotonic() - began < 60  # the desk closes though the record is still in the producer's hands
