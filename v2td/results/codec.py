"""A text as bytes for Redis and back: compressed JSON behind a word that names its version. Pure.

Whatever else lies there is no text.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from v2td.results.found import Found

_VERSION = b"v2td-result-1\n"  # another one for every change of Found
# Longer texts, beyond some five hours with the times of words, are Postgres's alone: they would hold up the event loop.
MAX_JSON_BYTES = 4_000_000
MAX_PARTS = 40_000  # segments and words: more are not even tried

_FOUND = TypeAdapter(Found)


def key_of(audio_sha256: str, text_sha256: str) -> str:
    """Return the key of a text in Redis."""
    return f"v2td:result:{audio_sha256}:{text_sha256}"


def encode(found: Found) -> bytes | None:
    """Return a text as bytes; None where it is too long, or of characters that JSON does not take."""
    if sum(1 + len(segment.words or ()) for segment in found.segments) > MAX_PARTS:
        return None
    try:
        data = to_json(found, exclude={"level"}, inf_nan_mode="constants")
    except ValueError:  # a surrogate
        return None
    return _VERSION + zlib.compress(data, 1) if len(data) <= MAX_JSON_BYTES else None


def decode(data: bytes, audio_sha256: str, text_sha256s: Sequence[str]) -> Found | None:
    """Return the text that bytes hold; None where they are something else, or the text of another recording."""
    if not data.startswith(_VERSION):
        return None
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data[len(_VERSION) :], MAX_JSON_BYTES)
        if not inflater.eof:
            return None
        found = _FOUND.validate_json(text, strict=True)
    except (zlib.error, ValidationError):
        return None
    if found.audio_sha256 != audio_sha256 or found.text_sha256 not in text_sha256s:
        return None
    return replace(found, level="redis")
