"""What the model gets: samples of the right channel and pieces, and prompts that fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faster_whisper import WhisperModel
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.clips import ENGLISH, Ask, pcm_of
from v2td.config import QualitySettings
from v2td.engine.batch import FULL_SECONDS, MAX_PROMPT_TOKENS
from v2td.engine.packing import Place
from v2td.engine.sound import (
    Sound,
    before,
    decoding_options,
    make_sound,
    read_pieces,
    read_window,
    whole,
)
from v2td.jobs import SAMPLE_RATE, Span

WORDS = ["please", "call", "at", "three", "on", "Monday", "Hanoi", "extraordinarily", "0546", "ừ", "được"]
HANOI = ENGLISH[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames")


def sound_of(model: WhisperModel, ask: Ask, **options: object) -> Sound:
    asked = ask(HANOI, **options)
    return make_sound(model, {0: asked}, [whole(0, asked)])


@given(channels=st.integers(1, 4), data=st.data())
def test_pieces_of_one_channel_are_read_one_behind_the_other(folder: Path, channels: int, data: st.DataObject) -> None:
    frames = np.random.default_rng(1).integers(-32768, 32768, (200, channels), dtype=np.int16)
    path = folder / "frames.pcm"
    frames.tofile(path)
    edges = sorted(data.draw(st.lists(st.integers(0, 200), min_size=2, max_size=8, unique=True)))
    pieces = [Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False)]
    channel = data.draw(st.integers(0, channels - 1))
    heard = read_pieces(path, pieces, channels, channel)
    assert heard.dtype == np.float32
    expected = np.concatenate([frames[piece.start : piece.end, channel] for piece in pieces])
    np.testing.assert_array_equal(heard, expected / 32768)
    assert -1 <= heard.min() <= heard.max() < 1


def test_a_frame_that_is_not_whole_yet_is_not_read(tmp_path: Path) -> None:
    """A decoder that writes may have written half a frame."""
    path = tmp_path / "frames.pcm"
    path.write_bytes(np.arange(7, dtype=np.int16).tobytes())
    assert list(read_pieces(path, [Span(0, 9)], 2, 1) * 32768) == [1, 3, 5]


def test_a_window_is_read_from_its_channel(ask: Ask, tmp_path: Path) -> None:
    left, right = np.full(100, 1000, np.int16), np.full(100, -2000, np.int16)
    path = tmp_path / "both.pcm"
    np.stack([left, right], axis=1).tofile(path)
    asked = replace(ask(HANOI), pcm=path, channels=2)
    for channel, value in ((None, 1000), (0, 1000), (1, -2000)):
        window = replace(asked.window, pieces=(Span(10, 30), Span(50, 60)), channel=channel)
        heard = read_window(replace(asked, window=window))
        assert len(heard) == 30
        assert set(heard * 32768) == {value}


def test_clips_lie_at_their_places_with_silence_between(model: WhisperModel, ask: Ask) -> None:
    """Features of frames in the middle of a clip are those of the clip by itself."""
    asked = {clip: ask(recording, mode="packed") for clip, recording in enumerate(ENGLISH[:3])}
    places, start = [], 0.0
    for clip, each in asked.items():
        places.append(Place(clip, start, start + each.seconds))
        start = round(start + each.seconds + 0.6, 2)
    sound = make_sound(model, asked, places)
    assert sound.frames == int(places[-1].end * 100)
    assert sound.request == asked[0]
    loudest = sound.features.max()
    for place in places:
        alone = make_sound(model, {0: asked[place.clip]}, [whole(0, asked[place.clip])])
        length, at = alone.frames - 6, round(place.start * 100) + 3
        both = np.stack([sound.features[:, at : at + length], alone.features[:, 3 : 3 + length]])
        both = np.maximum(both, loudest - 1)  # what is quieter is cut at a level that depends on the loudest
        np.testing.assert_allclose(both[0], both[1], atol=0.35)
    gap = slice(round(places[0].end * 100) + 3, round(places[1].start * 100) - 3)
    assert sound.features[:, gap].max() == pytest.approx(sound.features.min())


def test_a_place_is_as_long_as_what_is_heard_and_thirty_seconds_at_most(ask: Ask) -> None:
    asked = ask(HANOI)
    assert whole(4, asked) == Place(4, 0.0, asked.seconds)
    assert asked.seconds == len(pcm_of(HANOI)) / SAMPLE_RATE
    much = replace(asked, window=replace(asked.window, pieces=(Span(0, 31 * SAMPLE_RATE),)))
    assert whole(4, much).end == FULL_SECONDS


class TestPrompt:
    def test_without_anything_it_is_the_three_special_tokens(self, model: WhisperModel, ask: Ask) -> None:
        tokens = model.hf_tokenizer.token_to_id
        sound = sound_of(model, ask, language="vi", task="translate")
        assert sound.prompt == [tokens("<|startoftranscript|>"), tokens("<|vi|>"), tokens("<|translate|>")]
        assert sound.language == "vi"

    def test_words_come_before_as_faster_whisper_has_them(self, model: WhisperModel, ask: Ask) -> None:
        sound = sound_of(model, ask, prompt="Please call me.", hotwords="Hanoi", previous=(5, 6))
        decoded = model.hf_tokenizer.decode(sound.prompt, skip_special_tokens=False)
        said_before = model.hf_tokenizer.decode([5, 6])
        assert decoded == (
            f"<|startofprev|> Hanoi Please call me.{said_before}<|startoftranscript|><|en|><|transcribe|>"
        )

    @given(
        st.lists(st.sampled_from(WORDS), max_size=400),
        st.lists(st.sampled_from(WORDS), max_size=400),
        st.integers(0, 500),
    )
    def test_it_leaves_half_of_the_positions_to_the_text(
        self, model: WhisperModel, ask: Ask, prompt: list[str], hotwords: list[str], said: int
    ) -> None:
        sound = sound_of(
            model,
            ask,
            prompt=" ".join(prompt) or None,
            hotwords=" ".join(hotwords) or None,
            previous=tuple(range(300, 300 + said)),
        )
        start = sound.prompt.index(model.hf_tokenizer.token_to_id("<|startoftranscript|>"))
        assert start <= 1 + MAX_PROMPT_TOKENS
        assert len(sound.prompt) == start + 3
        assert len(sound.prompt) + MAX_PROMPT_TOKENS <= model.max_length + 4

    def test_the_end_of_what_was_said_is_what_fits(self, model: WhisperModel, ask: Ask) -> None:
        said = tuple(range(1000, 1500))
        assert before(model, ask(HANOI, previous=said)) == list(said[-MAX_PROMPT_TOKENS:])
        beside = before(model, ask(HANOI, previous=said, hotwords="Hanoi"))
        assert beside == list(said[-len(beside) :])
        assert MAX_PROMPT_TOKENS - 5 < len(beside) < MAX_PROMPT_TOKENS
        assert before(model, ask(HANOI, previous=said, hotwords="Hanoi " * 300)) == []

    def test_what_is_heard_again_has_the_same_words_before_it(self, model: WhisperModel, ask: Ask) -> None:
        asked = ask(HANOI, prompt="Please call me.", hotwords="Hanoi", previous=(5, 6), word_timestamps=True)
        sound = make_sound(model, {0: asked}, [whole(0, asked)])
        options = decoding_options(model, asked, sound.tokenizer, QualitySettings(redo_beam_size=3))
        assert options.initial_prompt == before(model, asked)
        assert (str(options.hotwords).strip(), options.word_timestamps, options.beam_size) == ("Hanoi", True, 3)
        more = decoding_options(model, replace(asked, beam_size=8), sound.tokenizer, QualitySettings(redo_beam_size=3))
        assert more.beam_size == 8


@given(st.sampled_from(["en", "vi", "fr"]), st.booleans())
def test_speaking_a_language_changes_its_token_alone(
    model: WhisperModel, ask: Ask, language: str, with_words: bool
) -> None:
    tokens = model.hf_tokenizer.token_to_id
    english = tokens("<|en|>")
    # Whatever was said before, even the token itself: it is not the one that is meant.
    words = {"prompt": "Please call me.", "previous": (english, 7)} if with_words else {}
    sound = sound_of(model, ask, language=None, **words)
    heard = list(sound.prompt)
    assert heard[-2] == english
    sound.speak(language)
    assert sound.language == language
    assert sound.prompt == [*heard[:-2], tokens(f"<|{language}|>"), heard[-1]]
    assert sound.tokenizer.sot_sequence == sound.prompt[-3:]
