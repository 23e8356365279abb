import json
import secrets
from dataclasses import replace
from functools import partial
from uuid import UUID

import pytest
from aiokafka.admin import NewTopic

from tests.intake.conftest import MakeSettings, everything_in
from v2td import metrics
from v2td.config import KafkaSettings
from v2td.intake import Result, ResultsTopic, admin_client, sender

ID = UUID("018f3e5c-8a7b-8000-8000-0123456789ab")
TOLD = Result(
    id=ID,
    revision=0,
    status="transcribed",
    job_id="call-7",
    cluster="cluster",
    topic="jobs",
    partition=2,
    offset=41,
    record_index=1,
    audio_url="s3://calls/7.wav",
    provider="local",
    model="demo",
    task="transcribe",
    language="vi",
    audio_seconds=5.5,
    text="xin chào",
    outputs=("s3://texts/7.json",),
)


async def made(settings: KafkaSettings, config: dict[str, str]) -> str:
    assert settings.results_topic is not None
    async with admin_client(settings) as admin:
        await admin.create_topics([NewTopic(settings.results_topic, 1, 1, topic_configs=config)])
    return settings.results_topic


def told() -> float:
    return float(metrics.RESULTS_TOLD._value.get())


@pytest.fixture
def settings(settings_for: MakeSettings) -> KafkaSettings:
    return settings_for(results_topic=f"results-{secrets.token_hex(6)}")


async def test_a_result_is_one_record_with_all_that_its_row_says(settings: KafkaSettings) -> None:
    before = told()
    async with ResultsTopic(settings) as results:  # which makes the topic
        assert results.wanted
        await results.tell(TOLD, b"key")
    assert settings.results_topic is not None
    (record,) = await everything_in(settings, settings.results_topic)
    assert (record.key, record.headers) == (b"key", (("v2td-id", str(ID).encode()),))
    assert "xin chào".encode() in record.value, "as it is, not escaped"
    assert json.loads(record.value) == {
        "id": str(ID),
        "revision": 0,
        "status": "transcribed",
        "job_id": "call-7",
        "cluster": "cluster",
        "topic": "jobs",
        "partition": 2,
        "offset": 41,
        "record_index": 1,
        "audio_url": "s3://calls/7.wav",
        "tenant": None,
        "provider": "local",
        "model": "demo",
        "task": "transcribe",
        "language": "vi",
        "audio_seconds": 5.5,
        "text": "xin chào",
        "text_omitted": False,
        "outputs": ["s3://texts/7.json"],
        "cached_from": None,
        "error_class": None,
        "reason": None,
        "attempts": None,
    }
    assert told() == before + 1


async def test_a_long_text_is_left_out(settings_for: MakeSettings) -> None:
    settings = settings_for(results_topic=f"results-{secrets.token_hex(6)}", results_text_bytes=9)
    async with ResultsTopic(settings) as results:
        await results.tell(TOLD, b"key")  # 8 letters, 9 bytes
        await results.tell(replace(TOLD, text="xin chào!"), b"key")
    assert settings.results_topic is not None
    whole, left_out = [json.loads(each.value) for each in await everything_in(settings, settings.results_topic)]
    assert (whole["text"], whole["text_omitted"]) == ("xin chào", False)
    assert (left_out["text"], left_out["text_omitted"]) == (None, True)


async def test_what_the_topic_has_no_room_for_goes_without_text_then_without_key(settings: KafkaSettings) -> None:
    topic = await made(settings, {"max.message.bytes": "2000"})
    long = replace(TOLD, text=secrets.token_urlsafe(6000))
    async with ResultsTopic(settings) as results:
        await results.tell(long, b"key")
        await results.tell(long, secrets.token_bytes(6000))
        await results.tell(replace(TOLD, job_id=secrets.token_urlsafe(6000)), b"key")  # nothing helps: it is given up
        await results.tell(TOLD, None)
    first, second, last = await everything_in(settings, topic)
    assert [each.key for each in (first, second, last)] == [b"key", str(ID).encode(), str(ID).encode()]
    assert [json.loads(each.value)["text_omitted"] for each in (first, second, last)] == [True, True, False]


async def test_what_brokers_refuse_for_good_holds_nobody_up(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await made(settings, {"message.timestamp.before.max.ms": "1000"})
    monkeypatch.setattr(sender, "REFUSED_SECONDS", 1.0)
    before = told()
    async with ResultsTopic(settings) as results:
        assert results._sender is not None
        producer = results._sender._producer
        now = producer.send_and_wait
        monkeypatch.setattr(producer, "send_and_wait", partial(now, timestamp_ms=1))
        await results.tell(TOLD, b"key")
        monkeypatch.setattr(producer, "send_and_wait", now)
        await results.tell(TOLD, b"key")
    assert len(await everything_in(settings, topic)) == 1
    assert told() == before + 1


async def test_without_a_topic_nothing_is_told() -> None:
    before = told()
    async with ResultsTopic(KafkaSettings(bootstrap_servers=("localhost:1",))) as results:  # nobody listens there
        assert not results.wanted
        await results.tell(TOLD, b"key")
    assert told() == before
