"""Recordings made at test time from the bundled ones, in every shape that people send."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from v2td.bundled import Recording, recordings
from v2td.jobs import SAMPLE_RATE, Audio
from v2td.speech.demux import Accepted, PcmReader

Pcm = NDArray[np.int16]  # mono

# file name ending: codec, sample rate, channels
SHAPES = {
    "wav": ("pcm_s16le", 16_000, "mono"),
    "8k.wav": ("pcm_alaw", 8_000, "mono"),
    "48k.wav": ("pcm_s24le", 48_000, "stereo"),
    "flac": ("flac", 44_100, "stereo"),
    "mp3": ("libmp3lame", 44_100, "stereo"),
    "vorbis.ogg": ("vorbis", 44_100, "stereo"),
    "opus.ogg": ("libopus", 48_000, "mono"),
    "m4a": ("aac", 44_100, "stereo"),
    "webm": ("libopus", 48_000, "stereo"),
}


def bundled(name: str) -> Recording:
    return next(recording for recording in recordings() if recording.name == name)


def audio(path: Path) -> Audio:
    return Audio(path, path.stat().st_size, "0" * 64, temporary=False)


def read(path: Path) -> Pcm:
    """The whole recording as the daemon hears it."""
    with PcmReader(path, Accepted(max_seconds=1e5)) as reader:
        pieces = []
        while not reader.ended:
            pieces.append(reader.read(60 * SAMPLE_RATE))
    return np.concatenate(pieces)[:, 0]


def silence(seconds: float) -> Pcm:
    return np.zeros(int(seconds * SAMPLE_RATE), np.int16)


def encode(pcm: Pcm, path: Path, shape: str = "wav") -> Path:
    """Write 16 kHz mono samples as a file of that shape."""
    return encode_as(pcm, path, *SHAPES[shape])


def encode_as(pcm: Pcm, path: Path, codec: str, rate: int, layout: str) -> Path:
    """Write 16 kHz mono samples with that codec, sample rate and channel layout."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        stream.options = {"strict": "experimental"}  # FFmpeg's own Vorbis encoder
        to_rate = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        fifo = av.AudioFifo()
        for resampled in (*to_rate.resample(frame), *to_rate.resample(None)):
            fifo.write(resampled)
        size = stream.codec_context.frame_size or 1024
        written = 0
        while (chunk := fifo.read(size) or fifo.read(partial=True)) is not None:
            chunk.pts, chunk.time_base = written, Fraction(1, rate)
            written += chunk.samples
            container.mux(stream.encode(chunk))
        container.mux(stream.encode(None))
    return path


def wav_header(data_bytes: int, *, rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + data_bytes, b"WAVE") + form + struct.pack("<4sI", b"data", data_bytes)


def sentences(seconds: float) -> Pcm:
    """Bundled speech, one sentence after the other, with pauses of 0.7 to 2.5 s between."""
    short = [recording for recording in recordings() if len(recording.segments) == 1]
    parts: list[Pcm] = []
    while sum(len(part) for part in parts) < seconds * SAMPLE_RATE:
        parts += [read(short[len(parts) // 2 % len(short)].path), silence(0.7 + 0.3 * (len(parts) // 2 % 7))]
    return np.concatenate(parts)


def encode_channels(channels: Sequence[Pcm], path: Path) -> Path:
    """Write a WAV with these 16 kHz samples, one after the other, as its channels; the short ones end in silence."""
    frames = np.zeros((max(map(len, channels)), len(channels)), np.int16)
    for number, pcm in enumerate(channels):
        frames[: len(pcm), number] = pcm
    path.write_bytes(wav_header(frames.nbytes, channels=len(channels)) + frames.tobytes())
    return path
