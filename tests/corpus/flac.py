"""FLAC files of silence, as short as the format allows: a day in 150 kB."""

from __future__ import annotations

import struct

BLOCK = 65_535  # samples: the longest


def silence(seconds: float, rate: int = 8_000, *, total: int | None = None, bits: int = 16) -> bytes:
    """Return a mono recording of silence (RFC 9639); `total` is how many samples the header claims."""
    frames = int(seconds * rate / BLOCK) + 1
    total = frames * BLOCK if total is None else total
    packed = rate << 44 | (bits - 1) << 36 | total & 0xF_FFFF_FFFF
    info = struct.pack(">HH", BLOCK, BLOCK) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info + b"".join(_frame(n) for n in range(frames))


def _frame(number: int) -> bytes:
    # Fixed block size, its 16 bits at the end; rate and sample size as in the header; one constant subframe of 0.
    head = b"\xff\xf8\x70\x00" + _utf8(number) + struct.pack(">H", BLOCK - 1)
    body = head + bytes([_crc(head, 8, 0x07)]) + b"\0" + b"\0\0"
    return body + struct.pack(">H", _crc(body, 16, 0x8005))


def _utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, width: int, polynomial: int) -> int:
    crc, top, mask = 0, 1 << width - 1, (1 << width) - 1
    for byte in data:
        crc ^= byte << width - 8
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc & top else 0)) & mask
    return crc
