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
from v2td.intake.callbacks import Committed, nothing_to_note
from v2td.intake.offsets import OffsetTracker
from v2td.intake.topics import to_metadata
from v2td.logs import get_logger

log = get_logger(__name__)

ATTEMPT = "GroupCoordinator._do_commit_offsets"  # what aiokafka runs as a task of its own


class Committer:
    """Commits the tracker's offsets: after `commit_batch` finished records or `commit_interval_seconds`.

    `report` is called as often, and `committed` with what Kafka has taken.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        tracker: OffsetTracker,
        settings: KafkaSettings,
        report: Callable[[], None],
        committed: Committed = nothing_to_note,
    ) -> None:
        self._consumer = consumer
        self._tracker = tracker
        self._settings = settings
        self._report = report
        self._committed = committed
        self.topic_ids: dict[str, UUID | None] = {}  # of the topics that the tracker's offsets mean
        self._finished = 0  # records since the last commit
        self._enough = asyncio.Event()
        self._deadlines: list[asyncio.Timeout] = []  # of the commits that go on

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

    def give_up(self) -> None:
        """Try those commits no more that go on: a rebalance is about to make us another generation's member.

        aiokafka would try them as that, and set partitions back that have moved on since, here or elsewhere.
        """
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(0)

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
            await self._commit(wanted)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            metrics.KAFKA_COMMITS.labels("failed").inc()
            log.warning("offsets not committed", error=f"{type(error).__name__}: {error}")
        else:
            metrics.KAFKA_COMMITS.labels("ok").inc()
            metrics.KAFKA_COMMIT_SECONDS.observe(time.monotonic() - began)
            await failpoints.reach("commit.done")
            self._tracker.committed(offsets)
            self._committed(offsets.items())

    async def _commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit, or raise TimeoutError: aiokafka tries for ever when the broker is gone."""
        deadline = asyncio.timeout(self._settings.commit_timeout_seconds)
        self._deadlines.append(deadline)
        try:
            async with deadline:
                await self._consumer.commit(offsets)
        except BaseException:
            _hear_out()
            raise
        finally:
            self._deadlines.remove(deadline)


def _hear_out() -> None:
    """Have somebody see the error of a commit's last attempt.

    aiokafka shields that from our cancelling, and asyncio would log a traceback since its error is never retrieved.
    """
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == ATTEMPT:
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
