"""whisper.cpp in its child, with the bundled model as a GGML file, on recordings whose text is known."""

import importlib
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import psutil
import pytest

from tests.living import lives
from tests.providers.hearing import Told, decoding, text_of
from tests.speech.sounds import bundled, encode, encode_channels, read, silence
from v2td.bundled import ggml_file, recordings
from v2td.clock import covered_by_channel
from v2td.config import WhisperCppSettings
from v2td.config.languages import LANGUAGES
from v2td.errors import ConfigError, ProviderRefusedError
from v2td.jobs import Options, Span, Window
from v2td.machine import Cpu, Machine
from v2td.providers.ggml_file import GgmlFile
from v2td.providers.whisper_cpp import WhisperCppChild, place
from v2td.providers.whisper_cpp_worker import WindowSound, read_window

pytestmark = pytest.mark.slow  # starts processes that load models

EN, VI = bundled("en-01.flac"), bundled("vi-01.flac")


@pytest.fixture(scope="module")
def settings() -> WhisperCppSettings:
    return WhisperCppSettings(name="whisper_cpp", model=ggml_file(), threads=1)


@pytest.fixture
async def provider(settings: WhisperCppSettings) -> AsyncIterator[WhisperCppChild]:
    async with WhisperCppChild(settings) as provider:
        yield provider


def for_english_alone(whole: bytes) -> bytes:
    """Return a GGML file with one token less, the last of the embedding's rows."""
    name = b"decoder.token_embedding.weight"
    place = whole.index(name)
    width, rows = struct.unpack("<2i", whole[place - 8 : place])
    values = whole[place + len(name) :][: 2 * width * rows]
    assert rows == 51865
    fewer = struct.pack("<2i", width, rows - 1) + name + values[: 2 * width * (rows - 1)]
    patched = whole[: place - 8] + fewer + whole[place + len(name) + len(values) :]
    return patched[:4] + struct.pack("<i", rows - 1) + patched[8:]


def machine(cores: int) -> Machine:
    return Machine(tuple(Cpu(number, core=number) for number in range(cores)))


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


async def test_a_long_recording_comes_window_by_window_in_the_language_its_first_ones_elect(
    provider: WhisperCppChild, tmp_path: Path
) -> None:
    recording = bundled("vi-long.ogg")
    async with decoding(tmp_path, recording.path, Options(), told := Told(), window_seconds=15) as decoded:
        heard = await provider.transcribe(decoded)
    assert len(heard.windows) > 3
    assert (heard.language, list(told.texts)) == ("vi", [window.index for window in heard.windows])
    assert jiwer.wer(recording.text.lower(), text_of(heard).lower()) < 0.1
    assert [each["index"] for each in heard.timings["windows"]] == [window.index for window in heard.windows]
    assert told.progress >= 2 * len(heard.windows)
    assert covered_by_channel(heard.segments, heard.windows) > 0.9 * recording.seconds * 0.5


async def test_words_lie_in_their_segments_and_make_up_their_text(provider: WhisperCppChild, tmp_path: Path) -> None:
    for recording in (EN, VI):
        options = Options(language=recording.language, word_timestamps=True)
        async with decoding(tmp_path, recording.path, options) as decoded:
            heard = await provider.transcribe(decoded)
        assert heard.segments
        for segment in heard.segments:
            assert segment.words
            assert "".join(word.text for word in segment.words).strip() == segment.text.strip()
            assert len(segment.words) == len(segment.text.split())
            assert segment.start <= segment.words[0].start
            assert segment.words[-1].end <= segment.end
            assert all(word.start <= word.end and 0 < word.probability <= 1 for word in segment.words)


async def test_channels_are_heard_by_themselves(provider: WhisperCppChild, tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    encode_channels([read(EN.path), read(VI.path)], path)
    async with decoding(tmp_path, path, Options(channels="split")) as decoded:
        heard = await provider.transcribe(decoded)
    texts = {
        channel: " ".join(each.text.strip() for each in heard.segments if each.channel == channel) for channel in (0, 1)
    }
    assert texts == {0: EN.text, 1: VI.text}
    assert heard.timings["channel_languages"] == {"0": "en", "1": "vi"}


async def test_the_mean_of_channels_is_heard_when_a_window_is_of_none(tmp_path: Path) -> None:
    pcm = tmp_path / "pcm"
    np.array([[0, 8192], [16384, -16384], [32767, 1], [-4, -4]], np.int16).tofile(pcm)
    both = Window(0, (Span(0, 2), Span(3, 4)), ())
    sound = WindowSound(pcm, 2, both)
    assert read_window(sound, 0).tolist() == [0.125, 0.0, -4 / 32768]
    assert read_window(replace(sound, window=replace(both, channel=1)), 5).tolist() == [0.25, -0.5, -4 / 32768, 0, 0]


async def test_the_language_is_the_likeliest_of_those_allowed(provider: WhisperCppChild, tmp_path: Path) -> None:
    for recording, options, language in (
        (EN, Options(languages=("en", "vi")), "en"),
        (EN, Options(languages=("vi",)), "vi"),
        (EN, Options(multilingual=True), "en"),
        (VI, Options(multilingual=True, language="en"), "vi"),
    ):
        async with decoding(tmp_path, recording.path, options) as decoded:
            heard = await provider.transcribe(decoded)
        assert heard.language == language, options
    async with decoding(tmp_path, EN.path, Options(languages=("yue",))) as decoded:
        assert "yue" not in (provider.capabilities.languages or ())
        with pytest.raises(ProviderRefusedError, match="none of the languages yue"):
            await provider.transcribe(decoded)


async def test_what_a_message_may_ask_for_is_accepted(provider: WhisperCppChild, tmp_path: Path) -> None:
    for options in (
        Options(language="en", prompt="Please call me."),
        Options(language="en", hotwords="Hanoi, Chicago"),
        Options(language="en", prompt="Please call me. " * 3000, hotwords="日本 <|startoftranscript|> [_SOT_]"),
        Options(language="en", prompt="a" * 50_000),
        Options(language="en", beam_size=1),
        Options(language="en", beam_size=8),
        Options(language="en", task="translate"),
        Options(language="en", condition_on_previous_text=True),
    ):
        async with decoding(tmp_path, EN.path, options) as decoded:
            assert text_of(await provider.transcribe(decoded)) == EN.text, options


async def test_silence_has_no_text(provider: WhisperCppChild, tmp_path: Path) -> None:
    async with decoding(tmp_path, encode(silence(3), tmp_path / "silence.wav"), Options()) as decoded:
        heard = await provider.transcribe(decoded)
    assert (heard.segments, heard.windows, heard.language) == ((), (), None)


async def test_every_language_of_v2td_is_one_of_whisper_cpps() -> None:
    pw: Any = importlib.import_module("_pywhispercpp")
    assert [code for code in LANGUAGES if pw.whisper_lang_id(code) < 0] == []


async def test_it_runs_on_its_cpus_with_its_threads_niced_and_without_our_secrets(
    settings: WhisperCppSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2TD_TEST_SECRET", "hush")
    async with WhisperCppChild(settings.model_copy(update={"cpus": (0,)})) as provider:
        process = psutil.Process(provider.pid)
        assert process.cpu_affinity() == [0]
        assert process.nice() == psutil.Process().nice() + 5
        environment = process.environ()
        assert "PATH" in environment
        assert "V2TD_TEST_SECRET" not in environment
    assert not lives(process)


def test_threads_are_those_of_the_seeds_table() -> None:
    model = Path("/models/ggml-large-v2.bin")
    for cores, threads in ((8, 6), (10, 8), (12, 10), (4, 2), (3, 1), (2, 1), (1, 1)):
        own = tuple(range(threads))
        assert place(WhisperCppSettings(name="a", model=model), machine(cores)) == (threads, own)
    chosen = WhisperCppSettings(name="a", model=model, cpus=(4, 5, 6))
    assert place(chosen, machine(8)) == (3, (4, 5, 6))
    assert place(chosen.model_copy(update={"threads": 2}), machine(8)) == (2, (4, 5, 6))
    with pytest.raises(ConfigError, match=r"providers.whisper_cpp.cpus = \[6\]: .* \[0, 1, 2, 3, 4, 5\]"):
        place(chosen, machine(6))


def test_threads_are_for_cores_and_for_what_the_cgroup_allows() -> None:
    settings = WhisperCppSettings(name="a", model=Path("/models/ggml-large-v2.bin"))
    twins = Machine(tuple(Cpu(number, core=number // 2, twin=number % 2) for number in range(16)))
    assert place(settings, twins) == (6, (0, 2, 4, 6, 8, 10))
    assert place(settings.model_copy(update={"threads": 9}), twins) == (9, (0, 1, 2, 4, 6, 8, 10, 12, 14))
    assert place(settings, replace(twins, quota=4.0)) == (2, (0, 2))
    assert place(settings, replace(twins, quota=0.5)) == (1, (0,))
    slow_first = Machine(tuple(Cpu(number, core=number, capacity=400 if number < 4 else 1024) for number in range(8)))
    assert place(settings, slow_first) == (6, (0, 1, 4, 5, 6, 7))


def test_what_it_can_depends_on_its_vocabulary(settings: WhisperCppSettings) -> None:
    provider = WhisperCppChild(settings)
    for tokens, languages, translates in (
        (51864, frozenset({"en"}), False),
        (51865, frozenset(LANGUAGES) - {"yue"}, True),
        (51866, None, True),
    ):
        provider._file = GgmlFile(tokens, "digest")
        assert provider.capabilities.languages == languages
        assert ("translate" in provider.capabilities.tasks) == translates
        assert provider.capabilities.split


async def test_a_model_for_english_alone_hears_english_and_nothing_else(tmp_path: Path) -> None:
    """The bundled one with a token less, which makes whisper.cpp take it for one, and number the special ones anew."""
    model = tmp_path / "demo.en.bin"
    model.write_bytes(for_english_alone(ggml_file().read_bytes()))
    async with WhisperCppChild(WhisperCppSettings(name="en", model=model, threads=1)) as provider:
        async with decoding(tmp_path, EN.path, Options()) as decoded:
            heard = await provider.transcribe(decoded)  # whatever it is: it was not trained for this
        assert (heard.language, heard.language_probability) == ("en", None)
        for options in (Options(language="vi"), Options(task="translate")):
            async with decoding(tmp_path, VI.path, options) as decoded:
                with pytest.raises(ProviderRefusedError, match="English alone"):
                    await provider.transcribe(decoded)


async def test_several_of_them_have_their_own_name_model_and_process(settings: WhisperCppSettings) -> None:
    other = WhisperCppSettings(name="whisper_cpp_zh", model=ggml_file("tiny"), model_name="tiny-zh", threads=1)
    async with WhisperCppChild(settings) as one, WhisperCppChild(other) as two:
        assert (two.name, two.model) == ("whisper_cpp_zh", "tiny-zh")
        assert one.pid != two.pid
        assert one.fingerprint != two.fingerprint
    async with WhisperCppChild(settings.model_copy(update={"beam_size": 1})) as three:
        assert three.fingerprint != one.fingerprint
    async with WhisperCppChild(settings.model_copy(update={"name": "another", "threads": 2})) as four:
        assert four.fingerprint == one.fingerprint
