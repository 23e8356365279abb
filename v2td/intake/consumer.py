"""The Kafka consumer: records become work, finished work becomes committed offsets.

One task polls and owns the consumer. A poll is never cancelled while we live (a cancelled `getmany` leaks its
fetch count, and max_poll_interval is never enforced again): it is stopped by a flag between short polls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from v2td import failpoints, metrics
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.committer import Committer
from v2td.intake.connection import client_options, cluster_id, require_topics
from v2td.intake.listener import Listener
from v2td.intake.offsets import OffsetTracker, Partition, Ticket
from v2td.jobs import Coordinates, SourceRecord
from v2td.logs import get_logger

log = get_logger(__name__)

POLL_SECONDS = 0.2
# Of each partition at a time, a single larger record notwithstanding: hundreds of messages. The default, a mebibyte,
# is memory for every partition that is ours, and is thrown away and fetched again whenever partitions pause.
FETCH_BYTES = 131_072
REFUSED = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)

# Takes a record and the ids of those of its jobs that are durable already. Returns when all of them are; raises
# only for our own faults.
Handler = Callable[[Coordinates, SourceRecord, frozenset[UUID]], Awaitable[None]]

# Asks the database: (cluster, topic, partition, first offset) to the ids of durable jobs, by offset.
LookUp = Callable[[str, str, int, int], Awaitable[dict[int, frozenset[UUID]]]]


async def nothing_to_save() -> None:
    """Save nothing: what `before_revoke` does unless told otherwise."""


async def nothing_to_save() -> None:
    """Save nothing: what `before_revoke` does unless told otherwise."""


@dataclass(slots=True)
class _Work:
    """One record under way; more than one ticket when it was delivered again after a rebalance."""

    tickets: list[Ticket]
    task: asyncio.Task[None] | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


class Intake:
    """Consumes the topics as a member of the group; an async context manager that joins it and leaves it.

    `run` polls and works until `stop` is called, then drains and commits. `look_up` tells after a restart
    what was finished behind the committed offsets. `blocked` is asked before each poll whether partitions must
    pause for a reason of somebody else's. `before_revoke` is awaited when work is still under way after a drain, of
    a rebalance or at the end, to save what can be saved of it; it may raise ServiceError.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        handle: Handler,
        look_up: LookUp,
        *,
        max_in_flight: int,
        blocked: Callable[[], bool],
        before_revoke: Callable[[], Awaitable[None]] = nothing_to_save,
    ) -> None:
        self._settings = settings
        self._handle = handle
        self._look_up = look_up
        self._durable: dict[Partition, dict[int, frozenset[UUID]]] = {}
        self._max_in_flight = max_in_flight
        self._blocked = blocked
        self._before_revoke = before_revoke
        self._before_revoke = before_revoke
        self._tracker = OffsetTracker()
        self._works: dict[Coordinates, _Work] = {}
        self._stopping = asyncio.Event()
        self._drain_until = 0.0
        self._finished = asyncio.Event()  # set whenever a record was finished
        self._full = False
        self._accepting_since: float | None = None  # time.monotonic() while records are taken, None while polling
        self._revocations = 0
        self._revoked_at: float | None = None  # time.monotonic(), from a revocation to the next assignment
        self._broken: Exception | None = None  # what a rebalance callback raised: aiokafka would only log it
        self._revoked_at: float | None = None  # time.monotonic(), from a revocation to the next assignment
        self._broken: Exception | None = None  # what a rebalance callback raised: aiokafka would only log it
        self._settled = asyncio.Event()  # from the end of an assignment to the start of the next revocation
        self.joined = asyncio.Event()  # set once partitions (perhaps none) were assigned

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._cluster_id = await cluster_id(settings)
        await require_topics(settings, settings.topics)  # the consumer would wait for a missing one, silently
        self._consumer = AIOKafkaConsumer(
            **client_options(settings),
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # the default, latest, skips what came before the first commit
            isolation_level="read_committed",  # the default delivers aborted records
            session_timeout_ms=int(settings.session_timeout_seconds * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_seconds * 1000 / 3),
            rebalance_timeout_ms=int(settings.rebalance_timeout_seconds * 1000),
            max_poll_interval_ms=int(settings.max_poll_interval_seconds * 1000),
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=int(settings.fetch_max_wait_seconds * 1000),
        )
        self._committer = Committer(self._consumer, self._tracker, settings)
        self._consumer.subscribe(list(settings.topics), listener=Listener(self._on_revoked, self._on_assigned))
        try:
            await self._consumer.start()
        except BaseException as error:
            await self._consumer.stop()
            if isinstance(error, KafkaError):
                raise ServiceError("join the consumer group", str(error), "see kafka.* in the config") from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(self._settings.commit_timeout_seconds):
                await self._consumer.stop()  # leaves the group; hangs when the broker is gone (aiokafka#659)
        except TimeoutError:
            log.warning("consumer did not leave the group in time")

    async def run(self) -> None:
        """Work until stopped and drained. ServiceError when Kafka refuses us for good."""
        async with asyncio.TaskGroup() as group:
            commits = group.create_task(self._committer.run())
            polls = group.create_task(self._poll(group))
            await self._stopping.wait()
            # A poll waits for a rebalance to end, which a dead broker never does: it may be cancelled now.
            await asyncio.wait([polls], timeout=max(0.0, self._drain_until - time.monotonic()))
            polls.cancel()
            await self._drain()
            commits.cancel()
            for work in self._works.values():
                work.cancel()
        await self._committer.commit()

    def stop(self, drain_seconds: float) -> None:
        """Ask `run` to take no more records and to return once those under way are done, or after the time."""
        self._drain_until = time.monotonic() + drain_seconds
        self._stopping.set()

    @property
    def in_flight(self) -> int:
        """Records under way."""
        return len(self._works)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions that are ours now."""
        return tuple(self._tracker.last_committed())

    def stalled(self, seconds: float) -> bool:
        """Whether our part of the poll loop hangs; waiting for Kafka is no hanging."""
        return self._accepting_since is not None and time.monotonic() - self._accepting_since > seconds

    def status(self) -> list[dict[str, object]]:
        """Return partitions with their epoch's committed offset and lag behind the end."""
        return self._committer.status()

    async def _poll(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            if self._broken is not None:
                raise self._broken
            self._accepting_since = time.monotonic()
            self._pause_or_resume()
            self._accepting_since = None
            room = max(1, self._max_in_flight - len(self._works))
            try:
                batches = await self._consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=room)
            except REFUSED as error:
                raise ServiceError("read from Kafka", str(error), "grant Read on the topics and the group") from error
            except OffsetOutOfRangeError as error:  # with a reset policy aiokafka seeks by itself
                log.error("offsets out of range: records were deleted before they were read", error=str(error))
            except KafkaError as error:
                log.error("poll failed", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(1)
            else:
                if batches and await self._is_current():
                    for tp, records in batches.items():  # no await until the tracker has them all, or a batch is lost
                        metrics.RECORDS_RECEIVED.labels(tp.topic).inc(len(records))
                        for record in records:
                            self._accept(group, record)
                    await failpoints.reach("intake.received")
                    await failpoints.reach("intake.received")

    async def _is_current(self) -> bool:
        """Wait until the assignment that a polled batch belongs to is taken in; False when it is over by then.

        aiokafka delivers nothing from the start of a revocation until the new assignment is known to itself, but
        then at once, while `_on_assigned` still awaits: such records would be unknown to the tracker, and lost. A
        batch of an assignment that is over is delivered again.
        """
        revocations = self._revocations
        await self._settled.wait()
        return revocations == self._revocations

    def _accept(self, group: asyncio.TaskGroup, record: ConsumerRecord) -> None:
        ticket = self._tracker.receive(Partition(record.topic, record.partition), record.offset)
        if ticket is None:
            return
        at = Coordinates(self._cluster_id, record.topic, record.partition, record.offset, record.timestamp)
        if (under_way := self._works.get(at)) is not None and not under_way.cancelled:
            under_way.tickets.append(ticket)
            return
        source = SourceRecord(record.key, record.value, tuple((name, value or b"") for name, value in record.headers))
        work = _Work([ticket])
        self._works[at] = work
        durable = self._durable.get(ticket.partition, {}).pop(at.offset, frozenset())
        work.task = group.create_task(self._do(at, source, durable, work), name=f"record {at.partition}/{at.offset}")

    async def _do(self, at: Coordinates, source: SourceRecord, durable: frozenset[UUID], work: _Work) -> None:
        try:
            await self._handle(at, source, durable)
            for ticket in work.tickets:
                self._tracker.resolve(ticket)
            self._committer.note_finished()
        finally:
            if self._works.get(at) is work:  # not so when it was cancelled and its record came back meanwhile
                del self._works[at]
            self._finished.set()

    def _pause_or_resume(self) -> None:
        """Pause at the limit, resume at half of it: pausing throws away what was fetched ahead."""
        if self._full:
            self._full = len(self._works) > self._max_in_flight // 2
        else:
            self._full = len(self._works) >= self._max_in_flight
        everything = self._full or self._blocked()
        metrics.KAFKA_PAUSED.set(everything)
        paused = self._consumer.paused()
        for tp in self._consumer.assignment():
            spread = self._tracker.spread(Partition(tp.topic, tp.partition))
            wanted = everything or spread >= self._settings.max_uncommitted_records
            if wanted and tp not in paused:
                self._consumer.pause(tp)
            elif not wanted and tp in paused:
                self._consumer.resume(tp)

    async def _until_idle(self, seconds: float) -> bool:
        """Wait until no record is under way; False when that takes longer."""
        try:
            async with asyncio.timeout(seconds):
                while self._works:
                    self._finished.clear()
                    await self._finished.wait()
        except TimeoutError:
            return False
        return True

    async def _drain(self) -> None:
        log.info("draining", in_flight=len(self._works))
        if not await self._until_idle(max(0.0, self._drain_until - time.monotonic())):
            log.warning("drain ended by its deadline", unfinished=len(self._works))
            await self._save_unfinished(self._settings.commit_timeout_seconds)

    async def _save_unfinished(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._before_revoke()
        except (ServiceError, TimeoutError) as error:
            log.warning("progress of unfinished work not saved", error=str(error) or type(error).__name__)

    async def _on_revoked(self, _revoked: Collection[TopicPartition]) -> None:
        self._revocations += 1
        self._settled.clear()
        self._revoked_at = time.monotonic()
        try:
            await self._give_up_partitions()
        except Exception as error:  # noqa: BLE001 (the poll loop raises it)
            self._broken = error

    async def _give_up_partitions(self) -> None:
        """Finish what can be finished in half the rebalance timeout, commit, and only then fence.

        aiokafka delivers nothing while this runs. Fencing first would throw finished work away. What is not finished
        is saved in half of the time that is left.
        """
        deadline = time.monotonic() + self._settings.rebalance_timeout_seconds
        await failpoints.reach("revoke.begin")
        if not await self._until_idle(self._settings.rebalance_timeout_seconds / 2):
            log.info("partitions revoked with work under way", unfinished=len(self._works))
            await self._save_unfinished((deadline - time.monotonic()) / 2)
        await failpoints.reach("revoke.drained")
        await self._committer.commit()
        await failpoints.reach("revoke.committed")
        self._tracker.revoke()

    async def _on_assigned(self, assigned: Collection[TopicPartition]) -> None:
        try:
            await self._take_partitions(assigned)
        except Exception as error:  # noqa: BLE001 (the poll loop raises it)
            self._broken = error
        self._settled.set()
        self.joined.set()

    async def _take_partitions(self, assigned: Collection[TopicPartition]) -> None:
        await failpoints.reach("assign.begin")
        partitions = {Partition(tp.topic, tp.partition) for tp in assigned}
        known = {each: await self._look_back(each) for each in partitions}
        self._durable = {each: durable for each, (_committed, durable) in known.items()}
        epoch = self._tracker.assign(partitions)
        self._tracker.committed({each: offset for each, (offset, _durable) in known.items() if offset is not None})
        metrics.KAFKA_REBALANCES.inc()
        log.info("partitions assigned", partitions=len(partitions), epoch=epoch)
        # Records of partitions that went elsewhere are done there; those that came back are delivered again and
        # find their work under way.
        for at, work in self._works.items():
            if Partition(at.topic, at.partition) not in partitions:
                work.cancel()
        if self._revoked_at is not None and self.joined.is_set():  # the first one only waits for the others
            metrics.KAFKA_REBALANCE_SECONDS.observe(time.monotonic() - self._revoked_at)

    async def _look_back(self, partition: Partition) -> tuple[int | None, dict[int, frozenset[UUID]]]:
        """Return the committed offset, and what was finished behind it: not knowing that costs work, nothing else."""
        committed = None
        try:
            async with asyncio.timeout(self._settings.commit_timeout_seconds):
                committed = await self._consumer.committed(TopicPartition(*partition))
                return committed, await self._look_up(self._cluster_id, *partition, committed or 0)
        except (KafkaError, ServiceError, TimeoutError) as error:
            log.warning("finished records not looked up", partition=partition, error=str(error))
            return committed, {}
