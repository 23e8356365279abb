"""The Kafka consumer: records become work, finished work becomes committed offsets.

One task polls and owns the consumer. A poll is never cancelled while we live (a cancelled `getmany` leaks its
fetch count, and max_poll_interval is never enforced again): it is stopped by a flag between short polls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Self

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from v2td import failpoints, metrics
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake import callbacks, holding
from v2td.intake.callbacks import Committed, Handler, LookUp, Skipped
from v2td.intake.committer import Committer
from v2td.intake.connection import cluster_id, ensure_topic, group_member, require_topics
from v2td.intake.gaps import Gaps
from v2td.intake.gauges import Gauges
from v2td.intake.listener import Listener
from v2td.intake.lookback import LookBack
from v2td.intake.membership import Membership
from v2td.intake.offsets import OffsetTracker, Partition
from v2td.intake.poller import Polled, Poller, Unreadable
from v2td.intake.topics import TopicIds
from v2td.intake.works import Work, Works
from v2td.jobs import Coordinates, SourceRecord
from v2td.logs import get_logger

log = get_logger(__name__)

# Of each partition at a time, a single larger record notwithstanding: hundreds of messages. The default, a mebibyte,
# is memory for every partition that is ours, and is thrown away and fetched again whenever partitions pause.
FETCH_BYTES = 131_072
NO_TIMESTAMP = -1  # Kafka's word for a record that has none


class Intake:
    """Consumes the topics as a member of the group; an async context manager that joins it and leaves it.

    `run` polls and works until `stop` is called, then drains and commits. `look_up` tells after a restart
    what was finished behind the committed offsets. `blocked` is asked before each poll whether partitions must
    pause for a reason of somebody else's. `before_revoke` is awaited when work is still under way after a drain, of
    a rebalance or at the end, to save what can be saved of it; it may raise ServiceError. `skipped` makes durable
    that records could not be read. `committed` is told what Kafka has.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        handle: Handler,
        look_up: LookUp,
        *,
        max_in_flight: int,
        blocked: Callable[[], bool],
        before_revoke: Callable[[], Awaitable[None]] = callbacks.nothing_to_save,
        skipped: Skipped = callbacks.nobody_to_tell,
        committed: Committed = callbacks.nothing_to_note,
    ) -> None:
        self._settings = settings
        self._handle = handle
        self._look_up = look_up
        self._max_in_flight = max_in_flight
        self._blocked = blocked
        self._before_revoke = before_revoke
        self._skipped = skipped
        self._committed = committed
        self._tracker = OffsetTracker()
        self._works = Works()
        self._stopping = asyncio.Event()
        self._drain_until = 0.0
        self._full = False
        self._accepting_since: float | None = None  # time.monotonic() while records are taken, None while polling

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._cluster_id = await cluster_id(settings)
        await require_topics(settings, settings.topics)  # the consumer would wait for a missing one, silently
        topics = list(settings.topics)
        if settings.retry_topic is not None:
            await ensure_topic(settings, settings.retry_topic)
            topics.append(settings.retry_topic)
        async with AsyncExitStack() as stack:
            topic_ids = await stack.enter_async_context(TopicIds(settings))
            self._consumer = group_member(settings, FETCH_BYTES)
            self._poller = Poller(self._consumer, self._tracker)
            self._gauges = Gauges(self._consumer, self._tracker, self._works)
            self._gaps = Gaps(self._consumer)
            self._committer = Committer(self._consumer, self._tracker, settings, self._gauges.publish, self._committed)
            self._member = Membership(
                settings,
                self._consumer,
                tracker=self._tracker,
                works=self._works,
                committer=self._committer,
                poller=self._poller,
                look_back=LookBack(self._consumer, topic_ids, self._look_up, self._cluster_id, settings),
                before_revoke=self._before_revoke,
            )
            self._consumer.subscribe(topics, listener=Listener(self._member.on_revoked, self._member.on_assigned))
            try:
                await self._consumer.start()
            except BaseException as error:
                await self._consumer.stop()
                if isinstance(error, KafkaError):
                    raise ServiceError("join the consumer group", str(error), "see kafka.* in the config") from error
                raise
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._open:
            try:
                async with asyncio.timeout(self._settings.commit_timeout_seconds):
                    await self._consumer.stop()  # leaves the group; hangs when the broker is gone (aiokafka#659)
            except TimeoutError:
                log.warning("consumer did not leave the group in time")

    async def run(self) -> None:
        """Work until stopped and drained. ServiceError when Kafka refuses us for good."""
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._committer.run()),
                group.create_task(self._gaps.run()),
                group.create_task(self._member.watch_topics()),
            ]
            polls = group.create_task(self._poll(group))
            await self._stopping.wait()
            # A poll waits for a rebalance to end, which a dead broker never does: it may be cancelled now.
            await asyncio.wait([polls], timeout=max(0.0, self._drain_until - time.monotonic()))
            polls.cancel()
            await self._drain()
            for task in background:
                task.cancel()
            self._works.cancel()
        await self._committer.commit()

    def stop(self, drain_seconds: float) -> None:
        """Ask `run` to take no more records and to return once those under way are done, or after the time."""
        self._drain_until = time.monotonic() + drain_seconds
        self._stopping.set()

    @property
    def joined(self) -> asyncio.Event:
        """Set once partitions (perhaps none) were assigned."""
        return self._member.joined

    @property
    def in_flight(self) -> int:
        """Records that are worked on."""
        return self._works.in_flight

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions that are ours now."""
        return tuple(self._tracker.last_committed())

    def committed_offset(self, topic: str, partition: int) -> int | None:
        """Return what was last committed of a partition; None when it is not ours, or nothing was yet."""
        return self._tracker.last_committed().get(Partition(topic, partition))

    def stalled(self, seconds: float) -> bool:
        """Whether our part of the poll loop hangs; waiting for Kafka is no hanging."""
        return self._accepting_since is not None and time.monotonic() - self._accepting_since > seconds

    def status(self) -> list[dict[str, object]]:
        """Return partitions with their epoch's committed offset and lag behind the end."""
        return self._gauges.status()

    async def _poll(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            if self._member.broken is not None:
                raise self._member.broken
            self._pause_or_resume()
            polled = await self._poller.poll(max(1, self._max_in_flight - self._works.in_flight))
            if polled.batches or polled.unreadable:
                await self._accept(group, polled)

    async def _accept(self, group: asyncio.TaskGroup, polled: Polled) -> None:
        """Hand a poll's records to the tracker and to work, all at once.

        aiokafka delivers nothing from the start of a revocation until the new assignment is known to itself, but
        then at once, while `on_assigned` still awaits: such records would be unknown to the tracker, and lost. What
        belongs to an assignment that is over, or was read before its end moved a partition, is delivered again.
        """
        moved: frozenset[TopicPartition] = frozenset()
        if not self._member.settled.is_set():
            revocations = self._member.revocations
            await self._member.settled.wait()
            if revocations != self._member.revocations:
                return
            moved = self._member.sought
        if self._blocked():  # an assignment resumes all its partitions, also in the middle of a poll
            self._poller.put_back(polled, moved)
            return
        self._accepting_since = time.monotonic()
        # No await from here on until the tracker has them all, or a batch is lost.
        if polled.unreadable is not None and polled.unreadable.partition not in moved:
            self._pass_over(group, polled.unreadable)
        for tp, records in polled.batches.items():
            if tp in moved:
                continue
            metrics.RECORDS_RECEIVED.labels(tp.topic).inc(len(records))
            partition = Partition(tp.topic, tp.partition)
            expected = self._tracker.expected(partition)
            if expected is not None and records[0].offset > expected:
                self._gaps.note(partition, expected, records[0].offset)
            for record in records:
                self._begin(group, record)
        await failpoints.reach("intake.received")
        self._accepting_since = None

    def _begin(self, group: asyncio.TaskGroup, record: ConsumerRecord) -> None:
        ticket = self._tracker.receive(Partition(record.topic, record.partition), record.offset)
        if ticket is None:
            return
        at = Coordinates(self._cluster_id, record.topic, record.partition, record.offset, record.timestamp)
        if (under_way := self._works.get(at)) is not None:
            under_way.tickets.append(ticket)
            return
        source = SourceRecord(record.key, record.value, tuple((name, value or b"") for name, value in record.headers))
        due = holding.not_before(source.headers) if at.topic == self._settings.retry_topic else None
        self._start(group, at, Work([ticket], due), partial(self._handle, at, source, self._member.durable.claim(at)))

    def _pass_over(self, group: asyncio.TaskGroup, unreadable: Unreadable) -> None:
        """Have a range of offsets that cannot be read made durable; its first and last hold the commit back."""
        partition, first, last = unreadable.partition, unreadable.first, unreadable.last
        tickets = [self._tracker.receive(partition, offset) for offset in sorted({first, last})]
        # The index makes a longer range, found at the next attempt, another row.
        at = Coordinates(self._cluster_id, *partition, first, NO_TIMESTAMP, last - first)
        metrics.RECORDS_UNREADABLE.labels(partition.topic).inc(last - first + 1)
        where = {"topic": at.topic, "partition": at.partition, "first_offset": first, "last_offset": last}
        log.error("offsets passed over that cannot be read", **where, reason=unreadable.reason)
        work = Work([each for each in tickets if each is not None])
        self._start(group, at, work, partial(self._skipped, at, last, unreadable.reason))

    def _start(self, group: asyncio.TaskGroup, at: Coordinates, work: Work, do: Callable[[], Awaitable[None]]) -> None:
        self._works.add(at, work, held=work.due is not None and not holding.is_due(work.due))
        work.task = group.create_task(self._do(at, work, do), name=f"record {at.partition}/{at.offset}")

    async def _do(self, at: Coordinates, work: Work, do: Callable[[], Awaitable[None]]) -> None:
        try:
            if work.due is not None:
                await holding.until_due(work.due, self._settings.retry_delay_seconds)
                self._works.release(at)
            await do()
            for ticket in work.tickets:
                self._tracker.resolve(ticket)
            self._committer.note_finished()
        finally:
            self._works.remove(at, work)

    def _pause_or_resume(self) -> None:
        """Pause at the limit, resume at half of it: pausing throws away what was fetched ahead."""
        if self._full:
            self._full = self._works.in_flight > self._max_in_flight // 2
        else:
            self._full = self._works.in_flight >= self._max_in_flight
        everything = self._full or self._blocked()
        metrics.KAFKA_PAUSED.set(everything)
        paused, held, waiting = self._consumer.paused(), self._works.holding(), self._member.waiting
        for tp in self._consumer.assignment():
            spread = self._tracker.spread(Partition(tp.topic, tp.partition))
            wanted = everything or spread >= self._settings.max_uncommitted_records or tp in held or tp in waiting
            if wanted and tp not in paused:
                self._consumer.pause(tp)
            elif not wanted and tp in paused:
                self._consumer.resume(tp)

    async def _drain(self) -> None:
        log.info("draining", in_flight=self._works.in_flight)
        self._works.cancel_held()
        if not await self._works.until_idle(max(0.0, self._drain_until - time.monotonic())):
            log.warning("drain ended by its deadline", unfinished=self._works.in_flight)
            await self._member.save_unfinished(self._settings.commit_timeout_seconds)
