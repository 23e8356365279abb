"""Rows per second of the store's Writer ÷ plain COPY of the same rows into the same tables, at flushes of 5000.

Two databases, made by the same migrations, take the same outcomes in turns. The Writer begins with outcomes (it makes
the rows, and looks what is there already); the plain COPY has its rows ready, in one transaction per flush. Both
databases' rows are counted at the end.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from statistics import median

import asyncpg
from pydantic import SecretStr

from bench.context import Context, Findings, Table
from bench.deployment import MeasureError
from v2td import duties, store
from v2td.config import DatabaseSettings
from v2td.jobs import Coordinates, Failure, Job, Options, Segment, Transcript
from v2td.store.connection import Connection, set_json_codec
from v2td.store.rows import SegmentRow, TranscriptionRow, segment_rows, transcription_row

KEY = "writer_ratio_copy"
GOAL = 0.6
FLUSH = 5000
SEGMENTS = 3
PARTITIONS = 8


async def measure(context: Context) -> Findings:
    """Answer with `writer_ratio_copy`, the median of the rounds' ratios; one round before warms both up."""
    rounds = int(context.by_size(3, 5, 15))
    flushes = int(context.by_size(2, 4, 8))  # one behind the other: the rows of each are made during the one before
    async with context.database() as one, context.database() as other, _writer(one) as writer, _copier(other) as copier:
        ratios, ours, plain = [], [], []
        for number in range(rounds + 1):
            batches = [_outcomes((number * flushes + flush) * FLUSH) for flush in range(flushes)]
            with _garbage_collection_of_the_daemon():
                written, copied = await _write(writer, batches), await _copy(copier, batches)
            if number > 0:
                ours.append(written)
                plain.append(copied)
                ratios.append(written / copied)
        context.say(f"{median(ours):.0f} rows/s, plain COPY {median(plain):.0f}")
        for dsn in (one, other):
            await _check(dsn, (rounds + 1) * flushes * FLUSH)
    table = Table(
        "Rows per second into Postgres",
        ("how", "rows/s", "ratio"),
        (
            ("v2td's Writer", round(median(ours)), round(median(ratios), 3)),
            ("plain COPY", round(median(plain)), 1),
        ),
        f"Flushes of {FLUSH} transcriptions with {SEGMENTS} segments each; goal ≥ {GOAL}. Medians of {rounds} rounds.",
    )
    return Findings({KEY: median(ratios)}, (table,))


@contextmanager
def _garbage_collection_of_the_daemon() -> Iterator[None]:
    thresholds = gc.get_threshold()
    duties.tune_garbage_collection()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@asynccontextmanager
async def _writer(dsn: str) -> AsyncIterator[store.Writer]:
    settings = DatabaseSettings(dsn=SecretStr(dsn), flush_rows=FLUSH, flush_seconds=5)
    await _migrate(dsn)
    async with store.open_database(settings) as database:
        writer = store.Writer(database, settings, _unwritable)
        running = asyncio.create_task(writer.run())
        try:
            yield writer
        finally:
            writer.close()
            await running


async def _unwritable(failure: Failure) -> None:
    raise MeasureError(f"Postgres refuses a row: {failure.reason}")


@asynccontextmanager
async def _copier(dsn: str) -> AsyncIterator[Connection]:
    await _migrate(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await set_json_codec(connection)
        yield connection
    finally:
        await connection.close()


async def _migrate(dsn: str) -> None:
    await store.upgrade(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await store.ensure_partitions(connection, 1)
    finally:
        await connection.close()


async def _write(writer: store.Writer, batches: Sequence[Sequence[Transcript]]) -> float:
    """Return rows per second; all flushes are asked for at once, as by a daemon with that many jobs under way.

    The jobs' tasks are there already, as in the daemon; none of them begins before the clock.
    """
    tasks = [asyncio.create_task(writer.write(outcome)) for batch in batches for outcome in batch]
    began = time.perf_counter()
    for task in tasks:
        await task
    return _rows(batches) / (time.perf_counter() - began)


async def _copy(connection: Connection, batches: Sequence[Sequence[Transcript]]) -> float:
    """Return rows per second; the rows are made before the clock starts."""
    now = datetime.now(UTC)
    made = [
        (
            [(*transcription_row(outcome), now) for outcome in batch],
            [(*row, now) for outcome in batch for row in segment_rows(outcome)],
        )
        for batch in batches
    ]
    began = time.perf_counter()
    for transcriptions, segments in made:
        async with connection.transaction():
            for name, row, records in (
                ("transcriptions", TranscriptionRow, transcriptions),
                ("transcript_segments", SegmentRow, segments),
            ):
                await connection.copy_records_to_table(name, records=records, columns=(*row._fields, "created_at"))
    return _rows(batches) / (time.perf_counter() - began)


def _rows(batches: Sequence[Sequence[Transcript]]) -> int:
    return sum(len(batch) for batch in batches) * (1 + SEGMENTS)


async def _check(dsn: str, transcriptions: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        found = tuple(
            await connection.fetchrow(
                "SELECT (SELECT count(*) FROM transcriptions), (SELECT count(*) FROM transcript_segments)"
            )
        )
    finally:
        await connection.close()
    if found != (transcriptions, transcriptions * SEGMENTS):
        raise MeasureError(f"{found} rows instead of {transcriptions} with {SEGMENTS} segments each")


def _outcomes(first: int) -> list[Transcript]:
    return [_outcome(number) for number in range(first, first + FLUSH)]


def _outcome(number: int) -> Transcript:
    """Return what a message of 10 s becomes, spread over the partitions and the milliseconds of a day."""
    segments = tuple(
        Segment(
            3.0 * index,
            3.0 * index + 2.8,
            f" The quick brown fox {number} jumps over the lazy dog.",
            -0.2,
            0.01,
            1.2,
            0,
        )
        for index in range(SEGMENTS)
    )
    job = Job(
        coordinates=Coordinates("bench", "jobs", number % PARTITIONS, number // PARTITIONS, 1_780_000_000_000 + number),
        audio_url=f"https://recordings.example.com/{number}.ogg",
        options=Options(language="en"),
        job_id=f"job-{number}",
        metadata={"caller": number},
    )
    return Transcript(
        job=job,
        audio_sha256=f"{number:064x}",
        audio_bytes=80_000,
        audio_seconds=10.0,
        speech_seconds=9.0,
        covered_seconds=8.4,
        language="en",
        language_probability=None,
        segments=segments,
        provider="local",
        model="base",
        truncated=False,
        duration_seconds=0.8,
        timings={"fetch": 0.01, "transcribe": 0.7, "windows": [{"index": 0, "slot": 1, "start": 0.1, "seconds": 0.7}]},
    )
