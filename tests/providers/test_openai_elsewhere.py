"""The provider against a server that others made: whisper.cpp's, which answers at OpenAI's paths when it is told to."""

from collections.abc import AsyncIterator
from pathlib import Path

import jiwer
import pytest

from tests.providers.hearing import Told, decoding, text_of
from tests.services import build, whisper_server
from tests.speech.sounds import bundled
from v2td.bundled import ggml_file
from v2td.config import OpenAISettings
from v2td.jobs import Options
from v2td.providers.openai import OpenAIProvider

pytestmark = [pytest.mark.slow, pytest.mark.services]  # a server of its own, built by python -m tests.services build

PATH = "/v1/audio/transcriptions"
OPTIONS = {
    "short": (Options(), {}),
    "words": (Options(language="en", word_timestamps=True), {}),
    "chunks": (Options(), {"chunk_seconds": 5}),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[whisper_server.Server]:
    program = build.built("whisper_server")
    async with whisper_server.running(program, ggml_file(), tmp_path, "--inference-path", PATH) as server:
        yield server


@pytest.mark.parametrize("case", OPTIONS)
async def test_its_answers_are_understood(server: whisper_server.Server, tmp_path: Path, case: str) -> None:
    options, changes = OPTIONS[case]
    recording = bundled("en-05.ogg")
    settings = OpenAISettings.model_validate(
        {"name": "other", "base_url": f"{server.url}/v1", "codec": "flac", "model": "any", **changes}
    )
    told = Told()
    async with OpenAIProvider(settings) as provider, decoding(tmp_path, recording.path, options, told) as job:
        assert await provider.health() is None  # it has no list of models
        heard = await provider.transcribe(job)
    assert heard.language == "en"
    assert jiwer.wer(recording.text.lower(), text_of(heard).lower()) == 0
    assert len(heard.timings["requests"]) == (2 if case == "chunks" else 1)
    assert " ".join(text for _index, text in sorted(told.texts.items())) == text_of(heard)
    for segment, spoken in zip(heard.segments, recording.segments, strict=True):
        assert segment.start == pytest.approx(spoken.start, abs=0.5)
        assert segment.end == pytest.approx(spoken.end, abs=0.5)
        if options.word_timestamps:
            assert segment.words
            assert segment.start <= segment.words[0].start < segment.words[-1].end <= segment.end
