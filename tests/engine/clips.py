"""The bundled model in this process, watched at its two doors, and requests for the short recordings."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

from tests.speech.sounds import Pcm, read
from v2td.bundled import Recording, recordings
from v2td.config import EngineSettings, QualitySettings
from v2td.engine import Engine, Hearing, Recognition, find_model
from v2td.engine.batch import ModelRequest, WindowRequest, WindowResult
from v2td.engine.recognizer import Recognizer
from v2td.engine.topology import SlotPlan
from v2td.jobs import SAMPLE_RATE, Options, Span, Window, WindowMode

SHORT = tuple(recording for recording in recordings() if recording.seconds < 20)
ENGLISH = tuple(recording for recording in SHORT if recording.language == "en")
VIETNAMESE = tuple(recording for recording in SHORT if recording.language == "vi")
PACK_GAP = 0.6

DOUBTS_ALL = QualitySettings(doubt_logprob=0)  # all text is heard again

Ask = Callable[..., WindowRequest]
Hear = Callable[[Sequence[WindowRequest]], tuple[WindowResult, ...]]


@cache
def pcm_of(recording: Recording) -> Pcm:
    return read(recording.path)


def noise(seconds: float, level: float = 300.0) -> Pcm:
    return (np.random.default_rng(4).standard_normal(int(seconds * SAMPLE_RATE)) * level).astype(np.int16)


def asker(folder: Path) -> Ask:
    """``ask(recording, mode="full", beam_size=0, previous=(), **options)``: a request for the whole of it.

    What the VAD would say of a recording is known; raw samples have no speech unless `speech` is given.
    """
    written: dict[int, Path] = {}

    def ask(
        sound: Recording | Pcm,
        *,
        mode: WindowMode = "full",
        beam_size: int = 0,
        previous: tuple[int, ...] = (),
        speech: Sequence[Span] = (),
        **options: Any,
    ) -> WindowRequest:
        samples = pcm_of(sound) if isinstance(sound, Recording) else sound
        if isinstance(sound, Recording):
            speech = [Span(int(s.start * SAMPLE_RATE), int(s.end * SAMPLE_RATE)) for s in sound.segments]
            options.setdefault("language", sound.language)
        path = written.get(id(sound)) or folder / f"{len(written)}.pcm"
        if id(sound) not in written:
            samples.tofile(path)
            written[id(sound)] = path
        window = Window(0, (Span(0, len(samples)),), tuple(speech))
        return WindowRequest(path, 1, window, Options(**options), beam_size, mode, previous)

    return ask


class Watched:
    """CTranslate2's model, and what it was asked: the shapes of what was encoded, the windows decoded at a time.

    An encoder call for more windows than `room` runs out of memory, as a GPU does.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.encoded: list[tuple[int, int]] = []  # windows, mel frames
        self.decoded: list[tuple[int, int]] = []  # windows, beams
        self.prompts: list[list[int]] = []
        self.room = 1000
        self.error = "CUDA failed with error out of memory"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, features: Any, to_cpu: bool = False) -> Any:
        windows, _bands, frames = features.shape
        self.encoded.append((windows, frames))
        if windows > self.room:
            raise RuntimeError(self.error)
        return self._model.encode(features, to_cpu=to_cpu)

    def generate(self, encoded: Any, prompts: list[list[int]], **settings: Any) -> Any:
        self.decoded.append((len(prompts), settings["beam_size"]))
        self.prompts += prompts
        return self._model.generate(encoded, prompts, **settings)


def load_model() -> WhisperModel:
    """A fresh bundled model, some hundred milliseconds of work."""
    settings = EngineSettings(model="demo")
    return WhisperModel(str(find_model(settings)), device="cpu", compute_type="int8", cpu_threads=1)


def recognizer(
    model: WhisperModel,
    quality: QualitySettings = QualitySettings(),  # noqa: B008 (frozen)
    *,
    device: str = "cpu",
    gap: float = PACK_GAP,
    gives_way: Callable[[], bool] = lambda: False,
) -> tuple[Recognizer, Watched]:
    """What runs in a slot, and a look at what it asks of the model; with `device` cuda it batches as for a GPU."""
    unwatched = model.model._model if isinstance(model.model, Watched) else model.model
    model.model = Watched(unwatched)
    request = ModelRequest(
        path=Path(),
        device=device,
        compute_type="int8",
        place=SlotPlan((), 1),
        pack_gap_seconds=gap,
        quality=quality,
    )
    return Recognizer(model, request, gives_way), model.model


def listener(
    model: WhisperModel,
    quality: QualitySettings = QualitySettings(),  # noqa: B008 (frozen)
    *,
    device: str = "cpu",
    gap: float = PACK_GAP,
) -> tuple[Hear, Watched]:
    """The same, as a function that hears every window."""
    recognizing, watched = recognizer(model, quality, device=device, gap=gap)

    def hear(requests: Sequence[WindowRequest]) -> tuple[WindowResult, ...]:
        results = recognizing.transcribe(requests)
        assert len(results) == len(requests)
        return tuple(result for result in results if result is not None)

    return hear, watched


def said(result: WindowResult) -> str:
    return " ".join(segment.text.strip() for segment in result.segments)


async def hear_sounds(
    engine: Engine,
    path: Path,
    channels: Sequence[Sequence[Pcm]],
    options: Options,
    on_done: Callable[[Window], None] = lambda _: None,
) -> Recognition:
    """Hear a recording whose channels each are these sounds, one behind the other and each a window."""
    length = max(sum(map(len, sounds)) for sounds in channels)
    frames = np.zeros((length, len(channels)), np.int16)
    windows: list[Window] = []
    for channel, sounds in enumerate(channels):
        start = 0
        for sound in sounds:
            span = Span(start, start + len(sound))
            frames[span.start : span.end, channel] = sound
            windows.append(Window(len(windows), (span,), (span,), channel if len(channels) > 1 else None))
            start = span.end
    frames.tofile(path)

    async def found() -> AsyncIterator[Window]:
        for each in windows:
            yield each

    hearing = Hearing(path, found(), options, 5, monotonic(), lambda: None, len(channels), on_done)
    return await engine.transcribe(hearing)
