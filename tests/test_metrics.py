"""Every metric is explained, named by the rules, and its labels come from closed sets."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge, Histogram

import v2td
from v2td import metrics

METRICS = {name: each for name, each in vars(metrics).items() if isinstance(each, Counter | Gauge | Histogram)}

# Each label and why its values are few. A host, a URL or an id would make a series for every one of them.
CLOSED = {
    "provider": "the configured providers",
    "file_size_range": "three ranges",
    "topic": "the configured topics",
    "partition": "the partitions of the configured topics",
    "outcome": "transcribed | failed",
    "error_class": "ErrorClass",
    "stage": "the stages of the pipeline",
    "version": "this one",
    "model": "the engine's",
    "scheme": "http | https | s3 | file",
    "state": "starting | idle | busy | unloaded",
    "reason": "died | deadline | memory | windows",
    "flag": "the seven of the engine's gate",
    "slot": "the planned slots",
    "result": "ok | failed",
    "kind": "decoder | slot | provider",
    "found": "the levels of a cache",
    "truncated": "yes | no",
    "table": "the tables of the schema",
    "command": "cancel | priority | pause | resume",
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_explained_and_named_by_the_rules(name: str) -> None:
    metric = METRICS[name]
    (family,) = list(metric.describe())
    assert len(family.documentation) > 10
    assert family.documentation.endswith(".")
    assert family.name.startswith(("v2td_", "v2t_"))
    if isinstance(metric, Histogram) and not family.name.endswith(("_seconds", "_outcomes", "_windows", "_ratio")):
        pytest.fail(f"{family.name} has no unit")


@pytest.mark.parametrize("name", METRICS)
def test_labels_come_from_closed_sets(name: str) -> None:
    unknown = set(METRICS[name]._labelnames) - set(CLOSED)
    assert not unknown, f"say here why the values of {unknown} are few"


def test_the_second_seeds_metrics_are_exactly_its_own() -> None:
    duration = metrics.TRANSCRIPTION_DURATION
    assert duration._labelnames == ("provider", "file_size_range")
    assert duration._kwargs["buckets"] == (10, 30, 60, 120, 300, 600, 1800)
    assert next(iter(duration.describe())).name == "v2t_transcription_duration_seconds"
    throughput = metrics.PROVIDER_THROUGHPUT
    assert throughput._labelnames == ("provider",)
    assert next(iter(throughput.describe())).name == "v2t_provider_throughput_mbps"


def uses() -> dict[str, list[ast.Call]]:
    """Where the code speaks of a metric, as `metrics.NAME` or `NAME`: its name to the calls of `labels` on it."""
    found: dict[str, list[ast.Call]] = {}
    for path in Path(v2td.__file__).parent.rglob("*.py"):
        if path.name == "metrics.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (name := name_of(node)) in METRICS:
                found.setdefault(name, [])
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "labels":
                found.setdefault(name_of(node.func.value), []).append(node)
    return found


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_every_metric_is_used_with_all_its_labels() -> None:
    found = uses()
    assert set(METRICS) - set(found) == set(), "defined and never measured"
    for name, calls in found.items():
        labels = METRICS[name]._labelnames
        assert bool(labels) == bool(calls), name
        for call in calls:
            assert len(call.args) + len(call.keywords) == len(labels), name


def test_no_metric_is_defined_elsewhere() -> None:
    for path in Path(v2td.__file__).parent.rglob("*.py"):
        if path.name != "metrics.py":
            assert "from prometheus_client import Counter" not in path.read_text()
            assert "Gauge(" not in path.read_text()
            assert "Histogram(" not in path.read_text()


@given(st.integers(0, 10**12))
def test_sizes_fall_into_three_ranges(size: int) -> None:
    expected = "0-10MB" if size < 10_000_000 else "10-100MB" if size < 100_000_000 else "100MB+"
    assert metrics.file_size_range(size) == expected


def test_the_borders_of_the_ranges() -> None:
    assert [metrics.file_size_range(size) for size in (9_999_999, 10_000_000, 99_999_999, 100_000_000)] == [
        "0-10MB",
        "10-100MB",
        "10-100MB",
        "100MB+",
    ]
