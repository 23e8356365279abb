"""Short messages that share one encoder window (pure): which go together, and what of the window is whose.

A 3 s message padded to 30 s costs ten times what it must. Several, divided by silence, fill a window. The encoder hears
them together; the decoder hears of each only the positions that are its own, all of them in one batch. What is not
beyond doubt is decoded again alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from typing import Any

from v2td.engine.batch import FULL_SECONDS

LONGEST_CLIP_SECONDS = 14.0  # two of them still fit
POSITIONS_PER_SECOND = 50  # of the encoder's output
BEFORE_SECONDS, BEHIND_SECONDS = 0.6, 0.3  # of silence that the decoder hears around a clip
PADDING_POSITIONS = 10  # of silence that are repeated
STRAY_SECONDS = 0.35  # what begins less than this before the end of a clip is an echo in the padding
TOKENS_PER_SECOND, SPARE_TOKENS = 40, 20  # seven in a second in English, but Burmese takes five times as many


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


def positions(place: Place, gap: float) -> range:
    """Return the encoder's positions that hear a clip: its own, and the silence around it, but no neighbour."""
    start = max(0, ceil((place.start - min(BEFORE_SECONDS, gap)) * POSITIONS_PER_SECOND))
    end = int((place.end + min(BEHIND_SECONDS, gap)) * POSITIONS_PER_SECOND)
    return range(start, max(start + 1, min(end, int(FULL_SECONDS * POSITIONS_PER_SECOND))))


def padded(own: range, width: int) -> list[int]:
    """Return `width` positions: the clip's own, then the silence at its end again and again.

    Clips are decoded together, so all have as many as the longest; what else lies in the window is none of theirs.
    """
    silence = own[-PADDING_POSITIONS:]
    return [*own, *islice(cycle(silence), width - len(own))]


def most_tokens(seconds: float) -> int:
    """Return how many tokens a clip can need, timestamps included: what says more goes round in circles."""
    return ceil(TOKENS_PER_SECOND * seconds) + SPARE_TOKENS


def own_text(segments: Sequence[dict[str, Any]], place: Place) -> list[dict[str, Any]]:
    """Return what was said in a clip, in seconds of the clip; what is heard in the padding behind it is left out."""
    return [
        segment | {"start": segment["start"] - place.start, "end": segment["end"] - place.start}
        for segment in segments
        if segment["start"] < place.end - STRAY_SECONDS
    ]
