"""Which JSON values Postgres can keep."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticCustomError

from v2td.messages.strict_json import shown


def storable(value: Any) -> Any:
    """Return the JSON value as it came, or raise PydanticCustomError when text or jsonb cannot hold it.

    Those are strings and keys with NUL or a lone surrogate, and numbers beyond a double.
    """
    if found := _flaw(value):
        flaw, path = found
        where = f" at {shown(path)}" if path else ""
        raise PydanticCustomError("not_storable", "{flaw}{where}", {"flaw": flaw, "where": where})
    return value


def is_storable(value: Any) -> bool:
    """Tell whether Postgres can keep the JSON value."""
    return _flaw(value) is None


def _flaw(value: Any) -> tuple[str, str] | None:
    """Find the first flaw and the path to it, which is put together on the way back only."""
    if isinstance(value, str):
        flaw = _flaw_of_text(value)
    elif isinstance(value, dict):
        flaw = next(filter(None, map(_flaw_of_text, value)), None)
        if not flaw:
            return _flaw_inside((f".{key}", item) for key, item in value.items())
    elif isinstance(value, list):
        return _flaw_inside((f"[{index}]", item) for index, item in enumerate(value))
    else:
        flaw = _flaw_of_number(value)
    return (flaw, "") if flaw else None


def _flaw_inside(items: Iterable[tuple[str, Any]]) -> tuple[str, str] | None:
    for step, item in items:
        if found := _flaw(item):
            flaw, path = found
            return flaw, step + path
    return None


def _flaw_of_text(text: str) -> str | None:
    if "\0" in text:
        return "text with a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "text with a lone surrogate"
    return None


def _flaw_of_number(value: Any) -> str | None:
    try:
        finite = not isinstance(value, int | float) or math.isfinite(value)  # OverflowError: a huge int
    except OverflowError:
        finite = False
    return None if finite else "a number that a double cannot hold"
