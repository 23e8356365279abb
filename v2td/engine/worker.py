"""What runs in a slot: a process that holds the model and transcribes one window a call."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from v2td.jobs import Options, Segment, Span, Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

MAX_PROMPT_TOKENS = 223  # half of Whisper's positions; the other half is for the text
FLAG_FALLBACK = "fallback"  # a segment needed a higher temperature


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which model to load, and how."""

    path: Path
    device: str
    compute_type: str
    threads: int


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """One window: `pieces` of the PCM file (16 kHz mono int16), heard one behind the other.

    `options.language` None: the language is detected, among `options.languages` when that is not empty.
    """

    pcm: Path
    pieces: tuple[Span, ...]
    options: Options
    beam_size: int


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What was heard; segment times in seconds of the window; `seconds` is the time it took."""

    segments: tuple[Segment, ...]
    language: str
    language_probability: float
    seconds: float
    flags: tuple[str, ...]


_model: WhisperModel | None = None


def setup(request: ModelRequest) -> None:
    """Load the model; it lives as long as the process."""
    global _model  # noqa: PLW0603 (process lifetime = model lifetime)
    os.environ["OMP_NUM_THREADS"] = str(request.threads)  # read when CTranslate2 is loaded, so before the import
    from faster_whisper import WhisperModel  # noqa: PLC0415
    from tqdm import tqdm  # noqa: PLC0415

    # faster-whisper makes a (hidden) progress bar, whose default lock is a semaphore that a killed child leaks.
    tqdm.set_lock(threading.RLock())
    _model = WhisperModel(
        str(request.path),
        device=request.device,
        compute_type=request.compute_type,
        cpu_threads=request.threads,
        local_files_only=True,
    )


def transcribe(request: WindowRequest) -> WindowResult:
    """Transcribe one window with the model of this process."""
    assert _model is not None, "setup() runs first"
    start = time.perf_counter()
    audio = read_pieces(request.pcm, request.pieces)
    options = request.options
    language, probability = options.language, 1.0
    if language is None:
        language, probability = _detect_language(_model, audio, options.languages)
    segments, _info = _model.transcribe(
        audio,
        language=language,
        task=options.task,
        beam_size=request.beam_size,
        initial_prompt=_prompt_tokens(_model, options),
        hotwords=options.hotwords,
        word_timestamps=options.word_timestamps,
        condition_on_previous_text=False,  # windows are independent
    )
    heard = tuple(_segment(each) for each in segments)
    flags = (FLAG_FALLBACK,) if any(segment.temperature > 0 for segment in heard) else ()
    return WindowResult(heard, language, probability, time.perf_counter() - start, flags)


def read_pieces(pcm: Path, pieces: tuple[Span, ...]) -> NDArray[np.float32]:
    """Return the pieces one behind the other, as float32 in [-1, 1); only their pages are read."""
    samples = np.memmap(pcm, dtype=np.int16, mode="r")
    audio = np.concatenate([samples[piece.start : piece.end] for piece in pieces])
    return audio.astype(np.float32) / 32768.0


def _prompt_tokens(model: WhisperModel, options: Options) -> list[int] | None:
    """Return the end of the prompt that fits beside the hotwords: faster-whisper bounds each of them, but not both."""
    if options.prompt is None:
        return None
    room = MAX_PROMPT_TOKENS
    if options.hotwords:
        room -= len(_tokens(model, options.hotwords))
    return _tokens(model, options.prompt)[-room:] if room > 0 else None


def _tokens(model: WhisperModel, text: str) -> list[int]:
    ids: list[int] = model.hf_tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
    return ids


def _detect_language(model: WhisperModel, audio: NDArray[np.float32], allowed: tuple[str, ...]) -> tuple[str, float]:
    if not model.model.is_multilingual:
        return "en", 1.0
    language, probability, all_probabilities = model.detect_language(audio)
    if allowed and language not in allowed:
        language, probability = max(
            (each for each in all_probabilities if each[0] in allowed), key=lambda each: each[1]
        )
    return language, float(probability)


def _segment(segment: Any) -> Segment:
    words = segment.words
    return Segment(
        start=float(segment.start),
        end=float(segment.end),
        text=segment.text,
        avg_logprob=float(segment.avg_logprob),
        no_speech_prob=float(segment.no_speech_prob),
        compression_ratio=float(segment.compression_ratio),
        temperature=float(segment.temperature or 0.0),
        words=None
        if words is None
        else tuple(Word(float(each.start), float(each.end), each.word, float(each.probability)) for each in words),
    )
