"""An intake on the real Kafka, and what a test does on the other side: produce, and ask what is committed."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests.services.state import Services
from v2td.config import KafkaSettings
from v2td.intake import Intake
from v2td.intake.callbacks import LookUp
from v2td.jobs import Coordinates, SourceRecord

MakeSettings = Callable[..., KafkaSettings]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def settings_for(services: Services) -> MakeSettings:
    """``settings_for(topic, **changes)``: a group of its own, and timeouts as short as the broker allows."""

    def make(*topics: str, **changes: object) -> KafkaSettings:
        values: dict[str, object] = {
            "bootstrap_servers": [services.kafka_bootstrap],
            "topics": topics or ["unused"],
            "group_id": f"group-{secrets.token_hex(6)}",
            "dead_letter_topic": f"dead-{secrets.token_hex(6)}",
            "session_timeout_seconds": 6,
            "rebalance_timeout_seconds": 6,
            "commit_timeout_seconds": 3,
            "commit_interval_seconds": 0.1,
        }
        return KafkaSettings.model_validate(values | changes)

    return make


@dataclass
class Desk:
    """A handler that can be told to take its time; by offset of any partition."""

    slow: set[int] = field(default_factory=set)  # these wait for `release`
    started: list[Coordinates] = field(default_factory=list)
    records: dict[Coordinates, SourceRecord] = field(default_factory=dict)
    durable: dict[Coordinates, frozenset[UUID]] = field(default_factory=dict)
    finished: set[Coordinates] = field(default_factory=set)
    cancelled: list[Coordinates] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, at: Coordinates, record: SourceRecord, durable: frozenset[UUID]) -> None:
        self.started.append(at)
        self.records[at] = record
        self.durable[at] = durable
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.release.wait() if at.offset in self.slow else asyncio.sleep(0.005))
            self.finished.add(at)
        except asyncio.CancelledError:
            self.cancelled.append(at)
            raise
        finally:
            self.at_once -= 1

    @property
    def offsets(self) -> list[int]:
        return [at.offset for at in self.started]


async def knows_nothing(_cluster: str, _topic: str, _partition: int, _first: int) -> dict[int, frozenset[UUID]]:
    return {}


def intake_of(
    settings: KafkaSettings,
    desk: Desk,
    look_up: LookUp = knows_nothing,
    *,
    max_in_flight: int = 64,
    blocked: Callable[[], bool] = lambda: False,
) -> Intake:
    return Intake(settings, desk.handle, look_up, max_in_flight=max_in_flight, blocked=blocked)


@asynccontextmanager
async def running(intake: Intake, drain_seconds: float = 5.0) -> AsyncIterator[Intake]:
    """Run it until the end of the block, then stop, drain and leave the group."""
    async with intake:
        task = asyncio.create_task(intake.run())
        try:
            yield intake
        finally:
            intake.stop(drain_seconds)
            await task


async def produce(
    settings: KafkaSettings, values: Collection[bytes], *, topic: str | None = None, partition: int | None = None
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        for value in values:
            await producer.send(topic or settings.topics[0], value, partition=partition)
        await producer.flush()


async def committed(settings: KafkaSettings) -> dict[int, int]:
    """The group's committed offsets, by partition of the one topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=list(settings.bootstrap_servers))
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(settings.group_id)
    finally:
        await admin.close()
    return {tp.partition: meta.offset for tp, meta in offsets.items() if meta.offset >= 0}


async def everything_in(settings: KafkaSettings, topic: str) -> list[ConsumerRecord]:
    """All records of a topic of one partition."""
    async with AIOKafkaConsumer(
        bootstrap_servers=list(settings.bootstrap_servers), auto_offset_reset="earliest"
    ) as consumer:
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        records: list[ConsumerRecord] = []
        while await consumer.position(tp) < end:
            records += (await consumer.getmany(tp, timeout_ms=500)).get(tp, [])
    return records


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)
