"""Three brokers, each of them behind a proxy: brokers die and come back, leaders move, networks go bad."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import ElectionType
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import AdminClient

from tests.chaos.proxy import Proxy
from tests.chaos.servers import Place, place
from tests.services import kafka
from tests.services.build import build
from tests.services.kafka import Node
from tests.services.processes import Process, free_ports, kill, stop

_ISR_SECONDS = 30.0

# A dead broker is noticed sooner than by default (9 s), and leaders move when we say so.
_PROPERTIES = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    "auto.leader.rebalance.enable": "false",
    "controlled.shutdown.max.retries": "1",
    "log.cleaner.backoff.ms": "200",  # compaction begins at once
}


@dataclass(eq=False, slots=True)
class Broker:
    """One node; `proxy` is the way to it that daemons take."""

    number: int
    node: Node
    log: Path
    proxy: Proxy
    home: Place
    process: Process | None = None

    async def start(self) -> None:
        """Launch it, and return when it answers."""
        self.launch()
        await self.ready()

    def launch(self) -> None:
        """Launch it without waiting."""
        self.process = self.home.started(kafka.launch(self.node, log=self.log))

    async def ready(self) -> None:
        """Wait until it answers."""
        assert self.process is not None
        await kafka.ready(self.node, self.process, log=self.log)

    async def kill(self) -> None:
        """Kill it, and return when it is gone: the others learn it from its silence."""
        assert self.process is not None
        await asyncio.to_thread(kill, self.process, signal.SIGKILL)

    async def stop(self) -> None:
        """Shut it down in good order: it hands its partitions over first."""
        assert self.process is not None
        await asyncio.to_thread(stop, self.process, grace_seconds=20.0)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster; made by `cluster`."""

    brokers: Sequence[Broker]

    @property
    def bootstrap(self) -> str:
        """All brokers, by the direct way."""
        return ",".join(each.node.bootstrap for each in self.brokers)

    @property
    def proxied(self) -> list[str]:
        """All brokers, by the way through their proxies."""
        return [f"127.0.0.1:{each.proxy.port}" for each in self.brokers]

    async def leaders(self, topic: str) -> dict[int, Broker | None]:
        """Return who leads each of the topic's partitions; None while nobody does."""
        return {
            number: self.brokers[each.leader - 1] if each.leader > 0 else None
            for number, each in (await self._partitions(topic)).items()
        }

    async def until_in_sync(self, *topics: str) -> None:
        """Wait until every replica of the topics is in sync."""
        async with asyncio.timeout(_ISR_SECONDS):
            for topic in topics:
                while any(len(each.isrs) < len(each.replicas) for each in (await self._partitions(topic)).values()):
                    await asyncio.sleep(0.2)

    async def elect_preferred(self, topic: str) -> int:
        """Make the first replica of each partition its leader; return of how many the leader changed."""
        before = await self.leaders(topic)
        partitions = [ConfluentPartition(topic, each) for each in before]
        admin = self._admin()  # to be kept until it has answered
        await asyncio.to_thread(admin.elect_leaders(ElectionType.PREFERRED, partitions).result, 15)
        after = await self.leaders(topic)
        return sum(after[each] is not before[each] for each in before)

    async def _partitions(self, topic: str) -> dict[int, Any]:
        metadata = await asyncio.to_thread(self._admin().list_topics, topic, timeout=15)
        return dict(metadata.topics[topic].partitions)

    def _admin(self) -> AdminClient:
        # Not aiokafka's, which asks one broker of those that it knows, be it dead or not.
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})


@asynccontextmanager
async def cluster(brokers: int = 3) -> AsyncIterator[Cluster]:
    """Start brokers that are controllers, too; three take about six seconds on two cores."""
    jars = (await asyncio.to_thread(build)).kafka
    async with AsyncExitStack() as stack:
        home = stack.enter_context(place("cluster"))
        ports = free_ports(3 * brokers)
        direct, proxied, controllers = (ports[each * brokers : (each + 1) * brokers] for each in range(3))
        shared = {
            **kafka.PROPERTIES,
            **_PROPERTIES,
            # As on real clusters: of three replicas two must have a record.
            "offsets.topic.replication.factor": str(brokers),
            "transaction.state.log.replication.factor": str(brokers),
            "transaction.state.log.min.isr": str(brokers // 2 + 1),
            "min.insync.replicas": str(brokers // 2 + 1),
            "controller.quorum.voters": ",".join(
                f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, 1)
            ),
        }
        identity = kafka.new_cluster_id()
        running = []
        for number, port, far, controller in zip(range(1, brokers + 1), direct, proxied, controllers, strict=True):
            proxy = await stack.enter_async_context(Proxy(("127.0.0.1", far)))
            folder = home.folder / f"broker-{number}"
            folder.mkdir()
            broker = Broker(number, Node(jars, folder, port), home.logs / f"broker-{number}.log", proxy, home)
            properties = {
                **shared,
                "node.id": str(number),
                "listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{far},CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy.port}",
                "log.dirs": str(folder / "log"),
            }
            await asyncio.to_thread(kafka.format_storage, broker.node, properties, identity, log=broker.log, quorum=[])
            broker.launch()
            running.append(broker)
        for broker in running:
            await broker.ready()
        yield Cluster(running)
