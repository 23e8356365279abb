"""What Kafka records hold, as Postgres takes it. Pure."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from v2td.jobs import Headers

CUT = "v2td-truncated"  # stands for the headers that found no room, with an empty value
MAX_PAYLOAD_BYTES = 65_536  # of a record's value; of its key and of all its headers too
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_TIMESTAMP_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)

Encoded = str | dict[str, str]


def encode_bytes(value: bytes) -> Encoded:
    """Return text, or {"base64": "…"} where the value is no UTF-8 that Postgres takes."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
    return text if "\0" not in text else {"base64": base64.b64encode(value).decode()}


def decode_bytes(value: Encoded) -> bytes:
    """Return what `encode_bytes` was given."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def record_time(timestamp_ms: int) -> datetime | None:
    """Return a record's timestamp, None for Kafka's "none" (-1) and for what a datetime cannot hold."""
    if not 0 <= timestamp_ms <= _LAST_TIMESTAMP_MS:
        return None
    return _EPOCH + timedelta(milliseconds=timestamp_ms)


def encode_headers(headers: Headers, room: int = MAX_PAYLOAD_BYTES) -> list[list[Any]]:
    """Return headers as JSON: [name, "text"], or [name, {"base64": "…"}] where the value is no clean UTF-8.

    Headers beyond `room` bytes in all are left out, and CUT says so.
    """
    encoded: list[list[Any]] = []
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if size > room:
            encoded.append([CUT, ""])
            break
        encoded.append([name, encode_bytes(value)])
    return encoded
