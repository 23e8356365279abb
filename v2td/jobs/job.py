"""What is asked for: a job, and the record that it came by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from v2td.jobs.coordinates import Coordinates

Task = Literal["transcribe", "translate"]
Channels = Literal["mix", "split"]
Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a message may say that changes the text."""

    language: str | None = None
    languages: tuple[str, ...] = ()
    task: Task = "transcribe"
    prompt: str | None = None
    hotwords: str | None = None
    beam_size: int | None = None
    word_timestamps: bool = False
    condition_on_previous_text: bool = False
    multilingual: bool = False
    channels: Channels = "mix"


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """What the dead letter and the failure row keep of the Kafka record."""

    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Replay:
    """The record that asked for a failed job once more; the job keeps the coordinates, and so the row id, it had."""

    record: Coordinates
    round: int = 0  # how often the job has waited in kafka.retry_topic

    @staticmethod
    def digest(record: SourceRecord) -> str:
        """Hex digest of what was replayed, key and value: tells a repetition from a record that only claims to be."""
        digest = hashlib.sha256(repr((len(record.key or b""), record.key is None)).encode())
        digest.update(record.key or b"")
        digest.update(record.value or b"")
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Output:
    """Files that a message asks for: a bucket, a key without suffix, formats."""

    bucket: str
    key: str
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Redo:
    """What `v2td redo` asks for: another revision of a transcription that is there."""

    revision: int
    model: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One recording to transcribe.

    `priority` runs from 0 (most urgent) to 9; `expires_at` is aware. `provider` and `model` are what the message
    insists on; the rules of [routing] decide where it does not. `version_id` is that of an object in a bucket.
    `webhook_url`, who is told of the end, may hold secrets in its query: show it by messages.without_secrets only.
    """

    coordinates: Coordinates
    audio_url: str
    options: Options = Options()
    job_id: str | None = None
    priority: int = 5
    tenant: str | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    record: SourceRecord = SourceRecord(None, None, ())
    replay: Replay | None = None
    provider: str | None = None
    model: str | None = None
    output: Output | None = None
    version_id: str | None = None
    redo: Redo | None = None
    webhook_url: str | None = None

    @property
    def id(self) -> UUID:
        """The row key in Postgres, what the CLI and the API call JOB."""
        return self.coordinates.row_id()


def options_sha256(options: Options, model: str, provider: str = "") -> str:
    """Hex digest of everything but the audio that decides the text: two equal ones may share a result.

    `provider` stands for whoever transcribes and all its settings that change the text.
    """
    values = {
        "language": options.language,
        "languages": sorted(options.languages),
        "task": options.task,
        "prompt": options.prompt,
        "hotwords": options.hotwords,
        "beam_size": options.beam_size,
        "word_timestamps": options.word_timestamps,
        "condition_on_previous_text": options.condition_on_previous_text,
        "multilingual": options.multilingual,
        "channels": options.channels,
        "model": model,
        "provider": provider,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
