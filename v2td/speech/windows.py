"""Packs speech into windows of at most 30 s, the unit of inference (pure).

Silence costs as much to encode as speech, so a window holds as many speech spans as fit, one behind the other, with
only a little of the silence around each. A span keeps up to `pad` samples of its silence on each side, and never more
than half of the pause to its neighbour: no sample is heard twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from v2td.jobs import Span, Window

WELL_FILLED = 0.85  # of a window: it may end there, if the pause is longer than later ones


class ChannelPacker:
    """Packs each channel of a recording into windows of its own, numbered over all of them.

    The same spans, fed in the same pieces, make the same windows in the same order.
    """

    def __init__(self, channels: Sequence[int | None], *, window: int, pad: int) -> None:
        numbers = count()
        self._packers = [WindowPacker(window=window, pad=pad, channel=each, numbers=numbers) for each in channels]

    def feed(self, spans: Sequence[Iterable[Span]]) -> list[Window]:
        """Take more spans, those of each channel; return the windows that are complete with them."""
        return [window for packer, found in zip(self._packers, spans, strict=True) for window in packer.feed(found)]

    def finish(self, total: int) -> list[Window]:
        """Return what is left of a recording of `total` samples."""
        return [window for packer in self._packers for window in packer.finish(total)]

    def edge(self, settled: int) -> int:
        """Return the sample before which no window of any channel that is still to come begins."""
        return min(packer.edge(settled) for packer in self._packers)


class WindowPacker:
    """Turns a stream of speech spans into windows; feed spans in order, then `finish` once.

    Spans do not overlap and are at most `window - 2 * pad` samples long (the VAD is told so).
    """

    def __init__(
        self, *, window: int, pad: int, channel: int | None = None, numbers: Iterator[int] | None = None
    ) -> None:
        self._channel = channel
        self._numbers = count() if numbers is None else numbers
        self._window = window
        self._pad = pad
        self._held: Span | None = None  # waits for its right neighbour, which decides its right padding
        self._left_edge = 0  # pieces do not reach further left than this
        self._pieces: list[Span] = []
        self._speech: list[Span] = []
        self._length = 0

    def feed(self, spans: Iterable[Span]) -> list[Window]:
        """Take more spans; return the windows that are complete with them."""
        complete = []
        for span in spans:
            if self._held is not None:
                middle = self._held.end + (span.start - self._held.end) // 2
                complete += self._add(self._held, middle)
            self._held = span
        return complete

    def finish(self, total: int) -> list[Window]:
        """Return what is left of a recording of `total` samples."""
        complete = self._add(self._held, total) if self._held is not None else []
        self._held = None
        return complete + self._close()

    def edge(self, settled: int) -> int:
        """Return the sample before which no window that is still to come begins.

        No span that is still to come begins before `settled`.
        """
        if self._pieces:
            return self._pieces[0].start
        next_span = settled if self._held is None else self._held.start
        return max(self._left_edge, next_span - self._pad)

    def _add(self, span: Span, right_edge: int) -> list[Window]:
        piece = Span(max(self._left_edge, span.start - self._pad), min(right_edge, span.end + self._pad))
        self._left_edge = right_edge
        complete = []
        if self._length + piece.length > self._window:
            complete = self._close(self._fullest(span, piece))
        self._pieces.append(piece)
        self._speech.append(span)
        self._length += piece.length
        return complete

    def _fullest(self, span: Span, piece: Span) -> int:
        """Return after how many spans to end the window, since the next one does not fit.

        At the longest pause among those that leave the window well filled, so that sentences stay whole.
        """
        starts = [each.start for each in self._speech[1:]] + [span.start]
        best, longest, length = len(self._speech), -1, 0
        for number, (spoken, held, start) in enumerate(zip(self._speech, self._pieces, starts, strict=True), 1):
            length += held.length
            fits = self._length - length + piece.length <= self._window or number == len(self._speech)
            if length >= WELL_FILLED * self._window and fits and start - spoken.end >= longest:
                best, longest = number, start - spoken.end
        return best

    def _close(self, count: int | None = None) -> list[Window]:
        """Return a window of the first `count` spans, all of them when it is None."""
        pieces, speech = self._pieces[:count], self._speech[:count]
        self._pieces, self._speech = self._pieces[len(pieces) :], self._speech[len(speech) :]
        self._length = sum(piece.length for piece in self._pieces)
        if not pieces:
            return []
        return [Window(next(self._numbers), _joined(pieces), tuple(speech), self._channel)]


def _joined(pieces: Sequence[Span]) -> tuple[Span, ...]:
    """Return the pieces, with those that touch made one."""
    joined: list[Span] = []
    for piece in pieces:
        if joined and joined[-1].end == piece.start:
            joined[-1] = Span(joined[-1].start, piece.end)
        else:
            joined.append(piece)
    return tuple(joined)
