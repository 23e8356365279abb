"""Records under way: what runs for each, what is only held until its time, and when the rest has come to an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from v2td.intake.offsets import Partition, Ticket
from v2td.jobs import Coordinates


@dataclass(slots=True, eq=False)
class Work:
    """One record under way; more than one ticket when it was delivered again after a rebalance.

    `due`: seconds since the epoch before which it must not begin.
    """

    tickets: list[Ticket]
    due: float | None = None
    task: asyncio.Task[None] | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """Give it up: should its record come again, it begins anew."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


class Works:
    """All records under way, by their coordinates. Held ones (see holding.py) do not count as in flight."""

    def __init__(self) -> None:
        self._works: dict[Coordinates, Work] = {}
        self._held: set[Coordinates] = set()
        self._ended = asyncio.Event()  # set whenever a record leaves

    @property
    def in_flight(self) -> int:
        """Records that are worked on."""
        return len(self._works) - len(self._held)

    def under_way(self) -> Iterator[Coordinates]:
        """Return the coordinates of the records that are worked on."""
        return (at for at in self._works if at not in self._held)

    def holding(self) -> Collection[Partition]:
        """Return the partitions of which records are held."""
        return {Partition(at.topic, at.partition) for at in self._held}

    def get(self, at: Coordinates) -> Work | None:
        """Return the record's work, unless it is under way no more."""
        work = self._works.get(at)
        return None if work is None or work.cancelled else work

    def add(self, at: Coordinates, work: Work, *, held: bool = False) -> None:
        """Note that a record is under way, or only held."""
        self._works[at] = work
        self._held.discard(at)  # of one that was cancelled and came back before it ended
        if held:
            self._held.add(at)

    def release(self, at: Coordinates) -> None:
        """Hold a record no longer."""
        self._held.discard(at)

    def remove(self, at: Coordinates, work: Work) -> None:
        """Note that a record's work has ended."""
        if self._works.get(at) is work:  # not so when it was cancelled and its record came back meanwhile
            del self._works[at]
            self._held.discard(at)
        self._ended.set()

    def cancel(self, where: Callable[[Coordinates], bool] = lambda _at: True) -> None:
        """Give up the records for which it is true."""
        for at, work in self._works.items():
            if where(at):
                work.cancel()

    def cancel_held(self) -> None:
        """Give up what is only held: nothing is lost by that, and it comes again."""
        self.cancel(self._held.__contains__)

    async def until_idle(self, seconds: float, patience: float | None = None) -> bool:
        """Wait until no record is in flight; False when that takes longer, or none has ended for `patience` seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self.in_flight:
                    self._ended.clear()
                    async with asyncio.timeout(patience):
                        await self._ended.wait()
        except TimeoutError:
            return False
        return True
