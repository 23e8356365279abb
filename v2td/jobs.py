"""The values that travel from stage to stage: small, frozen, and complete.

A `Job` becomes an `Audio` (a file), a `Speech` (PCM with windows), and ends as exactly one `Outcome`:
a `Transcript` or a `Failure`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from v2td.errors import ErrorClass

SAMPLE_RATE = 16_000  # Hz, what Whisper hears; all sample counts in v2td are at this rate

Task = Literal["transcribe", "translate"]
Channels = Literal["mix", "split"]
WindowMode = Literal["full", "packed", "short"]
Headers = tuple[tuple[str, bytes], ...]

MAX_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where a job came from; `record_index` tells the jobs of one record apart."""

    cluster_id: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    record_index: int = 0
    _row_id: UUID = field(init=False, repr=False, compare=False)  # made once: five places ask for it

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row_id", _row_id(self))

    def row_id(self) -> UUID:
        """The row key: a UUIDv8 (RFC 9562) of 48 bits of record time, then SHA-256 of the coordinates.

        The record's timestamp takes part, so that a recreated topic that reuses offsets gets new rows. A
        message cannot choose it. The six version and variant bits are the RFC's.
        """
        return self._row_id


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

    @property
    def id(self) -> UUID:
        """The row key in Postgres, what the CLI and the API call JOB."""
        return self.coordinates.row_id()


@dataclass(frozen=True, slots=True)
class Audio:
    """A fetched recording: a file on this machine.

    `temporary` files belong to the job and are deleted with it; others (file:// sources) are not ours.
    """

    path: Path
    size_bytes: int
    sha256: str
    temporary: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range [start, end) of samples of the original recording at SAMPLE_RATE."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Samples in the span."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Window:
    """The unit of inference: at most 30 s of pieces of the recording, one behind the other.

    `pieces` are what the engine hears (speech with a little silence around it); `speech` are the spans in
    which the VAD heard speech, inside the pieces. `channel` is None when the channels were mixed; indices are
    unique in the job, over all channels.
    """

    index: int
    pieces: tuple[Span, ...]
    speech: tuple[Span, ...]
    channel: int | None = None

    @property
    def length(self) -> int:
        """Samples that the engine hears."""
        return sum(piece.length for piece in self.pieces)

    @property
    def speech_length(self) -> int:
        """Samples in which the VAD heard speech."""
        return sum(span.length for span in self.speech)


@dataclass(frozen=True, slots=True)
class Word:
    """Times in seconds of the original recording."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; times in seconds (of the window from the engine, of the recording in a Transcript)."""

    start: float
    end: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: tuple[Word, ...] | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class WindowTiming:
    """What one window cost: for the waterfall in `transcriptions.timings`; times in seconds."""

    index: int
    slot: int
    start: float  # since the job began
    seconds: float  # of the whole batch
    flags: tuple[str, ...] = ()
    batch: int = 1  # windows that were transcribed together


@dataclass(frozen=True, slots=True)
class Heard:
    """What a provider says of a recording; `segments` in order of start, times in seconds of the recording.

    `windows` are those that it heard, for the coverage; `timings` join those of the row. `cost` is what its owner
    charges, in the currency of the configuration.
    """

    segments: tuple[Segment, ...]
    windows: tuple[Window, ...]
    language: str | None
    language_probability: float | None
    model: str
    timings: dict[str, Any] = field(default_factory=dict)
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in a whole recording; `segments` in order of start.

    `text_sha256` is the hex digest of all but the audio that decides the text: the options, the model, the provider
    and its settings. `route` says which rule chose the provider, and why others did not; `cached_from` is the row
    whose text this is.
    """

    job: Job
    audio_sha256: str
    audio_bytes: int
    audio_seconds: float
    speech_seconds: float
    covered_seconds: float  # seconds of speech for which text came
    language: str | None
    language_probability: float | None
    segments: tuple[Segment, ...]
    provider: str
    model: str
    truncated: bool
    duration_seconds: float  # processing, from the start of the download
    timings: dict[str, Any]
    text_sha256: str | None = None  # None: that of the options and the model alone
    route: dict[str, Any] | None = None
    cost: float = 0.0
    cached_from: UUID | None = None

    @property
    def text(self) -> str:
        """The segments' text in one line."""
        return " ".join(stripped for segment in self.segments if (stripped := segment.text.strip()))

    @property
    def speech_coverage_ratio(self) -> float | None:
        """Seconds of speech with text / seconds of speech; None when the recording has no speech."""
        return min(1.0, self.covered_seconds / self.speech_seconds) if self.speech_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job, or a record that never became one, has no transcript.

    Whatever strangers had a part in it, `reason` is one printable line of at most MAX_REASON characters.
    """

    coordinates: Coordinates
    error_class: ErrorClass
    reason: str
    attempts: int
    record: SourceRecord
    job_id: str | None = None
    audio_url: str | None = None
    replay: Replay | None = None
    redo: Redo | None = None  # what failed is another revision: the transcription stays
    retried_later: bool = False  # its record waits in kafka.retry_topic: not a dead letter yet
    whole_in: Coordinates | None = None  # of the failure that keeps their record's value; never of a replay's

    def __post_init__(self) -> None:
        if self.replay is not None:  # it comes without the record's other failures
            object.__setattr__(self, "whole_in", None)
        object.__setattr__(self, "reason", _line(self.reason))


Outcome = Transcript | Failure


def _line(text: str) -> str:
    """Return the text bounded, and with escapes for what a terminal or Postgres minds; idempotent."""
    if len(text) <= MAX_REASON and text.isprintable():
        return text
    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: MAX_REASON + 1])
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def _row_id(at: Coordinates) -> UUID:
    identity = json.dumps([at.cluster_id, at.topic, at.partition, at.offset, at.timestamp_ms, at.record_index])
    digest = hashlib.sha256(identity.encode()).digest()
    time48 = max(at.timestamp_ms, 0) & ((1 << 48) - 1)
    bits = (time48 << 80) | int.from_bytes(digest[:10], "big")
    bits = (bits & ~(0xF << 76)) | (8 << 76)
    bits = (bits & ~(0x3 << 62)) | (2 << 62)
    return UUID(int=bits)


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
