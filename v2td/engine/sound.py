"""A window as the model gets it: samples, mel features, prompt, options (child side, over faster-whisper's parts)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import TranscriptionOptions, get_suppressed_tokens
from numpy.typing import NDArray

from v2td.config import QualitySettings
from v2td.engine.batch import FULL_SECONDS, MAX_PROMPT_TOKENS, WindowRequest
from v2td.engine.packing import Place
from v2td.errors import ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE, Options, Span

Array = NDArray[Any]

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # Whisper's; so are the other constants of decoding_options
UNKNOWN = "en"  # stands in a prompt until the language is detected; every language is one token


@dataclass(slots=True)
class Sound:
    """What the encoder sees at once: one window, or several short ones at their places.

    `features` have one frame more than `frames`, as faster-whisper wants them.
    """

    requests: dict[int, WindowRequest]  # by their number in the batch
    places: Sequence[Place]
    features: Array  # (mel bands, frames + 1) float32
    tokenizer: Tokenizer
    prompt: list[int]
    encoded: Array = field(default_factory=lambda: np.zeros(0))  # (1, positions, width)
    languages: tuple[tuple[str, float], ...] = ()

    @property
    def request(self) -> WindowRequest:
        """Any of the requests: they agree in everything but the sound."""
        return next(iter(self.requests.values()))

    @property
    def is_shared(self) -> bool:
        """Whether its windows share the encoder; a short one may be by itself, when there is no other."""
        return self.request.mode == "packed"

    @property
    def frames(self) -> int:
        """Mel frames that hold sound."""
        return int(self.features.shape[-1]) - 1

    @property
    def language(self) -> str:
        """The language that the model is told, or was found."""
        return str(self.tokenizer.language_code)

    def speak(self, language: str) -> None:
        """Tell the model the language that was found."""
        before = self.tokenizer.language
        self.tokenizer.language_code = language
        self.tokenizer.language = self.tokenizer.tokenizer.token_to_id(f"<|{language}|>")
        place = len(self.prompt) - 1 - self.prompt[::-1].index(before)  # the last: words of a prompt are others
        self.prompt[place] = self.tokenizer.language


def make_sound(
    model: WhisperModel, requests: dict[int, WindowRequest], places: Sequence[Place], language: str | None = None
) -> Sound:
    """Read the windows and put them in their places, with digital silence between; `language` if it is detected."""
    audio = np.zeros(round(places[-1].end * SAMPLE_RATE), np.float32)
    for place in places:
        heard = read_window(requests[place.clip])
        start = round(place.start * SAMPLE_RATE)
        audio[start : start + len(heard)] = heard[: len(audio) - start]
    request = requests[places[0].clip]
    options = request.options
    tokenizer = Tokenizer(  # a model for English alone knows no other language
        model.hf_tokenizer,
        model.model.is_multilingual,
        task=options.task,
        language=language or options.language or UNKNOWN,
    )
    if model.model.is_multilingual and tokenizer.language is None:
        raise JobError(ErrorClass.BAD_FIELD, f"the model does not know the language {options.language!r}")
    prompt = model.get_prompt(tokenizer, before(model, request), hotwords=hotwords(model, options))
    return Sound(requests, places, model.feature_extractor(audio), tokenizer, prompt)


def storage(array: Array) -> ctranslate2.StorageView:
    """Return an array as CTranslate2 takes it."""
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(array))


def read_window(request: WindowRequest) -> NDArray[np.float32]:
    """Return the pieces one behind the other, as float32 in [-1, 1); only their pages are read."""
    return read_pieces(request.pcm, request.window.pieces, request.channels, request.window.channel or 0)


def read_pieces(pcm: Path, pieces: Sequence[Span], channels: int = 1, channel: int = 0) -> NDArray[np.float32]:
    """Return spans of one channel of a file of interleaved int16 frames."""
    samples = np.memmap(pcm, dtype=np.int16, mode="r")
    frames = samples[: len(samples) // channels * channels].reshape(-1, channels)
    audio = np.concatenate([frames[piece.start : piece.end, channel] for piece in pieces])
    return audio.astype(np.float32) / 32768.0


def before(model: WhisperModel, request: WindowRequest) -> list[int]:
    """Return the tokens that the model takes as said before: the end that fits beside the hotwords.

    faster-whisper bounds prompt and hotwords each, but not both together.
    """
    options = request.options
    tokens = [*(_tokens(model, options.prompt) if options.prompt else ()), *request.previous]
    room = MAX_PROMPT_TOKENS
    if words := hotwords(model, options):
        room -= len(_tokens(model, words))
    return tokens[-room:] if room > 0 else []


def hotwords(model: WhisperModel, options: Options) -> str | None:
    """Return the hotwords of a job as plain words."""
    return str(model.hf_tokenizer.decode(_tokens(model, options.hotwords))) if options.hotwords else None


def _tokens(model: WhisperModel, text: str) -> list[int]:
    """Return the tokens of a text; names of special ones in it, such as <|startoftranscript|>, are left out."""
    eot = model.hf_tokenizer.token_to_id("<|endoftext|>")
    return [each for each in model.hf_tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids if each < eot]


def decoding_options(
    model: WhisperModel, request: WindowRequest, tokenizer: Tokenizer, quality: QualitySettings
) -> TranscriptionOptions:
    """Return faster-whisper's options for decoding one doubtful window again: beams, then temperatures."""
    return TranscriptionOptions(
        beam_size=max(quality.redo_beam_size, request.beam_size),
        best_of=5,
        patience=1,
        length_penalty=1,
        repetition_penalty=1,
        no_repeat_ngram_size=0,
        log_prob_threshold=quality.logprob_min,
        no_speech_threshold=quality.no_speech_min,
        compression_ratio_threshold=quality.compression_ratio_max,
        condition_on_previous_text=False,
        prompt_reset_on_temperature=0.5,
        temperatures=list(TEMPERATURES),
        initial_prompt=before(model, request),
        prefix=None,
        suppress_blank=True,
        suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
        without_timestamps=False,
        max_initial_timestamp=1.0,
        word_timestamps=request.options.word_timestamps,
        prepend_punctuations="\"'“¿([{-",
        append_punctuations="\"'.。,，!！?？:：”)]}、",
        multilingual=False,
        max_new_tokens=None,
        clip_timestamps=[0.0],
        hallucination_silence_threshold=None,
        hotwords=hotwords(model, request.options),
    )


def whole(number: int, request: WindowRequest) -> Place:
    """Return the place of a window that has the encoder for itself."""
    return Place(number, 0.0, min(FULL_SECONDS, request.seconds))
