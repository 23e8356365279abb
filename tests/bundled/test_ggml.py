"""The bundled model as a GGML file: whisper.cpp says with it what faster-whisper says with the other form."""

from __future__ import annotations

import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from v2td.bundled import SIZES, Recording, Size, ggml_file, recordings
from v2td.bundled.expand import DIMENSIONS

pytestmark = pytest.mark.slow  # loads models


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "v2td"


def hear(model: Path, recording: Recording) -> str:
    pw: Any = import_module("_pywhispercpp")
    context = pw.whisper_init_from_file_with_params(str(model), pw.whisper_context_default_params())
    params = pw.whisper_full_default_params(pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
    params.n_threads, params.language, params.print_progress = 1, recording.language, False
    sound = np.asarray(decode_audio(str(recording.path)), np.float32)
    assert pw.whisper_full(context, params, sound, len(sound)) == 0
    segments = range(pw.whisper_full_n_segments(context))
    text = b" ".join(pw.whisper_full_get_segment_text(context, each).strip() for each in segments).decode()
    pw.whisper_free(context)
    return text


def test_it_says_what_was_spoken(cache: Path) -> None:
    short = [recording for recording in recordings() if recording.seconds < 5]
    assert {recording.language for recording in short} == {"en", "vi"}
    assert [hear(ggml_file(), recording) for recording in short] == [recording.text for recording in short]


def test_a_wider_size_says_the_same(cache: Path) -> None:
    recording = recordings()[0]
    assert jiwer.wer(recording.text, hear(ggml_file("tiny"), recording)) == 0


@pytest.mark.parametrize("size", [each for each in SIZES if each != "small"])
def test_its_head_names_the_dimensions_of_its_size(cache: Path, size: Size) -> None:
    file = ggml_file(size)
    assert file == cache / "models" / file.parent.name / f"demo-{size}.bin"
    _magic, tokens, _positions, width, heads, encoder, _text, text_width, _heads, decoder, bands, half = struct.unpack(
        "<12i", file.read_bytes()[:48]
    )
    assert (width, encoder, decoder) == DIMENSIONS[size]
    assert (tokens, text_width, heads, bands, half) == (51865, width, width // 64, 80, 1)
    assert ggml_file(size).stat() == file.stat(), "built once"
