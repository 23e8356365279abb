"""whisper.cpp in its child, with the bundled model as a GGML file, on recordings whose text is known."""

from collections.abc import AsyncIterator
from pathlib import Path

import jiwer
import pytest

from tests.providers.hearing import Told, decoding, text_of
from v2td.bundled import ggml_file, recordings
from v2td.config import WhisperCppSettings
from v2td.jobs import Options
from v2td.providers.whisper_cpp import WhisperCppChild

pytestmark = pytest.mark.slow  # starts processes that load models


@pytest.fixture(scope="module")
def settings() -> WhisperCppSettings:
    return WhisperCppSettings(name="whisper_cpp", model=ggml_file(), threads=1)


@pytest.fixture
async def provider(settings: WhisperCppSettings) -> AsyncIterator[WhisperCppChild]:
    async with WhisperCppChild(settings) as provider:
        yield provider


async def test_bundled_recordings_get_their_text_language_and_times(provider: WhisperCppChild, tmp_path: Path) -> None:
    short = [recording for recording in recordings() if recording.seconds < 20]
    texts = []
    for recording in short:
        async with decoding(tmp_path, recording.path, Options(), told := Told()) as decoded:
            heard = await provider.transcribe(decoded)
        texts.append(text_of(heard))
        assert heard.language == recording.language
        assert heard.language_probability is not None
        assert heard.model == provider.model == "demo-micro"
        assert told.done == list(heard.windows)
        assert " ".join(told.texts.values()) == text_of(heard)
        if len(heard.segments) == len(recording.segments) and texts[-1] == recording.text:
            for segment, spoken in zip(heard.segments, recording.segments, strict=True):
                assert segment.start == pytest.approx(spoken.start, abs=0.5), recording.name
                assert segment.end == pytest.approx(spoken.end, abs=0.5), recording.name
    right = [recording.text == text for recording, text in zip(short, texts, strict=True)]
    assert sum(right) >= len(short) - 1
    assert jiwer.wer([recording.text for recording in short], texts) < 0.02
