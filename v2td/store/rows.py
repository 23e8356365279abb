"""Outcomes as rows: field names are column names, in the order in which COPY sends them. Pure.

Text is made safe for Postgres here, JSON values when they are encoded (connection.py).
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from v2td.jobs import Coordinates, Failure, Outcome, Redo, Replay, Segment, Transcript, options_sha256
from v2td.messages import without_secrets
from v2td.messages.headers import TRACE, WHOLE_RECORD, without
from v2td.store.encoding import MAX_PAYLOAD_BYTES, encode_headers, record_time
from v2td.store.requests import request_of
from v2td.store.sanitise import clean_text

REQUESTED = "requested"  # replay_state of a failure that is to be done again
DROPPED = "dropped"  # and of one that a person gave up
MAX_SHARED_BYTES = 1024  # of key and headers where another failure of the record has them
_TRACE = frozenset({TRACE})

_options_sha256 = lru_cache(maxsize=1024)(options_sha256)  # the same for most jobs


class TranscriptionRow(NamedTuple):
    """A row of transcriptions but for created_at, which is the server's."""

    id: UUID
    revision: int
    job_id: str | None
    cluster_id: str
    topic: str
    kafka_partition: int
    kafka_offset: int
    record_index: int
    record_timestamp: datetime | None
    tenant: str | None
    audio_url: str
    audio_sha256: str
    options_sha256: str
    audio_bytes: int
    audio_seconds: float
    speech_seconds: float
    language: str | None
    language_probability: float | None
    task: str
    provider: str
    model: str
    text: str
    duration: float
    timings: dict[str, Any]
    speech_coverage_ratio: float | None
    truncated: bool
    cached_from: UUID | None
    metadata: dict[str, Any]
    route: dict[str, Any] | None
    cost: float | None
    request: dict[str, Any] | None


class SegmentRow(NamedTuple):
    """A row of transcript_segments but for created_at, which is its transcription's."""

    transcription_id: UUID
    revision: int
    segment_index: int
    channel: int | None
    speaker: str | None
    start_seconds: float
    end_seconds: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: list[dict[str, Any]] | None


class FailureRow(NamedTuple):
    """A row of failures but for created_at, which is the server's."""

    id: UUID
    job_id: str | None
    cluster_id: str
    topic: str
    kafka_partition: int
    kafka_offset: int
    record_index: int
    record_timestamp: datetime | None
    record_timestamp_ms: int
    audio_url: str | None
    error_class: str
    reason: str
    attempts: int
    record_key: bytes | None
    payload: bytes | None
    headers: list[list[Any]]
    replay_state: str | None


class ReplayRow(NamedTuple):
    """A row of replays but for created_at: a record that asked for the outcome of another one's job."""

    record_id: UUID
    replay_of: UUID
    cluster_id: str
    topic: str
    kafka_partition: int
    kafka_offset: int
    record_sha256: str


class RedoRow(NamedTuple):
    """What a row of redos is told: why there will be no such revision; and where the job came from."""

    id: UUID
    revision: int
    failed: str
    cluster_id: str
    topic: str
    kafka_partition: int


class Rows(NamedTuple):
    """What one outcome is stored as: a transcription with its segments, a failure, or a `redo` that failed.

    `replay` is there when the job had its outcome before and another record asked for it again.
    """

    transcription: TranscriptionRow | None
    segments: list[SegmentRow]
    failure: FailureRow | None
    replay: ReplayRow | None
    redo: RedoRow | None = None


def rows_of(outcome: Outcome) -> Rows:
    """Return an outcome's rows."""
    if isinstance(outcome, Transcript):
        return Rows(transcription_row(outcome), segment_rows(outcome), None, replay_row(outcome))
    if outcome.redo is not None:
        return Rows(None, [], None, replay_row(outcome), redo_row(outcome, outcome.redo))
    return Rows(None, [], failure_row(outcome), replay_row(outcome))


def coordinates_of(outcome: Outcome) -> Coordinates:
    """Return where the outcome's job came from."""
    return outcome.job.coordinates if isinstance(outcome, Transcript) else outcome.coordinates


def replay_of(outcome: Outcome) -> Replay | None:
    """Return which record asked for the outcome, if it is not the job's own."""
    return outcome.job.replay if isinstance(outcome, Transcript) else outcome.replay


def transcription_row(transcript: Transcript) -> TranscriptionRow:
    """Return the row of a transcript, safe for Postgres."""
    job = transcript.job
    at = job.coordinates
    return TranscriptionRow(
        id=job.id,
        revision=revision_of(transcript),
        job_id=_clean(job.job_id),
        cluster_id=clean_text(at.cluster_id),
        topic=clean_text(at.topic),
        kafka_partition=at.partition,
        kafka_offset=at.offset,
        record_index=at.record_index,
        record_timestamp=record_time(at.timestamp_ms),
        tenant=_clean(job.tenant),
        audio_url=without_secrets(clean_text(job.audio_url)),
        audio_sha256=transcript.audio_sha256,
        options_sha256=transcript.text_sha256 or _options_sha256(job.options, transcript.model),
        audio_bytes=transcript.audio_bytes,
        audio_seconds=transcript.audio_seconds,
        speech_seconds=transcript.speech_seconds,
        language=_clean(transcript.language),
        language_probability=transcript.language_probability,
        task=job.options.task,
        provider=clean_text(transcript.provider),
        model=clean_text(transcript.model),
        text=clean_text(transcript.text),
        duration=transcript.duration_seconds,
        timings=transcript.timings,
        speech_coverage_ratio=transcript.speech_coverage_ratio,
        truncated=transcript.truncated,
        cached_from=transcript.cached_from,
        metadata=job.metadata,
        route=transcript.route,
        cost=transcript.cost or None,
        request=request_of(job),
    )


def segment_rows(transcript: Transcript) -> list[SegmentRow]:
    """Return the rows of a transcript's segments, numbered from 0."""
    transcription_id = transcript.job.id
    revision = revision_of(transcript)
    return [
        SegmentRow(  # by position, in half the time: of these there are the most
            transcription_id,
            revision,
            index,
            segment.channel,
            None,
            segment.start,
            segment.end,
            clean_text(segment.text),
            segment.avg_logprob,
            segment.no_speech_prob,
            segment.compression_ratio,
            segment.temperature,
            _words(segment),
        )
        for index, segment in enumerate(transcript.segments)
    ]


def revision_of(transcript: Transcript) -> int:
    """Return the revision that a transcript is stored as."""
    redo = transcript.job.redo
    return redo.revision if redo else 0


def failure_row(failure: Failure) -> FailureRow:
    """Return the row of a failure, safe for Postgres and bounded.

    Where another failure keeps the record, the row has no payload, and WHOLE_RECORD among its headers names that one.
    TRACE among them names the trace of the job, where it has one.
    """
    at = failure.coordinates
    record, shared = failure.record, failure.whole_in
    room = MAX_PAYLOAD_BYTES if shared is None else MAX_SHARED_BYTES
    headers = encode_headers(without(record.headers, _TRACE), room)  # no link but to this very try
    if failure.trace is not None:
        headers.append([TRACE, failure.trace])
    return FailureRow(
        id=at.row_id(),
        job_id=_clean(failure.job_id),
        cluster_id=clean_text(at.cluster_id),
        topic=clean_text(at.topic),
        kafka_partition=at.partition,
        kafka_offset=at.offset,
        record_index=at.record_index,
        record_timestamp=record_time(at.timestamp_ms),
        record_timestamp_ms=at.timestamp_ms,
        audio_url=None if failure.audio_url is None else without_secrets(clean_text(failure.audio_url)),
        error_class=failure.error_class.value,
        reason=clean_text(failure.reason),
        attempts=failure.attempts,
        record_key=None if record.key is None else record.key[:room],
        payload=None if record.value is None or shared is not None else record.value[:room],
        headers=headers if shared is None else [*headers, [WHOLE_RECORD, str(shared.row_id())]],
        replay_state=REQUESTED if failure.retried_later else None,
    )


def redo_row(failure: Failure, redo: Redo) -> RedoRow:
    """Return what the failure of another revision of a transcription leaves."""
    at = failure.coordinates
    why = clean_text(f"{failure.error_class.value}: {failure.reason}")
    return RedoRow(at.row_id(), redo.revision, why, clean_text(at.cluster_id), clean_text(at.topic), at.partition)


def replay_row(outcome: Outcome) -> ReplayRow | None:
    """Return the row that says which record replayed the job, if one did."""
    replay = replay_of(outcome)
    if replay is None:
        return None
    record = outcome.job.record if isinstance(outcome, Transcript) else outcome.record
    at = replay.record
    return ReplayRow(
        record_id=at.row_id(),
        replay_of=coordinates_of(outcome).row_id(),
        cluster_id=clean_text(at.cluster_id),
        topic=clean_text(at.topic),
        kafka_partition=at.partition,
        kafka_offset=at.offset,
        record_sha256=Replay.digest(record),
    )


def _words(segment: Segment) -> list[dict[str, Any]] | None:
    if segment.words is None:
        return None
    return [
        {"start": word.start, "end": word.end, "word": word.text, "probability": word.probability}
        for word in segment.words
    ]


def _clean(value: str | None) -> str | None:
    return None if value is None else clean_text(value)
