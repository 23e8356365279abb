"""The first seed's optimized consumer, as its guide describes it and with the settings that it names.

Several messages at once in a ThreadPoolExecutor (STT_MAX_WORKERS), a Whisper model for each thread, a SQLAlchemy
connection pool (DB_POOL_SIZE, DB_MAX_OVERFLOW), batches of messages (STT_BATCH_SIZE) whose transcripts and segments
are inserted together, and one manual commit for each batch. Threads download, so that it goes on beside inference.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from faster_whisper import WhisperModel
from sqlalchemy import Engine, column, create_engine, insert, table

from bench.contestants.seed_consumer import announce_ready, subscribed_consumer
from bench.contestants.seed_database import COMPLETED

BEAM_SIZE = 5
DOWNLOAD_SECONDS = 60
FILL_SECONDS = 0.1  # how long it waits for a batch to be full

_TRANSCRIPTS = table(
    "transcripts",
    *map(column, ("id", "job_id", "audio_url", "language", "duration", "full_text", "status")),
)
_SEGMENTS = table(
    "transcript_segments",
    *map(column, ("transcript_id", "segment_index", "start_time", "end_time", "text", "avg_logprob")),
)
_own = threading.local()

Rows = list[dict[str, Any]]


def main() -> None:
    """Consume until killed."""
    workers = int(os.environ["STT_MAX_WORKERS"])
    batch_size = int(os.environ["STT_BATCH_SIZE"])
    database = create_engine(
        os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"),
        pool_size=int(os.environ["DB_POOL_SIZE"]),
        max_overflow=int(os.environ["DB_MAX_OVERFLOW"]),
        pool_recycle=3600,
    )
    loaded = threading.Barrier(workers + 1)
    with ThreadPoolExecutor(workers, initializer=_load_model, initargs=(loaded,)) as pool:
        for _ in range(workers):
            pool.submit(os.getpid)
        loaded.wait()
        consumer = subscribed_consumer()
        announce_ready()
        while True:
            messages = consumer.consume(batch_size, FILL_SECONDS)
            for message in messages:
                if message.error():
                    raise RuntimeError(message.error())
            if messages:
                _save(database, list(pool.map(_process, [json.loads(message.value() or b"") for message in messages])))
                consumer.commit(asynchronous=False)


def _load_model(loaded: threading.Barrier) -> None:
    _own.model = WhisperModel(
        os.environ["WHISPER_MODEL_SIZE"],
        device=os.environ["WHISPER_DEVICE"],
        compute_type=os.environ["WHISPER_COMPUTE_TYPE"],
    )
    _own.session = requests.Session()
    loaded.wait()


def _process(message: dict[str, Any]) -> tuple[dict[str, Any], Rows]:
    """Return a transcript's row and the rows of its segments."""
    response = _own.session.get(message["audio_url"], timeout=DOWNLOAD_SECONDS)
    response.raise_for_status()
    with tempfile.NamedTemporaryFile(suffix=Path(message["audio_url"]).suffix) as file:
        file.write(response.content)
        file.flush()
        found, info = _own.model.transcribe(
            file.name, language=message["language"], beam_size=BEAM_SIZE, condition_on_previous_text=False
        )
        segments = list(found)
    transcript_id = uuid.uuid4()
    transcript = {
        "id": transcript_id,
        "job_id": message["id"],
        "audio_url": message["audio_url"],
        "language": info.language,
        "duration": info.duration,
        "full_text": " ".join(segment.text.strip() for segment in segments),
        "status": COMPLETED,
    }
    rows = [
        {
            "transcript_id": transcript_id,
            "segment_index": index,
            "start_time": segment.start,
            "end_time": segment.end,
            "text": segment.text,
            "avg_logprob": segment.avg_logprob,
        }
        for index, segment in enumerate(segments)
    ]
    return transcript, rows


def _save(database: Engine, results: Sequence[tuple[dict[str, Any], Rows]]) -> None:
    """Insert a whole batch in one transaction."""
    segments = [row for _, rows in results for row in rows]
    with database.begin() as connection:
        connection.execute(insert(_TRANSCRIPTS), [transcript for transcript, _ in results])
        if segments:
            connection.execute(insert(_SEGMENTS), segments)


if __name__ == "__main__":
    main()
