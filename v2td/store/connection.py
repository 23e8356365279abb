"""What every connection of v2td has in common."""

from __future__ import annotations

import json
from typing import Any

from v2td.store.sanitise import encode_json

Connection = Any  # asyncpg's Connection, or the pool's proxy of one, which has no type of its own

_JSONB_VERSION = b"\x01"  # leads jsonb on the wire; COPY takes the binary format only


async def set_json_codec(connection: Connection) -> None:
    """Let jsonb columns take and give Python values."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
    )


def _encode_jsonb(value: Any) -> bytes:
    return _JSONB_VERSION + encode_json(value)


def _decode_jsonb(data: bytes) -> Any:
    return json.loads(data[len(_JSONB_VERSION) :])
