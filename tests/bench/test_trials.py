"""Medians and ratios of runs."""

from __future__ import annotations

import pytest

from bench.trials import Trial, Trials
from bench.words import WordErrors


def trial(contestant: str, seconds: float, errors: int = 0, workload: str = "long") -> Trial:
    return Trial(workload, contestant, 60.0, seconds, 2 * seconds, 1000, WordErrors(errors, 100), (seconds,))


def test_a_ratio_is_one_of_medians() -> None:
    trials = Trials([trial("a", seconds) for seconds in (10, 12, 30)] + [trial("b", seconds) for seconds in (24, 20)])
    assert trials.throughput("long", "a") == 5.0
    assert trials.throughput("long", "b") == pytest.approx((60 / 24 + 60 / 20) / 2)
    assert trials.ratio("long", "a", "b") == pytest.approx(5 / 2.75)


def test_who_did_not_take_part_has_no_ratio() -> None:
    trials = Trials([trial("a", 10)])
    assert trials.ratio("long", "a", "b") is None
    assert trials.ratio("short", "a", "a") is None
    assert trials.fastest("long", ("b", "c")) is None


def test_the_fastest_is_who_has_the_highest_median() -> None:
    trials = Trials([trial("two", 10), trial("two", 11), trial("four", 1), trial("four", 20), trial("four", 20)])
    assert trials.fastest("long", ("two", "four")) == "two"


def test_word_errors_are_those_of_all_rounds() -> None:
    trials = Trials([trial("a", 10, errors=1), trial("a", 10, errors=4), trial("b", 10, errors=50)])
    assert trials.word_errors("long", "a") == WordErrors(5, 200)


def test_workloads_and_contestants_keep_their_order() -> None:
    trials = Trials([trial("b", 1), trial("a", 1), trial("c", 1, workload="5s"), trial("b", 1)])
    assert trials.workloads() == ["long", "5s"]
    assert trials.contestants("long") == ["b", "a"]
