"""Recordings of tones: each stands for a word that names its frequency, so that a server can hear them for real."""

import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from uuid import UUID

import av
import numpy as np
import numpy.typing as npt

from v2td.jobs import SAMPLE_RATE, Audio, Options, Span, Window
from v2td.providers import Recording

Samples = npt.NDArray[np.int16]

PAD = 0.2  # seconds of silence that a window keeps around speech
BLOCK = SAMPLE_RATE // 100
DEFAULT = Options()


@dataclass(frozen=True)
class Tone:
    """Seconds [start, end) of the recording sound at a frequency; `channel` counts in it."""

    start: float
    end: float
    hertz: int
    channel: int = 0

    @property
    def text(self) -> str:
        return f"f{self.hertz}"

    @property
    def span(self) -> Span:
        return Span(int(self.start * SAMPLE_RATE), int(self.end * SAMPLE_RATE))


def sound(tones: Sequence[Tone], seconds: float, channels: int = 1) -> Samples:
    """Frames of the recording."""
    frames = np.zeros((int(seconds * SAMPLE_RATE), channels))
    for tone in tones:
        time = np.arange(tone.span.length) / SAMPLE_RATE
        frames[tone.span.start : tone.span.end, tone.channel] = 12_000 * np.sin(2 * np.pi * tone.hertz * time)
    return frames.astype(np.int16)


def hear(content: bytes) -> tuple[list[Tone], float]:
    """The tones in a file of any kind, as they are heard, and the file's length in seconds."""
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    with av.open(io.BytesIO(content), "r") as container:
        frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float64)
    blocks = samples[: samples.size // BLOCK * BLOCK].reshape(-1, BLOCK)
    loud = np.abs(blocks).max(axis=1) > 2_000
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]]).astype(int)))
    tones = []
    for first, last in edges.reshape(-1, 2):
        heard = samples[first * BLOCK : last * BLOCK]
        hertz = np.argmax(np.abs(np.fft.rfft(heard * np.hanning(heard.size), SAMPLE_RATE)))
        tones.append(Tone(first * BLOCK / SAMPLE_RATE, last * BLOCK / SAMPLE_RATE, round(hertz / 10) * 10))
    return tones, samples.size / SAMPLE_RATE


def windows(tones: Sequence[Tone], of_each: int = 3, *, split: bool = False) -> list[Window]:
    """Windows of so many tones, as the VAD would hear them."""
    found: list[Window] = []
    for channel in sorted({tone.channel for tone in tones}) if split else [None]:
        spans = [tone.span for tone in tones if channel in {None, tone.channel}]
        for first in range(0, len(spans), of_each):
            speech = tuple(spans[first : first + of_each])
            pad = int(PAD * SAMPLE_RATE)
            pieces = tuple(Span(max(0, span.start - pad), span.end + pad) for span in speech)
            found.append(Window(len(found), pieces, speech, channel))
    return found


@dataclass
class Seen:
    """What a provider told of a recording on its way."""

    progress: int = 0
    done: list[int] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)


def write(samples: Samples, path: Path, container: str = "wav", codec: str = "pcm_s16le", bits: int = 64_000) -> Audio:
    """A file of that sound."""
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(str(path), "w", format=container) as target:
        stream = target.add_stream(codec, rate=SAMPLE_RATE, layout=layout, bit_rate=bits)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = SAMPLE_RATE
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return Audio(path, path.stat().st_size, "0" * 64, temporary=True)


def recording(
    samples: Samples,
    cut: Sequence[Window],
    folder: Path,
    *,
    options: Options = DEFAULT,
    audio: Audio | None = None,
    fault: Exception | None = None,
    priority: int = 5,
    seen: Seen | None = None,
) -> Recording:
    """A recording as the pipeline has it: its PCM on disk, its windows one after the other, and then the `fault`."""
    pcm = folder / "recording.pcm"
    samples.tofile(pcm)
    seen = seen or Seen()

    async def taken() -> AsyncIterator[Window]:
        for window in cut:
            yield window
        if fault is not None:
            raise fault

    def progressed() -> None:
        seen.progress += 1

    return Recording(
        job=UUID(int=1),
        audio=audio or write(samples, folder / "recording.wav"),
        pcm=pcm,
        channels=samples.shape[1],
        windows=taken(),
        options=options,
        priority=priority,
        began=monotonic(),
        on_progress=progressed,
        on_done=lambda window: seen.done.append(window.index),
        on_text=lambda window, text: seen.texts.__setitem__(window.index, text),
    )
