"""The dead-letter topic: each failed record once more, with the reason in its headers.

Sent before the failure row is written, so at least once; readers drop repetitions by the header `v2td-id`.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from v2td import metrics
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.connection import client_options, ensure_topic
from v2td.jobs import Failure, Headers
from v2td.logs import get_logger
from v2td.retry import Backoff

log = get_logger(__name__)

TRUNCATED = "v2td-truncated"
MAX_REASON = 4096  # bytes of a reason in a header
MAX_KEPT_BYTES = 16_384  # of the original's key and of its headers, in a truncated letter
BACKOFF = Backoff(initial=0.5, maximum=10)
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class DeadLetters:
    """The producer of dead letters; an async context manager. Creates its topic when it may."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._random = Random()  # noqa: S311 (jitter)

    async def __aenter__(self) -> Self:
        await ensure_topic(self._settings, self._settings.dead_letter_topic)
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

        A letter that is too large goes without value, oversize key and headers; one that is refused even then is
        logged and given up, since the failure row keeps it. ServiceError when the topic may not be written.
        """
        truncated = False
        failures = 0
        while True:
            try:
                await self._send(failure, truncated=truncated)
            except TOO_LARGE:
                if truncated:
                    log.exception("dead letter refused", id=str(failure.coordinates.row_id()))
                    return
                truncated = True
            except (TopicAuthorizationFailedError, InvalidTopicError) as error:
                topic = self._settings.dead_letter_topic
                raise ServiceError("send a dead letter", f"{topic}: {error}", "check the topic and its ACL") from error
            except KafkaError as error:
                failures += 1
                log.warning("dead letter not sent yet", error=str(error), failures=failures)
                await asyncio.sleep(BACKOFF.pause(failures, self._random))
            else:
                metrics.DEAD_LETTERS.labels("yes" if truncated else "no").inc()
                return

    async def _send(self, failure: Failure, *, truncated: bool) -> None:
        record = failure.record
        key = None if truncated and len(record.key or b"") > MAX_KEPT_BYTES else record.key
        value = None if truncated else record.value
        await self._producer.send_and_wait(
            self._settings.dead_letter_topic,
            key=key,
            value=b"" if key is None and value is None else value,  # aiokafka asserts that there is one of them
            headers=list(letter_headers(failure, truncated=truncated)),
        )


def letter_headers(failure: Failure, *, truncated: bool) -> Headers:
    """Return the original's headers, then ours: what failed, why, and where it stands (pure)."""
    at = failure.coordinates
    ours = {
        "v2td-id": str(at.row_id()),
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
    kept: list[tuple[str, bytes]] = []
    room = MAX_KEPT_BYTES
    for name, value in failure.record.headers:
        room -= len(name) + len(value)
        if name not in ours and name != TRUNCATED and not (truncated and room < 0):
            kept.append((name, value))
    return (*kept, *((name, _header(text)) for name, text in ours.items()))


def _header(text: str) -> bytes:
    """Return the beginning of `text` in UTF-8, cut between two characters."""
    return text.encode(errors="replace")[:MAX_REASON].decode(errors="ignore").encode()
