"""Short messages that share one encoder window (pure): which go together, and whose text is whose.

A 3 s message padded to 30 s costs ten times what it must. Several, divided by silence, fill a window; the text is
divided again by its timestamps. What is not beyond doubt is decoded again alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from v2td.engine.batch import FULL_SECONDS, Interval

LONGEST_CLIP_SECONDS = 14.0  # two of them still fit
STRAY_SECONDS = 0.4  # so far may a text reach into another message: timestamps are no better


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clip lies in its window, in seconds."""

    clip: int
    start: float
    end: float


def weight(seconds: float, gap: float) -> float:
    """Return the part of a window that a clip takes."""
    return min(1.0, (seconds + gap) / FULL_SECONDS)


def pack(lengths: Sequence[float], gap: float) -> list[list[Place]]:
    """Place clips of `lengths` seconds, at most 30 each, in as few windows as first-fit decreasing finds.

    Johnson 1973: never more than 11/9 of the fewest, and one. `gap` seconds of silence lie between neighbours.
    """
    windows: list[list[Place]] = []
    for clip in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        length = lengths[clip]
        for window in windows:
            start = window[-1].end + gap
            if start + length <= FULL_SECONDS:
                window.append(Place(clip, start, start + length))
                break
        else:
            windows.append([Place(clip, 0.0, length)])
    return windows


def divide(texts: Sequence[Interval], places: Sequence[Place]) -> tuple[dict[int, list[int]], set[int]]:
    """Return which of `texts` (their places in the window) belong to each clip, and the clips that are in doubt.

    A text belongs to the clip that it overlaps most; one that reaches well into another makes both doubtful.
    """
    owned: dict[int, list[int]] = {place.clip: [] for place in places}
    doubtful: set[int] = set()
    for index, (start, end) in enumerate(texts):
        overlaps = {place.clip: min(end, place.end) - max(start, place.start) for place in places}
        owner = max(overlaps, key=lambda clip: overlaps[clip])  # the nearest, if it lies in silence
        owned[owner].append(index)
        if strays := {clip for clip, overlap in overlaps.items() if clip != owner and overlap > STRAY_SECONDS}:
            doubtful |= {owner, *strays}
    return owned, doubtful
