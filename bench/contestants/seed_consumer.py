"""What both of the first seed's consumers do: join a group with manual commits, and say that they are ready."""

from __future__ import annotations

import os
import sys

from confluent_kafka import Consumer, TopicPartition

READY = "ready"


def subscribed_consumer() -> Consumer:
    """Return a consumer with partitions assigned; nothing is polled yet."""
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": os.environ["KAFKA_GROUP_ID"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "max.poll.interval.ms": 3_600_000,  # it does not poll while it transcribes
        }
    )
    assigned: list[TopicPartition] = []
    consumer.subscribe([os.environ["KAFKA_TOPIC"]], on_assign=lambda _consumer, partitions: assigned.extend(partitions))
    while not assigned:
        if (message := consumer.poll(0.1)) is not None:
            raise RuntimeError(f"a message before all was ready: {message.error() or message.offset()}")
    return consumer


def announce_ready() -> None:
    """Say on stdout that messages may come."""
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()
