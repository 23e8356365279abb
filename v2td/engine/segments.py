"""faster-whisper's segments, which are dicts on one way and objects on another, and ours."""

from __future__ import annotations

from typing import Any

from v2td.engine.batch import Said
from v2td.jobs import Segment, Word

Segments = list[dict[str, Any]]


def as_dict(segment: Any) -> dict[str, Any]:
    """Return a segment of generate_segments as add_word_timestamps has it."""
    words = segment.words and [
        {"start": each.start, "end": each.end, "word": each.word, "probability": each.probability}
        for each in segment.words
    ]
    return {
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": segment.tokens,
        "avg_logprob": segment.avg_logprob,
        "no_speech_prob": segment.no_speech_prob,
        "compression_ratio": segment.compression_ratio,
        "temperature": segment.temperature or 0.0,
        "words": words,
    }


def moved(segment: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return a segment, its words included, so many seconds later."""
    words = segment.get("words")
    return segment | {
        "start": segment["start"] + seconds,
        "end": segment["end"] + seconds,
        "words": words and [word | {"start": word["start"] + seconds, "end": word["end"] + seconds} for word in words],
    }


def text_of(segments: Segments) -> str:
    """Return the text of all, as it is compared."""
    return " ".join(each["text"].strip() for each in segments)


def said(segments: Segments) -> list[Said]:
    """Return where each segment lies, and its text."""
    return [(each["start"], each["end"], each["text"]) for each in segments]


def our_segment(segment: dict[str, Any], length: float) -> Segment:
    """Return a segment as the parent gets it, inside its window of `length` seconds."""

    def own(seconds: float) -> float:
        return float(min(max(seconds, 0.0), length))

    words = segment.get("words") or ()
    # add_word_timestamps may move a word to before the segment's start, or behind its end.
    start = min([segment["start"], *(word["start"] for word in words)])
    end = max([segment["end"], *(word["end"] for word in words)])
    return Segment(
        start=own(start),
        end=own(end),
        text=segment["text"],
        avg_logprob=float(segment["avg_logprob"]),
        no_speech_prob=float(segment["no_speech_prob"]),
        compression_ratio=float(segment["compression_ratio"]),
        temperature=float(segment["temperature"]),
        words=None
        if segment.get("words") is None
        else tuple(
            Word(own(each["start"]), own(each["end"]), each["word"], float(each["probability"])) for each in words
        ),
    )
