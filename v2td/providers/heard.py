"""What a provider answered, looked at before anybody relies on it (pure): somebody else wrote that, or its server."""

from __future__ import annotations

import math
from dataclasses import replace

from v2td.errors import ProviderFailedError
from v2td.jobs import Heard, Segment, Word


def checked(heard: Heard) -> Heard:
    """Return it with its segments in order; raises ProviderFailedError when it is nonsense."""
    if not isinstance(heard, Heard):
        raise ProviderFailedError(f"it answers with {type(heard).__name__}, not with what it heard")
    for segment in heard.segments:
        if (problem := _problem(segment)) is not None:
            raise ProviderFailedError(problem)
    if not (math.isfinite(heard.cost) and heard.cost >= 0):
        raise ProviderFailedError(f"it charges {heard.cost}")
    return replace(heard, segments=tuple(sorted(heard.segments, key=lambda each: each.start)))


def _problem(segment: Segment) -> str | None:
    parts: tuple[Segment | Word, ...] = (segment, *(segment.words or ()))
    for each in parts:
        if type(each.text) is not str:
            return f"its text is {type(each.text).__name__}"
        if not (math.isfinite(each.end) and 0 <= each.start <= each.end):
            return f"it heard something from {each.start} s to {each.end} s"
    return None
