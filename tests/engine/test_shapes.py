"""Every shape of Whisper through stock faster-whisper, and through every path of the engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import get_args

import jiwer
import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio

from tests.engine.conftest import EN, VI, running_engine, text_of
from tests.engine.shapes import SHAPES, Shape, write_shape
from v2td.bundled import Recording, recordings
from v2td.config import QualitySettings
from v2td.engine import Engine, Hearing, Recognition
from v2td.engine.batch import ModelRequest, WindowRequest, WindowResult
from v2td.engine.recognizer import Recognizer
from v2td.engine.topology import SlotPlan
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Options, Segment, Span, Window, WindowMode

pytestmark = pytest.mark.slow  # loads models

IDS = {"multilingual": 51865, "english": 51864, "v3": 51866}
LANGUAGES = {"multilingual": 99, "english": 99, "v3": 100}
ENGLISH = Options(language="en")
WORDS = Options(language="en", word_timestamps=True)
CLIPS = tuple(each for each in recordings() if each.language == "en" and each.seconds < 7)
DOUBTS_EVERYTHING = QualitySettings(doubt_logprob=0)

Heard = Callable[..., tuple[WindowResult, ...]]
Pcms = dict[Recording, Path]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: shape.name)
def shape(request: pytest.FixtureRequest) -> Shape:
    found: Shape = request.param
    return found


@pytest.fixture(scope="module")
def folder(shape: Shape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shape(tmp_path_factory.mktemp(shape.name), shape)


@pytest.fixture(scope="module")
def model(folder: Path) -> WhisperModel:
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.fixture(scope="module")
def pcms(tmp_path_factory: pytest.TempPathFactory) -> Pcms:
    folder = tmp_path_factory.mktemp("pcm")
    paths = {recording: folder / f"{recording.name}.pcm" for recording in (*CLIPS, VI)}
    for recording, path in paths.items():
        (decode_audio(str(recording.path)) * 32767).astype(np.int16).tofile(path)
    return paths


def whole(pcm: Path, channels: int = 1) -> list[Window]:
    """One window for each channel, each with everything in it."""
    everything = (Span(0, pcm.stat().st_size // 2 // channels),)
    return [Window(index, everything, everything, channel=index if channels > 1 else None) for index in range(channels)]


def said(result: WindowResult) -> str:
    return " ".join(segment.text.strip() for segment in result.segments)


def check_form(segments: Sequence[Segment], seconds: float) -> None:
    """What holds even where the small model cannot say the right thing."""
    last = 0.0
    for segment in segments:
        assert last <= segment.start <= segment.end <= seconds + 0.01, segment
        assert segment.text.strip()
        assert not set(segment.text) & set("<|>"), "special tokens are no text"
        assert segment.avg_logprob <= 0
        assert 0 <= segment.no_speech_prob <= 1
        for word in segment.words or ():
            assert 0 <= word.start <= word.end <= seconds + 0.01, word
            assert 0 <= word.probability <= 1
        last = segment.start


class TestStock:
    """What the small models are good for, seen with unmodified faster-whisper first."""

    def test_it_is_of_that_shape(self, shape: Shape, model: WhisperModel) -> None:
        ids = model.hf_tokenizer.token_to_id
        assert model.model.is_multilingual == shape.is_multilingual
        assert model.model.n_mels == model.feature_extractor.mel_filters.shape[0] == shape.mel_bands
        assert model.hf_tokenizer.get_vocab_size() == IDS[shape.vocabulary]
        assert ids("<|30.00|>") == IDS[shape.vocabulary] - 1, "times come last"
        assert ids("<|translate|>") - ids("<|en|>") == LANGUAGES[shape.vocabulary]
        assert (ids("<|yue|>") is not None) == (shape.vocabulary == "v3")
        encoded = model.encode(np.zeros((shape.mel_bands, 3000), np.float32))
        assert encoded.shape == [1, 1500, 128]
        if shape.is_multilingual:
            (found,) = model.model.detect_language(encoded)
            assert len(dict(found)) == LANGUAGES[shape.vocabulary]
            assert sum(dict(found).values()) == pytest.approx(1, abs=1e-3)

    def test_it_says_what_it_can(self, shape: Shape, model: WhisperModel) -> None:
        has_words = shape.alignment != "missing"
        for recording in (EN, VI) if shape.is_multilingual else (EN,):
            found, info = model.transcribe(str(recording.path), temperature=0, word_timestamps=has_words)
            segments = list(found)
            assert info.language == recording.language or not shape.speaks
            assert segments
            if shape.speaks:
                assert " ".join(each.text.strip() for each in segments) == recording.text
            for segment in segments if has_words else ():
                assert "".join(word.word for word in segment.words).strip() == segment.text.strip()

    def test_without_alignment_heads_word_timestamps_are_an_error(self, shape: Shape, model: WhisperModel) -> None:
        if shape.alignment == "missing":
            with pytest.raises(RuntimeError, match="does not contain the field 'alignment_heads'"):
                list(model.transcribe(str(EN.path), language="en", word_timestamps=True)[0])


class TestRecognizer:
    """What runs in the child, without a child: each path with each shape."""

    @pytest.fixture
    def hear(self, model: WhisperModel, pcms: Pcms) -> Heard:
        def heard(
            clips: Sequence[Recording],
            options: Options = ENGLISH,
            *,
            mode: WindowMode = "full",
            beam_size: int = 0,
            previous: tuple[int, ...] = (),
            quality: QualitySettings = QualitySettings(),  # noqa: B008 (frozen)
        ) -> tuple[WindowResult, ...]:
            recognizer = Recognizer(
                model, ModelRequest(Path(), "cpu", "int8", SlotPlan((), 1), 0.6, quality), lambda: False
            )
            requests = [
                WindowRequest(pcms[clip], 1, window, options, beam_size, mode, previous)
                for clip in clips
                for window in whole(pcms[clip])
            ]
            results = [result for result in recognizer.transcribe(requests) if result is not None]
            assert len(results) == len(clips)
            for clip, result in zip(clips, results, strict=True):
                check_form(result.segments, clip.seconds)
            return tuple(results)

        return heard

    @pytest.mark.parametrize("mode", get_args(WindowMode))
    def test_windows_together_in_every_mode(self, shape: Shape, hear: Heard, mode: WindowMode) -> None:
        results = hear(CLIPS, mode=mode)
        assert {result.language for result in results} == {"en"}
        if shape.speaks and mode != "short":  # the weights are not adapted to that
            assert jiwer.wer([clip.text for clip in CLIPS], [said(result) for result in results]) < 0.06

    def test_the_language_is_found_where_there_are_several(self, shape: Shape, hear: Heard) -> None:
        for options in (Options(), Options(multilingual=True), Options(languages=("en", "vi"))):
            english, vietnamese = hear((EN, VI), options)
            if not shape.is_multilingual:
                assert english.language == vietnamese.language == "en"
                assert english.languages == ()
            elif shape.speaks:
                assert (english.language, vietnamese.language) == ("en", "vi")
                assert vietnamese.languages[0][0] == "vi"
                assert (said(english), said(vietnamese)) == (EN.text, VI.text)

    def test_words_have_times_where_the_model_can_tell_them(self, shape: Shape, hear: Heard) -> None:
        if shape.alignment == "missing":
            with pytest.raises(RuntimeError, match="alignment_heads"):
                hear((EN,), WORDS)
            return
        for result in hear(CLIPS, WORDS):
            assert result.segments
            for segment in result.segments:
                assert segment.words
                assert "".join(word.text for word in segment.words).strip() == segment.text.strip()

    def test_doubtful_windows_are_heard_again(self, shape: Shape, hear: Heard) -> None:
        results = hear((EN,), ENGLISH if shape.alignment == "missing" else WORDS, quality=DOUBTS_EVERYTHING)
        assert all(result.redone for result in results)
        assert "logprob" in results[0].flags
        if shape.speaks:
            assert said(results[0]) == EN.text

    def test_what_a_message_may_ask_for(self, shape: Shape, hear: Heard) -> None:
        before = tuple(hear((EN,))[0].tokens)
        for options, beam_size, previous in (
            (replace(ENGLISH, prompt="Please call me."), 0, ()),
            (replace(ENGLISH, prompt="Please call me. " * 300, hotwords="Hanoi"), 0, ()),
            (replace(ENGLISH, hotwords="Hanoi, Chicago"), 5, ()),
            (replace(ENGLISH, task="translate"), 5, ()),
            (replace(ENGLISH, condition_on_previous_text=True), 0, before),
        ):
            (result,) = hear((EN,), options, beam_size=beam_size, previous=previous)
            if shape.speaks and shape.is_multilingual and shape.decoder_layers == 4:  # the others are fragile
                assert said(result) == EN.text, options


class TestEngine:
    """The same from the outside, in a process of its own."""

    async def test_jobs_of_every_kind_at_once(self, shape: Shape, folder: Path, pcms: Pcms, tmp_path: Path) -> None:
        both = tmp_path / "both.pcm"
        sides = [np.fromfile(pcms[recording], np.int16) for recording in (EN, VI)]
        np.stack([np.resize(side, min(map(len, sides))) for side in sides], axis=1).tofile(both)
        kinds = (
            ENGLISH,
            ENGLISH,  # shares a window with the first
            Options(),
            Options(languages=("en", "vi")),
            Options(multilingual=True),
            Options(language="en", condition_on_previous_text=True),
            Options(language="en", beam_size=5),
        )
        async with running_engine(model=str(folder), window_mode="packed") as engine:
            with impossible(shape.alignment == "missing", ErrorClass.INFERENCE_CRASH):
                (result,) = (each for _, each in (await hear(engine, pcms[EN], WORDS)).windows)
                assert all(segment.words for segment in result.segments)
            with impossible(shape.vocabulary == "multilingual", ErrorClass.BAD_FIELD):
                cantonese = await hear(engine, pcms[EN], Options(languages=("yue",)))
                assert cantonese.language == ("yue" if shape.is_multilingual else "en")
            async with asyncio.TaskGroup() as group:
                jobs = [group.create_task(hear(engine, pcms[EN], options)) for options in kinds]
                split = group.create_task(hear(engine, both, Options(channels="split"), channels=2))
        for job, options in zip(jobs, kinds, strict=True):
            assert len(job.result().windows) == 1
            if shape.speaks:
                assert text_of(job.result()) == [EN.text], options
                assert job.result().language == "en"
        assert [window.channel for window, _ in split.result().windows] == [0, 1]
        if shape.is_multilingual and shape.speaks:
            assert split.result().channel_languages == ((0, "en"), (1, "vi"))


@contextmanager
def impossible(is_so: bool, error_class: ErrorClass) -> Iterator[None]:
    """What the model cannot do fails that job alone."""
    if not is_so:
        yield
        return
    with pytest.raises(JobError) as caught:
        yield
    assert caught.value.error_class is error_class


async def hear(engine: Engine, pcm: Path, options: Options, channels: int = 1) -> Recognition:
    async def found() -> AsyncIterator[Window]:
        for window in whole(pcm, channels):
            yield window

    return await engine.transcribe(
        Hearing(pcm, found(), options, 5, monotonic(), on_progress=lambda: None, channels=channels)
    )
