"""Knows when a row is durable without asking: a trigger notifies, which Postgres delivers after the commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from bench.contestants.contestant import ContestError

_CHANNEL = "finish_line"


class FinishLine:
    """When each job had its row, in time.monotonic() of this process."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._failed: str | None = None
        self._changed = asyncio.Event()

    async def until(self, job_ids: Collection[str]) -> None:
        """Return when all have their row; ContestError when one has failed instead."""
        wanted = set(job_ids)
        while not wanted <= self.times.keys():
            if self._failed is not None:
                raise ContestError(f"a job failed: {self._failed}")
            self._changed.clear()
            await self._changed.wait()

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        kind, _, job_id = str(payload).partition(" ")
        if kind == "done":
            self.times[job_id] = time.monotonic()
        else:
            self._failed = job_id
        self._changed.set()


@asynccontextmanager
async def finish_line(
    dsn: str, table: str, *, when: str = "true", failures: str | None = None
) -> AsyncIterator[FinishLine]:
    """Watch rows of `table`, which has a column job_id, from when the SQL condition `when` holds for NEW.

    Rows of the table `failures` are failed jobs.
    """
    line = FinishLine()
    connection: Any = await asyncpg.connect(dsn)
    try:
        await connection.execute(_trigger("done", table, when))
        if failures is not None:
            await connection.execute(_trigger("failed", failures, "true"))
        await connection.add_listener(_CHANNEL, line._notified)  # noqa: SLF001 (the two are one)
        yield line
    finally:
        await connection.close()


def _trigger(kind: str, table: str, when: str) -> str:
    return f"""
        CREATE FUNCTION {kind}_notify() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_notify('{_CHANNEL}', '{kind} ' || NEW.job_id); RETURN NULL; END $$;
        CREATE TRIGGER {kind}_notify AFTER INSERT OR UPDATE ON {table}
            FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {kind}_notify()
    """
