"""What a provider answered, looked at before anybody relies on it (pure): somebody else wrote that, or its server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from v2td.errors import ProviderFailedError
from v2td.jobs import Heard, Segment, Window, Word

MAX_CHANNEL = 2**31 - 1  # as the row has room for
_NUMBERS = ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature")


def checked(heard: Heard) -> Heard:
    """Return it with its segments in order; raises ProviderFailedError when it is nonsense."""
    if not isinstance(heard, Heard):
        raise ProviderFailedError(f"it answers with {type(heard).__name__}, not with what it heard")
    if (problem := next(_problems(heard), None)) is not None:
        raise ProviderFailedError(problem)
    return replace(heard, segments=tuple(sorted(heard.segments, key=lambda each: each.start)))


def _problems(heard: Any) -> Iterator[str]:
    """Yield what no row could be made of, the first of which counts: what follows may stumble over it."""
    if type(heard.model) is not str or not isinstance(heard.language, str | None):
        yield f"its model and language are {_type(heard.model)} and {_type(heard.language)}"
    if not (heard.language_probability is None or _number(heard.language_probability)):
        yield f"its language's probability is {_type(heard.language_probability)}"
    if not (_number(heard.cost) and math.isfinite(heard.cost) and heard.cost >= 0):
        yield f"it charges {heard.cost!r:.50}"
    if not _json(heard.timings):
        yield "its timings are no JSON object"
    elif not _windows(heard.timings.get("windows", [])):
        yield "its timings' windows are something else"
    for name, kind in (("segments", Segment), ("windows", Window)):
        parts = getattr(heard, name)
        if not isinstance(parts, tuple | list) or not all(isinstance(each, kind) for each in parts):
            yield f"its {name} are something else"
    for segment in heard.segments:
        yield from _in_segment(segment)


def _in_segment(segment: Any) -> Iterator[str]:
    words = () if segment.words is None else segment.words
    if not isinstance(words, tuple | list) or not all(isinstance(each, Word) for each in words):
        yield "its words are something else"
    for each in (segment, *words):
        if type(each.text) is not str:
            yield f"its text is {_type(each.text)}"
        if not (_number(each.start) and _number(each.end)):
            yield f"its times are {_type(each.start)} and {_type(each.end)}"
        if not (math.isfinite(each.end) and 0 <= each.start <= each.end):
            yield f"it heard something from {each.start} s to {each.end} s"
    values = [getattr(segment, name) for name in _NUMBERS] + [each.probability for each in words]
    if not all(map(_number, values)):
        yield "its probabilities are no numbers"
    channel = segment.channel
    if not (channel is None or (isinstance(channel, int) and 0 <= channel <= MAX_CHANNEL)):
        yield f"its channel is {channel!r:.50}"


def _number(value: object) -> bool:
    return isinstance(value, float | int)


def _json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _windows(value: object) -> bool:
    """Whether it is what v2td itself writes of windows, in `timings`: others read it, and rely on that."""
    return isinstance(value, list | tuple) and all(
        isinstance(each, dict)
        and isinstance(each.get("index"), int)
        and all(_number(each.get(name)) and 0 <= each[name] < math.inf for name in ("start", "seconds"))
        and all(isinstance(each.get(name, 1), int) for name in ("slot", "batch"))
        and each.get("batch", 1) >= 1
        for each in value
    )


def _type(value: object) -> str:
    return type(value).__name__
