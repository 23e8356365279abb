"""Recordings of speech whose text is known, made once for each kind and kept in build/.

`python -m bench.corpus KIND COUNT FOLDER` makes them: in a process of its own, because espeak-ng carries state from
one utterance to the next, so that only the order from a fresh start makes a recording the same every time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random

import av
import numpy as np

from bench import grammar, voice
from bench.voice import Samples

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "bench"
PLAIN_VOICES = {"en": ("en-us", "en"), "vi": ("vi",)}
VARIANTS = ("m1", "m3", "m7", "f2", "f3", "Andy")
SHORTEST_SENTENCE = 1.0  # seconds
NOISE_DECIBELS = (15.0, 25.0)  # below the speech


@dataclass(frozen=True, slots=True)
class Kind:
    """How the recordings of one workload are: seconds of each, from `least` to `most`, and of the pauses in them.

    Every second recording has a variant of the voice, another speed and pitch, and white or pink noise.
    """

    name: str
    least: float
    most: float
    pauses: tuple[float, float]
    language: str = "en"


TALK = (0.3, 0.6)  # dense: hardly a pause
CONVERSATION = (0.35, 2.5)
KINDS = {
    kind.name: kind
    for kind in (
        Kind("3s", 2.5, 3.5, TALK),
        Kind("3s-vi", 2.5, 3.5, TALK, language="vi"),
        Kind("5s", 4.5, 5.5, TALK),
        Kind("10s", 9, 11, TALK),
        Kind("call", 56, 60, CONVERSATION),
        Kind("minute", 56, 60, TALK),
        Kind("3min", 176, 180, TALK),
        Kind("4min", 236, 240, TALK),
        Kind("10min", 596, 600, TALK),
        Kind("hour", 3590, 3600, TALK),
        Kind("3hours", 10790, 10800, TALK),
    )
}


@dataclass(frozen=True, slots=True)
class Clip:
    """A FLAC file, what is said in it, and how long it is."""

    path: Path
    language: str
    seconds: float
    text: str

    @property
    def name(self) -> str:
        """Unique among all kinds."""
        return self.path.stem


def clips(kind: str, count: int) -> tuple[Clip, ...]:
    """Return the first `count` recordings of a kind; makes them, at about a hundredth of their time, if need be."""
    folder = CACHE / f"speech-{_fingerprint()}" / f"{kind}-{count}"
    manifest = folder / "manifest.json"
    if not manifest.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.corpus", kind, str(count), str(folder)]
        subprocess.run(command, check=True, cwd=ROOT)
    entries = json.loads(manifest.read_text(encoding="utf-8"))
    return tuple(Clip(folder / entry.pop("path"), **entry) for entry in entries)


def make(kind: Kind, count: int, folder: Path) -> tuple[Clip, ...]:
    """Speak `count` recordings into `folder`; the same ones whenever a process begins with this."""
    made = []
    for number in range(count):
        random = Random(f"{kind.name}/{number}")
        samples, text = _recording(kind, random, noisy=number % 2 == 1)
        path = folder / f"{kind.name}-{number:03d}.flac"
        _write_flac(path, samples)
        made.append(Clip(path, kind.language, len(samples) / voice.sample_rate(), text))
    return tuple(made)


def _recording(kind: Kind, random: Random, *, noisy: bool) -> tuple[Samples, str]:
    """Return samples and text: sentences of one voice, as many as make a length between least and most."""
    rate = voice.sample_rate()
    name = random.choice(PLAIN_VOICES[kind.language])
    speed, pitch = 175, 50
    if noisy:
        name = f"{name}+{random.choice(VARIANTS)}"
        speed, pitch = random.randint(155, 190), random.randint(40, 60)
    lead, tail = _silence(random, (0.2, 0.4)), _silence(random, (0.2, 0.4))
    parts, sentences, length = [lead], list[str](), len(lead)
    while length + len(tail) < kind.least * rate:
        sentence = grammar.held_out_sentence(kind.language, random)
        pause = _silence(random, kind.pauses) if sentences else lead[:0]
        spoken = voice.say(sentence, name, words_per_minute=speed, pitch=pitch) * np.float32(random.uniform(0.5, 1))
        if length + len(pause) + len(spoken) + len(tail) > kind.most * rate:
            if length + len(tail) + (kind.pauses[0] + SHORTEST_SENTENCE) * rate > kind.most * rate:
                parts, sentences, length = [lead], [], len(lead)  # a dead end: begin again
            continue
        parts += [pause, spoken]
        sentences.append(sentence)
        length += len(pause) + len(spoken)
    samples = np.concatenate([*parts, tail])
    return (_with_noise(samples, random) if noisy else samples), " ".join(sentences)


def _silence(random: Random, seconds: tuple[float, float]) -> Samples:
    """Most pauses are in the shorter half of the range."""
    least, most = seconds
    middle = (least + most) / 2
    low, high = (least, middle) if random.random() < 0.85 else (middle, most)
    return np.zeros(int(random.uniform(low, high) * voice.sample_rate()), np.float32)


def _with_noise(samples: Samples, random: Random) -> Samples:
    noise = np.random.default_rng(random.getrandbits(32)).standard_normal(len(samples), np.float32)
    if random.random() < 0.5:  # pink: equal power in each octave
        spectrum = np.fft.rfft(noise)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        noise = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    speech_power = np.mean(np.square(samples[samples != 0]))
    wanted = speech_power * 10 ** (-random.uniform(*NOISE_DECIBELS) / 10)
    return samples + noise * np.float32(np.sqrt(wanted / np.mean(np.square(noise))))


def _write_flac(path: Path, samples: Samples) -> None:
    pcm = (np.clip(samples, -1, 1) * (2**15 - 1)).astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=voice.sample_rate(), layout="mono")
        block = 1 << 16
        for start in range(0, len(pcm), block):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + block], format="s16", layout="mono")
            frame.sample_rate = voice.sample_rate()
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@cache
def _fingerprint() -> str:
    """Changes with everything that decides what is said and how."""
    digest = hashlib.sha256(importlib.metadata.version("espeakng-loader").encode())
    for name in ("corpus.py", "grammar.py", "voice.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:12]


def _main(arguments: Sequence[str]) -> None:
    kind, count, folder = KINDS[arguments[0]], int(arguments[1]), Path(arguments[2])
    entries = [asdict(clip) | {"path": clip.path.name} for clip in make(kind, count, folder)]
    unfinished = folder / "manifest.json.tmp"
    unfinished.write_text(json.dumps(entries, indent=1, ensure_ascii=False), encoding="utf-8")
    unfinished.rename(folder / "manifest.json")


if __name__ == "__main__":
    _main(sys.argv[1:])
