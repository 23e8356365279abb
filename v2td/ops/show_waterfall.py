"""A job's waterfall in characters: a line for each stage and each slot, on one axis of time. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from v2td.waterfall import Bar

NAME_COLUMNS = 14
SECONDS_COLUMNS = 10
LEAST_COLUMNS = 20  # of the bars
_MARKS = "█▓"  # of neighbours, so that each can be seen
_RESTORED = "heard before"  # windows that an earlier process heard: slot -1


def drawn(bars: Sequence[Bar], columns: int) -> list[str]:
    """Return lines of at most `columns` characters: name, bar, seconds; nothing where nothing took time."""
    end = max((bar.start + bar.seconds for bar in bars), default=0.0)
    if end <= 0:
        return []
    room = max(LEAST_COLUMNS, columns - NAME_COLUMNS - SECONDS_COLUMNS - 2)
    lines = [
        _line(_stage_name(bar, bars), _row([bar], end, room), _seconds(bar.seconds))
        for bar in bars
        if bar.name != "window"
    ]
    slots = sorted({bar.slot for bar in bars if bar.name == "window" and bar.slot is not None})
    for slot in slots:
        windows = [bar for bar in bars if bar.name == "window" and bar.slot == slot]
        name = f"slot {slot}" if slot >= 0 else _RESTORED
        lines.append(_line(name, _row(windows, end, room), f"{len(windows)} win."))
    lines.append(_line("", f"0{_seconds(end):>{room - 1}}", ""))
    return lines


def doubted(bars: Sequence[Bar]) -> list[str]:
    """Return a line for each window whose text was doubted: why, where and when it was heard."""
    return [
        f"window {bar.window}: {', '.join(bar.flags)} (slot {bar.slot}, from {bar.start:.1f} s on, {bar.seconds:.1f} s)"
        for bar in bars
        if bar.flags
    ]


def _stage_name(bar: Bar, bars: Sequence[Bar]) -> str:
    several = any(each.attempt != bar.attempt for each in bars)
    return f"{bar.name} #{bar.attempt}" if several else bar.name


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 1000 else f"{seconds:.0f} s"


def _row(bars: Sequence[Bar], end: float, room: int) -> str:
    """Return bars as a row; one that is too short to be seen has a character of its own all the same."""
    row = [" "] * room
    for number, bar in enumerate(sorted(bars, key=lambda each: each.start)):
        first = min(room - 1, max(0, int(bar.start / end * room)))
        last = min(room, max(first + 1, round((bar.start + bar.seconds) / end * room)))
        row[first:last] = _MARKS[number % 2] * (last - first)
    return "".join(row)


def _line(name: str, row: str, told: str) -> str:
    return f"{name[:NAME_COLUMNS]:<{NAME_COLUMNS}} {row} {told:>{SECONDS_COLUMNS}}".rstrip()
