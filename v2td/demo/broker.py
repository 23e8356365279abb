"""An embedded Kafka broker: librdkafka's mock cluster, on threads of this process, so that it cannot outlive it.

Good for a tour with one consumer. It keeps at most 5 MiB per partition and nothing across restarts, has no
transactions, and rebalances badly: the tests use a real Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Producer

START_SECONDS = 10


@contextmanager
def broker(topics: Sequence[str]) -> Iterator[str]:
    """Serve Kafka on a free port of 127.0.0.1 and yield host:port; each topic exists, with 4 partitions."""
    # The cluster lives as long as this client does. Level 4 drops the notice that this is no real broker.
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 4})
    try:
        for topic in topics:
            cluster.list_topics(topic, timeout=START_SECONDS)
        (node,) = cluster.list_topics(timeout=START_SECONDS).brokers.values()
        yield f"{node.host}:{node.port}"
    finally:
        cluster.flush(0)
        del cluster
