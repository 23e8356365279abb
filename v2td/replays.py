"""Records that ask for a job once more: sent by `v2td dlq replay`, or by ourselves to kafka.retry_topic, for one that
failed, and by `v2td redo` for one that was transcribed.

Such a record counts for what it says only while the failure, or a row of redos, waits for it; otherwise its header is
ignored, since anybody may write one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Literal, TypeVar
from uuid import UUID

from v2td import metrics, store
from v2td.config import Settings
from v2td.errors import ErrorClass, ServiceError
from v2td.jobs import Coordinates, Failure, Job, Redo, Replay, SourceRecord
from v2td.logs import get_logger
from v2td.messages import Known, jobs_of
from v2td.messages.headers import (
    NOT_BEFORE,
    REDO_HEADERS,
    REDO_OF,
    REPLAY_HEADERS,
    REPLAY_OF,
    RETRY_ROUND,
    header,
    redo_of,
    without,
)
from v2td.retry import Backoff

log = get_logger(__name__)

BACKOFF = Backoff(initial=0.5, maximum=20)
ROW_SECONDS = 3600.0  # a retry is sent before its row is written: by somebody who may be frozen for a while

T = TypeVar("T")


class Replays:
    """Tells what a record asks for, which most do by themselves."""

    def __init__(self, database: store.Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings.messages
        self._known = Known.of(settings)
        self._retry_topic = settings.kafka.retry_topic
        self._random = Random()  # noqa: S311 (jitter)

    async def jobs_of(self, at: Coordinates, record: SourceRecord) -> tuple[Job | Failure, ...]:
        """Return what the record asks for: its own jobs, or the failed one that it replays, or nothing more to do."""
        if (redo := redo_of(record.headers)) is not None:
            return await self._redo(*redo, at, record)
        row_id = _row_id(record)
        if row_id is None:
            return self._jobs(record, at)
        retry = at.topic == self._retry_topic and header(record.headers, NOT_BEFORE) is not None
        found = await self._find(row_id, record, at, ROW_SECONDS if retry else 0.0)
        if found == "done":
            log.info("replayed already", replay_of=str(row_id))
            metrics.JOBS_KNOWN.inc()
            return ()
        if found is None:
            if retry:
                log.info("nothing waits for this retry", replay_of=str(row_id))  # sent twice, or dropped meanwhile
                return ()
            log.warning("header ignored: that failure waits for no replay of this record", header=REPLAY_OF)
            return self._jobs(record, at)
        return tuple(self._replayed(found, at, record))

    async def _find(
        self, row_id: UUID, record: SourceRecord, at: Coordinates, patience_seconds: float
    ) -> Coordinates | Literal["done"] | None:
        """Ask until Postgres answers, since a guess would do a job twice or not at all.

        For a job that has no row at all its row is waited for.
        """
        tries = 0
        first_answer: float | None = None
        while True:
            try:
                # Asked first, since the row may be written in between.
                ended = patience_seconds == 0 or await store.has_outcome(self._database, row_id)
                found = await store.find_replay(self._database, row_id, record, at)
            except ServiceError as error:
                log.warning("replay not looked up yet", error=str(error), tries=tries)
            else:
                first_answer = first_answer or time.monotonic()
                if found is not None or ended or time.monotonic() >= first_answer + patience_seconds:
                    return found
            tries += 1
            await asyncio.sleep(BACKOFF.pause(tries, self._random))

    def _replayed(self, failed: Coordinates, at: Coordinates, record: SourceRecord) -> list[Job | Failure]:
        own = SourceRecord(record.key, record.value, without(record.headers, REPLAY_HEADERS))
        waited = header(record.headers, RETRY_ROUND) if at.topic == self._retry_topic else None
        replay = Replay(at, int(waited) if waited and waited.isdecimal() else 0)
        first = replace(failed, record_index=0)
        metrics.JOBS_REPLAYED.inc()
        # A notification names many recordings; the others have their outcomes.
        asked = [replace(each, replay=replay) for each in self._jobs(own, first) if each.coordinates == failed]
        reason = "read once more, the record does not name this recording"  # by another version, or another setting
        return asked or [Failure(failed, ErrorClass.BAD_MESSAGE, reason, 1, own, replay=replay)]

    async def _redo(
        self, row_id: UUID, revision: int, at: Coordinates, record: SourceRecord
    ) -> tuple[Job | Failure, ...]:
        """Return the job of another revision, which has the coordinates, and so the row id, of the one before."""
        found = await self._answer(lambda: store.redos.find_redo(self._database, row_id, revision, record))
        if found == "done":
            log.info("done again already", redo_of=str(row_id), revision=revision)
            metrics.JOBS_KNOWN.inc()
            return ()
        if found is None:
            log.warning("header ignored: nobody asked for that revision by this record", header=REDO_OF)
            return self._jobs(record, at)
        coordinates, redo = found
        own = SourceRecord(record.key, record.value, without(record.headers, REDO_HEADERS))
        return tuple(_as_redo(each, coordinates, Replay(at), redo) for each in self._jobs(own, at))

    async def _answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until Postgres answers, since a guess would do a job twice or not at all."""
        tries = 0
        while True:
            try:
                return await ask()
            except ServiceError as error:
                tries += 1
                log.warning("redo not looked up yet", error=str(error), tries=tries)
                await asyncio.sleep(BACKOFF.pause(tries, self._random))

    def _jobs(self, record: SourceRecord, at: Coordinates) -> tuple[Job | Failure, ...]:
        return jobs_of(record, at, settings=self._settings, known=self._known)


def _row_id(record: SourceRecord) -> UUID | None:
    value = header(record.headers, REPLAY_OF)
    try:
        return None if value is None else UUID(value)
    except ValueError:
        return None


def _as_redo(each: Job | Failure, at: Coordinates, replay: Replay, redo: Redo) -> Job | Failure:
    if isinstance(each, Failure):  # a model that nobody has, for one
        return replace(each, coordinates=at, replay=replay, redo=redo)
    return replace(each, coordinates=at, replay=replay, redo=redo, model=redo.model, provider=redo.provider)
