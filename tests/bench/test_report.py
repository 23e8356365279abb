"""From findings to files: keys, problems, tables, plots; and the list of keys in the README."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.context import Bars, Distribution, Findings, Lines, Series, Table
from bench.measures import MEASURES, Measure

README = Path(report.__file__).with_name("README.md")
MACHINE: dict[str, Any] = {
    "cpu": "a processor",
    "cpu_flags": ["avx2"],
    "cpus": 2,
    "memory_gib": 8.0,
    "v2td": "1.2.3",
    "date": "today",
    "load_average_before": 0.1,
}
GOOD = report.Ran(
    Measure("speed", "bench.speed", ("ratio_speed",)),
    12.3,
    Findings(
        {"ratio_speed": 1.123456789, "more": 2.0},
        (Table("Speeds", ("who", "how fast"), (("a|b", 1.23456), ("c", None)), "a note"),),
        (
            Bars("bars", "Bars", "x", (("a", 1.0), ("b", 2.0))),
            Lines("lines", "Lines", "x", "y", (Series("s", (1.0, 2.0), (3.0, 4.0)),)),
            Distribution("distribution", "Distribution", "s", (("a", (1.0, 3.0, 2.0)), ("none", ()))),
        ),
        ("something else",),
    ),
)
FAILED = report.Ran(Measure("other", "bench.other", ("other_key",)), 1.0, failure="OSError: gone")


def test_values_are_rounded_and_the_keys_of_a_failed_measure_are_null() -> None:
    found = report.latest("quick", MACHINE, [GOOD, FAILED])
    assert found["quick"] is True
    assert found["ratio_speed"] == 1.12346
    assert found["more"] == 2.0
    assert found["other_key"] is None
    assert found["problems"] == ["other: OSError: gone"]
    assert found["seconds"] == {"speed": 12.3, "other": 1.0}
    assert report.latest("full", MACHINE, [GOOD])["quick"] is False


def test_a_key_that_a_measure_owes_and_does_not_give_is_a_problem() -> None:
    ran = report.Ran(Measure("speed", "bench.speed", ("ratio_speed",)), 1.0, Findings({"more": 1.0}))
    assert ran.problems == ("the key ratio_speed is missing",)


def test_problems_of_findings_are_told() -> None:
    ran = report.Ran(Measure("speed", "bench.speed"), 1.0, Findings(problems=("wrong",)))
    assert "* **speed**: wrong" in report.markdown("default", MACHINE, [ran])


def test_the_report_has_the_tables_the_plots_and_the_notes() -> None:
    text = report.markdown("default", MACHINE, [GOOD])
    assert "No problems." in text
    assert "| a\\|b | 1.235 |" in text
    assert "| c | – |" in text
    assert "a note" in text
    assert "![Lines](lines.png)" in text
    assert "something else" in text


def test_the_report_of_a_busy_machine_says_so() -> None:
    assert "do not trust" not in report.markdown("default", MACHINE, [GOOD])
    assert "do not trust" in report.markdown("default", MACHINE | {"load_average_before": 1.1}, [GOOD])


def test_it_writes_all_files_and_removes_plots_of_earlier_runs(tmp_path: Path) -> None:
    (tmp_path / "stale.png").touch()
    report.write(tmp_path, "quick", MACHINE, [GOOD, FAILED])
    assert json.loads((tmp_path / "latest.json").read_text())["ratio_speed"] == 1.12346
    assert {path.name for path in tmp_path.iterdir()} == {
        *("latest.json", "report.md"),
        *("bars.png", "lines.png", "distribution.png"),
    }
    assert all(path.stat().st_size > 1000 for path in tmp_path.glob("*.png"))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_the_readme_documents_every_key(measure: Measure) -> None:
    documented = re.findall(r"^\| `([^`]+)` \|", README.read_text(), re.MULTILINE)
    patterns = [re.sub(r"<\w+>", r"\\w+", key) for key in documented]
    for key in measure.keys:
        assert any(re.fullmatch(pattern, key) for pattern in patterns), key


def test_measures_have_names_and_keys_of_their_own() -> None:
    keys = [key for measure in MEASURES for key in measure.keys]
    assert len(set(keys)) == len(keys)
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
