"""The private cluster: it replicates, survives the loss of a broker, and is reached through proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.chaos.cluster import Cluster, cluster
from tests.chaos.proxy import Network
from tests.services import kafka

pytestmark = pytest.mark.slow


@pytest.fixture
async def three() -> AsyncIterator[Cluster]:
    async with cluster() as running:
        yield running


async def produce(bootstrap: str | list[str], topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=5000)
    try:
        await producer.start()
        for partition in range(3):
            await producer.send_and_wait(topic, value, partition=partition)
    finally:
        await producer.stop()


async def values(bootstrap: str, topic: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        end = sum((await consumer.end_offsets(list(consumer.assignment()))).values())
        found: list[bytes] = []
        while len(found) < end:
            found += [record.value for each in (await consumer.getmany(timeout_ms=200)).values() for record in each]
        return found
    finally:
        await consumer.stop()


async def test_a_broker_dies_and_comes_back(three: Cluster) -> None:
    """One test for all, since three brokers take long to start."""
    await kafka.create_topic(three.bootstrap, "jobs", partitions=3, replicas=3)
    await three.until_in_sync("jobs")
    await produce(three.proxied, "jobs", b"through proxies")
    assert all(each.proxy.connections for each in three.brokers), "clients are told the proxies' addresses"
    leader = (await three.leaders("jobs"))[0]
    assert leader is not None

    await leader.kill()
    async with asyncio.timeout(30):
        while (now := (await three.leaders("jobs"))[0]) in (None, leader):
            await asyncio.sleep(0.2)
    assert now is not None
    await produce(three.bootstrap, "jobs", b"two are enough")
    await leader.start()
    await three.until_in_sync("jobs")
    assert (await three.leaders("jobs"))[0] is not leader
    assert await three.elect_preferred("jobs") == 1
    assert (await three.leaders("jobs"))[0] is leader
    assert sorted(await values(three.bootstrap, "jobs")) == [b"through proxies"] * 3 + [b"two are enough"] * 3

    for broker in three.brokers:
        broker.proxy.set(Network.RESET)
    with pytest.raises(KafkaError):
        await produce(three.proxied, "jobs", b"cut off")
