"""A contest with the model as small as it is: every contestant really works, and its text is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.context import Context
from bench.programme import Contest, Programme, Workload
from bench.throughput import hold_all
from bench.throughput_report import findings
from bench.trials import Trial, Trials
from bench.words import WordErrors
from tests.services.state import Services

EVERYBODY = ("engine", "raw", "original", "optimized", "batched", "whisper_cpp", "v2td_full", "v2td_packed")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_contestant_hears_what_was_said(services: Services, tmp_path: Path) -> None:
    said: list[str] = []
    short = Contest(Workload("short", (("3s", 4),)), 1, EVERYBODY)
    found = await hold_all(Context(services, "quick", tmp_path, said.append), [Programme("micro", (short,))])
    assert found.problems == ()
    for name in EVERYBODY:
        assert found.values[f"throughput_short_{name}"] > 0
        assert found.values[f"wer_short_{name}"] <= 0.05, name
    ours, theirs = found.values["throughput_short_v2td_packed"], found.values["throughput_short_optimized"]
    assert found.values["ratio_optimized_short"] == pytest.approx(ours / theirs)
    assert len(found.tables[0].rows) == len(EVERYBODY)
    assert found.tables[0].title.startswith("short, model micro: 4 recordings")
    assert any("plan with the model micro" in line for line in said)


@pytest.mark.slow
async def test_a_contestant_that_does_not_start_is_a_problem_and_the_others_go_on(
    services: Services, tmp_path: Path
) -> None:
    contest = Contest(Workload("short", (("3s", 2),)), 1, ("optimized", "v2td_nonsense"))
    found = await hold_all(Context(services, "quick", tmp_path, print), [Programme("micro", (contest,))])
    (problem,) = found.problems
    assert "v2td_nonsense failed (start)" in problem
    assert "window_mode" in problem
    assert found.values["wer_short_optimized"] <= 0.05


def trial(contestant: str, errors: int) -> Trial:
    return Trial("long", contestant, 60.0, 1.0, 2.0, 1000, WordErrors(errors, 100), (1.0,))


def test_a_fast_wrong_answer_of_ours_is_a_problem_and_of_others_a_note() -> None:
    trials = Trials([trial("optimized", 2), trial("v2td_full", 5), trial("raw", 4), trial("batched", 30)])
    found = findings([(Programme("micro", ()), trials, ["engine failed"])])
    assert found.problems == (
        "engine failed",
        "micro long: the word error rate of v2td_full is 5.00% against 2.00%",
    )
    assert found.notes == ("micro long: the word error rate of batched is 30.00% against 2.00%",)


def test_ratios_are_against_the_better_of_the_two_numbers_of_threads() -> None:
    slow, fast = (
        Trial("long", name, 60.0, seconds, 2.0, 1000, WordErrors(0, 100), (1.0,))
        for name, seconds in (("optimized", 30.0), ("optimized_double", 20.0))
    )
    found = findings([(Programme("tiny", (), suffix="_tiny"), Trials([slow, fast, trial("v2td_full", 0)]), [])])
    assert found.values["ratio_optimized_long_tiny"] == 20.0
    assert "ratio_raw_long_tiny" not in found.values
