"""What a consumer has been assigned: where it stands in each partition, and what was fetched ahead. As aiokafka's
Assignment, TopicPartitionState and Fetcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError

from tests.simulation.kafka import Kafka, Record
from tests.simulation.network import BACKOFF_SECONDS, Connection


@dataclass(slots=True)
class _Fetched:
    """Records of one partition; each attempt to take them goes on from where the consumer is."""

    first: int
    records: list[Record]
    next: int
    corrupt: bool = False  # behind the records: raises when it is reached


@dataclass(slots=True)
class State:
    """Of one partition; `known` is set when the position is."""

    position: int | None = None
    paused: bool = False
    highwater: int | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)

    def seek(self, offset: int) -> None:
        self.position = offset
        self.known.set()


class Assignment:
    """One for each rebalance; `fetch` works until another takes its place."""

    def __init__(self, partitions: Collection[TopicPartition]) -> None:
        self.states = {tp: State() for tp in sorted(partitions)}
        self.active = True
        self.fetched: dict[TopicPartition, _Fetched] = {}
        self.wake = asyncio.Event()  # something may be fetched that could not before

    def take(self, wanted: Collection[TopicPartition], most: int) -> dict[TopicPartition, list[Record]]:
        """As Fetcher.fetched_records: an error of one partition loses what was taken of those before it."""
        drained: dict[TopicPartition, list[Record]] = {}
        for tp in list(self.fetched):
            if wanted and tp not in wanted:
                continue
            fetched, state = self.fetched[tp], self.states[tp]
            if state.paused or state.position != fetched.first:
                self._drop(tp)
                continue
            taken = fetched.records[:most]
            if len(taken) == most:
                state.position = fetched.first = taken[-1].offset + 1
                fetched.records = fetched.records[most:]
            elif fetched.corrupt:
                self._drop(tp)
                raise CorruptRecordException("Invalid CRC")
            else:
                state.position = fetched.next
                self._drop(tp)
            if taken:
                drained[tp] = taken
                most -= len(taken)
                if most == 0:
                    break
        return drained

    def _drop(self, tp: TopicPartition) -> None:
        del self.fetched[tp]
        self.wake.set()

    async def fetch(self, kafka: Kafka, connection: Connection, arrived: asyncio.Event) -> None:
        """Find out where to begin, then fetch ahead; `arrived` is set when something came."""
        for tp, state in self.states.items():
            committed = await connection.persist(kafka.committed.get, tp)
            if state.position is None:
                start = await connection.persist(lambda tp=tp: kafka.logs[tp].start)
                if state.position is None:
                    state.seek(start if committed is None else committed.offset)
        while self.active:
            growth: asyncio.Future[Any] = kafka.growth()
            self.wake.clear()
            places = {
                tp: state.position
                for tp, state in self.states.items()
                if not state.paused and tp not in self.fetched and state.position is not None
            }
            try:
                found = await connection.ask(kafka.fetch, places) if places else {}
            except KafkaError:
                await asyncio.sleep(BACKOFF_SECONDS)
                continue
            if self._keep(places, found):
                arrived.set()
            else:
                woken: asyncio.Future[Any] = asyncio.create_task(self.wake.wait())
                await asyncio.wait([woken, growth], return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()

    def _keep(self, places: dict[TopicPartition, int], found: dict[TopicPartition, Any]) -> bool:
        """Keep what was fetched; False when that is nothing, and no position has moved."""
        any_new = False
        for tp, (records, following, corrupt, start, end) in found.items():
            state = self.states[tp]
            state.highwater = end
            if state.position != places[tp]:
                any_new = True  # it was moved meanwhile
            elif places[tp] < start or places[tp] > end:  # out of range: aiokafka goes to the beginning by itself
                state.seek(start)
                any_new = True
            elif records or corrupt or following > places[tp]:
                self.fetched[tp] = _Fetched(places[tp], records, following, corrupt)
                any_new = True
        return any_new
