"""Notices on their way into the table: what comes while one insert is under way goes with the next, together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from v2td.errors import ServiceError
from v2td.logs import get_logger
from v2td.retry import Backoff
from v2td.store import Database, webhooks
from v2td.store.webhooks import Notice

log = get_logger(__name__)

AT_ONCE = 1000  # rows of one insert
BACKOFF = Backoff(initial=0.5, maximum=20)


class Outbox:
    """Makes notices durable, all that wait in one statement."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[Notice] = []
        self._taken = 0  # of all that were ever pending, those before the first that is pending now
        self._inserting = asyncio.Lock()
        self._random = Random()  # noqa: S311 (jitter)

    async def note(self, notices: Sequence[Notice]) -> None:
        """Return once they are durable, however long Postgres is away. Cancellation may leave them to the next."""
        self._pending += notices
        ours = self._taken + len(self._pending)
        while self._taken < ours:
            async with self._inserting:
                if self._taken < ours:  # else others took ours along
                    await self._insert(self._pending[:AT_ONCE])

    async def _insert(self, batch: Sequence[Notice]) -> None:
        tries = 0
        while True:
            try:
                await webhooks.note(self._database, batch)
            except ServiceError as error:
                tries += 1
                log.warning("webhooks not noted yet", error=str(error), tries=tries)
                await asyncio.sleep(BACKOFF.pause(tries, self._random))
            else:
                del self._pending[: len(batch)]
                self._taken += len(batch)
                return
