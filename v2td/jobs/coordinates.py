"""Where a job came from, and the row key that comes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where a job came from; `record_index` tells the jobs of one record apart."""

    cluster_id: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    record_index: int = 0
    _row_id: UUID = field(init=False, repr=False, compare=False)  # made once: five places ask for it

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row_id", _row_id(self))

    def row_id(self) -> UUID:
        """The row key: a UUIDv8 (RFC 9562) of 48 bits of record time, then SHA-256 of the coordinates.

        The record's timestamp takes part, so that a recreated topic that reuses offsets gets new rows. A
        message cannot choose it. The six version and variant bits are the RFC's.
        """
        return self._row_id


def _row_id(at: Coordinates) -> UUID:
    identity = json.dumps([at.cluster_id, at.topic, at.partition, at.offset, at.timestamp_ms, at.record_index])
    digest = hashlib.sha256(identity.encode()).digest()
    time48 = max(at.timestamp_ms, 0) & ((1 << 48) - 1)
    bits = (time48 << 80) | int.from_bytes(digest[:10], "big")
    bits = (bits & ~(0xF << 76)) | (8 << 76)
    bits = (bits & ~(0x3 << 62)) | (2 << 62)
    return UUID(int=bits)
