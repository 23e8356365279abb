"""The first seed's original consumer: one message at a time, one row at a time, one commit for each.

Written in good faith from its description; configured by its environment variables.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psycopg
import requests
from faster_whisper import WhisperModel

from bench.contestants.seed_consumer import announce_ready, subscribed_consumer

BEAM_SIZE = 5
DOWNLOAD_SECONDS = 60


def main() -> None:
    """Consume until killed."""
    model = WhisperModel(
        os.environ["WHISPER_MODEL_SIZE"],
        device=os.environ["WHISPER_DEVICE"],
        compute_type=os.environ["WHISPER_COMPUTE_TYPE"],
    )
    with psycopg.connect(os.environ["DATABASE_URL"]) as database:
        consumer = subscribed_consumer()
        announce_ready()
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise RuntimeError(message.error())
            _process(json.loads(message.value() or b""), model, database)
            consumer.commit(message=message, asynchronous=False)


def _process(message: dict[str, Any], model: WhisperModel, database: psycopg.Connection[Any]) -> None:
    response = requests.get(message["audio_url"], timeout=DOWNLOAD_SECONDS)
    response.raise_for_status()
    with tempfile.NamedTemporaryFile(suffix=Path(message["audio_url"]).suffix) as file:
        file.write(response.content)
        file.flush()
        found, info = model.transcribe(
            file.name, language=message["language"], beam_size=BEAM_SIZE, condition_on_previous_text=False
        )
        segments = list(found)
    transcript_id = uuid.uuid4()
    database.execute(
        "INSERT INTO transcripts (id, job_id, audio_url, language, duration, full_text, status)"
        " VALUES (%s, %s, %s, %s, %s, %s, 'processing')",
        (
            transcript_id,
            message["id"],
            message["audio_url"],
            info.language,
            info.duration,
            " ".join(segment.text.strip() for segment in segments),
        ),
    )
    database.commit()
    for index, segment in enumerate(segments):
        database.execute(
            "INSERT INTO transcript_segments (transcript_id, segment_index, start_time, end_time, text, avg_logprob)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (transcript_id, index, segment.start, segment.end, segment.text, segment.avg_logprob),
        )
        database.commit()
    database.execute("UPDATE transcripts SET status = 'completed' WHERE id = %s", (transcript_id,))
    database.commit()


if __name__ == "__main__":
    main()
