"""The embedded broker and the web server, by ordinary clients."""

from __future__ import annotations

import aiohttp
import av
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from v2td.bundled import recordings
from v2td.demo.broker import broker
from v2td.demo.webserver import DAMAGED, damaged, webserver

pytestmark = pytest.mark.slow  # starts processes that load models or services


async def test_what_is_produced_is_consumed_by_a_group() -> None:
    with broker(["jobs"]) as address:
        producer = AIOKafkaProducer(bootstrap_servers=address)
        consumer = AIOKafkaConsumer("jobs", bootstrap_servers=address, group_id="g", auto_offset_reset="earliest")
        async with producer, consumer:
            sent = await producer.send_and_wait("jobs", b"value", key=b"key", headers=[("h", b"1")])
            record = await consumer.getone()
            assert (record.value, record.key, record.headers) == (b"value", b"key", (("h", b"1"),))
            assert (record.partition, record.offset) == (sent.partition, sent.offset)
            await consumer.commit()


async def test_recordings_are_served_as_they_are() -> None:
    async with webserver() as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        for recording in recordings():
            async with client.get(f"/{recording.name}") as answer:
                assert await answer.read() == recording.path.read_bytes()
        async with client.get(f"/{DAMAGED}") as answer:
            assert await answer.read() == damaged()
        async with client.get("/nothing.ogg") as answer:
            assert answer.status == 404


def test_the_damaged_file_cannot_be_decoded(tmp_path: object) -> None:
    import io

    with pytest.raises(av.InvalidDataError):
        av.open(io.BytesIO(damaged()))
