"""Recordings of which faster-whisper's own batched pipeline loses much and v2td must not; and noise that says nothing.

The pipeline decodes without timestamps, joins what is seconds apart, and has neither fallback nor second look.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import pytest
import uvloop
from faster_whisper import BatchedInferencePipeline, WhisperModel

from tests.engine import material
from tests.engine.conftest import running_engine, text_of
from tests.engine.material import Take
from tests.speech.sounds import audio, encode
from v2td.bundled import model_folder
from v2td.config import SpeechSettings
from v2td.engine import Engine, Hearing, Recognition
from v2td.jobs import SAMPLE_RATE, Options
from v2td.speech import Decoders

SECONDS = 20 * SAMPLE_RATE

pytestmark = pytest.mark.slow  # transcribes half an hour of speech, twice


@dataclass(frozen=True, slots=True)
class Case:
    """A take, the word error rate that stock faster-whisper exceeds, and the one that v2td must not."""

    take: Take
    stock_above: float
    ours_at_most: float


CASES = {
    "long pauses": Case(material.long_pauses("vi", 2), 0.3, 0.02),
}
NOISES = {
    name: Take("en", "", sound)
    for name, sound in {
        "silence": material.silence(20),
        "white noise": material.white_noise(SECONDS, 0) * np.float32(0.3),
        "faint white noise": material.white_noise(SECONDS, 0) * np.float32(0.01),
        "pink noise": material.pink_noise(SECONDS, 0) * np.float32(0.1),
        "hum": material.tones(SECONDS, 50, 100, 150, 250) * np.float32(0.2),
        "sine": material.tones(SECONDS, 440) * np.float32(0.3),
    }.items()
}


@pytest.fixture(scope="module")
def stock() -> BatchedInferencePipeline:
    model = WhisperModel(str(model_folder()), device="cpu", compute_type="int8", cpu_threads=1)
    return BatchedInferencePipeline(model)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Recognition]:
    """What v2td hears in everything, all at once as in the daemon: windows of different jobs share batches."""
    folder = tmp_path_factory.mktemp("quality")
    takes = {name: case.take for name, case in CASES.items()} | NOISES

    async def hear_all() -> dict[str, Recognition]:
        async with (
            Decoders(SpeechSettings(pcm_dir=folder), 1) as decoders,
            running_engine(1) as engine,
            asyncio.TaskGroup() as group,
        ):
            jobs = {
                name: group.create_task(hear(decoders, engine, encode(take.pcm, folder / f"{name}.wav"), take.language))
                for name, take in takes.items()
            }
        return {name: job.result() for name, job in jobs.items()}

    return uvloop.run(hear_all())


async def hear(decoders: Decoders, engine: Engine, recording: Path, language: str) -> Recognition:
    async with decoders.prepare(audio(recording)) as speech:
        return await engine.transcribe(
            Hearing(speech.pcm, speech.windows, Options(language=language), 5, time.monotonic(), lambda: None)
        )


def wer(take: Take, text: str) -> float:
    spoken, heard = (re.sub(r"[.,]", "", each.lower()) for each in (take.text, text))
    return float(jiwer.wer(spoken, heard))


@pytest.mark.parametrize("name", CASES)
def test_what_the_batched_pipeline_loses_is_heard(
    name: str, stock: BatchedInferencePipeline, ours: Mapping[str, Recognition]
) -> None:
    case = CASES[name]
    sound = case.take.pcm.astype(np.float32) / 32768
    segments, _ = stock.transcribe(sound, language=case.take.language, beam_size=5, batch_size=8)
    lost = wer(case.take, " ".join(segment.text.strip() for segment in segments))
    assert lost > case.stock_above, "a case that says nothing"
    heard = wer(case.take, " ".join(text_of(ours[name])))
    assert heard <= case.ours_at_most, (text_of(ours[name]), ours[name].flags)


@pytest.mark.parametrize("name", NOISES)
def test_noise_says_nothing(name: str, ours: Mapping[str, Recognition]) -> None:
    assert text_of(ours[name]) == [""] * len(ours[name].windows)
