"""The windows in a row's timings, which may be those of somebody's own provider. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_NUMBER = 1 << 31
_NUMBERS = ("index", "slot", "batch")  # not all hearers have slots


@dataclass(frozen=True, slots=True)
class HeardWindow:
    """When a window was heard, in seconds since its job began; `numbers` by name, as far as they are known."""

    start: float
    seconds: float
    flags: tuple[str, ...]
    numbers: tuple[tuple[str, int], ...]


def windows_of(timings: Mapping[str, Any]) -> list[HeardWindow]:
    """Return the windows that took time: not those heard before a restart, and nothing that is no window."""
    windows = timings.get("windows")
    found = map(_window, windows) if isinstance(windows, list | tuple) else ()
    return [each for each in found if each is not None]


def _window(told: object) -> HeardWindow | None:
    if not isinstance(told, Mapping):
        return None
    start, seconds, flags = _time(told.get("start")), _time(told.get("seconds")), told.get("flags", ())
    if start is None or not seconds:
        return None
    texts = flags if isinstance(flags, list | tuple) else ()
    numbers = ((name, told.get(name)) for name in _NUMBERS)
    return HeardWindow(
        start,
        seconds,
        tuple(each for each in texts if isinstance(each, str)),
        tuple((name, each) for name, each in numbers if isinstance(each, int) and abs(each) < MAX_NUMBER),
    )


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < MAX_NUMBER else None
