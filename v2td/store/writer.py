"""Group commit: outcomes wait a moment for company and become durable together."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from v2td import metrics
from v2td.config.settings import DatabaseSettings
from v2td.errors import ErrorClass, ServiceError
from v2td.jobs import Failure, Outcome, SourceRecord, Transcript
from v2td.logs import get_logger
from v2td.store import batch, partitions
from v2td.store.entry import Durable, Entry, copy_of
from v2td.store.faults import Verdict, describe, explain, verdict
from v2td.store.pool import Database
from v2td.store.rows import coordinates_of, replay_of

RETRY_INITIAL_SECONDS = 0.1
RETRY_MAX_SECONDS = 2.0  # so that work goes on soon after Postgres is back
ROWS_AT_ONCE = 50  # outcomes made into rows before the loop goes on: 1 to 2 ms

log = get_logger(__name__)


class Writer:
    """Writes outcomes in batches; `run` does the work, `write` waits for it.

    `on_unwritable` is awaited with the Failure that takes the place of what Postgres refuses, a Transcript or a
    Failure that would be retried, before its row is written: there goes its dead letter.

    `healthy` is set while Postgres takes what it is given, and cleared while a batch is tried again and again.
    """

    def __init__(
        self,
        database: Database,
        settings: DatabaseSettings,
        on_unwritable: Callable[[Failure], Awaitable[None]],
    ) -> None:
        self.healthy = asyncio.Event()
        self.healthy.set()
        self._database = database
        self._settings = settings
        self._on_unwritable = on_unwritable
        self._entries: dict[UUID, Entry] = {}  # all that is not durable yet, under way or queued
        self._queue: deque[Entry] = deque()
        self._rowless: deque[Entry] = deque()  # those whose rows are made next, whether they are queued still or not
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()  # no more company is waited for
        self._due = 0.0  # loop time at which the oldest in the queue has waited long enough
        self._closing = False
        self._ended: ServiceError | None = None

    async def write(self, outcome: Outcome) -> Durable:
        """Return once the outcome is durable: as it was given, or the Failure that had to take its place.

        Of two outcomes of one job the first is kept. Raises ServiceError when the writer has ended. Cancellation
        ends the waiting only: the outcome is written all the same.
        """
        if self._ended is not None:
            raise copy_of(self._ended)
        replay = replay_of(outcome)  # has to be noted, even if the job itself is under way
        key = (replay.record if replay else coordinates_of(outcome)).row_id()
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(key, outcome)
            self._enqueue(entry)
        else:
            metrics.WRITE_DUPLICATES.inc()
        return await entry.wait()

    async def flush(self) -> None:
        """Write what is there now without waiting for company; return once it is durable or has failed."""
        if self._entries:
            self._enough.set()
            await asyncio.wait([entry.wait() for entry in self._entries.values()])

    def close(self) -> None:
        """Let `run` write what is there and return."""
        self._closing = True
        self._arrived.set()
        self._enough.set()

    async def run(self) -> None:
        """Write until `close`; raises ServiceError where a person must act (SQLSTATE 28*, 3D*, 42*).

        However it ends, whoever still waits in `write` gets a ServiceError; what was not durable then is written
        when Kafka delivers it again.
        """
        try:
            while self._queue or not self._closing:
                await self._settle(await self._gather())
        except ServiceError as error:
            self._end(error)
            raise
        finally:
            self._end(ServiceError("write to Postgres", "the writer has ended"))

    def _enqueue(self, entry: Entry) -> None:
        if not self._queue:
            self._due = asyncio.get_running_loop().time() + self._settings.flush_seconds
        self._queue.append(entry)
        self._arrived.set()
        if len(self._queue) >= self._settings.flush_rows:
            self._enough.set()
        if not self._rowless:
            asyncio.get_running_loop().call_soon(self._make_rows)
        self._rowless.append(entry)

    def _make_rows(self) -> None:
        """Make some of the rows while the flush before is with the server, and go on when the loop has time."""
        # What cannot be made into rows is told when it is to be written.
        with suppress(ValueError, OverflowError, RecursionError):
            for _ in range(min(len(self._rowless), ROWS_AT_ONCE)):
                self._rowless.popleft().as_rows()
        if self._rowless:
            asyncio.get_running_loop().call_soon(self._make_rows)

    async def _gather(self) -> list[Entry]:
        await self._arrived.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._due):
                await self._enough.wait()
        entries = [self._queue.popleft() for _ in range(min(len(self._queue), self._settings.flush_rows))]
        if not self._queue and not self._closing:
            self._arrived.clear()
            self._enough.clear()
        return entries

    async def _settle(self, entries: list[Entry]) -> None:
        """Make the entries durable; a batch that holds a bad row is halved until the row is alone."""
        if not entries:
            return
        bad_row = await self._insert(entries)
        if bad_row is None:
            for entry in entries:
                del self._entries[entry.key]
                entry.settle()
        elif len(entries) > 1:
            middle = len(entries) // 2
            await self._settle(entries[:middle])
            await self._settle(entries[middle:])
        else:
            await self._replace(entries[0], describe(bad_row)[:500])
            await self._settle(entries)

    async def _replace(self, entry: Entry, problem: str) -> None:
        """Put something in the entry's place that Postgres is more likely to take."""
        reason = f"Postgres refuses the row: {problem}"
        log.error("unwritable", job=str(coordinates_of(entry.outcome).row_id()), reason=reason)
        match entry.outcome:
            case Transcript(job=job):
                failure = Failure(
                    job.coordinates,
                    ErrorClass.UNWRITABLE,
                    reason,
                    1,
                    job.record,
                    job.job_id,
                    job.audio_url,
                    job.replay,
                    job.redo,
                    webhook_url=job.webhook_url,
                    metadata=job.metadata,
                )
                entry.put(failure)
                if job.redo is None:
                    await self._on_unwritable(failure)
            case Failure() as failure if not entry.reduced:
                entry.reduced = True
                final = replace(failure, reason=reason, retried_later=False)
                bare = replace(final, record=SourceRecord(None, None, ()), job_id=None, audio_url=None)
                entry.put(bare)
                if failure.retried_later:  # no record would match the bare row, so this is the end of it
                    await self._on_unwritable(final)
            case _:
                raise ServiceError("write a failure", problem, "not even the bare coordinates can be stored")

    async def _insert(self, entries: list[Entry]) -> Exception | None:
        """Insert in one transaction, trying until Postgres answers; return the error when a row is at fault."""
        delay = RETRY_INITIAL_SECONDS
        while True:
            try:
                bad_row = await self._attempt(entries)
            except Exception as error:
                match verdict(error):
                    case Verdict.NO_PARTITION:
                        await self._make_partitions()
                    case Verdict.RETRY:
                        log.warning("Postgres is in trouble", error=describe(error), outcomes=len(entries))
                    case None:
                        raise
                    case _:
                        raise explain("write to Postgres", error) from error
            else:
                self.healthy.set()
                return bad_row
            metrics.WRITE_RETRIES.inc()
            self.healthy.clear()
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 (jitter, no secret)
            delay = min(delay * 2, RETRY_MAX_SECONDS)

    async def _attempt(self, entries: list[Entry]) -> Exception | None:
        async with self._database.raw() as connection:
            began = time.perf_counter()
            try:
                written = await batch.insert(connection, [entry.as_rows() for entry in entries])
            except Exception as error:
                if verdict(error) is Verdict.BAD_ROW:  # said of a connection, it would be no row's fault
                    return error
                raise
            metrics.WRITE_SECONDS.observe(time.perf_counter() - began)
        for entry in entries:
            entry.new = written.new is None or batch.name_of(entry.as_rows()) in written.new
        _count(len(entries), written)
        return None

    async def _make_partitions(self) -> None:
        try:
            async with self._database.raw() as connection:
                names = await partitions.ensure(connection, self._settings.partitions_ahead)
        except Exception as error:
            if verdict(error) is not Verdict.RETRY:
                raise explain("make partitions", error) from error
        else:
            log.info("partitions made", names=names)

    def _end(self, error: ServiceError) -> None:
        self._ended = self._ended or error
        for entry in self._entries.values():
            entry.fail(error)
        self._entries.clear()
        self._queue.clear()
        self._rowless.clear()


def _count(outcomes: int, written: batch.Written) -> None:
    metrics.WRITE_BATCH.observe(outcomes)
    metrics.WRITE_DUPLICATES.inc(outcomes - written.transcriptions - written.failures - written.redos)
    metrics.WRITE_ROWS.labels("transcriptions").inc(written.transcriptions)
    metrics.WRITE_ROWS.labels("transcript_segments").inc(written.segments)
    metrics.WRITE_ROWS.labels("failures").inc(written.failures)
