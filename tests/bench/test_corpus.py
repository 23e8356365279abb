"""Speech of known text: the same every time, as long as it should be, and what the model was not trained on."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest

from bench import corpus, grammar


def speak(kind: str, count: int, folder: Path) -> None:
    folder.mkdir()
    command = [sys.executable, "-m", "bench.corpus", kind, str(count), str(folder)]
    subprocess.run(command, check=True, cwd=corpus.ROOT)


def test_the_same_recordings_whenever_they_are_made_and_however_many(tmp_path: Path) -> None:
    speak("3s", 2, tmp_path / "two")
    speak("3s", 3, tmp_path / "three")
    for name in ("3s-000.flac", "3s-001.flac"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


@pytest.mark.parametrize("kind", ["3s", "3s-vi", "5s", "10s", "call"])
def test_recordings_have_the_length_of_their_kind_and_sound(kind: str) -> None:
    for clip in corpus.clips(kind, 2):
        with av.open(str(clip.path)) as container:
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
            rate = container.streams.audio[0].rate
        assert len(samples) / rate == pytest.approx(clip.seconds, abs=0.01)
        assert corpus.KINDS[kind].least <= clip.seconds <= corpus.KINDS[kind].most
        assert np.abs(samples).max() > 3000
        assert len(clip.text.split()) > clip.seconds / 2


def test_every_second_recording_has_noise() -> None:
    for number, clip in enumerate(corpus.clips("3s", 4)):
        with av.open(str(clip.path)) as container:
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        silent = np.count_nonzero(samples[:2000]) < 200
        assert silent == (number % 2 == 0)


@pytest.mark.parametrize("language", ["en", "vi"])
def test_sentences_are_held_out_and_end(language: str) -> None:
    random = Random(1)
    sentences = [grammar.held_out_sentence(language, random) for _ in range(50)]
    assert all(hashlib.md5(sentence.encode()).digest()[0] % 8 == 0 for sentence in sentences)
    assert all(re.fullmatch(r"[\w' ,]+\.", sentence) for sentence in sentences)
    assert len(set(sentences)) > 30
