"""The boxes, elements and pages of container formats, which may claim any size."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from zlib import crc32

UNKNOWN = (1 << 56) - 1  # the size of an EBML element that goes on until its parent ends


def box(name: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """Return a box of MP4 and QuickTime."""
    return struct.pack(">I", len(data) + 8 if size is None else size) + name + data


def element(ident: int, data: bytes = b"", size: int | None = None) -> bytes:
    """Return an EBML element, its size in eight bytes."""
    length = len(data) if size is None else size
    return ident.to_bytes((ident.bit_length() + 7) // 8, "big") + (1 << 56 | length).to_bytes(8, "big") + data


def number(ident: int, value: int) -> bytes:
    """Return an EBML element that holds a number."""
    return element(ident, value.to_bytes(8, "big"))


def matroska(
    blocks: Iterable[tuple[int, bytes]],
    *,
    rate: float = 16_000,
    private: bytes = b"",
    more: bytes = b"",
    encodings: bytes = b"",
) -> bytes:
    """Return a Matroska file with one track of 16-bit PCM; `blocks` are (milliseconds, data)."""
    head = element(0x1A45DFA3, element(0x4282, b"matroska") + number(0x4287, 4) + number(0x4285, 2))
    audio = element(0xE1, element(0xB5, struct.pack(">d", rate)) + number(0x9F, 1) + number(0x6264, 16))
    entry = number(0xD7, 1) + number(0x73C5, 1) + number(0x83, 2) + element(0x86, b"A_PCM/INT/LIT") + audio
    tracks = element(0x1654AE6B, element(0xAE, entry + (element(0x63A2, private) if private else b"") + encodings))
    clusters = b"".join(
        element(0x1F43B675, number(0xE7, milliseconds) + element(0xA3, b"\x81\0\0\x80" + data))
        for milliseconds, data in blocks
    )
    info = element(0x1549A966, number(0x2AD7B1, 1_000_000))
    return head + element(0x18538067, info + tracks + more + clusters, UNKNOWN)


def ogg_page(serial: int, sequence: int, granule: int, flags: int, packets: Iterable[bytes]) -> bytes:
    """Return a page of Ogg (RFC 3533) with whole packets."""
    lacing, body = b"", b""
    for packet in packets:
        lacing += b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
        body += packet
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, sequence, 0) + bytes([len(lacing)]) + lacing
    return head[:22] + struct.pack("<I", _ogg_crc(head + body)) + head[26:] + body


def id3(frames: bytes, size: int | None = None) -> bytes:
    """Return an ID3v2.4 tag."""
    return b"ID3\x04\0\0" + _synchsafe(len(frames) if size is None else size) + frames


def id3_frame(name: bytes, data: bytes, size: int | None = None, flags: int = 0) -> bytes:
    """Return a frame of ID3v2.4."""
    return name + _synchsafe(len(data) if size is None else size) + struct.pack(">H", flags) + data


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that claims to be as large as that, and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + struct.pack(">I", crc32(head)) + b"\0\0\0\4IDAT\x78\x9c\x03\0\0\0\0\0"


def _synchsafe(value: int) -> bytes:
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))


def _ogg_crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return crc
