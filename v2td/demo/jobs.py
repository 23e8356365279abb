"""The demo's jobs, sent as any producer would send them, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from v2td.bundled import Recording, recordings
from v2td.demo.session import DEAD_LETTER_TOPIC, JOBS_TOPIC, Session
from v2td.demo.webserver import DAMAGED
from v2td.errors import ErrorClass
from v2td.messages.headers import ROW_ID

MALFORMED = b'{"audio_url": "http://127.0.0.1/cut-off.ogg", "langu'
READ_TIMEOUT_MS = 5000

TRANSCRIPTIONS = """
    SELECT id, kafka_partition, kafka_offset, language, audio_seconds, speech_seconds, speech_coverage_ratio, text,
           duration
    FROM transcriptions WHERE topic = $1
"""
FAILURES = """
    SELECT id, kafka_partition, kafka_offset, error_class, reason
    FROM failures WHERE topic = $1
"""


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A record to send: a good one has its recording, a bad one the class of error it must end with."""

    name: str
    value: bytes
    recording: Recording | None = None
    error_class: ErrorClass | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker put a record."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A row of transcriptions; `seconds_taken` from the start of the download to the text."""

    id: UUID
    language: str | None
    audio_seconds: float
    speech_seconds: float
    speech_coverage_ratio: float | None
    text: str
    seconds_taken: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of failures."""

    id: UUID
    error_class: str
    reason: str


Outcome = Heard | Refused


def demo_jobs(audio_url: str) -> list[DemoJob]:
    """All bundled recordings, languages mixed and the long ones first; then a damaged file and half a message."""
    good = sorted(recordings(), key=lambda recording: (recording.seconds < 60, recording.name[2:]))
    jobs = [DemoJob(r.name, _message(f"{audio_url}/{r.name}", r.name), recording=r) for r in good]
    jobs.append(DemoJob(DAMAGED, _message(f"{audio_url}/{DAMAGED}", DAMAGED), error_class=ErrorClass.NOT_AUDIO))
    jobs.append(DemoJob("malformed message", MALFORMED, error_class=ErrorClass.BAD_MESSAGE))
    return jobs


def _message(url: str, name: str) -> bytes:
    return json.dumps({"id": name, "audio_url": url}).encode()


async def submit(session: Session, jobs: Sequence[DemoJob]) -> dict[Place, DemoJob]:
    """Send the records; each is acknowledged when this returns."""
    producer = AIOKafkaProducer(bootstrap_servers=session.bootstrap_servers, acks="all")
    await producer.start()
    try:
        sent = {}
        for job in jobs:
            record = await producer.send_and_wait(JOBS_TOPIC, job.value, key=job.name.encode())
            sent[Place(record.partition, record.offset)] = job
        return sent
    finally:
        await producer.stop()


async def read_outcomes(database: asyncpg.Pool[asyncpg.Record]) -> dict[Place, Outcome]:
    """Every outcome that is durable by now; the daemon has made the tables."""
    found: dict[Place, Outcome] = {}
    for row in await database.fetch(TRANSCRIPTIONS, JOBS_TOPIC):
        found[Place(row["kafka_partition"], row["kafka_offset"])] = Heard(
            id=row["id"],
            language=row["language"],
            audio_seconds=row["audio_seconds"],
            speech_seconds=row["speech_seconds"],
            speech_coverage_ratio=row["speech_coverage_ratio"],
            text=row["text"],
            seconds_taken=row["duration"],
        )
    for row in await database.fetch(FAILURES, JOBS_TOPIC):
        place = Place(row["kafka_partition"], row["kafka_offset"])
        found[place] = Refused(row["id"], row["error_class"], row["reason"])
    return found


async def dead_letter_ids(session: Session) -> set[UUID]:
    """The row ids (header v2td-id) of all dead letters that the broker holds now."""
    consumer = AIOKafkaConsumer(
        DEAD_LETTER_TOPIC, bootstrap_servers=session.bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        left = sum((await consumer.end_offsets(consumer.assignment())).values())
        ids = set()
        while left > 0:
            batches = await consumer.getmany(timeout_ms=READ_TIMEOUT_MS)
            records = [record for batch in batches.values() for record in batch]
            if not records:
                break
            left -= len(records)
            ids |= {UUID(value.decode()) for record in records for key, value in record.headers if key == ROW_ID}
        return ids
    finally:
        await consumer.stop()
