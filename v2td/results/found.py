"""A text that is there already, with all it takes to give it to another job. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from v2td.jobs import Audio, Job, Segment, Transcript, Word, options_sha256
from v2td.store import StoredSegment, StoredTranscription

Level = Literal["in_flight", "redis", "postgres"]

_ORIGIN = "cached_trace"
_OF_THE_TEXT = ("flags", "channel_languages", "damage")  # timings that say how the text came about, not how fast


@dataclass(frozen=True, slots=True)
class Found:
    """The text of a recording under one digest; seconds. `origin` is the row for which it was transcribed, if it was.

    `notes` are those timings of the origin that belong to the text.
    """

    origin: UUID | None
    audio_sha256: str
    text_sha256: str
    audio_seconds: float
    speech_seconds: float
    covered_seconds: float
    language: str | None
    language_probability: float | None
    segments: tuple[Segment, ...]
    provider: str
    model: str
    truncated: bool
    notes: dict[str, Any]
    level: Level = "in_flight"

    def transcript(self, job: Job, audio: Audio, began: float, timings: Mapping[str, Any] | None = None) -> Transcript:
        """Return the transcript of a job with the same audio; `began` is the time.monotonic() of its begin.

        `timings` are those of the job so far. The text of the job's own row, read again after a restart, is no
        other's: `cached_from` is None then.
        """
        return Transcript(
            job=job,
            audio_sha256=self.audio_sha256,
            audio_bytes=audio.size_bytes,
            audio_seconds=self.audio_seconds,
            speech_seconds=self.speech_seconds,
            covered_seconds=self.covered_seconds,
            language=self.language,
            language_probability=self.language_probability,
            segments=self.segments,
            provider=self.provider,
            model=self.model,
            truncated=self.truncated,
            duration_seconds=time.monotonic() - began,
            timings={**(timings or {}), **self.notes, "cached": self.level},
            text_sha256=self.text_sha256,
            cached_from=None if self.origin == job.id else self.origin,
        )


def of_transcript(transcript: Transcript, *, becomes_row: bool = True) -> Found:
    """Return what other jobs may have of a transcript, be it one that nobody keeps."""
    return Found(
        origin=transcript.cached_from or (transcript.job.id if becomes_row else None),
        audio_sha256=transcript.audio_sha256,
        text_sha256=transcript.text_sha256 or options_sha256(transcript.job.options, transcript.model),
        audio_seconds=transcript.audio_seconds,
        speech_seconds=transcript.speech_seconds,
        covered_seconds=transcript.covered_seconds,
        language=transcript.language,
        language_probability=transcript.language_probability,
        segments=transcript.segments,
        provider=transcript.provider,
        model=transcript.model,
        truncated=transcript.truncated,
        notes=_notes(transcript.timings),
    )


def of_rows(row: StoredTranscription, segments: Sequence[StoredSegment]) -> Found:
    """Return what other jobs may have of a transcription in Postgres."""
    return Found(
        origin=row.cached_from or row.id,
        audio_sha256=row.audio_sha256,
        text_sha256=row.options_sha256,
        audio_seconds=row.audio_seconds,
        speech_seconds=row.speech_seconds,
        covered_seconds=(row.speech_coverage_ratio or 0.0) * row.speech_seconds,
        language=row.language,
        language_probability=row.language_probability,
        segments=tuple(map(_segment, segments)),
        provider=row.provider,
        model=row.model,
        truncated=row.truncated,
        notes=_notes(row.timings),
        level="postgres",
    )


def _notes(timings: Mapping[str, Any]) -> dict[str, Any]:
    notes = {name: timings[name] for name in _OF_THE_TEXT if name in timings}
    trace = timings.get(_ORIGIN, timings.get("trace"))  # of whoever transcribed it: a job that has it too links to that
    return notes if trace is None else notes | {_ORIGIN: trace}


def _segment(row: StoredSegment) -> Segment:
    words = None if row.words is None else tuple(map(_word, row.words))
    return Segment(
        row.start_seconds,
        row.end_seconds,
        row.text,
        row.avg_logprob,
        row.no_speech_prob,
        row.compression_ratio,
        row.temperature,
        words,
        row.channel,
    )


def _word(row: Mapping[str, Any]) -> Word:
    # JSON has no NaN: where a number could not be kept it is null.
    start, end, probability = (
        float("nan") if row[key] is None else row[key] for key in ("start", "end", "probability")
    )
    return Word(start, end, row["word"], probability)
