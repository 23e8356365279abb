"""Offsets that never came: compaction and transaction markers leave gaps, which are nothing, and so does retention.

What retention deleted before it was read is lost to us: it is counted and said. The brokers tell which it was: they
know the first offset that is left.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from v2td import metrics
from v2td.intake.offsets import Partition
from v2td.logs import get_logger

log = get_logger(__name__)

RETRY_SECONDS = 5.0


def count_deleted(partition: Partition, first: int, end: int) -> None:
    """Say that the records from `first` to before `end`, those of them that there were, are lost."""
    metrics.RECORDS_DELETED.labels(partition.topic).inc(end - first)
    log.error(
        "records were deleted by retention before they were read",
        topic=partition.topic,
        partition=partition.partition,
        first_offset=first,
        last_offset=end - 1,
        records=end - first,
    )


class Gaps:
    """Judges gaps apart from the poll loop, since it asks the brokers."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._gaps: defaultdict[Partition, list[tuple[int, int]]] = defaultdict(list)
        self._found = asyncio.Event()

    def note(self, partition: Partition, first: int, end: int) -> None:
        """Note that the offsets from `first` to before `end` did not come."""
        self._gaps[partition].append((first, end))
        self._found.set()

    async def run(self) -> None:
        """Judge gaps for ever."""
        while True:
            await self._found.wait()
            self._found.clear()
            gaps, self._gaps = self._gaps, defaultdict(list)
            try:
                starts = await self._consumer.beginning_offsets([TopicPartition(*each) for each in gaps])
            except KafkaError as error:
                log.warning("gaps in the offsets not judged yet", error=f"{type(error).__name__}: {error}")
                for partition, found in gaps.items():
                    self._gaps[partition] += found
                self._found.set()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for tp, start in starts.items():
                for first, end in gaps[Partition(tp.topic, tp.partition)]:
                    if start > first:
                        count_deleted(Partition(tp.topic, tp.partition), first, min(start, end))
