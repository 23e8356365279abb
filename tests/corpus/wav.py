"""WAV files whose headers say whatever they are told."""

from __future__ import annotations

import struct

PCM = 1


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    """Return a RIFF chunk, padded to an even length; `size` is what it claims to hold."""
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def fmt(
    *,
    rate: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    tag: int = PCM,
    align: int | None = None,
    more: bytes = b"",
) -> bytes:
    """Return a fmt chunk; what does not fit into its field is cut there."""
    frame = channels * bits // 8 if align is None else align
    fields = (tag, channels & 0xFFFF, rate & 0xFFFF_FFFF, rate * frame & 0xFFFF_FFFF, frame & 0xFFFF, bits)
    return chunk(b"fmt ", struct.pack("<HHIIHH", *fields) + more)


def wav(data: bytes, form: bytes | None = None, *, before: bytes = b"", size: int | None = None) -> bytes:
    """Return a WAV file; `size` is what its data chunk claims to hold."""
    body = b"WAVE" + (fmt() if form is None else form) + before + chunk(b"data", data, size)
    return b"RIFF" + struct.pack("<I", min(len(body) if size is None else size + 36, 0xFFFF_FFFF)) + body
