"""What is uploaded: a stretch of PCM packed as Opus or FLAC, or the recording's own file when an API takes its kind.

Blocks on reading files and, for packing, on a core: call it in a thread. 100 s of speech pack in about a second.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO, Literal

import av
import numpy as np
import numpy.typing as npt

from v2td.jobs import SAMPLE_RATE

Codec = Literal["opus", "flac"]
Samples = npt.NDArray[np.int16]

BYTES_PER_SAMPLE = 2
BLOCK = 5 * SAMPLE_RATE  # frames that are read and packed at once
HEAD_BYTES = 4096
OPUS_BITS_PER_SECOND = 32_000  # twice what is called good for speech: what counts is what a machine hears

# Bytes a second of mono at 16 kHz, measured: of usual speech, and of white noise with a little on top.
USUAL_BYTES: dict[Codec, int] = {"opus": 2_750, "flac": 13_800}
MOST_BYTES: dict[Codec, int] = {"opus": 4_500, "flac": 33_000}

# By the suffix, which is what APIs go by.
CONTENT_TYPES = {
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "webm": "audio/webm",
}
_MP4_BRANDS = frozenset({b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"dash"})
_M4A_BRANDS = frozenset({b"M4A ", b"M4B "})
_WAV_FORMATS = frozenset({1, 3})  # PCM of integers and of floats: others need codecs


class StoppedError(Exception):
    """Nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames [start, end) of a PCM file of `channels`; of one `channel`, or the mean of all."""

    pcm: Path
    channels: int
    channel: int | None
    start: int
    end: int


def pack(stretch: Stretch, codec: Codec, stop: Event) -> bytes:
    """Return a stretch as a file: Opus in Ogg, or FLAC. Raises StoppedError, OSError when the PCM cannot be read."""
    target = io.BytesIO()
    with av.open(target, "w", format="ogg" if codec == "opus" else "flac") as container:
        stream = container.add_stream("libopus" if codec == "opus" else "flac", rate=SAMPLE_RATE, layout="mono")
        if codec == "opus":
            stream.bit_rate = OPUS_BITS_PER_SECOND
            stream.options = {"vbr": "constrained"}
        at = 0
        with closing(_samples(stretch)) as blocks:
            for block in blocks:
                if stop.is_set():
                    raise StoppedError
                frame = av.AudioFrame.from_ndarray(block[np.newaxis, :], format="s16", layout="mono")
                frame.sample_rate = SAMPLE_RATE
                frame.pts = at
                at += block.size
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def _samples(stretch: Stretch) -> Generator[Samples, None, None]:
    """Yield the stretch in blocks; what lies behind the file's end is left out."""
    frame_bytes = stretch.channels * BYTES_PER_SAMPLE
    with stretch.pcm.open("rb") as file:
        file.seek(stretch.start * frame_bytes)
        for at in range(stretch.start, stretch.end, BLOCK):
            content = file.read(min(BLOCK, stretch.end - at) * frame_bytes)
            frames = np.frombuffer(content[: len(content) // frame_bytes * frame_bytes], np.int16)
            if not frames.size:
                return
            by_channel = frames.reshape(-1, stretch.channels)
            if stretch.channel is not None:
                yield np.ascontiguousarray(by_channel[:, stretch.channel])
            elif stretch.channels == 1:
                yield by_channel[:, 0]
            else:
                yield by_channel.mean(axis=1).round().astype(np.int16)


def kind_of(path: Path) -> str | None:
    """Return the suffix of a kind of file that APIs take, by its first bytes; None for all others."""
    with path.open("rb") as file:
        return _kind(file)


def _kind(file: BinaryIO) -> str | None:  # noqa: PLR0911 (one for each kind)
    head = file.read(HEAD_BYTES)
    if head.startswith(b"fLaC"):
        return "flac"
    if head.startswith(b"OggS"):  # which holds anything: the first packet says what
        return "ogg" if head[28:36] == b"OpusHead" or head[28:35] == b"\x01vorbis" else None
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "m4a" if brand in _M4A_BRANDS else "mp4" if brand in _MP4_BRANDS else None
    if head.startswith(b"RIFF") and head[8:16] == b"WAVEfmt ":
        return "wav" if int.from_bytes(head[20:22], "little") in _WAV_FORMATS else None
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head[:64] else None
    # MPEG 1, 2 or 2.5, layer III
    if head.startswith(b"ID3") or (len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "mp3"
    return None
