"""Figures of `v2td top` in few characters. Pure."""

from __future__ import annotations

UNKNOWN = "-"
SPANS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def number(value: float | None) -> str:
    """Return a count or a rate: one decimal below 10, none above, a digit that is not 0 below 0.1."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.095:
        return f"{value:.1g}" if value >= 0.001 else "<0.001"
    return f"{value:,.1f}" if 0 < abs(value) < 9.95 and value != round(value) else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Return a time in the unit in which it has two or three digits."""
    if value is None:
        return UNKNOWN
    for size, unit in SPANS:
        # 90 s say more than 1.5 min.
        if value >= (size if unit == "s" else 2 * size):
            return f"{number(value / size)} {unit}"
    return f"{value * 1000:.0f} ms" if value else "0 s"


def ago(value: float) -> str:
    """Return how long ago something was, in whole seconds at least."""
    return f"{seconds(max(1.0, round(value)))} ago" if value >= 0.5 else "now"


def size(value: float) -> str:
    """Return bytes as MB or GB (10^6, 10^9)."""
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def percent(value: float | None) -> str:
    """Return percents, 100 for all."""
    return UNKNOWN if value is None else f"{number(value)} %"
