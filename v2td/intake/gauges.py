"""What is published and shown of each partition that is ours: how far behind it is, and what holds it back."""

from __future__ import annotations

import time
from collections import Counter

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from v2td import metrics
from v2td.intake.offsets import OffsetTracker, Partition
from v2td.intake.works import Works


class Gauges:
    """Looks at the consumer, the tracker and the records under way when it is asked."""

    def __init__(self, consumer: AIOKafkaConsumer, tracker: OffsetTracker, works: Works) -> None:
        self._consumer = consumer
        self._tracker = tracker
        self._works = works

    def status(self) -> list[dict[str, object]]:
        """Return, for each partition that is ours, how far it is, and since when its oldest record is unfinished."""
        in_flight, oldest = self._under_way()
        return [
            {
                "topic": partition.topic,
                "partition": partition.partition,
                "epoch": self._tracker.epoch(partition),
                "committed": committed,
                "lag": self._lag(partition, committed),
                "in_flight": in_flight[partition],
                "oldest_unfinished_seconds": round(oldest[partition], 3) if partition in oldest else None,
            }
            for partition, committed in sorted(self._tracker.last_committed().items())
        ]

    def publish(self) -> None:
        """Set the metrics; partitions that went elsewhere are reported there."""
        in_flight, oldest = self._under_way()
        for gauge in (metrics.KAFKA_LAG, metrics.KAFKA_IN_FLIGHT, metrics.KAFKA_OLDEST):
            gauge.clear()
        for partition, committed in self._tracker.last_committed().items():
            topic, number = partition
            if (lag := self._lag(partition, committed)) is not None:
                metrics.KAFKA_LAG.labels(topic, number).set(lag)
            metrics.KAFKA_IN_FLIGHT.labels(topic, number).set(in_flight[partition])
            metrics.KAFKA_OLDEST.labels(topic, number).set(oldest.get(partition, 0.0))

    def _under_way(self) -> tuple[Counter[Partition], dict[Partition, float]]:
        """Return, for each partition, the records under way, and the seconds since the oldest was written to Kafka."""
        in_flight: Counter[Partition] = Counter()
        oldest: dict[Partition, int] = {}
        for at in self._works.under_way():
            partition = Partition(at.topic, at.partition)
            in_flight[partition] += 1
            if at.timestamp_ms >= 0:
                oldest[partition] = min(at.timestamp_ms, oldest.get(partition, at.timestamp_ms))
        now_ms = time.time() * 1000  # like the records' own timestamps, a matter of wall clocks
        return in_flight, {partition: max(0.0, now_ms - at_ms) / 1000 for partition, at_ms in oldest.items()}

    def _lag(self, partition: Partition, committed: int | None) -> int | None:
        try:
            end = self._consumer.highwater(TopicPartition(*partition))
        except IllegalStateError:  # not ours any more
            return None
        return None if end is None or committed is None else max(0, end - committed)
