"""The dead-letter topic: each failed record once more, with the reason in its headers; and the topic of later retries.

Both are sent before the failure row is written, so at least once. Readers drop repetitions of a letter by the header
`v2td-id`; a retry is done once, by the row that it names.
"""

from __future__ import annotations

import time

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from v2td import metrics
from v2td.config import KafkaSettings
from v2td.intake.sender import Sender
from v2td.jobs import Failure, Headers, SourceRecord
from v2td.logs import get_logger
from v2td.messages.headers import (
    NOT_BEFORE,
    REPLAY_HEADERS,
    REPLAY_OF,
    RETRY_ROUND,
    ROW_ID,
    TRACE,
    TRUNCATED,
    WHOLE_RECORD,
    without,
)

log = get_logger(__name__)

MAX_KEPT_BYTES = 16_384  # of the original's key and of its headers, in a truncated letter
MAX_SHARED_BYTES = 1024  # of them where another letter has them whole


class DeadLetters(Sender):
    """The producer of dead letters and of later retries; an async context manager."""

    def __init__(self, settings: KafkaSettings) -> None:
        retry_topic = settings.retry_topic
        super().__init__(
            settings, "dead letter", settings.dead_letter_topic, *([] if retry_topic is None else [retry_topic])
        )

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
                truncated = not await self.acknowledged(topic, SourceRecord(key, value, headers))
            if truncated:
                key = key if len(key) <= _room(failure) else row_id.encode()
                headers = letter_headers(failure, truncated=True)
                if not await self.acknowledged(topic, SourceRecord(key, b"", headers)):
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
            return await self.acknowledged(topic, SourceRecord(record.key, record.value, headers))
        except KafkaError as error:
            log.error("delayed retry refused", id=str(failure.coordinates.row_id()), error=str(error))
            return False


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
    if failure.trace is not None:
        ours[TRACE] = failure.trace
    taken = {*ours, TRUNCATED, WHOLE_RECORD, TRACE}
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
    if failure.trace is not None:
        ours[TRACE] = failure.trace
    kept = without(failure.record.headers, REPLAY_HEADERS | {TRACE})
    return (*kept, *((name, text.encode()) for name, text in ours.items()))


def _room(failure: Failure) -> int:
    return MAX_KEPT_BYTES if failure.whole_in is None else MAX_SHARED_BYTES
