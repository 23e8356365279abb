"""Which offsets may be committed (pure): the contiguous prefix of finished records, per partition and epoch.

Records finish in any order. A partition's committable offset is its oldest unfinished one, or the one behind the
newest received. Gaps in the offsets (compaction, transaction markers) are never received and so never wait. An
epoch begins with each assignment: a ticket of an earlier one resolves nothing.
Design after Jeffail/checkpoint and franz-go's unordered reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Partition(NamedTuple):
    """A topic's partition; equal to aiokafka's TopicPartition of the same values."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """One received record; hand it back with `resolve` when its outcome is durable."""

    partition: Partition
    offset: int
    epoch: int


@dataclass(slots=True)
class _Ledger:
    epoch: int
    order: deque[int] = field(default_factory=deque)  # received offsets, oldest first, finished ones in front gone
    finished: set[int] = field(default_factory=set)  # finished ones behind an unfinished one
    behind: int | None = None  # the offset that comes next: behind the newest received, or where reading begins
    committed: int | None = None

    def resolve(self, offset: int) -> None:
        self.finished.add(offset)
        while self.order and self.order[0] in self.finished:
            self.finished.remove(self.order.popleft())

    @property
    def committable(self) -> int | None:
        return self.order[0] if self.order else self.behind


class OffsetTracker:
    """Tracks every partition that is assigned now."""

    def __init__(self) -> None:
        self._ledgers: dict[Partition, _Ledger] = {}
        self._epoch = 0

    def assign(self, partitions: Collection[Partition]) -> int:
        """Begin a new epoch in which exactly these partitions are ours; returns it. Older tickets are void."""
        self._epoch += 1
        self._ledgers = {partition: _Ledger(self._epoch) for partition in partitions}
        return self._epoch

    def take(self, partition: Partition) -> None:
        """One more partition is ours, from a new epoch on."""
        self._epoch += 1
        self._ledgers[partition] = _Ledger(self._epoch)

    def drop(self, partition: Partition) -> None:
        """A partition is ours no more, or not until it is taken again."""
        self._ledgers.pop(partition, None)

    def expect(self, partition: Partition, offset: int) -> None:
        """Note where reading begins; what was committed there counts as committed, anything else is committable."""
        if (ledger := self._ledgers.get(partition)) is not None:
            ledger.behind = offset

    def begin_again(self, partition: Partition) -> None:
        """Begin a new epoch of a partition that is ours: its offsets mean other records now, or come once more."""
        if partition in self._ledgers:
            self.take(partition)

    def revoke(self) -> None:
        """Nothing is ours until the next `assign`."""
        self._ledgers = {}

    def receive(self, partition: Partition, offset: int) -> Ticket | None:
        """Note a record that was polled; None when the partition is not ours (another member will have it).

        Offsets come in order. One that goes back (the log was truncated, and the position reset) begins a new epoch
        of its partition, since everything behind it comes again.
        """
        ledger = self._ledgers.get(partition)
        if ledger is None:
            return None
        if ledger.behind is not None and offset < ledger.behind:
            self.begin_again(partition)
            ledger = self._ledgers[partition]
        ledger.order.append(offset)
        ledger.behind = offset + 1
        return Ticket(partition, offset, ledger.epoch)

    def resolve(self, ticket: Ticket) -> bool:
        """Note that a record's outcome is durable; False when its epoch is over."""
        ledger = self._ledgers.get(ticket.partition)
        if ledger is None or ledger.epoch != ticket.epoch:
            return False
        ledger.resolve(ticket.offset)
        return True

    def committable(self) -> dict[Partition, int]:
        """Return the offsets that have moved since they were last committed."""
        return {
            partition: offset
            for partition, ledger in self._ledgers.items()
            if (offset := ledger.committable) is not None and offset != ledger.committed
        }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note that the broker has these offsets."""
        for partition, offset in offsets.items():
            if (ledger := self._ledgers.get(partition)) is not None:
                ledger.committed = offset

    def expected(self, partition: Partition) -> int | None:
        """Return the offset that comes next; None when the partition is not ours, or that is not known."""
        ledger = self._ledgers.get(partition)
        return ledger.behind if ledger else None

    def spread(self, partition: Partition) -> int:
        """Records between the oldest unfinished and the newest received, both included."""
        ledger = self._ledgers.get(partition)
        return ledger.behind - ledger.order[0] if ledger and ledger.order and ledger.behind is not None else 0

    def epoch(self, partition: Partition) -> int | None:
        """Return which assignment it is by which a partition is ours; None when it is not."""
        ledger = self._ledgers.get(partition)
        return ledger.epoch if ledger else None

    def last_committed(self) -> dict[Partition, int | None]:
        """Return, for each partition that is ours, what was last committed in this epoch."""
        return {partition: ledger.committed for partition, ledger in self._ledgers.items()}
