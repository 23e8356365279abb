"""Doubtful windows are heard again, alone, by faster-whisper's own loop: first whole, then what is still missing.

Whole, with beams, and with temperature fallback unless the beams agree with what was heard first: then people do
repeat themselves. What speech is left without text is heard by itself, and a stretch whose text is suspiciously
short in two halves: sentences get lost in the company of others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from numpy.typing import NDArray

from v2td.config import QualitySettings
from v2td.engine import gate
from v2td.engine.batch import Interval
from v2td.engine.segments import Segments, as_dict, moved, said, text_of
from v2td.engine.sound import Sound, decoding_options, read_window, storage
from v2td.jobs import SAMPLE_RATE

MARGIN_SECONDS = 0.1  # around a stretch: the VAD cuts close
QUIET_SECONDS = 0.1  # what the loudness of a place is averaged over

Samples = NDArray[np.float32]


def hear_whole(model: WhisperModel, sound: Sound, first: Segments, quality: QualitySettings) -> Segments:
    """Return the segments of a window that has the encoder for itself, decoded with beams."""
    request = sound.request
    options = decoding_options(model, request, sound.tokenizer, quality)
    if sound.encoded.size and request.mode == "full":
        encoded = storage(sound.encoded)
    else:
        encoded = model.encode(pad_or_trim(sound.features[:, : sound.frames]))

    def hear(temperatures: list[float]) -> Segments:
        chosen = replace(options, temperatures=temperatures)
        found = model.generate_segments(sound.features, sound.tokenizer, chosen, False, encoded)
        return [as_dict(segment) for segment in found]

    beams = hear(options.temperatures[:1])
    sure = all(each["avg_logprob"] >= quality.logprob_min for each in beams)
    repetitive = any(each["compression_ratio"] > quality.compression_ratio_max for each in beams)
    if sure and (not repetitive or text_of(beams) == text_of(first)):
        return beams
    return hear(options.temperatures)


def hear_missing(model: WhisperModel, sound: Sound, heard: Segments, quality: QualitySettings) -> Segments:
    """Return `heard` and what is said where it has no text, or suspiciously little, in order of start."""
    request = sound.request
    speech = request.speech()
    audio = read_window(request)
    segments: Segments = []
    for segment, sparse in zip(heard, gate.sparse(said(heard), speech), strict=True):
        again: Segments = []
        if sparse:
            middle = _quietest(audio, (segment["start"], segment["end"]))
            for half in ((segment["start"], middle), (middle, segment["end"])):
                again += _hear_stretch(model, sound, audio, half, quality)
        segments += again if len(text_of(again)) > len(segment["text"]) else [segment]
    for start, end in gate.uncovered(speech, [(each["start"], each["end"]) for each in segments]):
        if end - start >= quality.uncovered_seconds:
            around = (max(0.0, start - MARGIN_SECONDS), min(request.seconds, end + MARGIN_SECONDS))
            segments += _hear_stretch(model, sound, audio, around, quality)
    return sorted(segments, key=lambda each: float(each["start"]))


def _hear_stretch(
    model: WhisperModel, sound: Sound, audio: Samples, stretch: Interval, quality: QualitySettings
) -> Segments:
    """Return the segments of a part of a window, in seconds of the window, decoded with beams."""
    start, end = stretch
    part = audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    options = decoding_options(model, sound.request, sound.tokenizer, quality)
    options = replace(options, temperatures=options.temperatures[:1])
    features = model.feature_extractor(part)
    return [moved(as_dict(each), start) for each in model.generate_segments(features, sound.tokenizer, options, False)]


def _quietest(audio: Samples, stretch: Interval) -> float:
    """Return where to divide a stretch: its quietest place, in seconds of the window, not too far from its middle."""
    first, last = (round(seconds * SAMPLE_RATE) for seconds in stretch)
    width = round(QUIET_SECONDS * SAMPLE_RATE)
    loudness = np.convolve(np.abs(audio[first:last]), np.ones(width), "same")
    third = len(loudness) // 3
    return (first + third + int(np.argmin(loudness[third : 2 * third]))) / SAMPLE_RATE
