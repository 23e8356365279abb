"""The command line: what a run is without arguments, and which faults there are."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.chaos import __main__ as main
from tests.chaos import programme
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.programme import Ran, all_faults
from tests.services.state import Services


async def nothing(*_: object) -> Result:
    return Result(cycles=0)


@pytest.mark.parametrize(("words", "long"), [([], False), (["--short"], False), (["--long"], True)])
def test_the_short_form_is_the_default(words: list[str], long: bool) -> None:
    chosen = main._parser(["kill"]).parse_args(words)
    assert (chosen.long, chosen.cycles, chosen.only) == (long, None, None)


def test_every_fault_has_a_name_of_its_own_and_says_how_long_it_takes() -> None:
    faults = all_faults()
    assert {"kill", "parent-killed", "sigterm", "sigterm-twice", "failpoints-raise", "failpoints-hang"} <= {
        each.name for each in faults
    }
    assert all(0 < each.seconds[0] <= each.seconds[1] for each in faults)
    assert all(each.summary for each in faults)


def test_a_limit_leaves_room() -> None:
    fault = Fault("kill", nothing, "kills", seconds=(10, 100))
    assert (fault.limit_seconds(Size()), fault.limit_seconds(Size(long=True))) == (90, 360)


def test_the_logs_of_what_failed_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = tmp_path / "run", tmp_path / "results"
    monkeypatch.setattr(main, "RESULTS", results)
    for name in ("bad", "good"):
        (folder / name / "inner").mkdir(parents=True)
        (folder / name / "inner" / "daemon-0.log").write_text(name)
        (folder / name / "config-0.toml").write_text("password")
    ran = [
        Ran(Fault("bad", nothing, ""), 1.0, Result(cycles=1, lost=1)),
        Ran(Fault("good", nothing, ""), 1.0, Result(cycles=1)),
    ]
    kept = main._keep(folder, ran)
    assert [str(each.relative_to(kept)) for each in kept.rglob("*") if each.is_file()] == ["bad/inner/daemon-0.log"]


@pytest.mark.parametrize(
    ("result", "late"),
    [
        (Result(1), False),
        (Result(1, problems=within([9.0, 11.0], 10, "back")), True),
        (Result(1, lost=1, problems=within([11.0], 10, "back")), False),
        (Result(1, problems=[*within([11.0], 10, "back"), "not done after 60 s"]), False),
    ],
)
def test_only_missed_deadlines_are_late(result: Result, late: bool) -> None:
    assert result.late is late


async def test_what_was_late_runs_again_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[str] = []

    async def run_one(fault: Fault, _size: Size, _services: object, folder: Path, _say: object) -> Ran:
        begun.append(f"{folder.name}/{fault.name}")
        first = folder == tmp_path
        problems = within([11.0], 10, "back") if fault.name == "slow" and first else []
        wrong = Result(1, lost=int(fault.name == "bad"), failpoints={"one" if first else "two"}, problems=problems)
        return Ran(fault, 1.0, wrong)

    monkeypatch.setattr(programme, "run_one", run_one)
    faults = [Fault(name, nothing, "") for name in ("good", "slow", "bad")]
    ran = await programme.run_all(faults, Size(), cast("Services", None), tmp_path, lambda _line: None, lanes=1)
    assert begun[3:] == ["again/slow"]
    assert [each.fault.name for each in ran] == ["good", "slow", "bad"]
    assert [each.result.passed for each in ran] == [True, True, False]
    assert ran[1].result.failpoints == {"one", "two"}
