"""AIOKafkaConsumer as v2td uses it, with the behaviour of aiokafka 0.14 that matters: read beside its source.

One task coordinates (revoke callback, join, assign callback, in this order and with their exceptions swallowed), one
beats the heart, one fetches ahead for each assignment. Kept are also its bad habits: records are delivered while the
assign callback still runs, `commit` tries for ever and goes on when it was cancelled, no heart beats during the assign
callback, a cancelled getmany leaks its fetch count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.fetching import Assignment, State
from tests.simulation.kafka import Joined, Kafka, Record
from tests.simulation.network import BACKOFF_SECONDS, Connection

MEMBERSHIP_ERRORS = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)


class SimulatedConsumer:
    """See AIOKafkaConsumer."""

    def __init__(
        self, kafka: Kafka, connect: Callable[[float], Connection], auditor: Any, options: dict[str, Any]
    ) -> None:
        self._kafka = kafka
        self._connection = connect(options["request_timeout_ms"] / 1000)
        self._auditor = auditor
        self.commit_failures = 0
        self._instance = options.get("group_instance_id")
        self._heartbeat_seconds = options["heartbeat_interval_ms"] / 1000
        self._max_poll_seconds = options["max_poll_interval_ms"] / 1000
        self._generation, self._member = -1, ""
        self._assignment: Assignment | None = None
        self._reassigning = True
        self._prepared = False
        self._rejoin = asyncio.Event()
        self._closing = asyncio.Event()
        self._assigned = asyncio.Event()
        self._arrived = asyncio.Event()  # something was fetched
        self._tasks: list[asyncio.Task[None]] = []
        self._heart: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._fetch_count, self._idle_since = 0, self._now()
        self._commit_lock = asyncio.Lock()

    # --- the public surface

    def subscribe(self, topics: Collection[str], listener: Any) -> None:
        self._topics, self._listener = set(topics), listener

    async def start(self) -> None:
        self._tasks.append(asyncio.create_task(self._coordinate()))
        await self._assigned.wait()

    async def stop(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._arrived.set()
        await asyncio.wait(self._tasks)
        await self._stop(self._heart)
        await self._stop(self._fetching)
        if self._generation > 0 and self._instance is None:
            await self._leave()

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._assignment.states) if self._assignment else frozenset()

    def paused(self) -> set[TopicPartition]:
        return {tp for tp, state in self._assignment.states.items() if state.paused} if self._assignment else set()

    def pause(self, *partitions: TopicPartition) -> None:
        for tp in partitions:
            self._state(tp).paused = True

    def resume(self, *partitions: TopicPartition) -> None:
        for tp in partitions:
            self._state(tp).paused = False
            self._wake()

    def highwater(self, tp: TopicPartition) -> int | None:
        return self._state(tp).highwater

    def seek(self, tp: TopicPartition, offset: int) -> None:
        assert isinstance(offset, int)
        assert offset >= 0
        self._state(tp).seek(offset)
        assert self._assignment is not None
        self._assignment.fetched.pop(tp, None)
        self._wake()

    async def seek_to_beginning(self, *partitions: TopicPartition) -> bool:
        for tp, offset in (await self.beginning_offsets(partitions or self.assignment())).items():
            self.seek(tp, offset)
        return True

    async def position(self, tp: TopicPartition) -> int:
        state = self._state(tp)
        await state.known.wait()
        assert state.position is not None
        return state.position

    async def committed(self, tp: TopicPartition) -> int | None:
        found: OffsetAndMetadata | None = await self._connection.persist(self._kafka.committed.get, tp)
        return None if found is None else found.offset

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._connection.persist(lambda: {tp: self._kafka.logs[tp].start for tp in partitions})  # type: ignore[no-any-return]  # whatever is asked for

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._connection.persist(lambda: {tp: self._kafka.logs[tp].end for tp in partitions})  # type: ignore[no-any-return]  # whatever is asked for

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if any(tp not in self.assignment() for tp in offsets):
            raise IllegalStateError("not assigned")
        while True:
            try:
                async with self._commit_lock:
                    await asyncio.shield(asyncio.create_task(self._commit(offsets)))
            except MEMBERSHIP_ERRORS as error:
                self.commit_failures += 1
                raise CommitFailedError from error
            except KafkaError as error:
                self.commit_failures += 1
                if not error.retriable:
                    raise
                await asyncio.sleep(BACKOFF_SECONDS)
            except asyncio.CancelledError:
                self.commit_failures += 1
                raise
            else:
                return

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        if self._closing.is_set():
            raise ConsumerStoppedError
        most = 500 if max_records is None else max_records
        end = self._now() + timeout_ms / 1000
        with self._fetch_context():
            while True:
                if self._reassigning:
                    await self._assigned.wait()
                drained = self._assignment.take(partitions, most) if self._assignment else {}
                if drained or self._now() >= end or self._closing.is_set():
                    return drained
                self._arrived.clear()
                try:
                    async with asyncio.timeout_at(end):
                        await self._arrived.wait()
                except TimeoutError:
                    return {}
        raise AssertionError("unreachable")

    # --- inside

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @contextmanager
    def _fetch_context(self) -> Iterator[None]:
        self._fetch_count += 1
        yield
        self._fetch_count -= 1  # not when it was cancelled, as in aiokafka
        if self._fetch_count == 0:
            self._idle_since = self._now()

    def _idle_seconds(self) -> float:
        return 0.0 if self._fetch_count else self._now() - self._idle_since

    def _state(self, tp: TopicPartition) -> State:
        if self._assignment is None or tp not in self._assignment.states:
            raise IllegalStateError(f"no current assignment for partition {tp}")
        return self._assignment.states[tp]

    def _wake(self) -> None:
        if self._assignment is not None:
            self._assignment.wake.set()

    async def _commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        try:
            await self._connection.ask(self._kafka.commit, self._member, self._generation, offsets)
        except RebalanceInProgressError:
            self._rejoin.set()
            raise
        except MEMBERSHIP_ERRORS:
            self._reset()
            raise

    def _reset(self) -> None:
        self._generation, self._member = -1, ""
        self._rejoin.set()

    async def _leave(self) -> None:
        with suppress(KafkaError):
            await self._connection.ask(self._kafka.leave, self._member)
        self._reset()

    async def _coordinate(self) -> None:
        while not self._closing.is_set():
            if self._assignment is None or self._rejoin.is_set():
                await self._join()
                continue
            waits = [asyncio.create_task(each.wait()) for each in (self._rejoin, self._closing)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in waits:
                each.cancel()

    async def _join(self) -> None:
        if not self._prepared:
            self._reassigning = True
            self._assigned.clear()
            revoked = self.assignment()
            self._auditor.on_revoking(self)
            await self._call_back(self._listener.on_partitions_revoked, revoked)
            self._auditor.on_revoked(self, revoked)
            self._prepared = True
        await self._stop(self._heart)
        self._heart = None
        if self._assignment is not None and self._idle_seconds() >= self._max_poll_seconds:
            await asyncio.sleep(BACKOFF_SECONDS)
            return
        try:
            joined: Joined = await self._connection.ask(self._kafka.join, self._member, self._instance)
        except KafkaError as error:
            if isinstance(error, UnknownMemberIdError):
                self._reset()
            await asyncio.sleep(BACKOFF_SECONDS)
            return
        self._generation, self._member = joined.generation, joined.member
        self._rejoin.clear()
        if self._assignment is not None:
            self._assignment.active = False
        self._assignment = assignment = Assignment(joined.partitions)
        self._reassigning = False
        self._auditor.on_assigned()
        self._assigned.set()
        await self._stop(self._fetching)
        self._fetching = asyncio.create_task(assignment.fetch(self._kafka, self._connection, self._arrived))
        await self._call_back(self._listener.on_partitions_assigned, set(joined.partitions))
        self._prepared = False
        self._heart = asyncio.create_task(self._beat())

    async def _call_back(self, callback: Callable[..., Any], partitions: Collection[TopicPartition]) -> None:
        try:
            await callback(partitions)
        except Exception as error:  # noqa: BLE001 (aiokafka logs it and goes on, but it is a bug)
            self._auditor.found(f"{callback.__name__} raised {error!r}")

    @staticmethod
    async def _stop(task: asyncio.Task[None] | None) -> None:
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def _beat(self) -> None:
        pause = self._heartbeat_seconds
        while self._member:
            await asyncio.sleep(pause)
            try:
                await self._connection.ask(self._kafka.heartbeat, self._member, self._generation)
                pause = self._heartbeat_seconds
            except RebalanceInProgressError:
                self._rejoin.set()
                pause = self._heartbeat_seconds
            except MEMBERSHIP_ERRORS:
                self._reset()
            except KafkaError:
                pause = BACKOFF_SECONDS
            idle = self._idle_seconds()
            if idle < self._max_poll_seconds:
                pause = min(pause, self._max_poll_seconds - idle)
            else:
                await self._leave()
