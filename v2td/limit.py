"""A limit on how many may be inside at once that lets the urgent in first; asyncio.Semaphore goes by arrival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count


class PriorityLimit:
    """At most `size` inside; who waits is let in by priority (0 first), then by arrival."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._arrivals = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def inside(self, priority: int) -> AsyncIterator[None]:
        """Wait to be let in; leaving lets in the next. A cancelled wait takes no place."""
        await self._enter(priority)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, priority: int) -> None:
        if self._free > 0:  # then nobody waits
            self._free -= 1
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (priority, next(self._arrivals), admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # let in and cancelled at once
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            _priority, _arrival, admitted = heappop(self._waiting)
            if not admitted.done():  # a cancelled wait stays in the heap until its turn
                admitted.set_result(None)
                return
        self._free += 1
