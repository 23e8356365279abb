"""Commits what may be committed, in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from v2td import failpoints, metrics
from v2td.config import KafkaSettings
from v2td.intake.offsets import OffsetTracker
from v2td.intake.topics import to_metadata
from v2td.logs import get_logger

log = get_logger(__name__)


class Committer:
    """Commits the tracker's offsets: after `commit_batch` finished records or `commit_interval_seconds`.

    `report` is called as often.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        tracker: OffsetTracker,
        settings: KafkaSettings,
        report: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._tracker = tracker
        self._settings = settings
        self._report = report
        self.topic_ids: dict[str, UUID | None] = {}  # of the topics that the tracker's offsets mean
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
            self._report()

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
        wanted = {
            TopicPartition(*each): OffsetAndMetadata(offset, to_metadata(self.topic_ids.get(each.topic)))
            for each, offset in offsets.items()
        }
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
