from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.jobs import SAMPLE_RATE, Segment, Span, Window
from v2td.providers.chunks import LONG_PAUSE, Chunk, Chunker, Ledger
from v2td.speech.windows import ChannelPacker

SECOND = SAMPLE_RATE


def seconds(*times: tuple[float, float]) -> list[Span]:
    return [Span(int(start * SECOND), int(end * SECOND)) for start, end in times]


def packed(spans: list[Span], window: float = 30, pad: float = 0.3) -> list[Window]:
    """The windows that the decoder makes of the spans."""
    packer = ChannelPacker([None], window=int(window * SECOND), pad=int(pad * SECOND))
    total = spans[-1].end + SECOND if spans else SECOND
    return packer.feed([spans]) + packer.finish(total)


def cut(windows: list[Window], limit: float) -> list[Chunk]:
    chunker = Chunker(int(limit * SECOND))
    return [chunk for window in windows for chunk in chunker.feed(window)] + chunker.finish()


def rounded(chunk: Chunk) -> tuple[float, float]:
    return round(chunk.start / SECOND, 2), round(chunk.end / SECOND, 2)


def test_a_short_recording_is_one_chunk_with_its_silences() -> None:
    windows = packed(seconds((1, 2), (5, 9)))
    (chunk,) = cut(windows, 600)
    assert rounded(chunk) == (0.7, 9.3)
    assert chunk.seconds == pytest.approx(8.6)
    assert chunk.windows == chunk.complete == tuple(windows)


def test_it_is_cut_in_the_longest_of_the_late_pauses() -> None:
    # Limit 20: what ends in [15, 20] may be last. The pause at 17 is longer than that at 19, and 10 is too early.
    spans = seconds((0, 10), (13, 17), (18, 19), (19.5, 22))
    assert [rounded(chunk) for chunk in cut(packed(spans), 20)] == [(0, 17.3), (17.7, 22.3)]


def test_of_equal_pauses_the_last_one_fills_the_chunk_best() -> None:
    spans = seconds((0, 10), (11, 15.5), (16.5, 19), (20, 23))
    assert [rounded(chunk) for chunk in cut(packed(spans), 20)] == [(0, 19.3), (19.7, 23.3)]


def test_a_long_pause_is_not_sent() -> None:
    pause = LONG_PAUSE / SECOND
    spans = seconds((0, 2), (2 + pause, 4 + pause))
    windows = packed(spans)
    assert len(windows) == 1
    first, second = cut(windows, 600)
    assert (first.windows, first.complete) == (tuple(windows), ())
    assert (second.windows, second.complete) == (tuple(windows), tuple(windows))
    assert first.end < 3 * SECOND
    assert len(cut(packed(seconds((0, 2), (1.99 + pause, 4 + pause))), 600)) == 1


def test_speech_without_an_end_is_cut_in_equal_parts() -> None:
    chunks = cut(packed(seconds((0, 25)), pad=0), 10)
    assert [rounded(chunk) for chunk in chunks] == [(0, 8.33), (8.33, 16.67), (16.67, 25)]
    assert [len(chunk.complete) for chunk in chunks] == [0, 0, 1]


def test_channels_are_cut_by_themselves() -> None:
    packer = ChannelPacker([0, 1], window=30 * SECOND, pad=0)
    spans = seconds((0, 2), (3, 5)), seconds((1, 4))
    windows = packer.feed(spans) + packer.finish(10 * SECOND)
    chunks = cut(windows, 600)
    assert [(chunk.channel, rounded(chunk)) for chunk in chunks] == [(0, (0, 5)), (1, (1, 4))]


@st.composite
def recordings(draw: st.DrawFn) -> list[Span]:
    at = 0
    spans = []
    for pause, length in draw(
        st.lists(st.tuples(st.integers(1, 50 * SECOND), st.integers(1, 28 * SECOND)), max_size=30)
    ):
        spans.append(Span(at + pause, at + pause + length))
        at += pause + length
    return spans


@given(recordings(), st.integers(SECOND // 10, 100 * SECOND))
def test_all_speech_is_sent_once_and_no_chunk_is_too_long(spans: list[Span], limit: int) -> None:
    windows = packed(spans)
    chunks = cut(windows, limit / SECOND)
    assert all(chunk.end - chunk.start <= limit for chunk in chunks)
    assert all(first.end <= second.start for first, second in pairwise(chunks))
    sent = [span for chunk in chunks for span in chunk.speech]
    assert sum(span.length for span in sent) == sum(span.length for span in spans)
    assert all(any(span.start >= each.start and span.end <= each.end for each in spans) for span in sent)
    for chunk in chunks:
        assert chunk.start <= chunk.speech[0].start
        assert chunk.end >= chunk.speech[-1].end
        assert set(chunk.complete) <= set(chunk.windows)
    assert [window for chunk in chunks for window in chunk.complete] == windows
    last = {window.index: chunk for chunk in chunks for window in chunk.windows}
    assert all(window in last[window.index].complete for window in windows)


@given(recordings(), st.integers(SECOND, 40 * SECOND), st.randoms())
def test_windows_are_through_with_their_last_chunk_in_any_order(spans: list[Span], limit: int, random: object) -> None:
    windows = packed(spans)
    chunks = cut(windows, limit / SECOND)
    ledger = Ledger()
    for chunk in chunks:
        ledger.add(chunk)
    random.shuffle(chunks)  # type: ignore[attr-defined]  # hypothesis has no name for it
    through = []
    heard: set[int] = set()
    for chunk in chunks:
        heard.add(id(chunk))
        for window, text in ledger.heard(chunk, [segment(span) for span in chunk.speech]):
            through.append(window)
            assert all(id(each) in heard for each in chunks if window in each.windows)
            inside = [
                span for each in chunks for span in each.speech if any(_holds(own, span) for own in window.speech)
            ]
            assert text == " ".join(str(span.start) for span in sorted(inside, key=lambda span: span.start))
    assert sorted(through, key=lambda window: window.index) == windows


def test_a_window_is_not_through_before_the_chunk_that_is_still_to_come() -> None:
    (window,) = packed(seconds((0, 2), (40, 42)))
    first, second = cut([window], 600)
    ledger = Ledger()
    ledger.add(first)
    assert ledger.heard(first, [segment(first.speech[0])]) == []
    ledger.add(second)
    assert ledger.heard(second, [segment(second.speech[0])]) == [(window, f"0 {40 * SECOND}")]


def _holds(outer: Span, inner: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def segment(span: Span) -> Segment:
    return Segment(span.start / SECOND, span.end / SECOND, f" {span.start}", -0.1, 0, 1, 0)


def test_text_beside_all_windows_goes_to_the_nearest() -> None:
    windows = packed(seconds((1, 2), (40, 41)), window=1.6)
    assert len(windows) == 2
    (chunk,) = [Chunk(None, 0, 50 * SECOND, (), tuple(windows), tuple(windows))]
    ledger = Ledger()
    ledger.add(chunk)
    said = [segment(Span(0, 10)), segment(Span(45 * SECOND, 46 * SECOND))]
    assert [text for _window, text in ledger.heard(chunk, said)] == ["0", str(45 * SECOND)]
