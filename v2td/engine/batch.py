"""What goes to a slot and comes back: a batch of windows, of one job or of many (small values, no audio)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from v2td.config import QualitySettings
from v2td.engine.topology import SlotPlan
from v2td.jobs import SAMPLE_RATE, Options, Segment, Window, WindowMode

FULL_SECONDS = 30.0  # what Whisper's encoder was trained on
FULL_SAMPLES = int(FULL_SECONDS * SAMPLE_RATE)
FRAME_SAMPLES = 160  # samples of one mel frame
PAUSE_SECONDS = 0.5  # longer ones are between sentences
MAX_PROMPT_TOKENS = 223  # half of Whisper's positions; the other half is for the text
SHORT_STEP = 100  # windows that are not padded to 30 s end on a whole second: so that some can be decoded together

Interval = tuple[float, float]  # seconds of a window: start, end
Said = tuple[float, float, str]  # seconds of a window, and what was heard there


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which model to load, and how; what every window shares."""

    path: Path
    device: str
    compute_type: str
    place: SlotPlan
    pack_gap_seconds: float
    quality: QualitySettings


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """One window of a PCM file (interleaved int16 frames at 16 kHz).

    `options.language` None: the language is detected, among `options.languages` when that is not empty.
    `beam_size` 0: greedy. `previous` are the tokens that were said before, for jobs whose windows are a chain.
    """

    pcm: Path
    channels: int
    window: Window
    options: Options
    beam_size: int
    mode: WindowMode
    previous: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of what is heard."""
        return self.window.length / SAMPLE_RATE

    @property
    def frames(self) -> int:
        """Mel frames that the encoder sees, its padding included."""
        if self.mode != "short":
            return FULL_SAMPLES // FRAME_SAMPLES
        frames = -(-self.window.length // FRAME_SAMPLES)
        return min(FULL_SAMPLES // FRAME_SAMPLES, -(-frames // SHORT_STEP) * SHORT_STEP)

    @property
    def key(self) -> Hashable:
        """Windows with equal keys may share a batch.

        Whether they are decoded in one call is decided in the child, which can count the tokens of a prompt: the
        same text has the same number. A chained window goes alone, since its prompt is like no other.
        """
        options = self.options
        packed = (self.mode, options.language, options.task) if self.mode == "packed" else self.mode
        prompt = (options.prompt, options.hotwords)
        return packed, self.frames, self.beam_size, options.word_timestamps, prompt, self.previous

    def speech(self) -> list[Interval]:
        """Return where the VAD heard speech, in seconds of the window; pauses within a sentence count as speech."""
        joined: list[Interval] = []
        for start, end in self._spans():
            if joined and start - joined[-1][1] < PAUSE_SECONDS:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return joined

    def _spans(self) -> Iterator[Interval]:
        before = 0
        for piece in self.window.pieces:
            for span in self.window.speech:
                start, end = max(span.start, piece.start), min(span.end, piece.end)
                if end > start:
                    yield (
                        (before + start - piece.start) / SAMPLE_RATE,
                        (before + end - piece.start) / SAMPLE_RATE,
                    )
            before += piece.length


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What was heard; segment times in seconds of the window.

    `languages` are the likeliest and their probabilities, when the language was detected. `tokens` are those of the
    text with its timestamps. `flags` say why the window was decoded again, if `redone`, or would have been.
    """

    segments: tuple[Segment, ...]
    language: str
    languages: tuple[tuple[str, float], ...]
    tokens: tuple[int, ...]
    flags: tuple[str, ...]
    redone: bool


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The results in the order of the requests; `start` and `end` by time.monotonic(), which children share.

    None stands for a window that was not heard: it gave way, or a PCM file was gone.
    """

    results: tuple[WindowResult | None, ...]
    start: float
    end: float
