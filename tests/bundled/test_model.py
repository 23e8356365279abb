"""The bundled model: built once, safely, and really a Whisper that unmodified faster-whisper runs."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

import jiwer
import pytest
from faster_whisper import WhisperModel

from v2td.bundled import model_folder, recordings
from v2td.errors import ServiceError

pytestmark = pytest.mark.slow  # starts processes that load models or services


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "v2td"


def build(_: int) -> str:
    return str(model_folder())


def test_transcribes_with_stock_faster_whisper(cache: Path) -> None:
    model = WhisperModel(str(model_folder()), device="cpu", compute_type="int8", cpu_threads=1)
    for recording in recordings():
        if recording.seconds > 5:
            continue
        segments, info = model.transcribe(str(recording.path), beam_size=5)
        heard = " ".join(segment.text.strip() for segment in segments)
        assert (info.language, heard) == (recording.language, recording.text)


def test_a_wider_size_says_the_same(cache: Path) -> None:
    recording = recordings()[0]
    model = WhisperModel(str(model_folder("tiny")), device="cpu", compute_type="int8", cpu_threads=1)
    segments, _ = model.transcribe(str(recording.path), language=recording.language, beam_size=1)
    assert jiwer.wer(recording.text, " ".join(segment.text.strip() for segment in segments)) == 0
    assert model.model.n_mels == 80
    assert (model_folder("tiny") / "model.bin").stat().st_size > 3 * (model_folder() / "model.bin").stat().st_size


def test_processes_that_want_it_at_once_build_it_once(cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = set(pool.map(build, range(3), chunksize=1))
    assert len(folders) == 1
    assert sorted(path.name for path in (cache / "models").iterdir()) == sorted([".lock", Path(folders.pop()).name])


def test_the_second_call_builds_nothing(cache: Path) -> None:
    before = (model_folder() / "model.bin").stat()
    assert (model_folder() / "model.bin").stat() == before


def test_a_killed_builder_leaves_nothing_in_the_end(cache: Path) -> None:
    left = cache / "models" / ".building-killed"
    left.mkdir(parents=True)
    (left / "model.bin").write_bytes(b"half of it")
    model_folder()
    assert not left.exists()


def test_a_home_that_cannot_be_written_means_a_private_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = model_folder()
    private = tmp_path / f"v2td-{os.getuid()}"
    assert folder.is_relative_to(private)
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_temporary_folder_laid_out_by_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"v2td-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(ServiceError, match="belongs to somebody else"):
        model_folder()
