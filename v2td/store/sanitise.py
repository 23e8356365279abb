"""What Postgres cannot hold is taken out here and nowhere else. Pure.

`text` holds any Unicode but U+0000; UTF-8 has no lone surrogates; JSON has no NaN. One such character fails a
whole COPY, so every string of an outcome passes through here.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def clean_text(value: str) -> str:
    """Return the text without NULs and surrogates; all else stays as it is."""
    if "\0" in value:
        value = value.replace("\0", "")
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="ignore").decode()
    return value


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
    """Return the JSON text of a value, cleaned where it must be: to find nothing in it would cost more than to encode.

    Raises ValueError for numbers that have too many digits, RecursionError as `clean_json`.
    """
    with suppress(ValueError):  # NaN, or a surrogate
        encoded = _encode(value).encode()
        if b"\\u0000" not in encoded:
            return encoded
    return _encode(clean_json(value)).encode()
