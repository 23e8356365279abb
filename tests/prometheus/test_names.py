"""What rules, alerts and dashboard name is there: metrics, labels, their values, recorded series."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from tests.prometheus.dashboard import text
from tests.prometheus.files import ALERTS, DASHBOARD, DOCS, RULES, dashboard, recorded, rules
from tests.prometheus.promql import Selector, groupings, selectors
from v2td import metrics

# What Prometheus itself and every client of its library have.
FOREIGN = {"up", "ALERTS", "process_start_time_seconds"}
OF_THE_SCRAPE = {"job", "instance"}
OF_RECORDED = OF_THE_SCRAPE | {"slo"}


def expressions(file: Path) -> Iterator[str]:
    """Yield all PromQL of a file."""
    if file != DASHBOARD:
        yield from (rule["expr"] for rule in rules(file))
        return
    found = dashboard()
    for panel in found["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (each["expr"] for each in found["annotations"]["list"])
    for variable in found["templating"]["list"]:
        if variable["type"] == "query":
            (series,) = re.findall(r"^label_values\((.*), \w+\)$", variable["definition"])
            yield series


def exported() -> dict[str, tuple[MetricWrapperBase, set[str]]]:
    """Return every series by its name: its metric, and the labels that it has."""
    names: dict[str, tuple[MetricWrapperBase, set[str]]] = {}
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            (family,) = each.describe()
            labels = {*each._labelnames, *OF_THE_SCRAPE}
            if isinstance(each, Histogram):
                names[f"{family.name}_bucket"] = (each, labels | {"le"})
                names |= {f"{family.name}_{suffix}": (each, labels) for suffix in ("sum", "count")}
            else:
                names[family.name + ("_total" if family.type == "counter" else "")] = (each, labels)
    return names


def documented_values(name: str) -> set[str]:
    """Return the words that docs/operations.md has in the row of a metric: its labels' values are among them."""
    (row,) = re.findall(rf"^\| `{name}` \|.*$", (DOCS / "operations.md").read_text(encoding="utf-8"), re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", row))


def check(selector: Selector) -> None:
    name = selector.metric
    if name in FOREIGN:
        return
    if name in recorded():
        assert {label for label, _ in selector.labels} <= OF_RECORDED, selector
        return
    assert name in exported(), f"there is no {name}"
    metric, labels = exported()[name]
    for label, values in selector.labels:
        assert label in labels, selector
        if label == "le":
            assert isinstance(metric, Histogram)
            assert values <= {str(bound) for bound in metric._upper_bounds}, selector
        elif label not in OF_THE_SCRAPE:
            assert values <= documented_values(name), f"{name}: docs/operations.md knows no such {label}: {values}"


@pytest.mark.parametrize("file", [RULES, ALERTS, DASHBOARD], ids=lambda file: file.name)
def test_every_series_named_is_there_with_its_labels(file: Path) -> None:
    known = OF_RECORDED.union(*(labels for _, labels in exported().values()))
    seen = 0
    for expr in expressions(file):
        assert groupings(expr) <= known, expr
        for selector in selectors(expr):
            check(selector)
            seen += 1
    assert seen >= 30


def test_what_is_grouped_by_a_label_has_it() -> None:
    """`sum by (topic)` of a metric without topics would sum them all up, and nobody would notice."""
    for file in (ALERTS, DASHBOARD, RULES):
        for expr in expressions(file):
            for part in re.split(r"\n?\b(?:and|or|unless)\b|\n  / ", expr):
                for selector in selectors(part):
                    if selector.metric in exported():
                        assert groupings(part) <= exported()[selector.metric][1] | {"le"}, part


@pytest.mark.parametrize(
    "wrong",
    [
        "v2td_jobs_finished",
        'v2td_jobs_finished_total{result="ok"}',
        'v2td_slots{state="bsy"}',
        'v2td_submission_seconds_bucket{le="0.2"}',
        "instance:v2td_nothing:sum",
        'job:v2td_lag:sum{topic="t"}',
    ],
)
def test_what_is_not_there_is_noticed(wrong: str) -> None:
    found, up = selectors(f"sum by (job) (rate({wrong}[5m])) > 3 or sum(up) offset 1h")
    check(up)
    with pytest.raises(AssertionError):
        check(found)


def test_the_dashboard_is_what_the_panels_say() -> None:
    assert DASHBOARD.read_text(encoding="utf-8") == text(), "run: python -m tests.prometheus.dashboard --write"


def test_grafana_can_tell_the_panels_apart() -> None:
    found = dashboard()
    assert {"uid", "title", "schemaVersion", "panels", "templating"} <= set(found)
    panels = found["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_every_panel_asks_the_chosen_prometheus() -> None:
    found = dashboard()
    variables = {variable["name"] for variable in found["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
    for panel in found["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}
            for each in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert each in groupings(target["expr"]) | OF_RECORDED | {"slot", "provider"}, panel["title"]
