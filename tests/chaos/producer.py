"""The producer: writes jobs and keeps a log of every record that a broker acknowledged, with its coordinates."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

AT_ONCE = 2000  # records that wait for their acknowledgement at once


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that a broker acknowledged; `job_id` is None when it is no job."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    job_id: str | None


class Producer:
    """Writes to a topic, round robin over its partitions; an async context manager.

    `acknowledged` is the log that the auditor goes by. `unsure` are the ids of jobs that were sent and not
    acknowledged (the broker was away): they may be in the topic or not, and need no outcome.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, web: str) -> None:
        self.topic = topic
        self.partitions = partitions
        self.acknowledged: list[Sent] = []
        self.unsure: set[str] = set()
        self._bootstrap = bootstrap
        self._web = web
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        try:
            await self.reopen(close=False)
        except BaseException:  # cancelled, too: who does not come in does not go out
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def reopen(self, *, close: bool = True) -> None:
        """Begin anew, as has to be done when a topic was made anew: an idempotent producer's numbers are over."""
        if close:
            await self._close()
        self._client = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=2,
            metadata_max_age_ms=2000,
            request_timeout_ms=15_000,
        )
        await self._client.start()

    async def send(
        self,
        count: int = 1,
        path: str = "/echo/1",
        *,
        topic: str | None = None,
        partition: int | None = None,
        **keys: Any,
    ) -> list[Sent]:
        """Send jobs for the recording at `path` of the world's web server; returns those that were acknowledged.

        `/echo/20` has 20 windows, `/audio/NAME` is a bundled recording, `/status/404` never comes. `keys` are
        further keys of the messages; each has an id of its own, which the echo daemon writes as its text.
        """
        sent: list[Sent] = []
        for start in range(0, count, AT_ONCE):
            numbers = [next(self._numbers) for _ in range(start, min(count, start + AT_ONCE))]
            jobs = [f"{self.topic}-{number}" for number in numbers]
            values = [
                json.dumps({"id": job, "audio_url": f"{self._web}{path}", "language": "en", "prompt": job} | keys)
                for job in jobs
            ]
            partitions = [number % self.partitions if partition is None else partition for number in numbers]
            records = zip(jobs, values, partitions, strict=True)
            sent += await self._acknowledged([(job, value.encode(), at) for job, value, at in records], topic)
        return sent

    async def send_raw(self, value: bytes, *, topic: str | None = None, partition: int | None = None) -> list[Sent]:
        """Send a record that is whatever it is, such as b"{"; it is to end as a failure."""
        number = next(self._numbers)
        at = number % self.partitions if partition is None else partition
        return await self._acknowledged([(None, value, at)], topic)

    @asynccontextmanager
    async def stream(self, per_second: float, path: str = "/echo/1", **keys: Any) -> AsyncIterator[None]:
        """Send about so many jobs a second as long as the block runs, broker or no broker."""
        task = asyncio.create_task(self._stream(per_second, path, keys))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _stream(self, per_second: float, path: str, keys: dict[str, Any]) -> None:
        began, sent = time.monotonic(), 0
        sending: set[asyncio.Task[list[Sent]]] = set()
        try:
            while True:
                due = int((time.monotonic() - began) * per_second) - sent
                if due > 0:
                    sent += due
                    task = asyncio.create_task(self.send(due, path, **keys))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                await asyncio.sleep(min(0.5, max(0.02, 1 / per_second)))
        finally:
            if sending:  # what was handed to the client is to be in the log, or among the unsure
                await asyncio.wait(sending)

    async def _acknowledged(self, records: Sequence[tuple[str | None, bytes, int]], topic: str | None) -> list[Sent]:
        answers = await asyncio.gather(
            *(self._send(topic or self.topic, value, partition) for _, value, partition in records)
        )
        sent: list[Sent] = []
        for (job, _, _), answer in zip(records, answers, strict=True):
            if answer is not None:
                at, milliseconds = answer
                sent.append(Sent(at.topic, at.partition, at.offset, milliseconds, job))
            elif job is not None:
                self.unsure.add(job)
        self.acknowledged += sent
        return sent

    async def _send(self, topic: str, value: bytes, partition: int) -> tuple[RecordMetadata, int] | None:
        """Return where the record is, and its time in milliseconds; None when that is not known."""
        now = int(time.time() * 1000)
        try:
            # The time is ours: aiokafka's answer has that of the first record of the batch.
            return await self._client.send_and_wait(topic, value, partition=partition, timestamp_ms=now), now
        except KafkaError:
            return None

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._client.stop()
        except (TimeoutError, KafkaError):  # the broker is gone for good
            return
