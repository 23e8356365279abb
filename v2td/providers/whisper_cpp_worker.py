"""What runs in a child of whisper.cpp: a process that holds a model and hears a window a call, over pywhispercpp.

Its low-level module is used, because the class above it downloads a model whose file is not there, and keeps the
options of one call for the next.
"""

from __future__ import annotations

import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2td import failpoints
from v2td.jobs import SAMPLE_RATE, Segment, Task, Window, Word

MIN_SAMPLES = 2 * SAMPLE_RATE  # shorter sound is followed by silence: what is shorter than 100 ms is not heard at all
TICKS = 100  # whisper.cpp's times are in hundredths of a second
PROMPT_CHARACTERS = 2000  # more than 224 tokens' worth, which is all that the model sees: the end of it
ERROR_LEVEL = 4  # of GGML's messages
TOLD_MESSAGES = 3
TOKENS_WITHOUT_LANGUAGES = 51766  # of a multilingual model
LANGUAGES_TOLD = 5  # the likeliest; the rest is noise
WITHOUT_SPACES = frozenset({"zh", "ja", "yue", "th", "lo", "my"})  # each letter counts as a word, as in faster-whisper


@dataclass(frozen=True, slots=True)
class WindowSound:
    """Where one window's samples are: `pcm` holds interleaved int16 frames of `channels` at 16 kHz."""

    pcm: Path
    channels: int
    window: Window


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """One window and how to hear it; `beam_size` 1 is greedy. `prompt` is taken as said before."""

    sound: WindowSound
    task: Task
    language: str
    beam_size: int
    prompt: str
    word_timestamps: bool


@dataclass(frozen=True, slots=True)
class WindowText:
    """What was heard; times in seconds of the window. `language` is what the model was told, or heard."""

    segments: tuple[Segment, ...]
    language: str
    probability: float | None = None

    @property
    def text(self) -> str:
        """All of it in one line."""
        return " ".join(each.text.strip() for each in self.segments)


class _Model:
    """The model of this process. Raises RuntimeError with whisper.cpp's own last words."""

    def __init__(self, path: Path, threads: int) -> None:
        self._pw: Any = import_module("_pywhispercpp")
        self._threads = threads
        self._said: deque[str] = deque(maxlen=TOLD_MESSAGES)
        self._pw.whisper_log_set(self._note)  # else it says sixty lines about each model, and one about each window
        self._context = self._pw.whisper_init_from_file_with_params(
            str(path), self._pw.whisper_context_default_params()
        )
        if self._said:  # a model that was not loaded looks like one that was, and ends the process when it is used
            raise self._error()
        self._end_of_text = int(self._pw.whisper_token_eot(self._context))
        self._named = [self._pw.whisper_lang_str(each) for each in range(self._pw.whisper_lang_max_id() + 1)]
        # whisper.cpp takes a token that means something else for the language that older models do not know.
        self._spoken = self._pw.whisper_n_vocab(self._context) - TOKENS_WITHOUT_LANGUAGES

    def languages(self, sound: NDArray[np.float32], among: Sequence[str]) -> tuple[tuple[str, float], ...]:
        """Return the likeliest languages of these, or of all, and how likely each is of all."""
        found = np.zeros(len(self._named), np.float32)
        self._pw.whisper_pcm_to_mel(self._context, sound, len(sound), self._threads)
        if self._pw.whisper_lang_auto_detect(self._context, 0, self._threads, found) < 0:
            raise self._error()
        known = list(zip(self._named, map(float, found), strict=True))[: self._spoken]
        likeliest = sorted(known, key=lambda each: -each[1])
        return tuple(each for each in likeliest if not among or each[0] in among)[:LANGUAGES_TOLD]

    def hear(self, sound: NDArray[np.float32], request: WindowRequest) -> tuple[Segment, ...]:
        """Return what is said."""
        pw = self._pw
        params = pw.whisper_full_default_params(
            pw.whisper_sampling_strategy.WHISPER_SAMPLING_BEAM_SEARCH
            if request.beam_size > 1
            else pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY
        )
        if request.beam_size > 1:
            params.beam_search = {"beam_size": request.beam_size, "patience": -1.0}
        params.n_threads = self._threads
        params.language = request.language
        params.translate = request.task == "translate"
        params.token_timestamps = request.word_timestamps
        params.suppress_nst = True  # as Whisper itself: no brackets, no notes
        params.print_progress = False
        if request.prompt:
            params.initial_prompt = request.prompt[-PROMPT_CHARACTERS:]
        pw.assign_abort_callback(params, _asked_to_stop.is_set)  # between two steps, where Python runs signal handlers
        if pw.whisper_full(self._context, params, sound, len(sound)) != 0:
            if _asked_to_stop.is_set():
                raise InterruptedError("the window was stopped")
            raise self._error()
        count = pw.whisper_full_n_segments(self._context)
        segments = [self._segment(index, request) for index in range(count)]
        ratio = compression_ratio(" ".join(each.text.strip() for each in segments))
        return tuple(replace(each, compression_ratio=ratio) for each in segments if each.text.strip())

    def _segment(self, index: int, request: WindowRequest) -> Segment:
        pw, context, length = self._pw, self._context, request.sound.window.length / SAMPLE_RATE
        tokens = [
            pw.whisper_full_get_token_data(context, index, number)
            for number in range(pw.whisper_full_n_tokens(context, index))
        ]
        tokens = [each for each in tokens if each.id < self._end_of_text]
        start = min(pw.whisper_full_get_segment_t0(context, index) / TICKS, length)
        end = min(max(pw.whisper_full_get_segment_t1(context, index) / TICKS, start), length)
        spaced = request.language not in WITHOUT_SPACES
        return Segment(
            start=start,
            end=end,
            text=pw.whisper_full_get_segment_text(context, index).decode(errors="replace"),
            avg_logprob=float(np.mean([each.plog for each in tokens])) if tokens else 0.0,
            no_speech_prob=0.0,  # pywhispercpp does not tell
            compression_ratio=0.0,
            temperature=0.0,  # likewise
            words=tuple(self._words(tokens, start, end, spaced=spaced)) if request.word_timestamps else None,
        )

    def _words(self, tokens: Sequence[Any], earliest: float, latest: float, *, spaced: bool) -> Iterator[Word]:
        """Yield the words: tokens up to the next space, or letter by letter where there are none."""

        def word(first: int, behind: int, content: bytes) -> Word:
            start = min(max(tokens[first].t0 / TICKS, earliest), latest)
            end = min(max(tokens[behind - 1].t1 / TICKS, start), latest)
            likely = float(np.mean([each.p for each in tokens[first:behind]]))
            return Word(start, end, content.decode(errors="replace"), likely)

        first, content = 0, b""
        for index, token in enumerate(tokens):
            added = bytes(self._pw.whisper_token_to_bytes(self._context, token.id))
            if content and (added.startswith(b" ") if spaced else _is_whole(content)):
                yield word(first, index, content)
                first, content = index, b""
            content += added
        if content:
            yield word(first, len(tokens), content)

    def _note(self, level: int, message: str) -> None:
        if level == ERROR_LEVEL:
            self._said.append(message.strip())

    def _error(self) -> RuntimeError:
        said = "; ".join(self._said)
        self._said.clear()
        return RuntimeError(f"whisper.cpp: {said or 'it failed without a word'}")


_model: _Model | None = None
_asked_to_stop = threading.Event()


def setup(path: Path, cpus: tuple[int, ...], threads: int) -> None:
    """Load the model, which lives as long as the process, and let it hear silence: a bad one fails here."""
    global _model  # noqa: PLW0603 (process lifetime = model lifetime)
    failpoints.arm_child()
    signal.signal(signal.SIGUSR1, lambda *_: _asked_to_stop.set())
    # OpenMP reads them when it is loaded. One place, among whose CPUs the kernel moves the threads: see the engine's.
    os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "close"}
    os.environ["OMP_PLACES"] = f"{{{','.join(map(str, cpus))}}}"
    model = _Model(path, threads)
    silence = np.zeros(MIN_SAMPLES, np.float32)
    nothing = Window(0, (), ())
    model.hear(silence, WindowRequest(WindowSound(path, 1, nothing), "transcribe", "en", 1, "", word_timestamps=False))
    _model = model


def detect(sound: WindowSound, among: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Return the likeliest languages of a window with their probabilities; of these, when any are given."""
    assert _model is not None, "setup() runs first"
    return _model.languages(read_window(sound), among)


def hear(request: WindowRequest) -> WindowText:
    """Return what is said in a window. FileNotFoundError when its PCM is gone.

    InterruptedError after SIGUSR1, as soon as the step under way is done: encoding is one.
    """
    assert _model is not None, "setup() runs first"
    _asked_to_stop.clear()  # whoever was meant is gone
    failpoints.reach_blocking("slot.batch")
    return WindowText(_model.hear(read_window(request.sound), request), request.language)


def read_window(sound: WindowSound, shortest: int = MIN_SAMPLES) -> NDArray[np.float32]:
    """Return the pieces one behind the other in [-1, 1): the mean of the channels, or the one that the window is of.

    Only their pages are read. Silence follows what is shorter than `shortest` samples.
    """
    samples = np.memmap(sound.pcm, dtype=np.int16, mode="r")
    frames = samples[: len(samples) // sound.channels * sound.channels].reshape(-1, sound.channels)
    channel = slice(None) if sound.window.channel is None else slice(sound.window.channel, sound.window.channel + 1)
    pieces = [frames[each.start : each.end, channel] for each in sound.window.pieces]
    audio = np.concatenate(pieces).mean(axis=1, dtype=np.float32) / np.float32(32768)
    return np.pad(audio, (0, max(0, shortest - len(audio))))


def _is_whole(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def compression_ratio(text: str) -> float:
    """Return how much the text repeats itself, in Whisper's measure."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))
