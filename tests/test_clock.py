import itertools
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from v2td.clock import WindowClock, covered_by_channel, covered_seconds, fit, to_recording
from v2td.jobs import SAMPLE_RATE, Segment, Span, Window, Word

SAMPLE = 1 / SAMPLE_RATE


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Pieces with gaps, each with speech inside it."""
    position = 0
    pieces, speech = [], []
    for gap, left, length, right in draw(
        st.lists(
            st.tuples(st.integers(0, 50_000), st.integers(0, 4_800), st.integers(1, 100_000), st.integers(0, 4_800)),
            min_size=1,
            max_size=6,
        )
    ):
        start = position + gap
        speech.append(Span(start + left, start + left + length))
        position = start + left + length + right
        pieces.append(Span(start, position))
    return Window(0, tuple(pieces), tuple(speech))


def seconds(draw: st.DrawFn, window: Window) -> float:
    # The engine may also say a little more than the window is long.
    return draw(st.floats(0, window.length / SAMPLE_RATE + 1, allow_nan=False))


@st.composite
def windows_with_two_times(draw: st.DrawFn) -> tuple[Window, float, float]:
    window = draw(windows())
    start, end = sorted((seconds(draw, window), seconds(draw, window)))
    return window, start, end


def segment(start: float, end: float, text: str = "text", words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(start, end, text, -0.1, 0.0, 1.0, 0.0, words)


@given(windows_with_two_times())
def test_the_maps_are_monotone_and_stay_in_the_window(heard: tuple[Window, float, float]) -> None:
    window, start, end = heard
    clock = WindowClock(window)
    for to_time in (clock.start, clock.end):
        assert to_time(start) <= to_time(end)
        assert window.pieces[0].start <= round(to_time(start) * SAMPLE_RATE) <= window.pieces[-1].end
        sample = round(to_time(end) * SAMPLE_RATE)
        assert any(piece.start <= sample <= piece.end for piece in window.pieces), "a time between the pieces"


@given(windows(), st.data())
def test_a_sample_of_the_recording_is_found_again(window: Window, data: st.DataObject) -> None:
    piece = data.draw(st.sampled_from(window.pieces))
    sample = data.draw(st.integers(piece.start, piece.end - 1))
    heard_at = sum(each.length for each in window.pieces if each.end <= piece.start) + sample - piece.start
    clock = WindowClock(window)
    assert clock.start(heard_at * SAMPLE) == pytest.approx(sample * SAMPLE, abs=SAMPLE / 2)
    if sample > piece.start:
        assert clock.end(heard_at * SAMPLE) == pytest.approx(sample * SAMPLE, abs=SAMPLE / 2)


@given(windows())
def test_a_border_between_pieces_is_the_end_of_one_and_the_start_of_the_next(window: Window) -> None:
    assume(len(window.pieces) > 1)
    first, second = window.pieces[:2]
    clock = WindowClock(window)
    border = first.length * SAMPLE
    assert clock.end(border) == first.end / SAMPLE_RATE
    assert clock.start(border) == second.start / SAMPLE_RATE


@given(windows_with_two_times())
def test_fit_never_leaves_the_segment_and_never_turns_it_around(heard: tuple[Window, float, float]) -> None:
    window, start, end = heard
    fitted_start, fitted_end = fit(start, end, window.speech)
    assert start <= fitted_start <= fitted_end <= max(start, end)


@given(windows_with_two_times())
def test_fit_loses_no_speech(heard: tuple[Window, float, float]) -> None:
    window, start, end = heard
    fitted = fit(start, end, window.speech)
    before = covered_seconds((segment(start, end),), window.speech)
    assert covered_seconds((segment(*fitted),), window.speech) == pytest.approx(before, abs=1e-6)


@given(windows_with_two_times())
def test_a_segment_in_the_recording_lies_in_the_window(heard: tuple[Window, float, float]) -> None:
    window, start, end = heard
    moved = to_recording(segment(start, end), window)
    assert window.pieces[0].start / SAMPLE_RATE <= moved.start <= moved.end <= window.pieces[-1].end / SAMPLE_RATE


@given(windows_with_two_times(), st.data())
def test_words_lie_inside_their_segment(heard: tuple[Window, float, float], data: st.DataObject) -> None:
    window, start, end = heard
    times = st.floats(start, end)
    borders = data.draw(st.lists(times, max_size=8).map(sorted))
    words = tuple(Word(first, last, "word", 1.0) for first, last in itertools.pairwise(borders))
    moved = to_recording(segment(start, end, words=words), window)
    assert moved.words is not None
    assert len(moved.words) == len(words)
    for word in moved.words:
        assert moved.start <= word.start <= word.end <= moved.end
    starts = [word.start for word in moved.words]
    assert starts == sorted(starts)


@given(windows(), st.lists(st.tuples(st.floats(0, 60), st.floats(0, 60)), max_size=12))
def test_covered_never_exceeds_speech(window: Window, times: list[tuple[float, float]]) -> None:
    segments = tuple(segment(min(pair), max(pair)) for pair in times)
    covered = covered_seconds(segments, window.speech)
    assert 0 <= covered <= window.speech_length / SAMPLE_RATE + 1e-6
    assert covered_seconds((segment(0, 1e6), *segments), window.speech) == pytest.approx(
        window.speech_length / SAMPLE_RATE
    )


@given(windows(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=12))
def test_covered_is_what_counting_samples_gives(window: Window, times: list[tuple[int, int]]) -> None:
    step = SAMPLE_RATE // 10  # counted in tenths of a second
    speech = tuple(Span(span.start // step * step, span.end // step * step) for span in window.speech)
    segments = tuple(segment(min(pair) / 10, max(pair) / 10) for pair in times)
    heard = {tenth for pair in times for tenth in range(min(pair), max(pair))}
    spoken = {tenth for span in speech for tenth in range(span.start // step, span.end // step)}
    assert covered_seconds(segments, speech) == pytest.approx(len(heard & spoken) / 10)


def test_a_segment_without_text_covers_nothing() -> None:
    assert covered_seconds((segment(0, 10, " \n"),), (Span(0, SAMPLE_RATE),)) == 0


def test_covered_takes_no_time_for_six_hours_of_speech() -> None:
    speech = tuple(Span(start * SAMPLE_RATE, (start + 1) * SAMPLE_RATE) for start in range(0, 21_600, 2))
    segments = tuple(segment(start, start + 1.5) for start in range(0, 21_600, 2))
    began = time.perf_counter()
    assert covered_seconds(segments, speech) == pytest.approx(10_800)
    assert time.perf_counter() - began < 0.5, "it runs on the event loop"


def test_a_lone_sentence_begins_where_its_speech_begins() -> None:
    """Whisper says 0.00; the VAD knows better."""
    window = Window(0, (Span(16_000, 80_000),), (Span(20_800, 75_200),))
    moved = to_recording(segment(0.0, 4.0), window)
    assert (moved.start, moved.end) == (1.3, 4.7)


def test_what_is_covered_on_one_channel_is_not_covered_on_the_other() -> None:
    """Both speak from 1 s to 3 s; text came for the first of them only, and for a second of the other elsewhere."""
    both = (Span(SAMPLE_RATE, 3 * SAMPLE_RATE),)
    windows = [Window(0, both, both, channel=0), Window(1, both, both, channel=1)]
    heard = [to_recording(segment(0, 2), windows[0])]
    assert heard[0].channel == 0
    assert covered_by_channel(heard, windows) == pytest.approx(2)
    heard.append(to_recording(segment(0.5, 1), windows[1]))
    assert covered_by_channel(heard, windows) == pytest.approx(2.5)
    mixed = [Window(0, both, both)]
    assert covered_by_channel([to_recording(segment(0, 2), mixed[0])] * 2, mixed) == pytest.approx(2)
    assert covered_by_channel([], []) == 0
