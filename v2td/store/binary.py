"""Bytes of Kafka records as JSON. Pure."""

from __future__ import annotations

import base64

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
