"""Commits what may be committed, in batches, and says how far behind the end that is."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from v2td import failpoints, metrics
from v2td.config import KafkaSettings
from v2td.intake.offsets import OffsetTracker, Partition
from v2td.logs import get_logger

log = get_logger(__name__)


class Committer:
    """Commits the tracker's offsets: after `commit_batch` finished records or `commit_interval_seconds`."""

    def __init__(self, consumer: AIOKafkaConsumer, tracker: OffsetTracker, settings: KafkaSettings) -> None:
        self._consumer = consumer
        self._tracker = tracker
        self._settings = settings
        self._finished = 0  # records since the last commit
        self._enough = asyncio.Event()

    def note_finished(self) -> None:
        """Count a record that the tracker has as resolved."""
        self._finished += 1
        if self._finished >= self._settings.commit_batch:
            self._enough.set()

    async def run(self) -> None:
        """Commit for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.commit_interval_seconds):
                    await self._enough.wait()
            await self.commit()
            self._publish_lag()

    async def commit(self) -> None:
        """Commit now; a failure is logged, since the next commit says it again."""
        self._finished = 0
        self._enough.clear()
        ours = self._consumer.assignment()  # one partition that is not ours would fail the whole commit
        offsets = {
            each: offset for each, offset in self._tracker.committable().items() if TopicPartition(*each) in ours
        }
        if not offsets:
            return
        wanted = {TopicPartition(*each): OffsetAndMetadata(offset, "") for each, offset in offsets.items()}
        await failpoints.reach("commit.begin")
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.commit_timeout_seconds):
                await self._consumer.commit(wanted)  # retries for ever when the broker is gone
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            metrics.KAFKA_COMMITS.labels("failed").inc()
            log.warning("offsets not committed", error=f"{type(error).__name__}: {error}")
        else:
            metrics.KAFKA_COMMITS.labels("ok").inc()
            metrics.KAFKA_COMMIT_SECONDS.observe(time.monotonic() - began)
            await failpoints.reach("commit.done")
            self._tracker.committed(offsets)

    def status(self) -> list[dict[str, object]]:
        """Return, for each partition that is ours, what was committed in this epoch, and the lag, if known."""
        return [
            {
                "topic": partition.topic,
                "partition": partition.partition,
                "committed": committed,
                "lag": self._lag(partition, committed),
            }
            for partition, committed in sorted(self._tracker.last_committed().items())
        ]

    def _lag(self, partition: Partition, committed: int | None) -> int | None:
        try:
            end = self._consumer.highwater(TopicPartition(*partition))
        except IllegalStateError:  # not ours any more
            return None
        return None if end is None or committed is None else max(0, end - committed)

    def _publish_lag(self) -> None:
        metrics.KAFKA_LAG.clear()  # partitions that went elsewhere are reported there
        for partition, committed in self._tracker.last_committed().items():
            if (lag := self._lag(partition, committed)) is not None:
                metrics.KAFKA_LAG.labels(partition.topic, partition.partition).set(lag)
