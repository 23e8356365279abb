"""The brokers: logs of records, and one consumer group with its members, generations and committed offsets.

What a request does happens at once, when it arrives; how long it travels is the clients' matter (consumer.py). The
group follows Kafka's GroupCoordinator: commits are taken from any member of the present generation, also while it
rebalances; a join waits for all members; a silent member is thrown out after the session timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.loop import EPOCH, SERVER

FETCH_RECORDS = 20  # of a partition at a time
INITIAL_DELAY = 0.5  # of a group's first rebalance; Kafka's default is 3 s


@dataclass(frozen=True, slots=True)
class Record:
    """As aiokafka's ConsumerRecord, as far as v2td looks at it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Log:
    """A partition. Offsets that hold no record were compacted away, or are transaction markers or corrupt."""

    records: dict[int, Record] = field(default_factory=dict)
    corrupt: set[int] = field(default_factory=set)
    start: int = 0
    end: int = 0

    def append(self, record: Record) -> None:
        self.records[record.offset] = record
        self.end = record.offset + 1

    def truncate(self, start: int) -> None:
        """Retention deletes what is below `start`."""
        self.start = max(self.start, start)
        for offset in [each for each in self.records if each < self.start]:
            del self.records[offset]
        self.corrupt = {each for each in self.corrupt if each >= self.start}

    def fetch(self, offset: int) -> tuple[list[Record], int, bool, int, int]:
        """Return records, the offset behind them, whether a corrupt one is there, and where the log begins and ends."""
        records: list[Record] = []
        while offset < self.end and len(records) < FETCH_RECORDS:
            if offset in self.corrupt:
                return records, offset, True, self.start, self.end
            if offset in self.records:
                records.append(self.records[offset])
            offset += 1
        return records, offset, False, self.start, self.end


@dataclass(slots=True)
class Member:
    name: str
    instance: str | None
    expires: float
    joining: asyncio.Future[Joined] | None = None
    partitions: tuple[TopicPartition, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """What a member is told when a rebalance is over."""

    generation: int
    member: str
    partitions: tuple[TopicPartition, ...]


class Kafka:
    """One cluster with one group. `on_commit` sees each offset before it is taken."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        partitions: list[TopicPartition],
        *,
        session_seconds: float,
        rebalance_seconds: float,
        on_commit: Callable[[str, TopicPartition, int], None],
        note: Callable[..., None],
    ) -> None:
        self.logs = {each: Log() for each in partitions}
        self.topic_ids = {each.topic: UUID(int=1) for each in partitions}
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.letters: list[dict[str, Any]] = []  # what producers sent
        self.down = False
        self.generation = 0
        self.members: dict[str, Member] = {}
        self._loop = loop
        self._session_seconds = session_seconds
        self._rebalance_seconds = rebalance_seconds
        self._on_commit = on_commit
        self._note = note
        self._names = 0
        self._joins_end: float | None = None  # while a rebalance is being prepared
        self._grown = loop.create_future()

    # --- logs

    def append(self, record: Record) -> None:
        self.logs[TopicPartition(record.topic, record.partition)].append(record)
        self._grown.set_result(None)
        self._grown = self._loop.create_future()

    def spoil(self, tp: TopicPartition, count: int) -> None:
        """Append offsets that nobody can read."""
        log = self.logs[tp]
        log.corrupt.update(range(log.end, log.end + count))
        log.end += count
        self._note("kafka", "corrupt", f"{tp.partition}/{log.end - count}", count)

    def produce(self, topic: str, message: dict[str, Any]) -> None:
        """What a producer sends: a record where there is a log for it, else a dead letter."""
        tp = TopicPartition(topic, 0)
        if tp not in self.logs:
            self.letters.append(message)
            return
        now = int((EPOCH + self._loop.time()) * 1000)
        headers = tuple(message["headers"])
        self.append(Record(topic, 0, self.logs[tp].end, now, message["key"], message["value"], headers))

    def growth(self) -> asyncio.Future[None]:
        """Done when something is appended to any log."""
        return self._grown

    def fetch(self, places: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        """Return what Log.fetch finds from each offset on."""
        return {tp: self.logs[tp].fetch(offset) for tp, offset in places.items()}

    # --- the group

    @property
    def preparing(self) -> bool:
        return self._joins_end is not None

    def join(self, name: str, instance: str | None) -> Joined | asyncio.Future[Joined]:
        """Return what the member is to consume, or a future of it."""
        if not name:
            old = next((each for each in self.members.values() if instance and each.instance == instance), None)
            self._names += 1
            name = f"{instance or 'member'}-{self._names}"
            member = self.members[name] = Member(name, instance, self._loop.time() + self._session_seconds)
            self._watch(member)
            if old is not None:
                return self._replace(old, member)
        elif (known := self.members.get(name)) is None:
            raise UnknownMemberIdError
        else:
            member = known
            if not self.preparing and member.joining is None:  # a follower that knows nothing new
                return self._joined(member)
        member.joining = self._loop.create_future()
        answer = member.joining
        self._prepare()
        return answer

    def leave(self, name: str) -> None:
        if self.members.pop(name, None) is not None:
            self._note("kafka", "left", name)
            self._prepare()

    def heartbeat(self, name: str, generation: int) -> None:
        member = self._known(name, generation)
        member.expires = self._loop.time() + self._session_seconds
        if self.preparing:
            raise RebalanceInProgressError

    def commit(self, name: str, generation: int, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        member = self._known(name, generation)
        member.expires = self._loop.time() + self._session_seconds
        for tp, offset in offsets.items():
            self._on_commit(name, tp, offset.offset)
            self.committed[tp] = offset
            self._note("kafka", "committed", name, f"{tp.topic}/{tp.partition}/{offset.offset}")

    def back(self) -> None:
        """The brokers are back: the group is loaded again, and each member has a whole session timeout."""
        self.down = False
        for member in self.members.values():
            member.expires = self._loop.time() + self._session_seconds

    def _known(self, name: str, generation: int) -> Member:
        member = self.members.get(name)
        if member is None:
            raise UnknownMemberIdError
        if generation != self.generation:
            raise IllegalGenerationError
        return member

    def _replace(self, old: Member, new: Member) -> Joined | asyncio.Future[Joined]:
        """A static member came back under its old name: what it had stays its own, and nobody else is disturbed."""
        del self.members[old.name]
        new.partitions = old.partitions
        self._note("kafka", "replaced", old.name, new.name)
        if old.joining is not None and not old.joining.done():
            old.joining.set_exception(UnknownMemberIdError())
            old.joining.exception()
        if not self.preparing:
            return self._joined(new)
        new.joining = self._loop.create_future()
        answer = new.joining
        self._complete_if_all_are_there()
        return answer

    def _joined(self, member: Member) -> Joined:
        member.expires = self._loop.time() + self._session_seconds
        return Joined(self.generation, member.name, member.partitions)

    def _prepare(self) -> None:
        if not self.preparing:
            first = self.generation == 0 or len(self.members) == 1
            seconds = INITIAL_DELAY if first else self._rebalance_seconds
            self._joins_end = self._loop.time() + seconds
            self._note("kafka", "rebalance")
            self._loop.call_later(seconds, self._complete, self._joins_end, context=SERVER)
            if first:
                return
        self._complete_if_all_are_there()

    def _complete_if_all_are_there(self) -> None:
        if self._joins_end is not None and all(each.joining is not None for each in self.members.values()):
            self._complete(self._joins_end)

    def _complete(self, joins_end: float) -> None:
        if self._joins_end != joins_end:
            return
        self._joins_end = None
        self.generation += 1
        for member in list(self.members.values()):
            if member.joining is None and member.instance is None:
                self._note("kafka", "thrown out: did not join", member.name)
                del self.members[member.name]
        names = sorted(self.members, key=lambda name: (self.members[name].instance or "", name))
        self._note("kafka", "generation", self.generation, names)
        for place, name in enumerate(names):
            self.members[name].partitions = tuple(sorted(self.logs))[place :: len(names)]
        for member in self.members.values():
            if member.joining is not None:
                joining, member.joining = member.joining, None
                if not joining.done():
                    joining.set_result(self._joined(member))

    def _watch(self, member: Member) -> None:
        if self.members.get(member.name) is not member:
            return
        if self.down or member.joining is not None:
            self._loop.call_later(self._session_seconds, self._watch, member, context=SERVER)
        elif member.expires <= self._loop.time():
            self._note("kafka", "session expired", member.name)
            del self.members[member.name]
            self._prepare()
        else:
            self._loop.call_at(member.expires, self._watch, member, context=SERVER)
