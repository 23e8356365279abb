"""Kafka: one KRaft node, broker and controller in one JVM, straight from the jars that Maven brings."""

import base64
import os
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.services.errors import ServiceError
from tests.services.processes import Process, free_ports, spawn, tcp_answers, until_answers

VERSION = "4.1.0"
SLF4J_VERSION = "1.7.36"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"

_HEAP = "-Xmx512m"
_START_SECONDS = 60.0

_POM = f"""<?xml version="1.0" encoding="UTF-8"?>
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>v2td</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

# Not the defaults, and why: one node cannot replicate; few internal partitions are created faster; tests write records
# with timestamps of long ago and must find them again (retention); a topic that nobody created is a mistake to be seen.
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.retention.ms": "-1",
    "auto.create.topics.enable": "false",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A data folder formatted for one node on fixed ports; it can be launched, killed and launched again."""

    jars: Path
    folder: Path
    port: int

    @property
    def bootstrap(self) -> str:
        """What a client is given: host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def properties(self) -> Path:
        """The server's configuration file."""
        return self.folder / "server.properties"


def java() -> str:
    """The Java program: JAVA_HOME's when that is set, else the one that PATH leads to."""
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else "java"


def build(folder: Path) -> None:
    """Fills ``folder`` with Kafka's jars.  Raises subprocess.CalledProcessError when Maven fails."""
    pom = folder / "pom.xml"
    pom.write_text(_POM, encoding="utf-8")
    subprocess.run(
        ["mvn", "-q", "-B", "-f", pom, f"{PLUGIN}:copy-dependencies", f"-DoutputDirectory={folder}"],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def prepare(jars: Path, folder: Path, *, log: Path, extra: Mapping[str, str] | None = None) -> Node:
    """Writes the configuration and formats the storage in ``folder``; blocks for the second that this takes.

    ``extra`` overrides single properties.  Raises ServiceError when the storage tool refuses.
    """
    port, controller = free_ports(2)
    node = Node(jars, folder, port)
    properties = {
        **PROPERTIES,
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(folder / "log"),
        **(extra or {}),
    }
    format_storage(node, properties, new_cluster_id(), log=log, quorum=["--standalone"])
    return node


def new_cluster_id() -> str:
    """A cluster's id as Kafka writes it."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def format_storage(node: Node, properties: Mapping[str, str], cluster: str, *, log: Path, quorum: list[str]) -> None:
    """Writes the node's configuration and formats its storage; blocks for the second that this takes.

    ``quorum`` are the storage tool's options about the first controllers.  Raises ServiceError when it refuses.
    """
    node.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
    # The = keeps a cluster id that happens to begin with a dash from being read as an option.
    tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(node.properties), *quorum]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [*_java(node), *tool], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise ServiceError(f"Kafka's storage could not be formatted, exit status {done.returncode}; see {log}")


def launch(node: Node, *, log: Path) -> Process:
    """Starts the node without waiting for it."""
    return spawn("kafka", [*_java(node), "kafka.Kafka", node.properties], log=log, cwd=node.folder)


async def ready(node: Node, process: Process, *, log: Path) -> None:
    """Waits until the broker answers a client.  Raises ServiceError when it does not come up."""
    # A bare connection first: a client that is refused writes lines of errors to the log of the caller.
    await until_answers(process, lambda: tcp_answers(node.port), log=log, timeout_seconds=_START_SECONDS)
    await until_answers(process, lambda: answers(node.bootstrap), log=log, timeout_seconds=_START_SECONDS)


async def answers(bootstrap: str) -> None:
    """Raises KafkaError or OSError unless a broker at ``bootstrap`` tells about its cluster."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        await admin.describe_cluster()
    finally:
        await admin.close()


async def create_topic(bootstrap: str, name: str, *, partitions: int = 1, replicas: int = 1) -> None:
    """Creates the topic ``name``.  Raises KafkaError when the broker refuses, also when the topic exists."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(name, partitions, replicas)])
    finally:
        await admin.close()


def _java(node: Node) -> list[str]:
    """The JVM: small heap, one collector thread and only the quick compiler, as tests share few cores with it."""
    return [java(), _HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{node.jars}/*"]
