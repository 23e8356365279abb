import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from tests.cli.conftest import Run, start
from tests.conftest import MakeTopic
from tests.services import minio
from tests.services.state import Services
from v2td.bundled import recordings
from v2td.jobs import Coordinates

AUDIO = {recording.name: recording for recording in recordings()}
ENGLISH, VIETNAMESE = AUDIO["en-01.flac"], AUDIO["vi-01.flac"]
URL = "https://user:hunter2@example.com/call%201.mp3?signature=hunter2"


async def records(services: Services, topic: str) -> list[ConsumerRecord]:
    """All that is in the one partition of the topic."""
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=services.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[ConsumerRecord] = []
        while len(found) < end:
            found += (await consumer.getmany(timeout_ms=1000)).get(partition, [])
        return found
    finally:
        await consumer.stop()


@pytest.fixture
async def jobs_topic(topic: MakeTopic) -> str:
    return await topic(name="jobs")


@pytest.fixture
def kafka(services: Services, jobs_topic: str) -> dict[str, str]:
    return {"V2TD_KAFKA__BOOTSTRAP_SERVERS": services.kafka_bootstrap, "V2TD_KAFKA__TOPICS": jobs_topic}


async def test_a_url(v2td: Run, services: Services, jobs_topic: str, kafka: dict[str, str]) -> None:
    options = (
        "--language",
        "vi",
        "--task",
        "translate",
        "--priority",
        "2",
        "--prompt",
        "Xin chào",
        "--word-timestamps",
        "--condition-on-previous-text",
        "--channels",
        "split",
    )
    answer = await v2td("submit", URL, *options, **kafka)
    assert (answer.code, answer.stderr) == (0, "")
    (record,) = await records(services, jobs_topic)
    message = json.loads(record.value)
    assert UUID(message.pop("id")).version == 4
    assert message == {
        "audio_url": URL,
        "language": "vi",
        "priority": 2,
        "prompt": "Xin chào",
        "condition_on_previous_text": True,
        "multilingual": False,
        "channels": "split",
        "word_timestamps": True,
        "task": "translate",
    }
    assert record.key == b"https://example.com/call%201.mp3"
    row_id, where, source = answer.stdout.split()
    assert UUID(row_id).version == 8
    assert (where, source) == (f"{jobs_topic}/0/0", "https://example.com/call%201.mp3")


async def test_several_as_json(v2td: Run, services: Services, jobs_topic: str, kafka: dict[str, str]) -> None:
    urls = ["s3://recordings/a b.wav", "https://example.com/2.mp3"]
    answer = await v2td("submit", *urls, "--json", **kafka)
    assert (answer.code, answer.stderr) == (0, "")
    jobs = json.loads(answer.stdout)["jobs"]
    sent = await records(services, jobs_topic)
    assert [json.loads(record.value)["audio_url"] for record in sent] == urls
    for job, record, url in zip(jobs, sent, urls, strict=True):
        assert job["id"] == json.loads(record.value)["id"]
        at = Coordinates(await cluster_id(services), jobs_topic, 0, record.offset, record.timestamp)
        assert job == {
            "source": url,
            "audio_url": url,
            "id": job["id"],
            "row_id": str(at.row_id()),
            "topic": jobs_topic,
            "partition": 0,
            "offset": record.offset,
            "state": "sent",
        }


async def cluster_id(services: Services) -> str:
    from v2td.config import KafkaSettings
    from v2td.intake import cluster_id as ask

    return await ask(KafkaSettings(bootstrap_servers=(services.kafka_bootstrap,)))


async def test_an_id_of_ones_own_is_the_key(
    v2td: Run, services: Services, jobs_topic: str, kafka: dict[str, str]
) -> None:
    assert (await v2td("submit", URL, "--id", "call-4711", **kafka)).code == 0
    (record,) = await records(services, jobs_topic)
    assert (record.key, json.loads(record.value)["id"]) == (b"call-4711", "call-4711")
    answer = await v2td("submit", URL, URL, "--id", "twice", COLUMNS="200", **kafka)
    assert answer.code == 2
    assert "one id cannot name several jobs" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--language", "vn"), "unknown language 'vn'"),
        (("--language", "vi", "--multilingual"), "leave one of them out"),
        (("--id", ""), "id: "),
        (("--prompt", "x" * 5000), "prompt: "),
    ],
)
async def test_what_the_daemon_would_refuse_is_not_sent(
    v2td: Run, services: Services, kafka: dict[str, str], arguments: tuple[str, ...], told: str
) -> None:
    answer = await v2td("submit", URL, *arguments, COLUMNS="200", **kafka)
    assert (answer.code, answer.stdout) == (2, "")
    assert told in answer.stderr
    assert "hunter2" not in answer.stderr
    assert await records(services, kafka["V2TD_KAFKA__TOPICS"]) == []


async def test_a_file_below_a_root(
    v2td: Run, services: Services, jobs_topic: str, kafka: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "50 % off?#"
    folder.mkdir()
    file = folder / "cuộc gọi.flac"
    file.write_bytes(ENGLISH.path.read_bytes())
    answer = await v2td("submit", file, V2TD_FETCH__FILE_ROOTS=str(tmp_path), **kafka)
    assert answer.code == 0, answer.stderr
    (record,) = await records(services, jobs_topic)
    assert json.loads(record.value)["audio_url"] == file.as_uri()


async def test_a_file_that_the_daemon_could_not_read(v2td: Run, tmp_path: Path, kafka: dict[str, str]) -> None:
    answer = await v2td("submit", ENGLISH.path, V2TD_FETCH__FILE_ROOTS=str(tmp_path), **kafka)
    assert (answer.code, answer.stdout) == (1, "")
    assert "s3.upload_bucket" in answer.stderr
    assert "fetch.file_roots" in answer.stderr
    answer = await v2td("submit", tmp_path / "absent.wav", **kafka)
    assert answer.code == 1
    assert "not a file that can be read" in answer.stderr


async def test_a_file_is_uploaded(
    v2td: Run, services: Services, bucket: str, kafka: dict[str, str], s3_settings: dict[str, str]
) -> None:
    answer = await v2td("submit", ENGLISH.path, V2TD_S3__UPLOAD_BUCKET=bucket, **kafka, **s3_settings)
    assert answer.code == 0, answer.stderr
    (record,) = await records(services, kafka["V2TD_KAFKA__TOPICS"])
    start, _, key = json.loads(record.value)["audio_url"].partition(f"{bucket}/")
    assert start == "s3://"
    assert key.startswith("uploads/2")
    assert key.endswith("-en-01.flac")
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        stored = await s3.get_object(Bucket=bucket, Key=key)
        assert await stored["Body"].read() == ENGLISH.path.read_bytes()


async def test_a_misspelt_topic_is_not_created(v2td: Run, kafka: dict[str, str]) -> None:
    answer = await v2td("submit", URL, "--topic", "v2td-test-jbos", **kafka)
    assert (answer.code, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error: send to v2td-test-jbos: there is no such topic")


async def test_no_broker(v2td: Run) -> None:
    answer = await v2td("submit", URL, V2TD_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (answer.code, answer.stdout) == (1, "")
    assert "no broker at 127.0.0.1:1" in answer.stderr
    assert "Connect call failed" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


async def test_who_cannot_wait_sends_nothing(
    v2td: Run, services: Services, jobs_topic: str, kafka: dict[str, str]
) -> None:
    dsn = "postgresql://v2td:hunter2@127.0.0.1:1/v2td"
    answer = await v2td("submit", URL, "--wait", V2TD_DATABASE__DSN=dsn, **kafka)
    assert answer.code == 1
    assert answer.stderr.startswith("error: connect to Postgres")
    assert "hunter2" not in answer.stderr
    assert await records(services, jobs_topic) == []


async def test_a_wait_that_takes_too_long(v2td: Run, database: str, kafka: dict[str, str]) -> None:
    assert (await v2td("db", "upgrade", V2TD_DATABASE__DSN=database)).code == 0
    answer = await v2td("submit", URL, "--wait", "--timeout", "0.5", "--json", V2TD_DATABASE__DSN=database, **kafka)
    assert answer.code == 1
    (job,) = json.loads(answer.stdout)["jobs"]
    assert job["state"] == "waiting"


@pytest.fixture
async def daemon(
    database: str, topic: MakeTopic, bucket: str, kafka: dict[str, str], s3_settings: dict[str, str]
) -> AsyncIterator[dict[str, str]]:
    """The settings of a real daemon that runs, or is starting."""
    settings = {
        **kafka,
        **s3_settings,
        "V2TD_KAFKA__DEAD_LETTER_TOPIC": await topic(name="dead"),
        "V2TD_KAFKA__GROUP_ID": bucket,
        "V2TD_S3__UPLOAD_BUCKET": bucket,
        "V2TD_DATABASE__DSN": database,
        "V2TD_ENGINE__MODEL": "demo",
        "V2TD_ENGINE__SLOTS": "1",
        "V2TD_ADMIN__ENABLED": "false",
    }
    process = await start("run", **settings)
    try:
        yield settings
    finally:
        process.terminate()
        await process.communicate()


async def test_wait_for_the_text_from_the_real_daemon(v2td: Run, daemon: dict[str, str], tmp_path: Path) -> None:
    assert (await v2td("db", "upgrade", **daemon)).code == 0
    damaged = tmp_path / "damaged.ogg"
    damaged.write_bytes(b"this is no recording")
    good = await v2td("submit", "--wait", ENGLISH.path, VIETNAMESE.path, **daemon)
    assert good.code == 0, good.stderr
    assert good.stdout == f"==> {ENGLISH.path} <==\n{ENGLISH.text}\n==> {VIETNAMESE.path} <==\n{VIETNAMESE.text}\n"
    assert len(good.stderr.splitlines()) == 2
    mixed = await v2td("submit", "--wait", "--json", "--timeout", "30", ENGLISH.path, damaged, **daemon)
    assert mixed.code == 1
    heard, refused = json.loads(mixed.stdout)["jobs"]
    assert (heard["state"], heard["text"], heard["language"]) == ("transcribed", ENGLISH.text, "en")
    assert (refused["state"], refused["error_class"]) == ("failed", "not_audio")
