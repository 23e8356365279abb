"""A transcript as a file: txt, json, srt, vtt, tsv, as openai-whisper writes them, and md. Pure.

Where the channels were transcribed by themselves, all but txt say which one spoke.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from v2td.jobs import Segment, Word

_MARKUP = re.compile(r"[\\`*_\[\]<>&|~]")  # what Markdown would read as something else than text
_ESCAPED = r"\\\g<0>"


@dataclass(frozen=True, slots=True)
class Document:
    """What a file is written from; times in seconds of the recording."""

    segments: tuple[Segment, ...]
    language: str | None
    duration_seconds: float  # of the recording
    model: str


def _txt(document: Document) -> str:
    return "".join(f"{_line(segment)}\n" for segment in document.segments)


def _json(document: Document) -> str:
    content = {
        "text": " ".join(filter(None, map(_line, document.segments))),
        "language": document.language,
        "duration": document.duration_seconds,
        "model": document.model,
    }
    # Piece by piece: a day of speech in one call would keep all other threads waiting for most of a second.
    segments = ", ".join(_dumped(_segment(index, segment)) for index, segment in enumerate(document.segments))
    return f'{_dumped(content)[:-1]}, "segments": [{segments}]}}\n'


def _srt(document: Document) -> str:
    return "".join(
        f"{number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n{_named(segment)}{_cue(segment)}\n\n"
        for number, segment in enumerate(document.segments, start=1)
    )


def _vtt(document: Document) -> str:
    cues = (
        f"{short_clock(segment.start)} --> {short_clock(segment.end)}\n{_voice(segment)}{_cue(segment)}\n\n"
        for segment in document.segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def _tsv(document: Document) -> str:
    split = any(segment.channel is not None for segment in document.segments)
    rows = (
        f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{_line(segment).replace(chr(9), ' ')}"
        + (f"\t{segment.channel}\n" if split else "\n")
        for segment in document.segments
    )
    return "start\tend\ttext" + ("\tchannel\n" if split else "\n") + "".join(rows)


def _md(document: Document) -> str:
    """Markdown: what is known at its head, in YAML (of which JSON is a part), then a paragraph for each segment."""
    head = {"language": document.language, "duration": document.duration_seconds, "model": document.model}
    front = "".join(f"{name}: {json.dumps(value)}\n" for name, value in head.items())
    paragraphs = (
        f"\n**{short_clock(segment.start)}{_speaker(segment)}** {_MARKUP.sub(_ESCAPED, _line(segment))}\n"
        for segment in document.segments
    )
    return f"---\n{front}---\n" + "".join(paragraphs)


FORMATS: Mapping[str, Callable[[Document], str]] = MappingProxyType(
    {"txt": _txt, "json": _json, "srt": _srt, "vtt": _vtt, "tsv": _tsv, "md": _md}
)


def _dumped(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _line(segment: Segment) -> str:
    # One line: an empty line would end a cue, any line break a row.
    return " ".join(segment.text.splitlines()).strip()


def _cue(segment: Segment) -> str:
    return _line(segment).replace("-->", "->")  # the arrow marks a cue's times


def _named(segment: Segment) -> str:
    """Say who speaks as text, where the format has no place for it."""
    return "" if segment.channel is None else f"[channel {segment.channel}] "


def _voice(segment: Segment) -> str:
    """Say who speaks as a WebVTT voice span, which ends with its cue."""
    return "" if segment.channel is None else f"<v Channel {segment.channel}>"


def _speaker(segment: Segment) -> str:
    return "" if segment.channel is None else f" channel {segment.channel}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def clock(seconds: float, mark: str) -> str:
    """Return a time as hours, minutes, seconds and milliseconds, which come behind `mark`."""
    minutes, milliseconds = divmod(_milliseconds(seconds), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def short_clock(seconds: float) -> str:
    """Return a time as WebVTT has it: without hours in the first."""
    return clock(seconds, ".").removeprefix("00:")


def _segment(index: int, segment: Segment) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": index,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }
    if segment.channel is not None:
        content["channel"] = segment.channel
    if segment.words is not None:
        content["words"] = [_word(word) for word in segment.words]
    return content


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, "start": word.start, "end": word.end, "probability": word.probability}
