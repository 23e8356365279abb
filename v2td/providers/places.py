"""Places at providers: who waits for one of several gets the first that is free, the urgent before the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from prometheus_client import Gauge

from v2td import metrics
from v2td.limit import ranked

_arrivals = count()


@dataclass(slots=True, eq=False)
class _Waiting:
    arrival: int
    admitted: asyncio.Future[Places]
    priority: int = -1


class Places:
    """How many jobs a provider takes at once: so many; 0: any number; None: by how many wait for it."""

    def __init__(self, provider: str, size: int | None) -> None:
        self._size = size
        self.taken = 0
        self.waiting = 0
        self._expected = 0  # jobs that are to come here, until they are done
        self._queue: list[tuple[int, int, _Waiting]] = []
        self._in_flight: Gauge = metrics.PROVIDER_IN_FLIGHT.labels(provider)
        self._waits: Gauge = metrics.PROVIDER_WAITING.labels(provider)
        self._tell()

    @property
    def size(self) -> int:
        """Jobs at once, as things are; 0: any number."""
        return by_depth(max(self.waiting, self._expected - self.taken)) if self._size is None else self._size

    @property
    def free(self) -> bool:
        """Whether somebody who comes now need not wait."""
        return self.size == 0 or self.taken < self.size

    def take(self) -> None:
        """Take a free place."""
        self.taken += 1
        self._tell()

    def leave(self) -> None:
        """Leave it, to whoever waits."""
        self.taken -= 1
        self._admit()

    def expect(self, jobs: int) -> None:
        """Take note that so many more, or fewer, are to come: the more of them wait, the more are taken at once."""
        self._expected += jobs
        self._admit()

    def rank(self, waiting: _Waiting) -> None:
        """Queue who waits by a priority that is new; the entry of before is passed over."""
        heappush(self._queue, (waiting.priority, waiting.arrival, waiting))

    def queue(self) -> None:
        """Let who was ranked wait until `admitted` is set, here or at another provider."""
        self.waiting += 1
        self._admit()  # so many wait by now that more are taken at once

    def unqueue(self) -> None:
        """Wait no more; the future stays in the heap until its turn."""
        self.waiting -= 1
        self._tell()

    def _admit(self) -> None:
        while self._queue and self.free:
            priority, _arrival, waiting = heappop(self._queue)
            # Else it has another priority, was let in elsewhere, or has given up.
            if priority == waiting.priority and not waiting.admitted.done():
                self.taken += 1
                waiting.admitted.set_result(self)
        self._tell()

    def _tell(self) -> None:
        self._in_flight.set(self.taken)
        self._waits.set(self.waiting)


def by_depth(waiting: int) -> int:
    """Return how many jobs an API takes at once, as the second seed has it."""
    if waiting > 1000:
        return 20
    return 10 if waiting > 100 else 5


@asynccontextmanager
async def place(
    of: Sequence[Places], priority: int, choose: Callable[[Sequence[Places]], Places]
) -> AsyncIterator[Places]:
    """Wait for a place at any of them; `choose` picks one of those that are free. A cancelled wait takes none."""
    if free := [each for each in of if each.free]:
        found = choose(free)
        found.take()
    else:
        found = await _wait(of, priority)
    try:
        yield found
    finally:
        found.leave()


async def _wait(of: Sequence[Places], priority: int) -> Places:
    admitted: asyncio.Future[Places] = asyncio.get_running_loop().create_future()
    waiting = _Waiting(next(_arrivals), admitted)

    def rank(priority: int) -> None:
        if priority != waiting.priority:
            waiting.priority = priority
            for each in of:
                each.rank(waiting)

    with ranked(priority, rank):
        for each in of:
            each.queue()
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # let in and cancelled at once
                admitted.result().leave()
            raise
        finally:
            for each in of:
                each.unqueue()
