"""faster-whisper's segments, which are dicts on one way and objects on another, and ours."""

from __future__ import annotations

from typing import Any

from v2td.engine.packing import Place
from v2td.jobs import Segment, Word


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


def own_segment(segment: dict[str, Any], place: Place) -> Segment:
    """Return a segment of a shared window in seconds of its own one."""

    def own(seconds: float) -> float:
        return float(min(max(seconds, place.start), place.end) - place.start)

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
