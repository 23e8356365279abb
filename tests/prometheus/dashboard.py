"""Writes docs/grafana/v2td.json: `python -m tests.prometheus.dashboard --write`. A test fails while it is outdated."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from tests.prometheus.files import DASHBOARD
from tests.prometheus.panels import ROWS, Panel

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8
PER_ROW = 3
SCHEMA = 39  # of Grafana 10 and 11, which newer ones migrate by themselves


@dataclass
class _Place:
    """Where the next panel goes, from the top left."""

    x: int = 0
    y: int = 0
    number: int = 0

    def next_id(self) -> int:
        self.number += 1
        return self.number


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    place = _Place()
    panels: list[dict[str, Any]] = []
    for title, row in ROWS.items():
        grid = {"x": 0, "y": place.y, "w": WIDTH, "h": 1}
        panels.append(
            {"type": "row", "id": place.next_id(), "title": title, "collapsed": False, "gridPos": grid, "panels": []}
        )
        place.x, place.y = 0, place.y + 1
        panels += [_panel(panel, place) for panel in row]
        place.y += HEIGHT
    return {
        "uid": "v2td",
        "title": "v2td",
        "description": "What v2td does: the key metrics, the objectives, each stage. See docs/monitoring.md.",
        "tags": ["v2td"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [_datasource(), _variable("job", ""), _variable("instance", 'job=~"$job"')]},
        "panels": panels,
    }


def _panel(panel: Panel, place: _Place) -> dict[str, Any]:
    if place.x + WIDTH // PER_ROW > WIDTH:
        place.x, place.y = 0, place.y + HEIGHT
    grid = {"x": place.x, "y": place.y, "w": WIDTH // PER_ROW, "h": HEIGHT}
    place.x += WIDTH // PER_ROW
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    targets = [
        {
            "refId": chr(ord("A") + number),
            "expr": expr,
            "legendFormat": legend,
            "datasource": DATASOURCE,
            "exemplar": panel.exemplars,
        }
        for number, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "type": "timeseries",
        "id": place.next_id(),
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": grid,
        "targets": targets,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {
                    "fillOpacity": 10,
                    "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
                    "thresholdsStyle": {"mode": "off" if panel.limit is None else "line"},
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
    }


def _variable(name: str, selector: str) -> dict[str, Any]:
    query = f"label_values(v2td_jobs_in_flight{{{selector}}}, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }


def _alerts() -> dict[str, Any]:
    """Return what marks the times at which somebody was called."""
    return {
        "name": "Alerts",
        "enable": True,
        "datasource": DATASOURCE,
        "expr": 'ALERTS{alertname=~"V2td.*",alertstate="firing"}',
        "iconColor": "red",
        "titleFormat": "{{alertname}}",
        "step": "60s",
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: python -m tests.prometheus.dashboard --write  ({DASHBOARD})")
    DASHBOARD.parent.mkdir(exist_ok=True)
    DASHBOARD.write_text(text(), encoding="utf-8")
