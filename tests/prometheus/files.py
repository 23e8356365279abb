"""docs/prometheus and docs/grafana, read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[2] / "docs"
RULES = DOCS / "prometheus/rules.yml"
ALERTS = DOCS / "prometheus/alerts.yml"
DASHBOARD = DOCS / "grafana/v2td.json"


@cache
def rules(file: Path) -> list[dict[str, Any]]:
    """Return all rules of a file."""
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return all alerts."""
    return rules(ALERTS)


def recorded() -> set[str]:
    """Return the names of the series that are recorded."""
    return {rule["record"] for rule in rules(RULES)}


def dashboard() -> dict[str, Any]:
    """Return Grafana's dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found
