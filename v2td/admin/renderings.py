"""A transcript as OpenAI's API answers it: json, text, srt, verbose_json, vtt. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from v2td.admin.form import Format, Granularity
from v2td.config.languages import NAMES
from v2td.formats import FORMATS, Document
from v2td.jobs import Segment, Transcript

FRAMES_PER_SECOND = 100  # of Whisper's spectrogram, which `seek` counts
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
}


def render(transcript: Transcript, wanted: Format, granularities: Sequence[Granularity]) -> str:
    """Return the body of an answer."""
    match wanted:
        case "json":
            return _json({"text": transcript.text, "usage": _usage(transcript)})
        case "verbose_json":
            return _json(_verbose(transcript, granularities))
        case "text":
            return transcript.text + "\n"
        case "srt" | "vtt":
            segments, language = transcript.segments, transcript.language
            return FORMATS[wanted](Document(segments, language, transcript.audio_seconds, transcript.model))


def _verbose(transcript: Transcript, granularities: Sequence[Granularity]) -> dict[str, Any]:
    language = transcript.language
    content: dict[str, Any] = {
        "task": transcript.job.options.task,
        "language": NAMES.get(language, language) if language else "",  # a string, also where there is no speech
        "duration": transcript.audio_seconds,
        "text": transcript.text,
    }
    if "segment" in granularities or not granularities:
        content["segments"] = [_segment(index, each) for index, each in enumerate(transcript.segments)]
    if "word" in granularities:
        content["words"] = [
            {"word": word.text.strip(), "start": word.start, "end": word.end, "probability": word.probability}
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    return {**content, "usage": _usage(transcript)}


def _segment(index: int, segment: Segment) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": index,
        "seek": round(segment.start * FRAMES_PER_SECOND),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],  # not kept; clients that know their type expect a list
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }
    if segment.channel is not None:
        content["channel"] = segment.channel
    return content


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": transcript.audio_seconds}


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
