"""A bad network between the daemon and Kafka, Postgres, or the servers of recordings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.chaos.cluster import cluster
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.proxy import Network, Proxy
from tests.chaos.recovery import failed_for_good, until_every_partition_moves
from tests.chaos.world import World

ALL = (Network.RESET, Network.BLACK_HOLE, Network.TRICKLE, Network.LATENCY, Network.HALF_OPEN)
ROUNDS = 4  # of all of them, in the long form
BAD_SECONDS = 4.0  # longer than a session of the consumer group, and than the timeouts below
PER_SECOND = 20
DONE_SECONDS = 60.0

KAFKA_SETTINGS = {"kafka__request_timeout_seconds": 4}
KAFKA_DEADLINE = 15.0
POSTGRES_SETTINGS = {"database__statement_seconds": 2, "database__connect_seconds": 2}
POSTGRES_DEADLINE = 10.0
# A download is tried again for longer than the network is bad: none may fail for good.
DOWNLOAD_SETTINGS = {
    "fetch__connect_seconds": 2,
    "fetch__read_seconds": 2,
    "pipeline__attempts": 12,
    "pipeline__retry_max_seconds": 2,
}
DOWNLOAD_DEADLINE = 15.0


async def kafka(world: World, size: Size) -> Result:
    """Daemons reach the broker through the proxy; producer and auditor do not."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(cluster(brokers=1))
        services = replace(world.services, kafka_bootstrap=one.bootstrap)
        own = await stack.enter_async_context(world.elsewhere(services))
        networks = size.pick((Network.RESET, Network.BLACK_HOLE, Network.HALF_OPEN), ALL * ROUNDS)
        settings = KAFKA_SETTINGS | {"kafka__bootstrap_servers": one.proxied}
        return await _each_network(own, one.brokers[0].proxy, networks, KAFKA_DEADLINE, settings)


async def postgres(world: World, size: Size) -> Result:
    """Daemons reach Postgres through the proxy."""
    parts = urlsplit(world.database)
    async with Proxy((str(parts.hostname), int(parts.port or 5432))) as proxy:
        netloc = f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"
        networks = size.pick((Network.BLACK_HOLE, Network.TRICKLE, Network.HALF_OPEN), ALL * ROUNDS)
        settings = POSTGRES_SETTINGS | {"database__dsn": urlunsplit(parts._replace(netloc=netloc))}
        return await _each_network(world, proxy, networks, POSTGRES_DEADLINE, settings)


async def downloads(world: World, size: Size) -> Result:
    """Some recordings come through the proxy, others do not and are not to suffer."""
    parts = urlsplit(world.web)
    async with Proxy((str(parts.hostname), int(parts.port or 80))) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/echo/1"

        async def others_go_on(network: Network) -> list[str]:
            seconds = await until_every_partition_moves(world, BAD_SECONDS)
            return within([seconds], BAD_SECONDS, f"downloads of others, {network.name}")

        networks = size.pick((Network.RESET, Network.LATENCY, Network.TRICKLE), ALL * ROUNDS)
        return await _each_network(
            world, proxy, networks, DOWNLOAD_DEADLINE, DOWNLOAD_SETTINGS, meanwhile=others_go_on, audio_url=url
        )


async def _each_network(
    world: World,
    proxy: Proxy,
    networks: Sequence[Network],
    deadline: float,
    settings: dict[str, Any],
    *,
    meanwhile: Callable[[Network], Awaitable[list[str]]] | None = None,
    **keys: Any,
) -> Result:
    """Have each bad network for BAD_SECONDS while jobs arrive, and see how long it takes until each partition moves.

    Behind lost connections the network is good at once: time runs from when they are lost.
    """
    recoveries: list[float] = []
    problems: list[str] = []
    figures: dict[str, float] = {}
    async with world.daemons.running(**settings):
        async with world.producer.stream(PER_SECOND, **keys):
            await until_every_partition_moves(world, DONE_SECONDS, **keys)
            if not proxy.connections:
                problems.append("nobody connects through the proxy: nothing was tried")
            for network in networks:
                proxy.set(network)
                since = time.monotonic()
                if network is not Network.HALF_OPEN:
                    if meanwhile:
                        problems += await meanwhile(network)
                    await asyncio.sleep(since + BAD_SECONDS - time.monotonic())
                    since = time.monotonic()
                    proxy.set(Network.GOOD)
                seconds = await until_every_partition_moves(world, 3 * deadline, since=since, **keys)
                recoveries.append(seconds)
                problems += within([seconds], deadline, f"the network is good again, {network.name}")
                name = f"{network.name.lower()}_recovery_seconds"
                figures[name] = max(figures.get(name, 0.0), seconds)
        await world.until_all_done(DONE_SECONDS)
    problems += await failed_for_good(world)
    return await world.result(len(networks), recoveries, problems, figures)


FAULTS = (
    Fault("network-kafka", kafka, "reset, black hole, 1 byte/s, latency, half-open in front of Kafka", (35, 240)),
    Fault("network-postgres", postgres, "the same in front of Postgres", (30, 180)),
    Fault("network-downloads", downloads, "the same in front of the recordings' server", (30, 180)),
)
