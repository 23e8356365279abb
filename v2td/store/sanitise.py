"""What Postgres cannot hold is taken out here and nowhere else. Pure.

`text` holds any Unicode but U+0000; UTF-8 has no lone surrogates; JSON has no NaN. One such character fails a
whole COPY, so every string of an outcome passes through here.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json


def clean_text(value: str) -> str:
    """Return the text without NULs and surrogates; all else stays as it is."""
    if "\0" in value:
        value = value.replace("\0", "")
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="ignore").decode()
    return value


def moment_of(text: str) -> datetime:
    """Return an ISO 8601 time that has an offset, in UTC; raises ValueError for any other text."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without an offset")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # within a day of the first or the last year
        raise ValueError(str(error)) from error


def clean_json(value: Any) -> Any:
    """Return the JSON value with clean strings and keys, and with null for NaN and the infinities.

    Raises RecursionError where it is nested deeper than Python can follow.
    """
    match value:
        case str():
            return clean_text(value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {clean_text(key): clean_json(item) for key, item in value.items()}
        case list() | tuple():
            return [clean_json(item) for item in value]
        case _:
            return value


def encode_json(value: Any) -> bytes:
    """Return the JSON text of `clean_json(value)`; it is cleaned only where the text shows the need.

    Raises RecursionError as `clean_json`.
    """
    with suppress(ValueError):  # a surrogate
        encoded = to_json(value, inf_nan_mode="null")
        if b"\\u0000" not in encoded:
            return encoded
    return to_json(clean_json(value))
