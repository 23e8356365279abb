"""Partitions come and go: what is done before they are given up, and what is known of them when they are taken.

Exceptions in aiokafka's rebalance callbacks are only logged there: they are kept for the poll loop to raise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from v2td import failpoints, metrics
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.committer import Committer
from v2td.intake.lookback import Assignment, Durable, LookBack, say_recreated
from v2td.intake.offsets import OffsetTracker, Partition
from v2td.intake.poller import Poller
from v2td.intake.works import Works
from v2td.logs import get_logger

log = get_logger(__name__)

TOPIC_CHECK_SECONDS = 5.0


class Membership:
    """Our part in the group's rebalances. Sets the tracker's epochs, the committer's topics and the positions.

    `settled` is set from the end of an assignment to the start of the next revocation, `joined` once partitions
    (perhaps none) were assigned. `sought` are the partitions that the present assignment moved. `waiting` are those of
    which too little is known to read them: the tracker does not have them, and so their records are passed over.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        consumer: AIOKafkaConsumer,
        *,
        tracker: OffsetTracker,
        works: Works,
        committer: Committer,
        poller: Poller,
        look_back: LookBack,
        before_revoke: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._tracker = tracker
        self._works = works
        self._committer = committer
        self._poller = poller
        self._look_back = look_back
        self._before_revoke = before_revoke
        self._revoked_at: float | None = None  # time.monotonic() of the last one
        self.durable = Durable()
        self.revocations = 0
        self.broken: Exception | None = None  # what a callback raised
        self.sought: frozenset[TopicPartition] = frozenset()
        self.waiting: set[Partition] = set()
        self._look: asyncio.Timeout | None = None  # the deadline of the look that `watch_topics` takes just now
        self._said: dict[str, UUID | None] = {}  # topics that were created anew
        self.settled = asyncio.Event()
        self.joined = asyncio.Event()

    async def save_unfinished(self, seconds: float) -> None:
        """Have the progress of unfinished work saved, if that works in this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._before_revoke()
        except (ServiceError, TimeoutError) as error:
            log.warning("progress of unfinished work not saved", error=f"{type(error).__name__}: {error}")

    async def on_revoked(self, _revoked: Collection[TopicPartition]) -> None:
        """Give up all partitions: the next assignment may bring them back."""
        self.revocations += 1
        self.settled.clear()
        if self._look is not None:
            self._look.reschedule(0)
            self._look = None
        self._revoked_at = time.monotonic()
        self._poller.forget()  # what it would still find out would be taken for the next assignment's
        try:
            await self._give_up_partitions()
        except Exception as error:  # noqa: BLE001 (the poll loop raises it)
            self.broken = error

    async def _give_up_partitions(self) -> None:
        """Finish what can be finished in half the rebalance timeout, commit, and only then fence.

        aiokafka delivers nothing while this runs. Fencing first would throw finished work away. All members wait for
        the slowest, so none waits for long jobs: it is over when for a tenth of the timeout nothing has finished.
        What is under way then is saved in half of the time that is left.
        """
        timeout = self._settings.rebalance_timeout_seconds
        deadline = time.monotonic() + timeout
        await failpoints.reach("revoke.begin")
        self._works.cancel_held()
        if not await self._works.until_idle(timeout / 2, patience=timeout / 10):
            log.info("partitions revoked with work under way", unfinished=self._works.in_flight)
            await self.save_unfinished((deadline - time.monotonic()) / 2)
        await failpoints.reach("revoke.drained")
        await self._committer.commit()
        await failpoints.reach("revoke.committed")
        self._tracker.revoke()
        self._committer.give_up()

    async def on_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Take the partitions that are ours now."""
        try:
            await self._take_partitions({Partition(tp.topic, tp.partition) for tp in assigned})
        except Exception as error:  # noqa: BLE001 (the poll loop raises it)
            self.broken = error
        if self._revoked_at is not None and self.joined.is_set():  # a first one only waits for the others
            metrics.KAFKA_REBALANCE_SECONDS.observe(time.monotonic() - self._revoked_at)
        self.settled.set()
        self.joined.set()

    async def _take_partitions(self, partitions: Collection[Partition]) -> None:
        await failpoints.reach("assign.begin")
        known = await self._look_back.assigned(partitions)
        # From here on nothing is awaited: a commit, or a record, would meet half of it.
        self.durable = Durable()
        self._committer.topic_ids = {}
        epoch = self._tracker.assign(())
        self.waiting = set(partitions)
        self.sought = self._take(known, only_recreated=True)
        metrics.KAFKA_REBALANCES.inc()
        log.info("partitions assigned", partitions=len(partitions), waiting=len(self.waiting), epoch=epoch)
        # Records of partitions that went elsewhere are done there; those that came back are delivered again and
        # find their work under way.
        self._works.cancel(lambda at: Partition(at.topic, at.partition) not in partitions)

    def _take(self, known: Assignment, *, only_recreated: bool) -> frozenset[TopicPartition]:
        """Begin an epoch of each partition of which enough is known; return those that were moved to where it begins.

        `only_recreated`: the others stand there already.
        """
        sought = set()
        for partition, past in known.partitions.items():
            topic, topic_id = partition.topic, known.topic_ids[partition.topic]
            if self._committer.topic_ids.setdefault(topic, topic_id) != topic_id:
                continue  # it was created anew since others of its partitions were taken: `watch_topics` will find it
            self.waiting.discard(partition)
            self._tracker.take(partition)
            self.durable.replace(partition, past.durable)
            if past.begin is not None:
                self._tracker.expect(partition, past.begin)
            if past.recreated:
                self._say_recreated(topic, topic_id)
            elif past.committed is not None:
                self._tracker.committed({partition: past.committed})
            if past.recreated or not only_recreated:
                self._seek(partition, past.begin or 0)
                sought.add(TopicPartition(*partition))
        self._poller.forget(sought)  # not the others: what it met since they are ours holds
        return frozenset(sought)

    def _put_off(self, topic: str) -> None:
        """Have a topic's partitions wait until enough is known of them."""
        ours = [each for each in self._tracker.last_committed() if each.topic == topic]
        for partition in ours:
            self._tracker.drop(partition)
        self._poller.forget(ours)
        self.waiting |= set(ours)
        del self._committer.topic_ids[topic]

    def _say_recreated(self, topic: str, topic_id: UUID | None) -> None:
        if self._said.get(topic) != topic_id:
            self._said[topic] = topic_id
            say_recreated(topic)

    def _seek(self, partition: Partition, offset: int) -> None:
        with suppress(IllegalStateError):  # the next rebalance has begun
            self._consumer.seek(TopicPartition(*partition), offset)

    async def watch_topics(self) -> None:
        """Look again and again whether a topic is another one by now, and take partitions that wait.

        So a topic that was created anew is read from its beginning: its partitions wait, and no commit is of it.
        """
        while True:
            await asyncio.sleep(min(TOPIC_CHECK_SECONDS, self._settings.metadata_max_age_seconds))
            await self.settled.wait()
            try:
                async with asyncio.timeout(None) as self._look:
                    await self._look_again()
            except TimeoutError:
                continue  # partitions were revoked: the look back of the next assignment finds it
            finally:
                self._look = None

    async def _look_again(self) -> None:
        current = await self._look_back.topic_ids(set(self._committer.topic_ids))
        for topic, topic_id in current.items() if self.settled.is_set() else ():
            known = self._committer.topic_ids[topic]
            if topic_id in (None, known):
                continue
            if known is not None:
                self._say_recreated(topic, topic_id)
            self._put_off(topic)
        if not self.waiting:
            return
        past = await self._look_back.assigned(frozenset(self.waiting))
        if self.settled.is_set():
            self._take(past, only_recreated=False)
        if self.waiting:
            log.warning("partitions wait until it is known which topic they are of", partitions=len(self.waiting))
