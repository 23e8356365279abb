"""What the intake asks of others: to work on records, to look back, to save, to write down what was passed over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from v2td.intake.offsets import Partition
from v2td.jobs import Coordinates, SourceRecord

# Takes a record and the ids of those of its jobs that are durable already. Returns when all of them are; raises
# only for our own faults.
Handler = Callable[[Coordinates, SourceRecord, frozenset[UUID]], Awaitable[None]]

# Asks the database: (cluster, topic, partition, first offset) to the ids of durable jobs, by offset.
LookUp = Callable[[str, str, int, int], Awaitable[dict[int, frozenset[UUID]]]]

# Takes the first and the last of offsets that cannot be read, and why. Returns when that is durable; raises only
# for our own faults.
Skipped = Callable[[Coordinates, int, str], Awaitable[None]]

# Takes the partitions and their offsets that were committed; quick, and raises nothing.
Committed = Callable[[Iterable[tuple[Partition, int]]], None]


async def nothing_to_save() -> None:
    """Save nothing: what `before_revoke` does unless told otherwise."""


def nothing_to_note(_offsets: Iterable[tuple[Partition, int]]) -> None:
    """Note nothing: what `committed` does unless told otherwise."""


async def nobody_to_tell(_first: Coordinates, _last: int, _reason: str) -> None:
    """Tell nobody: what `skipped` does unless told otherwise."""
