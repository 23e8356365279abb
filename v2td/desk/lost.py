"""Finds a record whose acknowledgement nobody lived to see."""

from __future__ import annotations

from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition

from v2td.config import KafkaSettings
from v2td.intake import client_options
from v2td.messages.headers import SUBMISSION

MARGIN_SECONDS = 60  # between the clocks of Postgres, of the brokers and of whoever sent it
POLL_MS = 500


async def find_lost(
    settings: KafkaSettings, partition: tuple[str, int], mark: bytes, since: datetime
) -> tuple[int, int] | None:
    """Return offset and time (ms) of the record with this mark in its header SUBMISSION; None when it is not there.

    Reads the partition from a while before `since` to its end, which may take long: cancel it. Raises KafkaError.
    """
    consumer = AIOKafkaConsumer(**client_options(settings))
    try:
        await consumer.start()
        tp = TopicPartition(*partition)
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        began = int((since.timestamp() - MARGIN_SECONDS) * 1000)
        first = (await consumer.offsets_for_times({tp: began}))[tp]
        if first is None:
            return None
        consumer.seek(tp, first.offset)
        while await consumer.position(tp) < end:
            for record in (await consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, ()):
                if (SUBMISSION, mark) in record.headers:
                    return record.offset, record.timestamp
        return None
    finally:
        await consumer.stop()
