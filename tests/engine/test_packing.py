"""Clips in shared windows: none lost, none over another; and whose text is whose."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.engine.batch import FULL_SECONDS
from v2td.engine.packing import (
    LONGEST_CLIP_SECONDS,
    STRAY_SECONDS,
    Place,
    most_tokens,
    own_text,
    pack,
    padded,
    positions,
    weight,
)

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


def test_the_decoder_hears_a_clip_and_the_silence_around_it() -> None:
    assert positions(Place(0, 10.0, 13.0), 0.6) == range(470, 665)
    assert positions(Place(0, 10.0, 13.0), 0.25) == range(488, 662), "no more silence than there is"
    assert positions(Place(0, 0.0, 3.0), 0.6) == range(165)
    assert positions(Place(0, 26.0, 30.0), 0.6) == range(1270, 1500)


@given(lengths_of_clips, gaps, st.integers(0, 300))
def test_nobody_hears_a_neighbour(lengths: list[float], gap: float, more: int) -> None:
    for window in pack(lengths, gap):
        for place in window:
            own = positions(place, gap)
            heard = padded(own, len(own) + more)
            assert len(heard) == len(own) + more
            assert set(heard) == set(own)
        for before, after in itertools.pairwise(window):
            assert positions(before, gap)[-1] / 50 < after.start + ROUNDING
            assert positions(after, gap)[0] / 50 >= before.end - ROUNDING


def said(*times: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"start": start, "end": end} for start, end in times]


def test_text_gets_the_times_of_its_own_clip() -> None:
    assert own_text(said((4.8, 6.0), (6.0, 8.5)), PLACES[1]) == [
        {"start": pytest.approx(0.2), "end": pytest.approx(1.4)},
        {"start": pytest.approx(1.4), "end": pytest.approx(3.9)},
    ]


def test_what_is_heard_in_the_padding_is_left_out() -> None:
    place = PLACES[1]
    assert own_text(said((place.end - STRAY_SECONDS + 0.01, 10.0), (9.3, 13.0)), place) == []
    assert len(own_text(said((place.end - STRAY_SECONDS - 0.01, 10.0)), place)) == 1
    assert len(own_text(said((0.1, 29.0)), place)) == 1, "times are wrong sometimes, the text is its own"


def test_who_says_more_than_people_can_goes_round_in_circles() -> None:
    assert most_tokens(3.0) == 140
