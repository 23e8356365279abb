"""Polls the consumer, and gets past batches that cannot be read.

aiokafka raises at a corrupt batch at every fetch and never passes it; the good records before it in the same fetch are
not delivered, and neither are those of other partitions that the same call had taken: their positions have moved all
the same. So after any error every partition goes back to what the tracker expects, and while there is reason to, the
partitions are polled one at a time, the bad one record by record, until its position stops. There it is moved on
offset by offset until records flow or none are left.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
import time
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import cramjam
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)

from v2td.errors import ServiceError
from v2td.intake.offsets import OffsetTracker, Partition
from v2td.logs import get_logger

log = get_logger(__name__)

POLL_SECONDS = 0.2
CAREFUL_SECONDS = 30.0  # since the last sign of a batch that cannot be read
TRIES = 3  # at one offset, before it is passed over: the fault may have been on the way
QUIET_SECONDS = 2.0  # behind a corrupt batch without a record or an error: there is no more
REFUSED = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
# What parsing and decompressing a batch raises. Anything else is ours or a bug, and no reason to pass records over.
UNREADABLE = (
    CorruptRecordException,
    RecordTooLargeError,
    UnsupportedCodecError,
    ValueError,
    IndexError,
    EOFError,
    struct.error,
    zlib.error,
    gzip.BadGzipFile,
    cramjam.DecompressionError,
)

Batches = dict[TopicPartition, Sequence[ConsumerRecord]]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Offsets, both included, that hold no record that can be read."""

    partition: Partition
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Polled:
    """What a poll brought: hand all of it to the tracker with no await in between, the unreadable first."""

    batches: Batches
    unreadable: Unreadable | None = None


@dataclass(slots=True)
class _Stuck:
    """A partition that is polled record by record. `at` is where its position stopped, `next` what is tried now."""

    at: int = -1
    tries: int = 0
    next: int = -1
    reason: str = ""
    moved: float = field(default_factory=time.monotonic)  # the last error

    def passing(self) -> bool:
        return self.tries >= TRIES


class Poller:
    """Use `poll` from one task only. It is never cancelled while we live: that leaks aiokafka's fetch count."""

    def __init__(self, consumer: AIOKafkaConsumer, tracker: OffsetTracker) -> None:
        self._consumer = consumer
        self._tracker = tracker
        self._astray: set[TopicPartition] = set()  # the consumer may have passed records that nobody has seen
        self._stuck: dict[TopicPartition, _Stuck] = {}
        self._careful_until = 0.0  # time.monotonic()
        self._turn = 0

    def forget(self, partitions: Collection[Partition | TopicPartition] | None = None) -> None:
        """Partitions, or all of them, were moved or are about to go: where they stood means nothing any more."""
        for tp in [*self._stuck, *self._astray] if partitions is None else partitions:
            self._stuck.pop(TopicPartition(*tp), None)
            self._astray.discard(TopicPartition(*tp))

    async def poll(self, max_records: int) -> Polled:
        """Return what came within POLL_SECONDS. ServiceError when Kafka refuses us for good."""
        try:
            await self._go_back()
            if self._stuck or time.monotonic() < self._careful_until:
                return await self._poll_one(max_records)
            return Polled(await self._consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=max_records))
        except REFUSED as error:
            raise ServiceError("read from Kafka", str(error), "grant Read on the topics and the group") from error
        except UNREADABLE as error:
            log.warning("a batch cannot be read", error=_text(error))
            self._careful_until = time.monotonic() + CAREFUL_SECONDS
        except KafkaError as error:
            log.error("poll failed", error=_text(error))
            await asyncio.sleep(1)
        self._astray |= self._consumer.assignment()
        return Polled({})

    def put_back(self, polled: Polled, moved: Collection[TopicPartition]) -> None:
        """Have what a poll brought delivered again; not of partitions that were moved since."""
        firsts = {tp: records[0].offset for tp, records in polled.batches.items()}
        if polled.unreadable is not None:
            firsts[TopicPartition(*polled.unreadable.partition)] = polled.unreadable.first
        for tp, offset in firsts.items():
            if tp not in moved:
                self.forget([tp])
                self._seek(tp, offset)

    async def _go_back(self) -> None:
        """Move astray partitions to where the tracker expects them; KafkaError leaves them astray."""
        for tp in sorted(self._astray):
            offset = self._tracker.expected(Partition(*tp))
            if offset is None:  # nothing came yet, and where it begins was not to be known
                offset = await self._consumer.committed(tp)
            if offset is None:
                offset = (await self._consumer.beginning_offsets([tp]))[tp]
            if tp in self._astray:  # no rebalance meanwhile
                self._seek(tp, offset)
                self._astray.discard(tp)

    async def _poll_one(self, max_records: int) -> Polled:
        """Poll the partitions in turn, one at each call: an error then tells where it comes from."""
        tps = sorted(self._consumer.assignment() - self._consumer.paused())
        if not tps:  # all are paused; who does not poll is thrown out of the group
            return Polled(await self._consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=max_records))
        self._turn = (self._turn + 1) % len(tps)
        tp = tps[self._turn]
        timeout_ms = max(10, int(POLL_SECONDS * 1000) // len(tps))
        if (stuck := self._stuck.get(tp)) is not None:
            return await self._poll_stuck(tp, stuck)
        try:
            return Polled(await self._consumer.getmany(tp, timeout_ms=timeout_ms, max_records=max_records))
        except UNREADABLE as error:
            log.warning("a batch cannot be read", topic=tp.topic, partition=tp.partition, error=_text(error))
            self._stuck[tp] = _Stuck()
            self._astray.add(tp)
            return Polled({})

    async def _poll_stuck(self, tp: TopicPartition, stuck: _Stuck) -> Polled:
        """Poll one record; after an error once more, or pass its offset over. Goes on for one POLL_SECONDS."""
        end = time.monotonic() + POLL_SECONDS
        while time.monotonic() < end:
            try:
                batches = await self._consumer.getmany(tp, timeout_ms=int(POLL_SECONDS * 1000), max_records=1)
            except UNREADABLE as error:
                if self._stuck.get(tp) is not stuck:  # a rebalance came in between
                    break
                await self._stopped(tp, stuck, _text(error))
                continue
            if self._stuck.get(tp) is stuck and stuck.passing():
                return self._passed(tp, stuck, batches)
            if time.monotonic() - stuck.moved > CAREFUL_SECONDS:
                self._stuck.pop(tp, None)  # the fault was on the way, or is far ahead
            return Polled(batches)
        return Polled({})

    async def _stopped(self, tp: TopicPartition, stuck: _Stuck, reason: str) -> None:
        stuck.moved = time.monotonic()
        self._careful_until = stuck.moved + CAREFUL_SECONDS
        if stuck.passing():
            stuck.next += 1
        else:
            at = self._tracker.expected(Partition(*tp))
            if at is None:
                at = await self._consumer.position(tp)
                if self._stuck.get(tp) is not stuck:
                    return
            stuck.tries = stuck.tries + 1 if at == stuck.at else 1
            stuck.at, stuck.reason = at, reason
            stuck.next = at + 1 if stuck.passing() else at
        self._seek(tp, stuck.next)

    def _passed(self, tp: TopicPartition, stuck: _Stuck, batches: Batches) -> Polled:
        """Return the range that was passed over, once a record came from behind it or none are left there."""
        records = batches.get(tp)
        end = None if records else self._consumer.highwater(tp)
        at_end = end is not None and stuck.next >= end
        if not records and not at_end and time.monotonic() - stuck.moved < QUIET_SECONDS:
            return Polled({})
        del self._stuck[tp]  # the next corrupt batch raises again
        last = records[0].offset - 1 if records else stuck.next - 1
        if last < stuck.at:  # it can be read after all
            return Polled(batches)
        return Polled(batches, Unreadable(Partition(*tp), stuck.at, last, stuck.reason))

    def _seek(self, tp: TopicPartition, offset: int) -> None:
        try:
            self._consumer.seek(tp, offset)
        except IllegalStateError:  # not ours any more: whose it is begins at the committed offset
            self._stuck.pop(tp, None)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
