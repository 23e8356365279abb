"""The database: rows that are there once a transaction is committed, and all the ways in which that fails.

Stands in for v2td.store.batch.insert and durable_jobs. A transaction locks its Kafka partitions as the real one does;
the server commits what it was told to commit, though the client has died meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID

import asyncpg

from tests.simulation.loop import PROCESS, SERVER
from tests.simulation.network import Network
from v2td.errors import ServiceError
from v2td.jobs import Coordinates, Replay, SourceRecord
from v2td.store import Unfinished, WindowRow, batch, replays
from v2td.store.batch import Written
from v2td.store.rows import REQUESTED, FailureRow, ReplayRow, Rows, TranscriptionRow

STATEMENT_SECONDS = 8.0  # of a statement, and of a client that says nothing inside a transaction
UNWRITABLE = "unwritable"  # a transcription with this in its URL cannot be stored

Row = TranscriptionRow | FailureRow


class _Transaction:
    """Holds locks until it ends; the server ends it when its client is gone or silent."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._held: list[tuple[str, int]] = []
        self._waiting: asyncio.Future[None] | None = None
        self.over = False
        self._timer = server.loop.call_later(STATEMENT_SECONDS, self.end, context=SERVER)
        if (process := PROCESS.get()) is not None:
            process.at_death(self._client_died)
        self.committing = False

    def _client_died(self) -> None:
        if not self.committing:  # else the server knows nothing of it yet
            self.end()

    async def lock(self, keys: list[tuple[str, int]]) -> None:
        for key in sorted(set(keys)):
            self._check()
            queue = self._server.locks.setdefault(key, deque())
            waiter: asyncio.Future[None] = self._server.loop.create_future()
            queue.append((self, waiter))
            self._held.append(key)
            if queue[0][0] is not self:
                await waiter
            self._check()

    def commit(self, outcomes: Sequence[Rows]) -> Written:
        """Make the outcomes durable, those of jobs that have one excepted."""
        self._check()
        replays = [each.replay for each in outcomes if each.replay is not None]
        for replay in replays:
            self._server.replay(replay)
        kept = batch._one_of_each_job(outcomes) if replays else outcomes
        new = [row for row in map(_row, kept) if row.id not in self._server.rows]
        for row in new:
            self._server.take(row)
        self.end()
        failures = sum(isinstance(row, FailureRow) for row in new)
        return Written(len(new) - failures, 0, failures)

    def end(self) -> None:
        """Let go of the locks."""
        if self.over:
            return
        self.over = True
        self._timer.cancel()
        for key in self._held:
            queue = self._server.locks[key]
            first = queue[0][0]
            for entry in [each for each in queue if each[0] is self]:
                queue.remove(entry)
                if not entry[1].done():
                    entry[1].set_result(None)
            if first is self and queue:
                queue[0][1].set_result(None)

    def _check(self) -> None:
        if self.over:
            raise asyncpg.IdleInTransactionSessionTimeoutError("terminated")


class Postgres:
    """`on_row` sees each row before it is durable."""

    def __init__(self, network: Network, on_row: Callable[[Row], None], note: Callable[..., None]) -> None:
        self.rows: dict[UUID, Row] = {}
        self.replays: dict[UUID, ReplayRow] = {}
        self.windows: dict[UUID, dict[tuple[int, str], dict[str, Any]]] = {}
        self.locks: dict[tuple[str, int], deque[tuple[_Transaction, asyncio.Future[None]]]] = {}
        self.down = False
        self.frozen: asyncio.Event = asyncio.Event()  # set while it is not
        self.frozen.set()
        self.loop = network.loop
        self._network = network
        self._on_row = on_row
        self._note = note

    def take(self, row: Row) -> None:
        self._on_row(row)
        self.rows[row.id] = row
        if getattr(row, "replay_state", None) != REQUESTED:
            self.windows.pop(row.id, None)
        self._note("postgres", "row", f"{row.kafka_partition}/{row.kafka_offset}", type(row).__name__)

    def replay(self, replay: ReplayRow) -> None:
        """A failure that is done again makes room for what came of it, once for each record that asked."""
        if replay.record_id in self.replays:
            return
        self.replays[replay.record_id] = replay
        if self.requested(replay.replay_of) is not None:
            del self.rows[replay.replay_of]
            self._note("postgres", "replayed", str(replay.replay_of)[-12:])

    def requested(self, row_id: UUID) -> FailureRow | None:
        """Return the failure when it waits for a replay."""
        row = self.rows.get(row_id)
        return row if isinstance(row, FailureRow) and row.replay_state == REQUESTED else None

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[Postgres]:
        """As Database.raw."""
        await self._travel()
        yield self

    async def insert(self, rows: Sequence[Rows]) -> Written:
        """As batch.insert."""
        ours = [_row(each) for each in rows]
        transaction = _Transaction(self)
        try:
            async with asyncio.timeout(STATEMENT_SECONDS + 1):
                await transaction.lock([(row.topic, row.kafka_partition) for row in ours])
                await self._travel()
            if any(UNWRITABLE in (row.audio_url or "") for row in ours if isinstance(row, TranscriptionRow)):
                raise asyncpg.DataError("a row cannot be stored")
        except BaseException:
            transaction.end()
            raise
        return await self._commit(transaction, rows)

    async def _commit(self, transaction: _Transaction, rows: Sequence[Rows]) -> Written:
        """From here on it may become durable, whatever happens to us."""
        answer: asyncio.Future[Written] = self.loop.create_future()
        lost = self._network.lost()

        def commit() -> None:
            try:
                written = transaction.commit(rows)
            except asyncpg.PostgresError as error:
                _fail(answer, error)
                return
            if lost:
                _fail(answer, ConnectionResetError("after the commit"))
            else:
                self.loop.call_later(self._network.delay(), _answer, answer, written, context=SERVER)

        transaction.committing = True
        if self.down:
            transaction.end()
            raise ConnectionResetError("before the commit")
        self.loop.call_later(self._network.delay(), commit, context=SERVER)
        async with asyncio.timeout(STATEMENT_SECONDS + 1):
            return await answer

    async def durable_jobs(
        self, _cluster: str, topic: str, partition: int, first_offset: int
    ) -> dict[int, frozenset[UUID]]:
        """As store.durable_jobs."""
        async with self._asked():
            found: dict[int, set[UUID]] = {}
            for row in self.rows.values():
                if (row.topic, row.kafka_partition) == (topic, partition) and row.kafka_offset >= first_offset:
                    found.setdefault(row.kafka_offset, set()).add(row.id)
            for replay in self.replays.values():
                if (replay.topic, replay.kafka_partition) == (topic, partition) and replay.kafka_offset >= first_offset:
                    found.setdefault(replay.kafka_offset, set()).add(replay.record_id)
        return {offset: frozenset(ids) for offset, ids in found.items()}

    async def find_replay(
        self, row_id: UUID, record: SourceRecord, at: Coordinates
    ) -> Coordinates | Literal["done"] | None:
        """As store.find_replay."""
        async with self._asked():
            if at.row_id() in self.replays:
                return "done"
            row = self.requested(row_id)
            if row is None:
                asked = {(each.replay_of, each.record_sha256) for each in self.replays.values()}
                return "done" if (row_id, Replay.digest(record)) in asked else None
            if not replays.is_of(record, row.record_key, row.payload):
                return None
            return replays.original(row._asdict())

    async def has_outcome(self, row_id: UUID) -> bool:
        """As store.has_outcome."""
        async with self._asked():
            return row_id in self.rows

    async def save_windows(self, rows: Sequence[WindowRow]) -> None:
        """As store.save_windows."""
        async with self._asked():
            for row in rows:
                row_id = row.job.row_id()
                if row_id not in self.rows or self.requested(row_id) is not None:
                    self.windows.setdefault(row.job.row_id(), {})[row.window, row.options_sha256] = row.result

    async def load_windows(self, job_id: UUID) -> list[tuple[int, str, dict[str, Any]]]:
        """As store.load_windows."""
        async with self._asked():
            return [(*key, result) for key, result in self.windows.get(job_id, {}).items()]

    async def unfinished(self) -> Unfinished:
        """As store.unfinished."""
        async with self._asked():
            return Unfinished(frozenset(self.windows), {})

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        """A statement by itself: what is done inside is done, though the answer may be lost."""
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                await self._travel()
            yield
            await asyncio.sleep(self._network.delay())
            if self._network.lost():
                raise ConnectionResetError("answer lost")
        except (OSError, asyncpg.PostgresError) as error:  # TimeoutError is an OSError
            raise ServiceError("ask", type(error).__name__) from error

    async def _travel(self) -> None:
        if not self.frozen.is_set():
            await self.frozen.wait()
        await asyncio.sleep(self._network.delay())
        if self.down:
            raise ConnectionRefusedError
        if self._network.lost():
            raise asyncpg.SerializationError("by the schedule")


def _row(outcome: Rows) -> Row:
    row = outcome.transcription or outcome.failure
    assert row is not None
    return row


def _answer(answer: asyncio.Future[Written], written: Written) -> None:
    if not answer.done():
        answer.set_result(written)


def _fail(answer: asyncio.Future[Written], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # known to be handled, though who asked may be dead
