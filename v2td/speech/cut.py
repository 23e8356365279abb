"""Whether a file ends before its container says that it does; only sizes of chunks are read, nothing is decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

TS_PACKET_BYTES = (188, 192, 204)  # plain, with a time (M2TS), with error correction
OGG_PAGE_BYTES = 65_307  # the longest page
UNKNOWN_RIFF_BYTES = 0x7FF0_0000  # what claims to be longer was written into a pipe
UNKNOWN_BYTES = 1 << 48  # likewise where sizes have 64 bits
MAX_CHUNKS = 200_000  # a second; recorders write one to ten in a second of sound
MP4_BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"skip", b"udta", b"uuid"}
)
FLV_TAGS = frozenset({8, 9, 18})


def is_cut(path: Path, format_name: str) -> bool:
    """Whether the file lacks its end, as far as its container (FFmpeg's name of the demuxer) tells."""
    size = path.stat().st_size
    if format_name == "mpegts":
        return all(size % each for each in TS_PACKET_BYTES)
    with path.open("rb") as file:
        if format_name == "ogg":
            return not _ends_ogg(file, size)
        ends = ENDS[format_name](file) if format_name in ENDS else iter(())
        return any(end > size for end in islice(ends, MAX_CHUNKS))


def _ends_ogg(file: BinaryIO, size: int) -> bool:
    """Whether the last page says that it is the last (RFC 3533, header_type 0x04)."""
    file.seek(max(0, size - OGG_PAGE_BYTES))
    tail = file.read()
    page = tail.rfind(b"OggS")
    return page < 0 or len(tail) <= page + 5 or bool(tail[page + 5] & 0x04)


def has_frame_count(path: Path) -> bool:
    """Whether an MP3 says how many frames it has (Xing, Info or VBRI in its first frame)."""
    with path.open("rb") as file:
        head = file.read(10)
        tag = 0
        if head.startswith(b"ID3") and len(head) == 10:
            tag = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        frame = _read(file, tag, 200)
    return any(each in frame for each in (b"Xing", b"Info", b"VBRI"))


def _riff(file: BinaryIO) -> Iterator[int]:
    length = int.from_bytes(file.read(8)[4:], "little")
    if length < UNKNOWN_RIFF_BYTES:
        yield 8 + length


def _w64(file: BinaryIO) -> Iterator[int]:
    length = int.from_bytes(file.read(24)[16:], "little")
    if length < UNKNOWN_BYTES:
        yield length


def _caf(file: BinaryIO) -> Iterator[int]:
    at = 8
    while len(head := _read(file, at, 12)) == 12 and (length := int.from_bytes(head[4:], "big")) < UNKNOWN_BYTES:
        at += 12 + length
        yield at


def _voc(file: BinaryIO) -> Iterator[int]:
    at = int.from_bytes(_read(file, 20, 2), "little")
    while len(head := _read(file, at, 4)) == 4 and head[0] != 0:
        at += 4 + int.from_bytes(head[1:], "little")
        yield at


def _mp4(file: BinaryIO) -> Iterator[int]:
    at = 0
    while len(head := _read(file, at, 16)) >= 8 and head[4:8] in MP4_BOXES:
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # 0: to the end of the file
            return
        at += length
        yield at


def _flv(file: BinaryIO) -> Iterator[int]:
    at = int.from_bytes(_read(file, 5, 4), "big") + 4
    while len(head := _read(file, at, 4)) == 4 and head[0] in FLV_TAGS:
        at += 11 + int.from_bytes(head[1:], "big")
        yield at
        at += 4  # the size once more


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at, os.SEEK_SET)
    return file.read(count)


# Where chunks end, by FFmpeg's names of the demuxers.
ENDS: Mapping[str, Callable[[BinaryIO], Iterator[int]]] = MappingProxyType(
    {
        "avi": _riff,
        "caf": _caf,
        "flv": _flv,
        "mov,mp4,m4a,3gp,3g2,mj2": _mp4,
        "voc": _voc,
        "w64": _w64,
    }
)
