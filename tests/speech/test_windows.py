import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from v2td.jobs import Span, Window
from v2td.speech.windows import ChannelPacker, WindowPacker

WINDOW = 1000
PAD = 50


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans as the VAD makes them (in order, at most a window long with their padding), and the recording's length."""
    position = 0
    spans = []
    for pause, length in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(1, WINDOW - 2 * PAD)), max_size=25)):
        start = position + pause
        position = start + length
        spans.append(Span(start, position))
    return spans, position + draw(st.integers(0, 300))


def pack(spans: Sequence[Span], total: int, chunk: int = 1) -> list[Window]:
    packer = WindowPacker(window=WINDOW, pad=PAD)
    windows = []
    for first in range(0, len(spans), chunk):
        windows += packer.feed(spans[first : first + chunk])
    return windows + packer.finish(total)


@given(recordings())
def test_windows_are_not_too_long_and_numbered_in_order(recording: tuple[list[Span], int]) -> None:
    windows = pack(*recording)
    assert [window.index for window in windows] == list(range(len(windows)))
    assert all(0 < window.length <= WINDOW for window in windows)


@given(recordings())
def test_no_sample_is_heard_twice_and_pieces_are_in_order(recording: tuple[list[Span], int]) -> None:
    pieces = [piece for window in pack(*recording) for piece in window.pieces]
    assert all(piece.start < piece.end for piece in pieces)
    assert all(before.end <= after.start for before, after in itertools.pairwise(pieces))
    assert all(piece.start >= 0 and piece.end <= recording[1] for piece in pieces)


@given(recordings())
def test_all_speech_is_covered_once_and_whole(recording: tuple[list[Span], int]) -> None:
    spans, total = recording
    windows = pack(spans, total)
    assert [span for window in windows for span in window.speech] == spans
    for window in windows:
        for span in window.speech:
            inside = [piece for piece in window.pieces if piece.start <= span.start and span.end <= piece.end]
            assert len(inside) == 1


@given(recordings())
def test_each_piece_begins_and_ends_with_at_most_the_padding(recording: tuple[list[Span], int]) -> None:
    for window in pack(*recording):
        for piece in window.pieces:
            inside = [span for span in window.speech if piece.start <= span.start < piece.end]
            assert inside[0].start - piece.start <= PAD
            assert piece.end - inside[-1].end <= PAD


@given(recordings())
def test_padding_is_all_there_is_when_nobody_is_near(recording: tuple[list[Span], int]) -> None:
    spans, total = recording
    edges = [0, *(span.end for span in spans)], [*(span.start for span in spans), total]
    pieces = [piece for window in pack(spans, total) for piece in window.pieces]
    for index, span in enumerate(spans):
        before, after = span.start - edges[0][index], edges[1][index + 1] - span.end
        piece = next(each for each in pieces if each.start <= span.start < each.end)
        # Half of a pause belongs to each neighbour, all of it at the ends of the recording.
        room_before = before if index == 0 else before // 2
        room_after = after if index == len(spans) - 1 else after // 2
        assert span.start - piece.start >= min(PAD, room_before)
        assert piece.end - span.end >= min(PAD, room_after)


@given(recordings(), st.integers(1, 8))
def test_the_windows_do_not_depend_on_how_the_spans_arrive(recording: tuple[list[Span], int], chunk: int) -> None:
    spans, total = recording
    assert pack(spans, total, chunk) == pack(spans, total, chunk=max(1, len(spans)))


@given(recordings())
def test_a_window_is_closed_only_when_the_next_span_would_not_fit(recording: tuple[list[Span], int]) -> None:
    windows = pack(*recording)
    for window, following in itertools.pairwise(windows):
        first = following.speech[0]
        first_alone = min(first.length + 2 * PAD, following.pieces[0].length)
        assert window.length + first_alone > WINDOW - PAD  # how much silence the first span got is up to the packer


@st.composite
def settled_pieces(draw: st.DrawFn) -> list[tuple[list[list[Span]], int]]:
    """What the decoder says of two or three channels, piece by piece: their new spans, and what is settled in all."""
    channels = draw(st.lists(recordings(), min_size=2, max_size=3))
    total = max(length for _, length in channels)
    borders = [*sorted(draw(st.sets(st.integers(1, total + 1), max_size=4))), total + 1]
    pieces = []
    for first, border in zip([0, *borders], borders, strict=False):
        found = [[span for span in spans if first <= span.start < border] for spans, _ in channels]
        pieces.append((found, min(border, total)))
    return pieces


@given(settled_pieces())
def test_channels_are_packed_by_themselves_and_numbered_together(pieces: list[tuple[list[list[Span]], int]]) -> None:
    count, total = len(pieces[0][0]), pieces[-1][1]
    packer = ChannelPacker(range(count), window=WINDOW, pad=PAD)
    windows: list[Window] = []
    edge = 0
    for found, settled in pieces:
        fresh = packer.feed(found)
        if settled == total:
            fresh += packer.finish(total)
        assert all(window.pieces[0].start >= edge for window in fresh), "PCM that was given back is needed"
        windows += fresh
        assert (edge := packer.edge(settled)) <= total
    assert [window.index for window in windows] == list(range(len(windows)))
    for channel in range(count):
        alone = pack([span for found, _ in pieces for span in found[channel]], total)
        heard = [window for window in windows if window.channel == channel]
        assert [(window.pieces, window.speech) for window in heard] == [(each.pieces, each.speech) for each in alone]


def test_the_edge_moves_on_in_silence() -> None:
    packer = ChannelPacker([None], window=WINDOW, pad=PAD)
    packer.feed([[Span(100, 200)]])
    assert packer.edge(5000) == 50, "that one is not in a window yet"
    packer.feed([[Span(9000, 9100)]])
    (window,) = packer.finish(20_000)
    assert window.pieces[0].start == 50
    assert packer.edge(20_000) == 20_000
    assert ChannelPacker([0, 1], window=WINDOW, pad=PAD).edge(5000) == 4950


def test_silence_has_no_windows() -> None:
    assert pack([], 100_000) == []


def test_windows_are_released_as_soon_as_they_are_full() -> None:
    packer = WindowPacker(window=WINDOW, pad=PAD)
    assert packer.feed([Span(100, 900)]) == []
    assert packer.feed([Span(1500, 2300)]) == []  # it is held: how far its silence goes is not known yet
    (full,) = packer.feed([Span(5000, 5050)])
    assert full == Window(0, (Span(50, 950),), (Span(100, 900),))
    (second, third) = packer.finish(6000)
    assert second == Window(1, (Span(1450, 2350),), (Span(1500, 2300),))
    assert third == Window(2, (Span(4950, 5100),), (Span(5000, 5050),))
