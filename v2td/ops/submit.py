"""Submitting jobs: local files are put where the daemon can read them, messages are sent, outcomes waited for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer

from v2td.config import FetchSettings, S3Settings, Settings
from v2td.errors import ErrorClass, JobError, ServiceError
from v2td.fetch import ObjectStore
from v2td.intake import acknowledged_time, admin_client, client_options, explained
from v2td.jobs import Coordinates
from v2td.messages import without_secrets
from v2td.ops import request
from v2td.store import Reader, StoredFailure, StoredOutcome, ledger, open_database

FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 1.0
PAUSE_FACTOR = 1.5
SCHEMES = ("http", "https", "s3", "file")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message that the daemon will take. `source` is what the user named, as it may be shown.

    `upload` says which file goes where before (path, bucket, key), if any does.
    """

    source: str
    value: bytes
    key: bytes
    job_id: str
    audio_url: str
    upload: tuple[Path, str, str] | None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that Kafka has."""

    source: str
    job_id: str
    audio_url: str  # as it may be shown
    coordinates: Coordinates

    @property
    def row_id(self) -> UUID:
        """The id of its row in Postgres."""
        return self.coordinates.row_id()


def prepare(source: str, fields: Mapping[str, Any], settings: Settings) -> Prepared:
    """Make the message for a URL or a local file; nothing is sent or uploaded yet.

    Raises JobError when the daemon would refuse the message, ServiceError when it could not read the file.
    """
    upload = None
    url = source
    if "://" in source:
        source = without_secrets(source)
        if url.partition("://")[0].lower() not in SCHEMES:
            raise JobError(ErrorClass.URL_FORBIDDEN, f"recordings are fetched by {', '.join(SCHEMES)}")
    else:
        url, upload = _place(Path(source), settings.s3, settings.fetch)
    given = fields.get("id")
    job_id = str(uuid4()) if given is None else given
    value = request.message({**fields, "id": job_id, "audio_url": url})
    request.read(value, settings)
    key = given or without_secrets(url)
    return Prepared(source, value, key.encode(), job_id, url, upload)


def _place(path: Path, s3: S3Settings, fetch: FetchSettings) -> tuple[str, tuple[Path, str, str] | None]:
    """Return the URL under which the daemon will find a local file, and what to upload before."""
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ServiceError(f"submit {path}", "not a file that can be read", "name a file, or a URL with ://")
    if (bucket := s3.upload_bucket) is not None:
        key = f"uploads/{datetime.now(UTC):%Y-%m-%d}/{uuid4()}-{path.name}"
        return f"s3://{bucket}/{key}", (path, bucket, key)
    resolved = path.resolve()
    if any(resolved.is_relative_to(root.resolve()) for root in fetch.file_roots):
        return f"file://{quote_from_bytes(os.fsencode(resolved))}", None
    raise ServiceError(
        f"submit {path}",
        "the daemon could not read this file",
        "set s3.upload_bucket and it is uploaded, or fetch.file_roots to a folder above it",
    )


async def send(jobs: Sequence[Prepared], topic: str, settings: Settings) -> list[Submitted]:
    """Upload what has to be, then send all messages; raises ServiceError.

    Every job is acknowledged by all replicas in sync when this returns; after an error or a cancellation some may be.
    """
    async with ObjectStore(settings.s3) as store:
        for job in jobs:
            if job.upload is not None:
                await store.upload(*job.upload)
    async with open_submitter(topic, settings) as submitter:
        return await submitter.send(jobs)


class Submitter:
    """Sends messages to a topic, for as long as it is open and from many tasks at once; made by `open_submitter`."""

    def __init__(self, producer: AIOKafkaProducer, cluster: str, topic: str) -> None:
        self._producer = producer
        self._cluster = cluster
        self._topic = topic

    async def send(self, jobs: Sequence[Prepared]) -> list[Submitted]:
        """Return once all replicas in sync have every message; what is to be uploaded was uploaded before."""
        now = int(time.time() * 1000)
        sent = [await self._producer.send(self._topic, job.value, key=job.key, timestamp_ms=now) for job in jobs]
        records = await asyncio.gather(*sent)
        return [
            Submitted(
                job.source,
                job.job_id,
                without_secrets(job.audio_url),
                Coordinates(
                    self._cluster,
                    self._topic,
                    record.partition,
                    record.offset,
                    acknowledged_time(record, now),
                ),
            )
            for job, record in zip(jobs, records, strict=True)
        ]


@asynccontextmanager
async def open_submitter(topic: str, settings: Settings) -> AsyncIterator[Submitter]:
    """Connect a producer; what Kafka refuses, also inside the block, is a ServiceError."""
    kafka = settings.kafka
    with explained(kafka, f"send to {topic}", quiet=True):
        cluster = await _cluster_with(topic, settings)
        producer = AIOKafkaProducer(**client_options(kafka), acks="all", enable_idempotence=True)
        try:
            await producer.start()
            yield Submitter(producer, cluster, topic)
        finally:
            await producer.stop()


async def _cluster_with(topic: str, settings: Settings) -> str:
    """Return the id of the cluster, in which the topic is: a misspelt one must not be created by sending to it."""
    async with admin_client(settings.kafka) as admin:
        description = await admin.describe_cluster()
        if topic not in await admin.list_topics():
            raise ServiceError(f"send to {topic}", "there is no such topic", "create it, or name another by --topic")
    return str(description.get("cluster_id") or "")


@asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[Reader]:
    """Open what `wait` asks; raises ServiceError when Postgres, or the schema in it, is not there."""
    async with open_database(settings.database, "v2td submit", read_only=True) as database:
        reader = Reader(database)
        await reader.find(str(uuid4()))
        yield reader


async def wait(reader: Reader, jobs: Sequence[Submitted]) -> AsyncGenerator[tuple[Submitted, StoredOutcome], None]:
    """Yield each job's outcome when it is durable, until all have one; raises ServiceError.

    A failure that is to be tried again is none yet.
    """
    waiting = list(jobs)
    pause = FIRST_PAUSE_SECONDS
    while waiting:
        before = len(waiting)
        for job in tuple(waiting):
            at = job.coordinates
            found = await reader.at(at.cluster_id, at.topic, at.partition, at.offset, at.timestamp_ms)
            if found and not (isinstance(found[0], StoredFailure) and found[0].replay_state == ledger.REQUESTED):
                waiting.remove(job)
                yield job, found[0]
        pause = FIRST_PAUSE_SECONDS if len(waiting) < before else min(pause * PAUSE_FACTOR, MAX_PAUSE_SECONDS)
        if waiting:
            await asyncio.sleep(pause)
