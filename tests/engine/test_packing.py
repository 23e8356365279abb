"""Clips in shared windows: none lost, none over another; and whose text is whose."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.engine.batch import FULL_SECONDS
from v2td.engine.packing import LONGEST_CLIP_SECONDS, STRAY_SECONDS, Place, divide, pack, weight

ROUNDING = 1e-9
lengths_of_clips = st.lists(st.floats(0.1, FULL_SECONDS), max_size=30)
gaps = st.floats(0.2, 5)

# Three clips of 4 s with the usual gap.
PLACES = [Place(7, 0.0, 4.0), Place(3, 4.6, 8.6), Place(5, 9.2, 13.2)]


@given(lengths_of_clips, gaps)
def test_every_clip_has_one_place_of_its_length_in_a_window(lengths: list[float], gap: float) -> None:
    windows = pack(lengths, gap)
    places = [place for window in windows for place in window]
    assert sorted(place.clip for place in places) == list(range(len(lengths)))
    for place in places:
        assert place.end - place.start == pytest.approx(lengths[place.clip])
        assert place.start >= 0
        assert place.end <= FULL_SECONDS
    for window in windows:
        for before, after in itertools.pairwise(window):
            assert after.start - before.end >= gap - ROUNDING


@given(lengths_of_clips, gaps)
def test_windows_are_few(lengths: list[float], gap: float) -> None:
    """Any two windows of first fit hold more than one window's worth, so at most one is less than half full."""
    filled = [sum(place.end - place.start + gap for place in window) for window in pack(lengths, gap)]
    assert all(one + other > FULL_SECONDS for one, other in itertools.combinations(filled, 2))
    assert len(filled) <= 11 / 9 * sum(math.ceil((each + gap) / FULL_SECONDS) for each in lengths) + 1


def test_short_messages_fill_windows() -> None:
    assert [len(window) for window in pack([3.0] * 24, 0.6)] == [8, 8, 8]
    assert [len(window) for window in pack([LONGEST_CLIP_SECONDS] * 4, 0.6)] == [2, 2]
    assert pack([], 0.6) == []
    assert pack([FULL_SECONDS], 0.6) == [[Place(0, 0.0, FULL_SECONDS)]]


@given(lengths_of_clips, gaps)
def test_clips_of_weight_one_fit_into_a_window(lengths: list[float], gap: float) -> None:
    """Or else a batch of weight 1 would cost two: no clip weighs less than the room it takes."""
    assert all(0 < weight(length, gap) <= 1 for length in lengths)
    if sum(weight(length, gap) for length in lengths) <= 1 and all(each + gap <= FULL_SECONDS for each in lengths):
        assert len(pack(lengths, gap)) <= 1


def test_weight_is_the_part_of_a_window() -> None:
    assert weight(2.4, 0.6) == pytest.approx(0.1)
    assert weight(FULL_SECONDS, 0.6) == 1.0


def test_text_goes_to_the_clip_that_it_lies_in() -> None:
    texts = [(0.2, 2.0), (2.0, 3.8), (4.7, 8.5), (9.3, 13.0)]
    assert divide(texts, PLACES) == ({7: [0, 1], 3: [2], 5: [3]}, set())


def test_text_a_little_over_the_border_is_no_doubt_and_well_over_it_makes_both_doubtful() -> None:
    little = (1.0, PLACES[1].start + STRAY_SECONDS - 0.01)
    assert divide([little], PLACES) == ({7: [0], 3: [], 5: []}, set())
    well = (1.0, PLACES[1].start + STRAY_SECONDS + 0.01)
    assert divide([well], PLACES) == ({7: [0], 3: [], 5: []}, {7, 3})
    over_all = (1.0, 13.0)
    assert divide([over_all], PLACES) == ({7: [], 3: [0], 5: []}, {7, 3, 5})


def test_text_in_the_silence_goes_to_the_nearest() -> None:
    assert divide([(4.05, 4.2)], PLACES)[0][7] == [0]
    assert divide([(4.4, 4.55)], PLACES)[0][3] == [0]
    assert divide([(20.0, 30.0)], PLACES)[0][5] == [0]


@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30)).map(lambda ends: (min(ends), max(ends))), max_size=8),
    st.lists(st.floats(0.5, LONGEST_CLIP_SECONDS), min_size=1, max_size=8),
)
def test_every_text_has_one_owner_and_who_overlaps_it_knows(
    texts: list[tuple[float, float]], lengths: list[float]
) -> None:
    for places in pack(lengths, 0.6):
        owned, doubtful = divide(texts, places)
        assert owned.keys() == {place.clip for place in places}
        assert sorted(index for each in owned.values() for index in each) == list(range(len(texts)))
        for place in places:
            for index, (start, end) in enumerate(texts):
                overlap = min(end, place.end) - max(start, place.start)
                if overlap > STRAY_SECONDS and index not in owned[place.clip]:
                    assert place.clip in doubtful
        assert doubtful <= owned.keys()
