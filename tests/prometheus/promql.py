"""What a PromQL expression speaks of: its metrics, their labels and values. Prometheus itself judges the grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(\s*\()?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")


@dataclass(frozen=True, slots=True)
class Selector:
    """A series that is asked for, and the values that its labels are to have: a set for `a|b`."""

    metric: str
    labels: tuple[tuple[str, frozenset[str]], ...]


def selectors(expr: str) -> Iterator[Selector]:
    """Yield every series that the expression asks for."""
    for name, braces, call in SELECTOR.findall(RANGE.sub("", GROUPING.sub("", expr))):
        if not call and name not in WORDS:
            labels = tuple((label, frozenset(value.split("|"))) for label, value in MATCHER.findall(braces))
            yield Selector(name, labels)


def groupings(expr: str) -> set[str]:
    """Return the labels by which the expression groups or joins."""
    return {label.strip() for labels in GROUPING.findall(expr) for label in labels.split(",") if label.strip()}
