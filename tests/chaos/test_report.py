"""The table, the JSON and whether a run passes: any loss, duplicate, orphan or missed deadline fails it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.chaos import report
from tests.chaos.fault import Fault, Result, Size, percentile, within
from tests.chaos.programme import Ran
from tests.chaos.world import World
from v2td import failpoints


async def nothing(_world: World, _size: Size) -> Result:
    return Result(cycles=0)


def ran(name: str = "kill", **values: Any) -> Ran:
    return Ran(Fault(name, nothing, "a fault"), 3.0, Result(**({"cycles": 4} | values)))


def test_a_run_without_problems_passes() -> None:
    assert report.passed([ran(), ran("other")], whole=False)


@pytest.mark.parametrize("wrong", [{"lost": 1}, {"duplicates": 1}, {"orphans": 1}, {"problems": ["too late"]}])
def test_one_fault_that_failed_fails_the_run(wrong: dict[str, Any]) -> None:
    assert not report.passed([ran(), ran("other", **wrong)], whole=False)


def test_a_whole_run_has_to_visit_each_failpoint() -> None:
    places = list(failpoints.PLACES)
    most = ran(failpoints=set(places[1:]))
    assert report.not_visited([most]) == places[:1]
    assert report.passed([most], whole=False)
    assert not report.passed([most], whole=True)
    assert report.passed([most, ran("other", failpoints=set(places[:1]))], whole=True)


def test_the_json_has_what_the_issue_asks_for(tmp_path: Path) -> None:
    values = ran(recoveries=[1.0, 2.0, 9.0], redone_ratio=0.125, failpoints={"write.begin"})
    path = report.write(tmp_path / "results", report.as_json([values], Size(), 12.34, whole=False))
    found = json.loads(path.read_text())
    kill = found["faults"]["kill"]
    assert {key: kill[key] for key in ("cycles", "lost", "duplicates", "orphans", "redone_ratio")} == {
        "cycles": 4,
        "lost": 0,
        "duplicates": 0,
        "orphans": 0,
        "redone_ratio": 0.125,
    }
    assert (kill["recovery_p50_seconds"], kill["recovery_p95_seconds"]) == (2.0, 9.0)
    assert found["failpoints"]["write.begin"]
    assert not found["failpoints"]["write.copied"]
    assert found["passed"]


def test_the_table_shows_what_failed() -> None:
    out = io.StringIO()
    report.show([ran(lost=3, problems=["[3] are gone"]), ran("other")], Console(file=out, width=200), whole=True)
    lines = out.getvalue().splitlines()
    assert next(line for line in lines if line.startswith("kill ")).endswith("FAILED")
    assert next(line for line in lines if line.startswith("other ")).endswith("passed")
    assert "kill: [3] are gone" in lines
    assert "failpoints that went off: 0 of" in out.getvalue()


def test_percentiles() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(number) for number in range(1, 101)], 0.95) == 95.0
    assert percentile([2.0, 1.0], 0.5) == 1.0


def test_who_is_too_late_is_a_problem() -> None:
    assert within([1.0, 4.9], 5, "x") == []
    assert len(within([1.0, 5.1, 6.0], 5, "x")) == 2
