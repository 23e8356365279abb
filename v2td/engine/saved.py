"""What was heard in a window as JSON, to be kept over a restart, and what it must be the answer to. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from v2td.engine.batch import WindowRequest, WindowResult
from v2td.jobs import Segment, Word, options_sha256


def request_sha256(request: WindowRequest, audio_sha256: str, model: str) -> str:
    """Hex digest of all that decides the text of a window: two equal ones may share a result."""
    values = [
        audio_sha256,
        options_sha256(request.options, model),
        request.beam_size,
        request.mode,
        request.window.channel,
        [(piece.start, piece.end) for piece in request.window.pieces],
        request.previous,
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def to_json(result: WindowResult) -> dict[str, Any]:
    """Return the result as a JSON object."""
    return asdict(result)


def from_json(value: dict[str, Any]) -> WindowResult | None:
    """Return what `to_json` was given; None for what another version of v2td may have written."""
    try:
        return WindowResult(
            segments=tuple(_segment(each) for each in value["segments"]),
            language=str(value["language"]),
            languages=tuple((str(name), float(probability)) for name, probability in value["languages"]),
            tokens=tuple(int(token) for token in value["tokens"]),
            flags=tuple(str(flag) for flag in value["flags"]),
            redone=bool(value["redone"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _segment(value: dict[str, Any]) -> Segment:
    words = None if value["words"] is None else tuple(Word(**word) for word in value["words"])
    segment = Segment(**{**value, "words": words})
    if not all(isinstance(each, int | float) for each in (segment.start, segment.end, segment.avg_logprob)):
        raise TypeError("no number")  # JSON knows no infinity: it was stored as null
    return segment
