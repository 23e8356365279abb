"""An outcome on its way to Postgres, and those who wait until it is there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from v2td.errors import ServiceError
from v2td.jobs import Outcome
from v2td.store.rows import Rows, rows_of


class Durable(NamedTuple):
    """An outcome as it was written; it is not `new` when the job had another one, which was kept."""

    outcome: Outcome
    new: bool


@dataclass(eq=False, slots=True)
class Entry:
    """An outcome on its way; each of its waiters is given the outcome as it was written."""

    key: UUID
    outcome: Outcome
    waiters: list[asyncio.Future[Durable]] = field(default_factory=list)
    rows: Rows | None = None  # once they are made
    new: bool = True
    reduced: bool = False

    def wait(self) -> asyncio.Future[Durable]:
        """Return a future of the caller's own: a waiter that is cancelled takes no other along."""
        waiter: asyncio.Future[Durable] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        return waiter

    def as_rows(self) -> Rows:
        """Return the outcome's rows; raises what its JSON may raise."""
        if self.rows is None:
            self.rows = rows_of(self.outcome)
        return self.rows

    def put(self, outcome: Outcome) -> None:
        """Let another outcome take the place of this one."""
        self.outcome, self.rows = outcome, None

    def settle(self) -> None:
        """Tell the waiters that the outcome is durable."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(Durable(self.outcome, self.new))

    def fail(self, error: ServiceError) -> None:
        """Tell the waiters that the outcome is not durable."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(copy_of(error))
                waiter.exception()  # known to be handled, though who waited may have gone


def copy_of(error: ServiceError) -> ServiceError:
    """Return an equal error: each task that raises it gets a traceback of its own."""
    return ServiceError(error.operation, error.detail, error.hint)
