"""Transcriptions done again: for each a message is made that asks for the same, noted in `redos`, sent and waited for.

A few are under way at a time, since records of live traffic wait behind those that are in the topic before them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from v2td.config import Settings
from v2td.errors import JobError, ServiceError, first_of
from v2td.intake import admin_client, client_options, explained
from v2td.jobs import Replay, SourceRecord
from v2td.messages.headers import REDO_OF, REVISION, TRACE
from v2td.ops import request
from v2td.ops.originals import Originals, open_originals
from v2td.store import Database, StoredTranscription, open_database, redos
from v2td.store.encoding import decode_bytes
from v2td.store.redos import Asked, Key, Selection, Wish
from v2td.store.requests import fields_of, request_of

PRIORITY = 9  # the last of all: live traffic goes first
AT_ONCE = 100  # transcriptions looked up and sent together
LARGEST_RECORD = 1 << 30  # bytes; the brokers and the topic say what is too large
FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 1.0
PAUSE_FACTOR = 1.5


class Result(StrEnum):
    """What became of the wish to do a transcription again."""

    DONE = "done"
    SENT = "sent"  # and nobody waits for it
    LEFT = "left"  # since it is there
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Redone:
    """One transcription: `revision` is None when none was asked for; `told` says who did it, or why not."""

    id: UUID
    revision: int | None
    result: Result
    told: str


@dataclass(frozen=True, slots=True)
class Target:
    """Who is to do it: None leaves that to the rules."""

    model: str | None
    provider: str | None

    def is_that_of(self, transcription: StoredTranscription) -> bool:
        """Tell whether a transcription is by this model; without a model that cannot be told."""
        return self.model == transcription.model and self.provider in (None, transcription.provider)


@dataclass(frozen=True, slots=True)
class _Message:
    id: UUID
    record: SourceRecord
    trace: str | None  # the span of the try before

    @property
    def sha256(self) -> str:
        return Replay.digest(self.record)


async def find(settings: Settings, selection: Selection) -> list[redos.Candidate]:
    """Return the transcriptions that are meant, oldest first; raises ServiceError."""
    async with open_database(settings.database, "v2td redo") as database:
        return await redos.find(database, selection)


@asynccontextmanager
async def open_redoer(
    settings: Settings, target: Target, *, again: bool, dry_run: bool, in_flight: int | None
) -> AsyncIterator[Redoer]:
    """Connect to Kafka and Postgres; what either refuses, also inside the block, is a ServiceError.

    With `again` those are done too that were done or failed before. `in_flight` are under way at once; None: all are
    sent, and not waited for. With `dry_run` nothing is written or sent.
    """
    kafka = settings.kafka
    topic = kafka.topics[0]
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database, "v2td redo"))
        stack.enter_context(explained(kafka, "do transcriptions again", quiet=True))
        async with admin_client(kafka) as admin:
            if topic not in await admin.list_topics():
                raise ServiceError(f"send to {topic}", "there is no such topic", "create it, or correct kafka.topics")
        originals = await stack.enter_async_context(open_originals(settings))
        producer = None
        if not dry_run:
            # Not idempotent, for the reason that DeadLetters gives; what arrives twice is done once.
            producer = AIOKafkaProducer(**client_options(kafka), acks="all", max_request_size=LARGEST_RECORD)
            stack.push_async_callback(producer.stop)
            await producer.start()
        yield Redoer(settings, database, originals, producer, target, again=again, in_flight=in_flight)


class Redoer:
    """Asks for transcriptions once more; made by `open_redoer`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        originals: Originals,
        producer: AIOKafkaProducer | None,
        target: Target,
        *,
        again: bool,
        in_flight: int | None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._originals = originals
        self._producer = producer
        self._target = target
        self._again = again
        self._in_flight = in_flight
        self._waiting: set[Key] = set()

    async def redo(self, ids: Sequence[UUID]) -> AsyncGenerator[Redone, None]:
        """Yield what became of each transcription, in no certain order. Raises ServiceError.

        Stopped at any point, a transcription is untouched, or asked for: who asks for the same again waits for it.
        """
        left = deque(ids)
        pause = FIRST_PAUSE_SECONDS
        while left or self._waiting:
            room = AT_ONCE if self._in_flight is None else min(AT_ONCE, self._in_flight - len(self._waiting))
            chunk = [left.popleft() for _ in range(min(room, len(left)))]
            for each in await self._ask(chunk):
                yield each
            if chunk and left and len(self._waiting) < (self._in_flight or 0):
                continue
            ended = await redos.ended(self._database, list(self._waiting)) if self._waiting else {}
            for (row_id, revision), end in ended.items():
                self._waiting.discard((row_id, revision))
                result = Result.DONE if end.failed is None else Result.FAILED
                yield Redone(row_id, revision, result, end.failed or f"{end.model} by {end.provider}")
            pause = FIRST_PAUSE_SECONDS if ended else min(pause * PAUSE_FACTOR, MAX_PAUSE_SECONDS)
            if self._waiting and not ended:
                await asyncio.sleep(pause)

    async def _ask(self, ids: Sequence[UUID]) -> list[Redone]:
        """Ask for those that need it; return what became of those that are not waited for."""
        rows = await redos.originals(self._database, ids)
        before = await redos.asked(self._database, self._target.model, self._target.provider, ids)
        told: list[Redone] = []
        messages: list[_Message] = []
        for row_id in ids:
            row, asked = rows.get(row_id), before.get(row_id)
            if row is None:
                told.append(Redone(row_id, None, Result.LEFT, "is no transcription any more"))
            elif (found := self._as_it_is(row, asked)) is not None:
                told.append(found)
            elif asked is not None and not (asked.done or asked.failed) and asked.sent and not self._again:
                told += self._under_way((row_id, asked.revision))
            else:
                made = await self._message(row)
                if isinstance(made, str):
                    told.append(Redone(row_id, None, Result.REFUSED, made))
                else:
                    messages.append(made)
        return told + await self._send(messages, before)

    def _as_it_is(self, row: StoredTranscription, asked: Asked | None) -> Redone | None:
        """Return why nothing is to be done about a transcription; None when something is."""
        if self._again:
            return None
        if asked is not None and asked.done and asked.revision == row.revision:
            return Redone(row.id, row.revision, Result.LEFT, "was done before")
        if self._target.is_that_of(row):
            return Redone(row.id, None, Result.LEFT, f"is by {row.model} of {row.provider}")
        if asked is not None and asked.failed and not asked.done:
            return Redone(row.id, asked.revision, Result.FAILED, f"{asked.failed} (before; --again tries once more)")
        return None

    async def _message(self, row: StoredTranscription) -> _Message | str:
        """Return the message that asks for the same as the transcription's own, or why there is none."""
        at = redos.coordinates_of(row)
        if at is None:
            return "its row does not tell its record's time: the job would get another id"
        fields: dict[str, Any] = {
            "id": row.job_id,
            "task": row.task,
            "tenant": row.tenant,
            "metadata": row.metadata or None,
            "priority": PRIORITY,
            "model": self._target.model,
            "provider": self._target.provider,
        }
        if row.request is not None and "url_cut" not in row.request:
            fields |= {"audio_url": row.audio_url, **fields_of(row.request)}
            key = row.request.get("record_key")
            key = None if key is None else decode_bytes(key)
        elif (job := await self._originals.find(at)) is not None:
            fields |= {"audio_url": job.audio_url, **fields_of(request_of(job))}
            key = job.record.key
        else:
            lacks = "not all of its URL" if row.request else "not all that its message asked for"
            return f"its row has {lacks}, and its message is not in {row.topic} any more"
        value = request.message(fields)
        try:
            request.read(value, self._settings)
        except JobError as error:
            return error.reason
        told = row.timings.get("trace")
        trace = told if isinstance(told, str) else None  # a provider of somebody's own may say anything there
        return _Message(row.id, SourceRecord(str(row.id).encode() if key is None else key, value, ()), trace)

    async def _send(self, messages: Sequence[_Message], before: dict[UUID, Asked]) -> list[Redone]:
        """Note what is wanted, then send: a record that came before would be a job of its own."""
        if self._producer is None:
            return [Redone(each.id, None, Result.SENT, f"would go to {self._topic}") for each in messages]
        # One that was noted and may not have been sent keeps its number: done twice, it is written once.
        revisions = {
            each.id: asked.revision
            for each in messages
            if (asked := before.get(each.id)) is not None
            and not (asked.done or asked.failed)
            and asked.record_sha256 == each.sha256
        }
        wishes = [Wish(each.id, each.sha256) for each in messages if each.id not in revisions]
        revisions |= await redos.note(self._database, self._target.model, self._target.provider, wishes)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._send_one(self._producer, each, revisions[each.id])) for each in messages
                ]
        except ExceptionGroup as errors:
            if not isinstance(error := first_of(errors), KafkaError):
                raise
            cure = "some are noted and not sent: the same command goes on"
            raise ServiceError("ask for transcriptions", f"{type(error).__name__}: {error}", cure) from None
        refused = [each for task in tasks if (each := task.result()) is not None]
        sent = [(each.id, revisions[each.id]) for each in messages if each.id not in {one.id for one in refused}]
        await redos.mark_sent(self._database, sent)
        return [*refused, *(told for key in sent for told in self._under_way(key))]

    async def _send_one(self, producer: AIOKafkaProducer, message: _Message, revision: int) -> Redone | None:
        headers = [(REDO_OF, str(message.id).encode()), (REVISION, str(revision).encode())]
        if message.trace is not None:
            headers.append((TRACE, message.trace.encode()))
        record = message.record
        try:
            await producer.send_and_wait(self._topic, key=record.key, value=record.value, headers=headers)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            await redos.withdraw(self._database, (message.id, revision))
            return Redone(message.id, None, Result.REFUSED, f"its message is too large for {self._topic}")
        return None

    def _under_way(self, key: Key) -> list[Redone]:
        """Wait for it, or say that it is sent where nobody waits."""
        if self._in_flight is not None:
            self._waiting.add(key)
            return []
        return [Redone(*key, Result.SENT, f"is asked for in {self._topic}")]

    @property
    def _topic(self) -> str:
        return self._settings.kafka.topics[0]
