"""The gate's flags, each at its threshold, and its arithmetic against slow and obvious models of it."""

import itertools
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.bundled import recordings
from v2td.config import QualitySettings
from v2td.engine import gate
from v2td.engine.batch import Interval

QUALITY = QualitySettings()
A_FEW = 1e-6

# Intervals on a grid, so that the model of coverage can count cells.
GRID = 60
intervals = st.lists(
    st.tuples(st.integers(0, GRID), st.integers(1, GRID)).map(lambda each: (each[0], each[0] + each[1])), max_size=6
).map(sorted)


def doubts(
    *,
    avg_logprob: float = -0.2,
    compression_ratio: float = 1.1,
    tokens: Sequence[int] = (1, 2, 3),
    speech: Sequence[Interval] = ((0.0, 3.0),),
    text: Sequence[Interval] = ((0.0, 3.0),),
    quality: QualitySettings = QUALITY,
) -> tuple[str, ...]:
    """The flags of a window with nothing to doubt but what is given."""
    return gate.doubts(
        avg_logprob=avg_logprob,
        compression_ratio=compression_ratio,
        tokens=tokens,
        speech=speech,
        said=[(start, end, "some words") for start, end in text],
        quality=quality,
    )


def test_good_text_has_no_flag_and_silence_without_text_neither() -> None:
    assert doubts() == ()
    assert doubts(tokens=(), speech=(), text=()) == ()


def test_much_speech_with_little_text_beside_others() -> None:
    speech = [(0.0, 22.0)]
    usual = [(0.0, 6.0, "x" * 72), (6.0, 12.0, "x" * 78), (12.0, 18.0, "x" * 70)]
    assert gate.sparse([*usual, (18.0, 22.0, "x" * 40)], speech) == [False] * 4
    assert gate.sparse([*usual, (18.0, 22.0, "x" * 24)], speech) == [False, False, False, True]
    assert gate.sparse([*usual, (18.0, 22.0, "x" * 24)], [(0.0, 20.0)]) == [False] * 4, "half of it is silence"
    assert gate.sparse([usual[0], (18.0, 22.0, "x")], speech) == [False, False], "two say nothing of what is usual"
    assert gate.sparse([], speech) == []


def test_compression_ratio() -> None:
    assert doubts(compression_ratio=QUALITY.compression_ratio_max) == ()
    assert doubts(compression_ratio=QUALITY.compression_ratio_max + A_FEW) == (gate.COMPRESSION,)


def test_log_probability_of_text_and_of_text_alone() -> None:
    assert doubts(avg_logprob=QUALITY.doubt_logprob) == ()
    assert doubts(avg_logprob=QUALITY.doubt_logprob - A_FEW) == (gate.LOGPROB,)
    assert doubts(avg_logprob=-9, tokens=(), speech=(), text=()) == ()


def test_repetition() -> None:
    quality = QualitySettings(repeats_max=4)
    assert doubts(tokens=[7, 8, 9] * 4, quality=quality) == ()
    assert doubts(tokens=[7, 8, 9] * 5, quality=quality) == (gate.REPETITION,)


def test_coverage_of_a_stretch_of_speech() -> None:
    reached = QUALITY.uncovered_seconds
    assert doubts(speech=[(0, 3 + reached - A_FEW)]) == ()
    assert doubts(speech=[(0, 3 + reached)]) == (gate.COVERAGE,)
    # Several that are short are no reason: times of words are only so good.
    assert doubts(speech=[(0, 3), (4, 4.9), (5.1, 5.9)]) == ()


def test_speech_without_any_text_is_doubtful_however_short() -> None:
    assert doubts(tokens=(), speech=[(1.0, 1.2)], text=()) == (gate.COVERAGE,)


def test_all_reasons_are_told() -> None:
    found = doubts(avg_logprob=-2, compression_ratio=9, tokens=[5, 6] * 20, speech=[(0, 9)])
    assert set(found) == {gate.COMPRESSION, gate.LOGPROB, gate.REPETITION, gate.COVERAGE}


@given(no_speech=st.floats(0, 1), logprob=st.floats(-10, 0))
def test_silence_is_what_faster_whisper_skips(no_speech: float, logprob: float) -> None:
    # Word for word from WhisperModel.generate_segments (1.2).
    should_skip = no_speech > QUALITY.no_speech_min
    if logprob > QUALITY.logprob_min:
        should_skip = False
    assert gate.is_silence(no_speech, logprob, QUALITY) is should_skip


def test_silence_at_its_thresholds() -> None:
    assert not gate.is_silence(QUALITY.no_speech_min, -2, QUALITY)
    assert gate.is_silence(QUALITY.no_speech_min + A_FEW, QUALITY.logprob_min, QUALITY)
    assert not gate.is_silence(1.0, QUALITY.logprob_min + A_FEW, QUALITY)


@pytest.mark.parametrize("times", [3, 4])
def test_digits_and_words_said_several_times_are_no_loop(times: int) -> None:
    for phrase in ([15], [15, 11], [15, 11, 40, 2]):
        assert not gate.repeats([1, 3, *phrase * times, 4], 4), phrase


@pytest.mark.parametrize("length", [1, 2, 3, 7, gate.MAX_PHRASE])
def test_a_loop_is_found_wherever_it_stands(length: int) -> None:
    phrase = list(range(100, 100 + length))
    loop = phrase * max(5, gate.MIN_LOOP)
    assert gate.repeats(loop, 4)
    assert gate.repeats([1, 2, 3, *loop], 4)
    assert gate.repeats([*loop, 1, 2, 3], 4)
    assert not gate.repeats(phrase * 4, 4)


def test_what_is_said_in_the_bundled_recordings_is_no_loop() -> None:
    for recording in recordings():
        words = recording.text.lower().split()
        assert not gate.repeats([zlib.crc32(word.encode()) for word in words], QUALITY.repeats_max), recording.name


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 5))
def test_repeats_as_a_search_for_every_loop_says(tokens: list[int], most: int) -> None:
    def loop(start: int, length: int) -> bool:
        """Whether a phrase from here on stands more than `most` times in a row, begun ones included."""
        size = max(most * length + 1, gate.MIN_LOOP)
        stretch = tokens[start : start + size]
        return len(stretch) == size and all(token == stretch[at % length] for at, token in enumerate(stretch))

    lengths = range(1, min(gate.MAX_PHRASE, len(tokens) // 2) + 1)
    expected = any(loop(start, length) for length in lengths for start in range(len(tokens)))
    assert gate.repeats(tokens, most) is expected


@given(speech=intervals, text=intervals)
def test_uncovered_is_the_speech_that_no_text_covers(
    speech: list[tuple[int, int]], text: list[tuple[int, int]]
) -> None:
    def cells(spans: Sequence[Interval]) -> set[int]:
        return {cell for start, end in spans for cell in range(int(start), int(end))}

    for span in speech:  # each stretch by itself: stretches of a list may overlap
        parts = gate.uncovered([span], text)
        assert cells(parts) == cells([span]) - cells(text)
        assert sum(end - start for start, end in parts) == len(cells(parts))
        assert all(start < end for start, end in parts)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(parts))
    together = gate.uncovered(speech, text)
    assert together == [part for span in speech for part in gate.uncovered([span], text)]
    assert gate.longest_gap(speech, text) == max((end - start for start, end in together), default=0)


def test_texts_are_compared_with_what_is_usual() -> None:
    usual = gate.Usual(2.5)
    assert not any(usual.is_exceeded(-9.0) for _ in range(gate.FEWEST)), "too few to compare with"
    usual = gate.Usual(2.5)
    assert not any(usual.is_exceeded(-0.1 - number / 1000) for number in range(20))
    assert not usual.is_exceeded(-0.26)
    assert usual.is_exceeded(-0.28)
    assert not usual.is_exceeded(-0.1)


def test_very_sure_models_are_not_held_to_their_own_standard() -> None:
    usual = gate.Usual(2.5)
    assert not any(usual.is_exceeded(-0.001) for _ in range(20))
    assert not usual.is_exceeded(-0.04)
    assert usual.is_exceeded(-0.06)


def test_the_more_text_than_can_be_said() -> None:
    speech = [(0.0, 16.0)]
    usual = [(0.0, 4.0, "x" * 60), (4.0, 8.0, "x" * 64), (8.0, 12.0, "x" * 56)]
    assert gate.dense([*usual, (12.0, 16.0, "x" * 84)], speech) == [False] * 4
    assert gate.dense([*usual, (12.0, 16.0, "x" * 100)], speech) == [False, False, False, True]
    assert gate.dense([*usual, (12.0, 13.5, "x" * 50)], speech) == [False] * 4, "too short to tell"
