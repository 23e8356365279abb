"""Records that must arrive: sent to topics of ours until the brokers have them, however long they are away."""

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
from aiokafka.structs import RecordMetadata

from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.connection import CREATE, client_options, ensure_topic
from v2td.jobs import SourceRecord
from v2td.logs import get_logger
from v2td.retry import Backoff

log = get_logger(__name__)

BACKOFF = Backoff(initial=0.5, maximum=10)
REFUSED_SECONDS = 10.0  # how long a record is tried that the brokers refuse for good, as far as they can tell
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
LOG_APPEND_TIME = 1
DAY_MS = 24 * 3600 * 1000
PERHAPS_DELETED = (UnknownTopicOrPartitionError, NotLeaderForPartitionError, LeaderNotAvailableError)


class Sender:
    """A producer; an async context manager. Creates its topics when it may, also while it runs.

    `what` it sends is for the log: "dead letter".
    """

    def __init__(self, settings: KafkaSettings, what: str, *topics: str) -> None:
        self._settings = settings
        self._what = what
        self._topics = topics
        self._random = Random()  # noqa: S311 (jitter)
        self._creating = asyncio.Lock()

    async def __aenter__(self) -> Self:
        for topic in self._topics:
            await ensure_topic(self._settings, topic)
        # Not idempotent: after one refused batch (too large) aiokafka's sequence numbers are out of order for ever.
        self._producer = AIOKafkaProducer(**client_options(self._settings), acks="all", compression_type="zstd")
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise ServiceError(f"start the {self._what} producer", str(error), "see kafka.* in the config") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(self._settings.commit_timeout_seconds):
                await self._producer.stop()
        except TimeoutError:  # every record that counts was acknowledged; the broker is gone
            log.warning("a producer did not stop in time", what=self._what)

    async def acknowledged(self, topic: str, record: SourceRecord) -> bool:
        """Return True once the brokers have the record, however long they are away; False when it is too large.

        KafkaError when they refuse it for REFUSED_SECONDS, for a reason that they do not call passing. ServiceError
        when the topic may not be written.
        """
        failures, refused_since = 0, math.inf
        value = b"" if record.key is None and record.value is None else record.value  # aiokafka asserts one of them
        while True:
            try:
                await self._producer.send_and_wait(topic, key=record.key, value=value, headers=list(record.headers))
            except TOO_LARGE:
                return False
            except (TopicAuthorizationFailedError, InvalidTopicError) as error:
                raise ServiceError(
                    f"send a {self._what}", f"{topic}: {error}", "check the topic and its ACL"
                ) from error
            except KafkaError as error:
                failures += 1
                log.warning("not sent yet", what=self._what, topic=topic, error=str(error), failures=failures)
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
        if self._creating.locked():  # another record does it
            return True
        async with self._creating:
            try:
                await ensure_topic(self._settings, topic)
            except (ServiceError, KafkaError) as error:
                log.warning("topic not created", topic=topic, error=str(error))
                return not (isinstance(error, ServiceError) and error.operation == CREATE)
        return True


def acknowledged_time(record: RecordMetadata, sent_ms: int) -> int:
    """Return a sent record's time (ms), part of its job's id: the broker's own where the topic is set to that.

    aiokafka gives all records of a batch the time of its first. The mock broker of `v2td demo` acknowledges a time of
    1970, which it does not store.
    """
    told: int = record.timestamp
    return told if record.timestamp_type == LOG_APPEND_TIME and abs(told - sent_ms) < DAY_MS else sent_ms
