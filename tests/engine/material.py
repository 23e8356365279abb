"""Recordings that are hard to transcribe, put together from the sentences of the demo voice; always the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from faster_whisper.audio import decode_audio
from numpy.typing import NDArray

from v2td.bundled import recordings
from v2td.jobs import SAMPLE_RATE

Sound = NDArray[np.float32]  # in [-1, 1] at SAMPLE_RATE

BEFORE, AFTER = 0.05, 0.1  # seconds kept around a sentence
DIGIT = re.compile(r"\b(zero|one|two|three|four|five|six|seven|eight|nine|không|một|hai|ba|bốn|năm|sáu|bảy|tám|chín)\b")


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    sound: Sound


@dataclass(frozen=True, slots=True)
class Take:
    """A recording and what is said in it."""

    language: str
    text: str
    sound: Sound

    @property
    def pcm(self) -> NDArray[np.int16]:
        return (self.sound.clip(-1, 1) * 32767).astype(np.int16)


def long_pauses(language: str, seed: int) -> Take:
    return _speech(language, 12, seed, pause=(2, 9))


def conversation(language: str, seed: int, sentences: int = 20) -> Take:
    return _speech(language, sentences, seed, pause=(0.3, 1.2))


def without_pause(language: str, seed: int) -> Take:
    """Almost a minute in which nobody stops: windows have to be cut where somebody speaks."""
    return _speech(language, 24, seed, pause=(0.12, 0.12))


def number_groups(language: str, seed: int) -> Take:
    """Sentences with several digits, many of them the same ones in a row."""
    return _speech(language, 14, seed, pause=(0.3, 1.2), among=lambda text: len(DIGIT.findall(text.lower())) > 2)


def one_sentence_again_and_again(language: str, seed: int) -> Take:
    """Truly said twelve times: no loop of the model's."""
    chosen = sentences(language)[seed].text
    return _speech(language, 12, seed, pause=(0.4, 1.0), among=lambda text: text == chosen)


def cut_words(language: str, seed: int) -> Take:
    """It begins and ends in the middle of a word."""
    whole = _speech(language, 10, seed, pause=(0.4, 0.4))
    return replace(whole, sound=whole.sound[_samples(0.4 + BEFORE + 0.15) : -_samples(0.5 + AFTER + 0.15)])


def very_quiet(language: str, seed: int) -> Take:
    """40 dB below the usual: 16 bits begin to be coarse."""
    usual = conversation(language, seed)
    return replace(usual, sound=usual.sound * np.float32(0.01))


def overdriven(language: str, seed: int) -> Take:
    """So loud that the peaks are cut off."""
    usual = conversation(language, seed)
    return replace(usual, sound=(usual.sound * np.float32(1 / np.abs(usual.sound).max() * 4)).clip(-1, 1))


def near_and_far(language: str, seed: int) -> Take:
    """Each sentence from another distance, up to 36 dB quieter."""
    return _speech(
        language, 16, seed, pause=(0.4, 1.5), change=lambda sound, rng: sound * 10 ** (rng.uniform(-36, 0) / 20)
    )


def in_noise(language: str, seed: int, decibels: float = 15) -> Take:
    """Pink noise all the time, so many decibels below the speech."""
    usual = conversation(language, seed)
    noise = pink_noise(len(usual.sound), seed) * _level(usual.sound) * 10 ** (-decibels / 20)
    return replace(usual, sound=usual.sound + noise)


def noise_over_words(language: str, seed: int) -> Take:
    """Every few seconds something rattles for a moment, 8 dB below the speech."""
    usual = conversation(language, seed)
    sound, rng = usual.sound.copy(), np.random.default_rng(seed)
    for _ in range(len(sound) // _samples(4)):
        burst = pink_noise(_samples(rng.uniform(0.3, 1)), seed) * _level(sound) * 0.4
        start = rng.integers(len(sound) - len(burst))
        sound[start : start + len(burst)] += burst.astype(np.float32)
    return replace(usual, sound=sound)


def silence(seconds: float) -> Sound:
    return np.zeros(_samples(seconds), np.float32)


def white_noise(samples: int, seed: int) -> Sound:
    noise: Sound = np.random.default_rng(seed).standard_normal(samples, np.float32)
    return noise


def pink_noise(samples: int, seed: int) -> Sound:
    spectrum = np.fft.rfft(white_noise(samples, seed))
    noise: Sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), samples).astype(np.float32)
    pink: Sound = noise / noise.std()
    return pink


def tones(samples: int, *frequencies: float) -> Sound:
    turns = np.outer(frequencies, np.arange(samples) / SAMPLE_RATE)
    sound: Sound = np.sin(2 * np.pi * turns).mean(axis=0).astype(np.float32)
    return sound


@cache
def sentences(language: str) -> tuple[Sentence, ...]:
    """Every sentence of the bundled recordings, cut out by its true times."""
    found = []
    for recording in recordings():
        if recording.language == language:
            sound = decode_audio(str(recording.path))
            found += [
                Sentence(each.text, sound[_samples(each.start - BEFORE) : _samples(each.end + AFTER)])
                for each in recording.segments
            ]
    return tuple(found)


def _speech(
    language: str,
    count: int,
    seed: int,
    *,
    pause: tuple[float, float],
    among: Callable[[str], bool] = lambda text: True,
    change: Callable[[Sound, np.random.Generator], Sound] = lambda sound, rng: sound,
) -> Take:
    """Random sentences, of those that `among` allows, each behind a pause of so many seconds."""
    rng = np.random.default_rng(seed)
    allowed = [each for each in sentences(language) if among(each.text)]
    chosen = [allowed[index] for index in rng.integers(len(allowed), size=count)]
    parts = [part for each in chosen for part in (silence(rng.uniform(*pause)), change(each.sound, rng))]
    text = " ".join(each.text for each in chosen)
    return Take(language, text, np.concatenate([*parts, silence(0.5)]).astype(np.float32))


def _level(sound: Sound) -> float:
    """Root mean square of the louder half, where somebody speaks."""
    loud = np.abs(sound) > np.median(np.abs(sound))
    return float(np.sqrt(np.mean(sound[loud] ** 2)))


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
