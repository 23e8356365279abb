"""Times of a window put back to times of the recording, and fitted to the speech that the VAD heard (pure)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from v2td.jobs import SAMPLE_RATE, Segment, Span, Window, Word


class WindowClock:
    """Maps seconds since the start of a window to seconds since the start of the recording."""

    def __init__(self, window: Window) -> None:
        self._pieces = window.pieces
        self._ends = list(accumulate(piece.length for piece in window.pieces))  # in samples of the window

    def start(self, seconds: float) -> float:
        """Where something that begins at `seconds` begins in the recording: on a border, in the later piece."""
        return self._map(seconds, bisect_right(self._ends, round(seconds * SAMPLE_RATE)))

    def end(self, seconds: float) -> float:
        """Where something that ends at `seconds` ends in the recording: on a border, in the earlier piece."""
        return self._map(seconds, bisect_left(self._ends, round(seconds * SAMPLE_RATE)))

    def _map(self, seconds: float, index: int) -> float:
        index = min(index, len(self._pieces) - 1)
        piece = self._pieces[index]
        before = self._ends[index] - piece.length
        sample = piece.start + round(seconds * SAMPLE_RATE) - before
        return min(max(sample, piece.start), piece.end) / SAMPLE_RATE


def to_recording(segment: Segment, window: Window) -> Segment:
    """Return `segment` (times in the window) with times in the recording, and with the window's channel.

    A border that lies in silence is moved to the speech inside the segment: Whisper places a lone sentence at
    0.00 whatever it heard, while the VAD knows where speech began.
    """
    clock = WindowClock(window)
    start, end = fit(clock.start(segment.start), clock.end(segment.end), window.speech)
    words = segment.words
    if words is not None:
        words = tuple(_word(word, clock, window.speech, start, end) for word in words)
    return replace(segment, start=start, end=end, words=words, channel=window.channel)


def fit(start: float, end: float, speech: tuple[Span, ...]) -> tuple[float, float]:
    """Shrink [start, end] (seconds) so that its borders do not lie in silence, if it touches speech at all."""
    touched = [span for span in speech if span.end > start * SAMPLE_RATE and span.start < end * SAMPLE_RATE]
    if not touched or end <= start:
        return start, max(start, end)
    return max(start, touched[0].start / SAMPLE_RATE), min(end, touched[-1].end / SAMPLE_RATE)


def covered_by_channel(segments: Sequence[Segment], windows: Sequence[Window]) -> float:
    """Seconds of the windows' speech that lie inside a segment with text of the same channel, over all channels."""
    return sum(
        covered_seconds(
            tuple(segment for segment in segments if segment.channel == channel),
            tuple(span for window in windows if window.channel == channel for span in window.speech),
        )
        for channel in {window.channel for window in windows}
    )


def covered_seconds(segments: tuple[Segment, ...], speech: tuple[Span, ...]) -> float:
    """Seconds of `speech`, in its order, that lie inside a segment that has text (both in times of the recording)."""
    covered = 0.0
    edge = 0.0  # segments may overlap: each second counts once
    first = 0  # the spans before this one end before anything that is still to come
    for segment in sorted(segments, key=lambda each: each.start):
        if not segment.text.strip():
            continue
        start = max(segment.start, edge)
        edge = max(edge, segment.end)
        while first < len(speech) and speech[first].end <= start * SAMPLE_RATE:
            first += 1
        for index in range(first, len(speech)):
            span = speech[index]
            if span.start >= segment.end * SAMPLE_RATE:
                break
            overlap = min(segment.end, span.end / SAMPLE_RATE) - max(start, span.start / SAMPLE_RATE)
            covered += max(0.0, overlap)
    return covered


def _word(word: Word, clock: WindowClock, speech: tuple[Span, ...], earliest: float, latest: float) -> Word:
    """Return `word` with times in the recording, inside its segment even if no speech was heard at its place."""
    start, end = fit(clock.start(word.start), clock.end(word.end), speech)
    return replace(word, start=min(max(start, earliest), latest), end=min(max(end, earliest), latest))
