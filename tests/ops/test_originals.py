"""Messages are found again where they lie, in any order, and what lies there instead is not taken for them."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer

from tests.conftest import MakeTopic
from tests.services.state import Services
from v2td.config import KafkaSettings, Settings
from v2td.intake import cluster_id
from v2td.jobs import Coordinates
from v2td.ops.originals import open_originals

PARTITIONS = 3


@pytest.fixture
async def settings(services: Services, topic: MakeTopic) -> Settings:
    name = await topic(partitions=PARTITIONS, name="jobs")
    return Settings(kafka=KafkaSettings(bootstrap_servers=(services.kafka_bootstrap,), topics=(name,)))


@pytest.fixture
async def there(settings: Settings) -> dict[str, Coordinates]:
    """Coordinates by URL."""
    cluster = await cluster_id(settings.kafka)
    found = {}
    async with AIOKafkaProducer(bootstrap_servers=list(settings.kafka.bootstrap_servers)) as producer:
        for number in range(30):
            url = f"https://example.com/{number}.wav?secret={number}"
            value = json.dumps({"audio_url": url}).encode()
            done = await producer.send_and_wait(settings.kafka.topics[0], value, partition=number % PARTITIONS)
            found[url] = Coordinates(cluster, done.topic, done.partition, done.offset, done.timestamp)
    return found


async def test_messages_are_found_in_any_order(settings: Settings, there: dict[str, Coordinates]) -> None:
    async with open_originals(settings) as originals, asyncio.timeout(60):
        for url, at in [*there.items(), *reversed(there.items())]:
            for wrong in (
                replace(at, offset=at.offset + 100),
                replace(at, timestamp_ms=at.timestamp_ms - 1),
                replace(at, partition=PARTITIONS),
                replace(at, record_index=1),
                replace(at, topic="no-such-topic"),
                replace(at, cluster_id="another"),
            ):
                assert await originals.find(wrong) is None
            job = await originals.find(at)
            assert job is not None
            assert (job.audio_url, job.coordinates) == (url, at)
