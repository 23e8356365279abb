"""What is heard: a recording, its windows, segments of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SAMPLE_RATE = 16_000  # Hz, what Whisper hears; all sample counts in v2td are at this rate

WindowMode = Literal["full", "packed", "short"]


@dataclass(frozen=True, slots=True)
class Audio:
    """A fetched recording: a file on this machine.

    `temporary` files belong to the job and are deleted with it; others (file:// sources) are not ours.
    """

    path: Path
    size_bytes: int
    sha256: str
    temporary: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range [start, end) of samples of the original recording at SAMPLE_RATE."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Samples in the span."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Window:
    """The unit of inference: at most 30 s of pieces of the recording, one behind the other.

    `pieces` are what the engine hears (speech with a little silence around it); `speech` are the spans in
    which the VAD heard speech, inside the pieces. `channel` is None when the channels were mixed; indices are
    unique in the job, over all channels.
    """

    index: int
    pieces: tuple[Span, ...]
    speech: tuple[Span, ...]
    channel: int | None = None

    @property
    def length(self) -> int:
        """Samples that the engine hears."""
        return sum(piece.length for piece in self.pieces)

    @property
    def speech_length(self) -> int:
        """Samples in which the VAD heard speech."""
        return sum(span.length for span in self.speech)


@dataclass(frozen=True, slots=True)
class Word:
    """Times in seconds of the original recording."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; times in seconds (of the window from the engine, of the recording in a Transcript)."""

    start: float
    end: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: tuple[Word, ...] | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class WindowTiming:
    """What one window cost: for the waterfall in `transcriptions.timings`; times in seconds."""

    index: int
    slot: int
    start: float  # since the job began
    seconds: float  # of the whole batch
    flags: tuple[str, ...] = ()
    batch: int = 1  # windows that were transcribed together
