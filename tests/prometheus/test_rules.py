"""docs/prometheus by promtool: every alert fires and holds its tongue, every recorded series has the value it says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.cases import CASES, Case, series
from tests.prometheus.files import ALERTS, RULES, alerts, recorded

SEVERITIES = {"page", "ticket"}
LAG = series("v2td_kafka_lag_records", 'topic="t",partition="0"')
DONE = series("v2td_jobs_finished_total", 'outcome="transcribed"')
FAILED = series("v2td_jobs_finished_total", 'outcome="failed"')

# Each recorded series: what it is made of, and what it is half an hour later.
RECORDED = {
    "job:v2td_messages_per_minute:rate5m": ({DONE: "0+3x60", FAILED: "0+1x60"}, 4),
    "instance:v2td_files_per_hour:rate10m": ({DONE: "0+3x60"}, 180),
    "job:v2td_failed:ratio_rate10m": ({DONE: "0+3x60", FAILED: "0+1x60"}, 0.25),
    "job:v2td_audio_per_second:rate5m": ({series("v2td_audio_seconds_total"): "0+600x60"}, 10),
    "instance:v2td_lag:sum": ({LAG: "5x60", LAG.replace('"0"', '"1"'): "6x60"}, 11),
    "job:v2td_lag:sum": ({LAG: "5x60", LAG.replace('"a"', '"b"'): "6x60"}, 11),
    "instance:v2td_busy_cores:rate5m": ({series("v2td_cpu_seconds_total"): "0+120x60"}, 2),
    "job:v2td_memory:sum": ({series("v2td_rss_bytes"): "7x60"}, 7),
    "instance:v2td_has_work:bool": ({LAG: "17x60"}, 1),
    "instance:v2td_is_slow:bool": ({LAG: "17x60", DONE: "0+1x60"}, 1),
}


def check(folder: Path, tests: list[dict[str, Any]], rules: Path = RULES) -> None:
    """Have promtool try the rules; its words are shown where they are not as expected."""
    promtool(_written(folder / "tests.yml", [rules], "1m", tests))


def promtool(*files: Path) -> None:
    """Have promtool run files of tests."""
    assert shutil.which("promtool"), "promtool is not there: python -m tests.services build"
    done = subprocess.run(["promtool", "test", "rules", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def written_for(alert: str, folder: Path) -> Path:
    """Write the tests of one alert, with no more rules beside it than it takes: all at once are slow."""
    ours = [rule for rule in alerts() if rule["alert"] == alert]
    cases = [case for case in CASES if case.alert == alert]
    file = folder / f"{alert}.rules.yml"
    file.write_text(json.dumps({"groups": [{"name": alert, "rules": ours}]}), encoding="utf-8")  # JSON is YAML
    needed = [RULES] if any(":v2td_" in each["expr"] for each in ours) else []
    return _written(folder / f"{alert}.yml", [*needed, file], cases[0].interval, [as_test(case) for case in cases])


def _written(file: Path, rules: list[Path], interval: str, tests: list[dict[str, Any]]) -> Path:
    content = {"rule_files": [str(each) for each in rules], "evaluation_interval": interval, "tests": tests}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def as_test(case: Case) -> dict[str, Any]:
    expected = []
    for firing in case.firing:
        (rule,) = (
            each for each in alerts() if each["alert"] == case.alert and each["labels"]["severity"] == firing.severity
        )
        annotations = {**rule["annotations"], "description": firing.description}
        labels = {**firing.labels, "severity": firing.severity}
        expected.append({"exp_labels": labels, "exp_annotations": annotations})
    return {
        "interval": case.interval,
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected}],
    }


def test_promtool_finds_nothing_to_say() -> None:
    subprocess.run(["promtool", "check", "rules", "--lint-fatal", RULES, ALERTS], check=True, capture_output=True)


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    promtool(*(written_for(alert, tmp_path) for alert in sorted({case.alert for case in CASES})))


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    silent = Case("V2tdDown", "10m", {series("up"): "0x20"})
    with pytest.raises(AssertionError, match="V2tdDown"):
        check(tmp_path, [as_test(silent)], ALERTS)


def test_no_alert_was_forgotten() -> None:
    rules = {(each["alert"], each["labels"]["severity"]) for each in alerts()}
    assert {(case.alert, firing.severity) for case in CASES for firing in case.firing} == rules
    assert {case.alert for case in CASES if not case.firing} == {name for name, _ in rules}


def test_recorded_series_are_what_they_say(tmp_path: Path) -> None:
    budgets = {each for each in recorded() if each.startswith("job:v2td_slo_errors:")}
    assert set(RECORDED) | budgets == recorded()  # the budgets are tried with their alerts
    check(
        tmp_path,
        [
            {
                "interval": "1m",
                "input_series": [{"series": each, "values": values} for each, values in made_of.items()],
                "promql_expr_test": [
                    {"expr": f"sum({name})", "eval_time": "30m", "exp_samples": [{"labels": "{}", "value": value}]}
                ],
            }
            for name, (made_of, value) in RECORDED.items()
        ],
    )


def test_budgets_of_all_windows_are_used() -> None:
    """A window that no alert asks for would be recorded for nothing; one that is not recorded never fires."""
    text = ALERTS.read_text(encoding="utf-8")
    for rule in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for each in rule["rules"]:
            if "labels" in each:
                assert f'{each["record"]}{{slo="{each["labels"]["slo"]}"}}' in text


def test_every_alert_says_what_to_do_and_how_urgent_it_is() -> None:
    runbook = (RULES.parents[1] / "operations.md").read_text(encoding="utf-8")
    headings = [line.removeprefix("### ") for line in runbook.splitlines() if line.startswith("### ")]
    for rule in alerts():
        assert set(rule["labels"]) == {"severity"}
        assert rule["labels"]["severity"] in SEVERITIES
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/operations.md#{rule['alert'].lower()}")
        assert headings.count(rule["alert"]) == 1, f"docs/operations.md: no section ### {rule['alert']}"
    of_alerts = {heading for heading in headings if heading.startswith("V2td")}
    assert of_alerts == {rule["alert"] for rule in alerts()}, "sections of alerts that are not there"
