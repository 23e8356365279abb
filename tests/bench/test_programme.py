"""The plan of the contests: the keys' contestants are in it, and by its own arithmetic it ends in time."""

from __future__ import annotations

import pytest

from bench.context import SIZES, Size
from bench.measures import MEASURES
from bench.programme import (
    OPEN_SECONDS,
    PROGRAMMES,
    REFERENCE,
    Contest,
    Workload,
    expected_contest_seconds,
    expected_seconds,
)
from bench.throughput_report import RATIOS

# The other measures, the services and the report need the rest of 3, 10 and 150 minutes.
LONGEST_SECONDS = {"quick": 110, "default": 400, "full": 7200}


@pytest.mark.parametrize("size", SIZES)
def test_it_takes_as_long_as_it_may(size: Size) -> None:
    programmes = PROGRAMMES[size]
    seconds = sum(
        OPEN_SECONDS + sum(expected_contest_seconds(contest, programme.model, 2) for contest in programme.contests)
        for programme in programmes
    )
    assert seconds < LONGEST_SECONDS[size]


@pytest.mark.parametrize("cpus", [4, 64])
def test_a_larger_machine_gets_more_recordings_and_no_longer_run(cpus: int) -> None:
    for contest in PROGRAMMES["default"][0].contests:
        slow = {"original"}  # it does not scale, and pays for each recording
        others = Contest(contest.workload, contest.rounds, tuple(set(contest.contestants) - slow))
        two = expected_contest_seconds(others, "base", 2)
        assert expected_contest_seconds(others, "base", cpus) == pytest.approx(two, rel=0.3)


@pytest.mark.parametrize("size", SIZES)
def test_every_ratio_and_every_promised_word_error_rate_has_its_contestants(size: Size) -> None:
    programme = PROGRAMMES[size][0]
    present = {
        (contest.workload.name, name) for contest in programme.contests for name in contest.contestants + contest.once
    }
    wanted = {(workload, name) for workload, ours, theirs in RATIOS.values() for name in (ours, theirs)}
    assert wanted <= present
    (throughput,) = (measure for measure in MEASURES if measure.name == "throughput")
    promised = {key for key in throughput.keys if key.startswith("wer_")}
    assert promised <= {f"wer_{workload}_{name}" for workload, name in present}


@pytest.mark.parametrize("size", SIZES)
def test_every_workload_has_the_reference_for_its_words(size: Size) -> None:
    for programme in PROGRAMMES[size]:
        for contest in programme.contests:
            assert REFERENCE in contest.contestants


def test_each_round_begins_with_another_contestant_and_guests_come_once() -> None:
    contest = Contest(Workload("w", (("3s", 2),)), 3, ("a", "b", "c"), ("guest",))
    assert [contest.line_up(number) for number in range(3)] == [
        ("a", "b", "c", "guest"),
        ("b", "c", "a"),
        ("c", "a", "b"),
    ]


def test_messages_that_share_windows_cost_less_than_those_that_do_not() -> None:
    messages = [3.0] * 24
    packed, full = (expected_seconds(name, messages, "base", 2) for name in ("v2td_packed", "v2td_full"))
    assert packed < full / 3
    assert expected_seconds("optimized", messages, "base", 2) > full
