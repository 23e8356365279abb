"""Outcomes to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v2td.errors import ErrorClass
from v2td.jobs import Coordinates, Failure, Job, Options, Segment, SourceRecord, Transcript, Word

MAY_2026_MS = 1_780_000_000_123


def coordinates(offset: int, **changes: Any) -> Coordinates:
    values: dict[str, Any] = {
        "cluster_id": "cluster",
        "topic": "jobs",
        "partition": 0,
        "offset": offset,
        "timestamp_ms": MAY_2026_MS,
    }
    return Coordinates(**(values | changes))


def segment(text: str, words: Sequence[Word] | None = None, start: float = 0.5) -> Segment:
    return Segment(start, start + 2.0, text, -0.2, 0.01, 1.2, 0.0, None if words is None else tuple(words))


def transcript(
    offset: int, *texts: str, job: dict[str, Any] | None = None, at: dict[str, Any] | None = None, **changes: Any
) -> Transcript:
    """A transcript whose segments are `texts`; `job`, `at` and `changes` replace fields of its parts."""
    job_values: dict[str, Any] = {
        "coordinates": coordinates(offset, **(at or {})),
        "audio_url": f"https://example.com/{offset}.wav",
        "options": Options(language="en"),
        "job_id": f"job-{offset}",
    }
    values: dict[str, Any] = {
        "job": Job(**(job_values | (job or {}))),
        "audio_sha256": "ab" * 32,
        "audio_bytes": 160_044,
        "audio_seconds": 5.0,
        "speech_seconds": 4.0,
        "covered_seconds": 3.0,
        "language": "en",
        "language_probability": 0.98,
        "segments": tuple(segment(text) for text in texts or ("good morning", " everyone ")),
        "provider": "local",
        "model": "demo",
        "truncated": False,
        "duration_seconds": 1.5,
        "timings": {"fetch": 0.1, "windows": [{"slot": 0, "start": 0.2, "seconds": 0.9, "flags": []}]},
    }
    return Transcript(**(values | changes))


def failure(offset: int, **changes: Any) -> Failure:
    values: dict[str, Any] = {
        "coordinates": coordinates(offset),
        "error_class": ErrorClass.NOT_AUDIO,
        "reason": "this is text",
        "attempts": 1,
        "record": SourceRecord(b"key", b'{"audio_url": "x"}', (("trace", b"abc"),)),
        "job_id": f"job-{offset}",
        "audio_url": f"https://example.com/{offset}.wav",
    }
    return Failure(**(values | changes))
