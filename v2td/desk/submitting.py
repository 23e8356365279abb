"""A request becomes a record in Kafka: once for each key, whoever asks again, unless an instance dies at its worst.

First the key is reserved in `submissions`, durably; then the record is sent; the answer goes out when all replicas in
sync have it; and behind that the row is completed. Who asks again with the key finds the job in one of them. A row
that was never completed belongs to an instance that holds it, or is gone: then its record is looked for in Kafka, by
the header SUBMISSION, before it is sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Self
from uuid import UUID, uuid4

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from v2td import metrics
from v2td.admin.jobs_desk import DeskError, Trouble
from v2td.config import Settings
from v2td.desk.lost import find_lost
from v2td.desk.producer import Producer
from v2td.desk.reading import Message, read
from v2td.desk.together import Together
from v2td.errors import ServiceError
from v2td.jobs import Coordinates, Headers
from v2td.logs import get_logger
from v2td.messages import Known
from v2td.messages.headers import SUBMISSION, TRACEPARENT
from v2td.retry import Backoff
from v2td.store import Database, submissions
from v2td.store.submissions import Acknowledged, Reservation, Submission

log = get_logger(__name__)

ANSWER_SECONDS = 5.0  # longest wait of a caller
HOLD_SECONDS = 10.0  # how often an instance says that it is still sending
CLAIM_SECONDS = 60.0  # who says nothing for so long is gone
FIND_SECONDS = 60.0  # longest search in Kafka
NOTE_LINGER_SECONDS = 0.05  # what Kafka has is noted together: nobody waits for it
NOTE_SECONDS = 2.0  # longest wait at the end
MAX_UNDER_WAY = 2000  # requests that wait for Kafka
RETRY_SECONDS = 5
BACKOFF = Backoff(initial=0.5, maximum=10)

_OK, _REPEATED, _REFUSED, _FAILED = (
    metrics.SUBMISSIONS.labels(result) for result in ("ok", "repeated", "refused", "failed")
)


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that Kafka has, as its caller is told; `repeated`: since an earlier request."""

    submission: Submission
    repeated: bool


@dataclass(frozen=True, slots=True)
class _Request:
    key: str
    sha256: str
    message: Message
    trace: str | None  # traceparent

    @property
    def mark(self) -> bytes:
        """What tells its record from others: anybody may read it, so that it is not the key."""
        return hashlib.sha256(self.key.encode()).hexdigest().encode()


class Submitting:
    """Takes requests from many tasks at once; an async context manager that opens a producer."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._known = Known.of(settings)
        self._topic = settings.api.jobs_topic or settings.kafka.topics[0]
        self._producer = Producer(settings.kafka, self._topic)
        self._reservations = Together[Reservation, Submission | None](lambda all_: submissions.reserve(database, all_))
        self._completions = Together[Acknowledged, bool](
            lambda all_: submissions.complete(database, all_), NOTE_LINGER_SECONDS
        )
        self._under_way: dict[str, tuple[str, asyncio.Task[Taken]]] = {}  # by key, with the request's digest
        self._unnoted: OrderedDict[UUID, Submission] = OrderedDict()  # in Kafka, and not yet so in their rows
        self._notes: set[asyncio.Task[None]] = set()
        self._random = Random()  # noqa: S311 (jitter)

    async def __aenter__(self) -> Self:
        await self._producer.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._notes:  # what Kafka has is to be known as such
            await asyncio.wait(self._notes, timeout=NOTE_SECONDS)
        tasks = [*(task for _, task in self._under_way.values()), *self._notes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reservations.close()
        await self._completions.close()
        await self._producer.__aexit__()

    def find(self, job: UUID) -> Submission | None:
        """Return what was submitted here just now, and may be not known to others yet."""
        return self._unnoted.get(job)

    def named(self, name: str) -> set[UUID]:
        """Return the jobs of this name among those."""
        return {job for job, each in self._unnoted.items() if each.job_id == name}

    async def submit(self, body: bytes, key: str | None, trace: str | None = None) -> Taken:
        """Return the job once all replicas in sync have it; raises DeskError, also after ANSWER_SECONDS.

        What is not acknowledged by then, or whose caller goes away, may be sent all the same: the key tells.
        """
        try:
            taken = await self._submit(body, key, trace)
        except DeskError as error:
            (_FAILED if error.trouble is Trouble.UNAVAILABLE else _REFUSED).inc()
            raise
        (_REPEATED if taken.repeated else _OK).inc()
        return taken

    async def _submit(self, body: bytes, key: str | None, trace: str | None) -> Taken:
        message = read(body, self._settings.messages, self._known)
        request = _Request(key or uuid4().hex, hashlib.sha256(message.value).hexdigest(), message, trace)
        digest, task = self._under_way.get(request.key, (request.sha256, None))
        repeated = task is not None
        if digest != request.sha256:
            raise _another_request()
        if task is None:
            if len(self._under_way) >= MAX_UNDER_WAY:
                raise DeskError(Trouble.UNAVAILABLE, "too many jobs wait for Kafka already", RETRY_SECONDS)
            task = asyncio.create_task(self._take(request))
            self._under_way[request.key] = (request.sha256, task)
            task.add_done_callback(lambda task: self._forget(request.key, task))
        await asyncio.wait([task], timeout=ANSWER_SECONDS)
        if not task.done():
            told = "Kafka has not taken it yet, and may still do so: ask again with this Idempotency-Key"
            raise DeskError(Trouble.UNAVAILABLE, told, RETRY_SECONDS, request.key)
        if task.cancelled():
            raise DeskError(Trouble.UNAVAILABLE, "stopping", RETRY_SECONDS, request.key)
        try:
            taken = task.result()
        except ServiceError as error:
            log.warning("not submitted", error=str(error))
            told = "it cannot be noted now: see the daemon's log"
            raise DeskError(Trouble.UNAVAILABLE, told, RETRY_SECONDS, request.key) from error
        return Taken(taken.submission, taken.repeated or repeated)

    def _forget(self, key: str, task: asyncio.Task[Taken]) -> None:
        """Keep no task that failed, and one that did not until its row says so."""
        if task.cancelled() or task.exception() is not None or task.result().submission.id not in self._unnoted:
            self._under_way.pop(key, None)

    async def _take(self, request: _Request) -> Taken:
        message = request.message
        reservation = Reservation(request.key, request.sha256, message.job_id, message.shown_url, self._topic)
        known = await self._reservations.ask(reservation)
        if known is None:
            return Taken(self._note(request, await self._sent(request)), repeated=False)
        if known.request_sha256 != request.sha256:
            raise _another_request()
        if known.id is not None:
            return Taken(known, repeated=True)
        if not await submissions.claim(self._database, request.key, CLAIM_SECONDS):
            told = "another instance is sending the job of this Idempotency-Key: ask again"
            raise DeskError(Trouble.CONFLICT, told, RETRY_SECONDS, request.key)
        found = await self._lost(request, known)
        return Taken(self._note(request, found or await self._sent(request)), repeated=found is not None)

    async def _lost(self, request: _Request, known: Submission) -> Coordinates | None:
        """Look whether whoever reserved the key sent the record before it was gone."""
        kafka = self._settings.kafka
        try:
            async with asyncio.timeout(FIND_SECONDS):
                partition = await self._producer.partition_of(known.topic, request.message.key)
                found = await find_lost(kafka, (known.topic, partition), request.mark, known.created_at)
        except (TimeoutError, KafkaError) as error:
            told = "it is not known whether Kafka has it: ask again with this Idempotency-Key"
            raise DeskError(Trouble.UNAVAILABLE, told, int(CLAIM_SECONDS), request.key) from error
        log.warning("a submission that was left unfinished is taken over", found=found is not None)
        return None if found is None else Coordinates(self._producer.cluster_id, known.topic, partition, *found)

    async def _sent(self, request: _Request) -> Coordinates:
        """Send the record, and say so as long as that takes."""
        message = request.message
        headers: Headers = ((SUBMISSION, request.mark),)
        if request.trace is not None:
            headers = (*headers, (TRACEPARENT, request.trace.encode()))
        sending = asyncio.create_task(self._producer.send(message.key, message.value, headers))
        try:
            while not (await asyncio.wait([sending], timeout=HOLD_SECONDS))[0]:
                try:
                    await submissions.hold(self._database, request.key)
                except ServiceError as error:
                    log.warning("submission not held", error=str(error))
            return sending.result()
        except KafkaError as error:
            await submissions.release(self._database, request.key)
            if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                raise DeskError(Trouble.TOO_LARGE, f"the topic {self._topic} takes no message of this size") from error
            log.warning("not submitted", error=str(error))
            raise DeskError(
                Trouble.UNAVAILABLE, "Kafka does not take it: see the daemon's log", RETRY_SECONDS
            ) from error
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    def _note(self, request: _Request, at: Coordinates) -> Submission:
        """Have the row say where the record is, in the background: the caller need not wait for that."""
        message = request.message
        submission = Submission(
            idempotency_key=request.key,
            request_sha256=request.sha256,
            id=at.row_id(),
            job_id=message.job_id,
            audio_url=message.shown_url,
            topic=at.topic,
            kafka_partition=at.partition,
            kafka_offset=at.offset,
            created_at=datetime.now(UTC),
        )
        self._unnoted[at.row_id()] = submission
        task = asyncio.create_task(self._noting(Acknowledged(request.key, at.row_id(), at.partition, at.offset)))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)
        return submission

    async def _noting(self, acknowledged: Acknowledged) -> None:
        failures = 0
        while True:
            try:
                ours = await self._completions.ask(acknowledged)
                break
            except ServiceError as error:
                failures += 1
                log.warning("submission not noted yet", error=str(error), failures=failures)
                await asyncio.sleep(BACKOFF.pause(failures, self._random))
        if not ours:  # it was taken over while this instance hung, and its record not found
            log.error("a job was submitted twice", job=str(acknowledged.id))
        del self._unnoted[acknowledged.id]
        self._under_way.pop(acknowledged.idempotency_key, None)


def _another_request() -> DeskError:
    return DeskError(Trouble.INVALID, "Idempotency-Key: it stood for another request; take a new one")
