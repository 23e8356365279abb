"""Batches stay within their expected time, and a lone recording ends on all slots together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.simulation import Job, Machine, batch_seconds
from v2td.engine.estimate import CostEstimate, share_of_slot


def test_nothing_is_known_before_the_first_batch() -> None:
    estimate = CostEstimate()
    assert estimate.seconds is None
    assert estimate.limit(8, 15) == 1.0
    assert estimate.left(8, 100) == 8


def test_the_estimate_is_a_moving_average() -> None:
    estimate = CostEstimate()
    estimate.observe(2.0, 6.0)
    assert estimate.seconds == 3.0
    estimate.observe(4.0, 8.0)
    assert estimate.seconds == pytest.approx(2.8)  # a fifth of the way from 3 to 2


def test_a_batch_is_bounded_by_windows_and_by_time_and_never_empty() -> None:
    estimate = CostEstimate()
    estimate.observe(1.0, 3.0)
    assert estimate.limit(8, 15) == 5.0
    assert estimate.limit(4, 15) == 4.0
    assert estimate.limit(8, 1) == 1.0


def test_what_is_left_of_a_batch_falls_with_time() -> None:
    estimate = CostEstimate()
    estimate.observe(1.0, 2.0)
    assert [estimate.left(4.0, seconds) for seconds in (0.0, 2.0, 8.0, 99.0)] == [4.0, 3.0, 0.0, 0.0]


@given(st.floats(1, 16), st.floats(2.5, 60))
def test_batches_grow_to_what_the_time_allows(batch_windows: float, seconds_max: float) -> None:
    """Learned from batches of the size that it allows, the limit ends within the time, and near it."""
    estimate = CostEstimate()
    estimate.observe(1.0, batch_seconds(1.0))
    for _ in range(60):
        limit = float(int(estimate.limit(batch_windows, seconds_max)))
        assert batch_seconds(limit) <= seconds_max
        estimate.observe(limit, batch_seconds(limit))
    assert limit == int(batch_windows) or batch_seconds(limit + 2) > seconds_max


@pytest.mark.parametrize(
    ("waiting", "slots", "under_way", "limit", "share"),
    [
        (12, 2, 0, 8, 6),  # the first of two idle slots
        (6, 2, 6, 8, 6),  # the second
        (100, 2, 8, 8, 8),  # much waits: full batches
        (1, 4, 0, 8, 1),
        (4, 4, 0, 8, 1),  # each slot one
        (4, 4, 18, 8, 6),  # the others are busy for long: all that waits
        (0.4, 2, 0, 8, 1),  # clips that fit into one window stay together
        (5, 1, 0, 8, 5),
    ],
)
def test_a_slot_takes_its_part(waiting: float, slots: int, under_way: float, limit: float, share: float) -> None:
    assert share_of_slot(waiting, slots, under_way, limit) == share


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
@pytest.mark.parametrize("rounds", [0.5, 1, 2, 3.5, 6])
def test_no_slot_is_idle_at_the_end_of_a_lone_recording(slots: int, rounds: float) -> None:
    windows = int(8 * rounds * slots)
    served = Machine(slots).run([Job("R", 0.0, windows, decode_seconds=0.0)])
    ends = [max(window.ended for window in served if window.slot == slot) for slot in range(slots)]
    assert max(ends) - min(ends) <= batch_seconds(3)
    assert max(ends) <= windows / slots * batch_seconds(4) / 4 + batch_seconds(1)


def test_twelve_windows_on_two_slots_are_six_and_six() -> None:
    served = Machine(2).run([Job("R", 0.0, 12, decode_seconds=0.0)])
    assert [sum(window.slot == slot for window in served) for slot in (0, 1)] == [6, 6]
    assert len({window.batch for window in served}) == 2
