"""Cuts a recording into chunks for an API that takes files of a bounded length (pure).

A chunk is a stretch of one channel, silences included, so that its times are the recording's less its start. It begins
and ends in a pause; only a stretch of speech that is longer than a whole chunk is cut inside. Pauses of LONG_PAUSE and
more are not sent at all: they cost money, and Whisper hears voices in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from v2td.jobs import SAMPLE_RATE, Segment, Span, Window

LONG_PAUSE = 30 * SAMPLE_RATE
WELL_FILLED = 0.75  # of a chunk: it may end there, if the pause is longer than later ones


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples [start, end) of a channel, None for the mean of all; `speech` lies inside.

    `windows` are those whose speech it has, or a part of it; of those in `complete` later chunks have nothing.
    """

    channel: int | None
    start: int
    end: int
    speech: tuple[Span, ...]
    windows: tuple[Window, ...]
    complete: tuple[Window, ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is never cut: a span of speech with the silence around it, [start, end); `last` of its window or not."""

    start: int
    end: int
    speech: Span
    window: Window
    last: bool


class Chunker:
    """Turns windows into chunks of at most `limit` samples; feed windows in order, then `finish` once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._units: dict[int | None, list[_Unit]] = {}  # of the chunk that each channel is at

    def feed(self, window: Window) -> list[Chunk]:
        """Take one more window; return the chunks that are complete with it."""
        units = self._units.setdefault(window.channel, [])
        return [chunk for unit in self._units_of(window) for chunk in self._add(units, unit)]

    def finish(self) -> list[Chunk]:
        """Return what is left."""
        return [chunk for units in self._units.values() for chunk in _cut(units, len(units))]

    def _add(self, units: list[_Unit], unit: _Unit) -> list[Chunk]:
        chunks = []
        if units and unit.speech.start - units[-1].speech.end >= LONG_PAUSE:
            chunks += _cut(units, len(units))
        if units and unit.end - units[0].start > self._limit:
            chunks += _cut(units, self._best(units, unit))
        units.append(unit)
        return chunks

    def _best(self, units: Sequence[_Unit], following: _Unit) -> int:
        """Return after how many units to cut, since the next one does not fit: at the longest of the late pauses."""
        best, longest = len(units), -1
        for number, (unit, after) in enumerate(zip(units, [*units[1:], following], strict=True), 1):
            filled = unit.end - units[0].start >= WELL_FILLED * self._limit
            fits = number == len(units) or following.end - after.start <= self._limit
            pause = after.speech.start - unit.speech.end
            if filled and fits and pause >= longest:
                best, longest = number, pause
        return best

    def _units_of(self, window: Window) -> Iterator[_Unit]:
        pieces = iter(window.pieces)
        piece = next(pieces)
        start = piece.start
        for span, after in zip(window.speech, [*window.speech[1:], None], strict=True):
            while span.start >= piece.end:
                piece = next(pieces)
                start = piece.start
            together = after is not None and after.start < piece.end
            end = (span.end + after.start) // 2 if after is not None and together else piece.end
            yield from self._parts(_Unit(start, end, span, window, after is None))
            start = end

    def _parts(self, unit: _Unit) -> Iterator[_Unit]:
        """Yield the unit; when no chunk could hold it, its speech in equal parts."""
        if unit.end - unit.start <= self._limit:
            yield unit
            return
        start, length = unit.speech.start, unit.speech.length
        count = -(-length // self._limit)
        edges = [start + length * number // count for number in range(count + 1)]
        for number, (first, end) in enumerate(pairwise(edges), 1):
            yield _Unit(first, end, Span(first, end), unit.window, unit.last and number == count)


def _cut(units: list[_Unit], count: int) -> list[Chunk]:
    """Take the first `count` units away as a chunk; none when there are none."""
    taken = units[:count]
    del units[:count]
    if not taken:
        return []
    windows = {unit.window.index: unit.window for unit in taken}
    return [
        Chunk(
            channel=taken[0].window.channel,
            start=taken[0].start,
            end=taken[-1].end,
            speech=tuple(unit.speech for unit in taken),
            windows=tuple(windows.values()),
            complete=tuple(unit.window for unit in taken if unit.last),
        )
    ]


class Ledger:
    """Tells which windows are heard through, and what in each; chunks may be heard in any order."""

    def __init__(self) -> None:
        self._chunks: dict[int, int] = defaultdict(int)  # by window: chunks with speech of it that are not heard yet
        self._whole: dict[int, Window] = {}  # of which no further chunk will come
        self._texts: dict[int, list[tuple[float, str]]] = defaultdict(list)

    def add(self, chunk: Chunk) -> None:
        """Note a chunk that is to be heard."""
        for window in chunk.windows:
            self._chunks[window.index] += 1
        for window in chunk.complete:
            self._whole[window.index] = window

    def heard(self, chunk: Chunk, segments: Iterable[Segment]) -> list[tuple[Window, str]]:
        """Note what was heard in a chunk; return the windows that are heard through with it, and their text."""
        for segment in segments:
            middle = (segment.start + segment.end) / 2 * SAMPLE_RATE
            begun = [window for window in chunk.windows if window.pieces[0].start <= middle]
            window = begun[-1] if begun else chunk.windows[0]
            self._texts[window.index].append((segment.start, segment.text.strip()))
        through = []
        for window in chunk.windows:
            self._chunks[window.index] -= 1
            if not self._chunks[window.index] and window.index in self._whole:
                texts = sorted(self._texts.pop(window.index, []))
                through.append((self._whole.pop(window.index), " ".join(text for _start, text in texts)))
        return through
