"""The dead-letter topic: each failed record once more, with the reason in its headers; and the topic of later retries.

Both are sent before the failure row is written, so at least once. Readers drop repetitions of a letter by the header
`v2td-id`; a retry is done once, by the row that it names.
"""

from __future__ import annotations

import asyncio
import math
import time
from random import Random
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerResponseError,
    InvalidTopicError,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from v2td import metrics
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.connection import CREATE, client_options, ensure_topic
from v2td.jobs import Failure, Headers, SourceRecord
from v2td.logs import get_logger
from v2td.messages.headers import (
    NOT_BEFORE,
    REPLAY_HEADERS,
    REPLAY_OF,
    RETRY_ROUND,
    ROW_ID,
    TRUNCATED,
    WHOLE_RECORD,
    without,
)
from v2td.retry import Backoff

log = get_logger(__name__)

MAX_KEPT_BYTES = 16_384  # of the original's key and of its headers, in a truncated letter
MAX_SHARED_BYTES = 1024  # of them where another letter has them whole
BACKOFF = Backoff(initial=0.5, maximum=10)
REFUSED_SECONDS = 10.0  # how long a record is tried that the brokers refuse for good, as far as they can tell
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
PERHAPS_DELETED = (UnknownTopicOrPartitionError, NotLeaderForPartitionError, LeaderNotAvailableError)


class DeadLetters:
    """The producer of dead letters; an async context manager. Creates its topics when it may, also while it runs."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._random = Random()  # noqa: S311 (jitter)
        self._creating = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await ensure_topic(self._settings, self._settings.dead_letter_topic)
        if self._settings.retry_topic is not None:
            await ensure_topic(self._settings, self._settings.retry_topic)
        # Not idempotent: after one refused batch (too large) aiokafka's sequence numbers are out of order for ever.
        self._producer = AIOKafkaProducer(**client_options(self._settings), acks="all", compression_type="zstd")
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise ServiceError("start the dead-letter producer", str(error), "see kafka.* in the config") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(self._settings.commit_timeout_seconds):
                await self._producer.stop()
        except TimeoutError:  # every letter that counts was acknowledged; the broker is gone
            log.warning("dead-letter producer did not stop in time")

    async def send(self, failure: Failure) -> None:
        """Return once the brokers have the letter, however long they are away.

        Its key is the record's, or the row id where that has none, since a compacted topic takes nothing without a key.
        A letter that is too large, or whose record another one has, goes without value, oversize key and headers; one
        that is refused even then, or for another reason and for REFUSED_SECONDS, is logged and given up, since the
        failure row keeps it. ServiceError when the topic may not be written.
        """
        topic, row_id = self._settings.dead_letter_topic, str(failure.coordinates.row_id())
        key, value = failure.record.key, failure.record.value
        if key is None:
            key, value = row_id.encode(), value or b""  # without a value it would delete itself in such a topic
        truncated = failure.whole_in is not None
        try:
            if not truncated:
                headers = letter_headers(failure, truncated=False)
                truncated = not await self._acknowledged(topic, SourceRecord(key, value, headers))
            if truncated:
                key = key if len(key) <= _room(failure) else row_id.encode()
                headers = letter_headers(failure, truncated=True)
                if not await self._acknowledged(topic, SourceRecord(key, b"", headers)):
                    raise MessageSizeTooLargeError
        except KafkaError as error:
            log.error("dead letter refused", id=row_id, error=str(error))
            return
        metrics.DEAD_LETTERS.labels("yes" if truncated else "no").inc()

    async def delay(self, failure: Failure, round_number: int) -> bool:
        """Send the failed job's record to the retry topic, for later; return once the brokers have it.

        False when it is too large for that, or refused for REFUSED_SECONDS. ServiceError when the topic may not be
        written.
        """
        topic, record = self._settings.retry_topic, failure.record
        assert topic is not None
        not_before = time.time() + self._settings.retry_delay_seconds
        headers = retry_headers(failure, round_number, int(not_before * 1000))
        try:
            return await self._acknowledged(topic, SourceRecord(record.key, record.value, headers))
        except KafkaError as error:
            log.error("delayed retry refused", id=str(failure.coordinates.row_id()), error=str(error))
            return False

    async def _acknowledged(self, topic: str, record: SourceRecord) -> bool:
        """Return True once the brokers have the record, however long they are away; False when it is too large.

        KafkaError when they refuse it for REFUSED_SECONDS, for a reason that they do not call passing.
        """
        failures, refused_since = 0, math.inf
        value = b"" if record.key is None and record.value is None else record.value  # aiokafka asserts one of them
        while True:
            try:
                await self._producer.send_and_wait(topic, key=record.key, value=value, headers=list(record.headers))
            except TOO_LARGE:
                return False
            except (TopicAuthorizationFailedError, InvalidTopicError) as error:
                raise ServiceError("send a dead letter", f"{topic}: {error}", "check the topic and its ACL") from error
            except KafkaError as error:
                failures += 1
                log.warning("dead letter not sent yet", topic=topic, error=str(error), failures=failures)
                refused = isinstance(error, BrokerResponseError) and not error.retriable
                if isinstance(error, PERHAPS_DELETED):
                    refused = not await self._created_again(topic)
                now = time.monotonic()
                refused_since = min(refused_since, now) if refused else math.inf
                if now - refused_since >= REFUSED_SECONDS:
                    raise
                await asyncio.sleep(BACKOFF.pause(failures, self._random))
            else:
                return True

    async def _created_again(self, topic: str) -> bool:
        """Create a topic that was deleted; False when that is refused."""
        if self._creating.locked():  # another letter does it
            return True
        async with self._creating:
            try:
                await ensure_topic(self._settings, topic)
            except (ServiceError, KafkaError) as error:
                log.warning("topic not created", topic=topic, error=str(error))
                return not (isinstance(error, ServiceError) and error.operation == CREATE)
        return True


def letter_headers(failure: Failure, *, truncated: bool) -> Headers:
    """Return the original's headers, then ours: what failed, why, and where it stands (pure)."""
    at = failure.coordinates
    ours = {
        ROW_ID: str(at.row_id()),
        "v2td-error-class": failure.error_class.value,
        "v2td-reason": failure.reason,
        "v2td-attempts": str(failure.attempts),
        "v2td-cluster-id": at.cluster_id,
        "v2td-topic": at.topic,
        "v2td-partition": str(at.partition),
        "v2td-offset": str(at.offset),
        "v2td-timestamp": str(at.timestamp_ms),
        "v2td-record-index": str(at.record_index),
    }
    if truncated:
        ours[TRUNCATED] = "1"
    if failure.whole_in is not None:
        ours[WHOLE_RECORD] = str(failure.whole_in.row_id())
    taken = {*ours, TRUNCATED, WHOLE_RECORD}
    kept: list[tuple[str, bytes]] = []
    room = _room(failure)
    for name, value in failure.record.headers:
        room -= len(name) + len(value)
        if name not in taken and not (truncated and room < 0):
            kept.append((name, value))
    return (*kept, *((name, text.encode()) for name, text in ours.items()))


def retry_headers(failure: Failure, round_number: int, not_before_ms: int) -> Headers:
    """Return the original's headers, and those by which the daemon knows a job that it is to try again (pure)."""
    ours = {
        REPLAY_OF: str(failure.coordinates.row_id()),
        NOT_BEFORE: str(not_before_ms),
        RETRY_ROUND: str(round_number),
    }
    return (*without(failure.record.headers, REPLAY_HEADERS), *((name, text.encode()) for name, text in ours.items()))


def _room(failure: Failure) -> int:
    return MAX_KEPT_BYTES if failure.whole_in is None else MAX_SHARED_BYTES
