"""A window as a slot is asked for it: which may go together, what the encoder sees, where the speech is."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.engine.batch import FRAME_SAMPLES, FULL_SAMPLES, FULL_SECONDS, SHORT_STEP, WindowRequest
from v2td.jobs import SAMPLE_RATE, Options, Span, Window, WindowMode

FULL_FRAMES = 3000


def request(
    *pieces: Span,
    speech: tuple[Span, ...] = (),
    options: Options = Options(),  # noqa: B008 (frozen)
    mode: WindowMode = "full",
) -> WindowRequest:
    return WindowRequest(Path("pcm"), 1, Window(0, pieces, speech), options, 0, mode)


def seconds(*spans: tuple[float, float]) -> tuple[Span, ...]:
    return tuple(Span(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE)) for start, end in spans)


ONE = request(*seconds((10, 13)), options=Options(language="en"))


def test_speech_is_told_in_seconds_of_the_window() -> None:
    asked = request(
        *seconds((10, 13), (20, 22), (50, 51)), speech=seconds((10.5, 12.5), (20, 21), (21.5, 22), (50.25, 50.75))
    )
    assert list(asked.speech()) == [(0.5, 2.5), (3, 4), (4.5, 5.75)], "a quarter of a second is no pause"
    assert asked.seconds == 6


def test_speech_outside_the_pieces_is_cut() -> None:
    asked = request(*seconds((10, 13), (20, 22)), speech=seconds((9, 11), (12, 21), (30, 31)))
    assert list(asked.speech()) == [(0, 1), (2, 4)]
    assert list(request(*seconds((0, 1))).speech()) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6), st.data())
def test_speech_is_where_a_copy_of_the_pieces_has_it(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    """Each sample of a drawn recording is marked as speech or not; the marks are cut and joined as the sound is."""
    pieces, edge = [], 0
    for pause, length in steps:
        pieces.append(Span(edge + pause, edge + pause + length))
        edge = pieces[-1].end
    marks = data.draw(st.lists(st.booleans(), min_size=edge, max_size=edge))
    speech = tuple(Span(at, at + 1) for at, mark in enumerate(marks) if mark)
    heard = [mark for piece in pieces for mark in marks[piece.start : piece.end]]
    found = {round(start * SAMPLE_RATE) for start, _ in request(*pieces, speech=speech)._spans()}
    assert found == {at for at, mark in enumerate(heard) if mark}


@pytest.mark.parametrize("mode", ["full", "packed"])
def test_the_encoder_sees_thirty_seconds(mode: WindowMode) -> None:
    assert request(*seconds((0, 1.5)), mode=mode).frames == FULL_FRAMES
    assert FULL_FRAMES * FRAME_SAMPLES == FULL_SAMPLES == FULL_SECONDS * SAMPLE_RATE


@given(st.integers(1, FULL_SAMPLES))
def test_a_short_window_is_padded_to_the_next_step(samples: int) -> None:
    frames = request(Span(0, samples), mode="short").frames
    assert frames % SHORT_STEP == 0
    assert 0 <= frames * FRAME_SAMPLES - samples < SHORT_STEP * FRAME_SAMPLES


def test_the_language_separates_only_those_that_share_a_window() -> None:
    vietnamese = replace(ONE, options=Options(language="vi"))
    assert ONE.key == vietnamese.key == replace(ONE, options=Options()).key
    assert replace(ONE, mode="packed").key != replace(vietnamese, mode="packed").key
    translated = Options(language="en", task="translate")
    assert ONE.key == replace(ONE, options=translated).key
    assert replace(ONE, mode="packed").key != replace(ONE, mode="packed", options=translated).key


def test_what_does_not_matter_to_the_model_does_not_separate() -> None:
    other = WindowRequest(Path("other"), 2, Window(4, seconds((0, 29)), (), 1), Options(language="vi"), 0, "full")
    assert other.key == ONE.key
    packed = replace(ONE, mode="packed")
    assert packed.key == replace(packed, pcm=Path("other"), window=Window(4, seconds((0, 9)), ())).key


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, mode="packed"),
        replace(ONE, mode="short"),
        replace(ONE, beam_size=5),
        replace(ONE, previous=(1, 2)),
        *(
            replace(ONE, options=replace(ONE.options, **changes))
            for changes in ({"prompt": "Hanoi"}, {"hotwords": "Hanoi"}, {"word_timestamps": True})
        ),
    ],
)
def test_what_cannot_be_decoded_in_one_call_has_another_key(other: WindowRequest) -> None:
    assert other.key != ONE.key
    assert other.key == replace(other, pcm=Path("other")).key
    assert hash(other.key) == hash(replace(other, pcm=Path("other")).key)


def test_a_prompt_is_not_taken_for_hotwords() -> None:
    prompt, hotwords = (replace(ONE, options=Options(**{name: "Hanoi"})) for name in ("prompt", "hotwords"))  # type: ignore[arg-type] # (mypy cannot know the name)
    assert prompt.key != hotwords.key


def test_short_windows_of_equal_frames_go_together() -> None:
    one, near, far = (request(*seconds((0, length)), mode="short") for length in (2.1, 2.9, 3.1))
    assert one.key == near.key != far.key
