"""Short messages that share a window: each gets its own text, and what is doubtful is heard again alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jiwer
import pytest
from faster_whisper import WhisperModel

from tests.engine.clips import (
    DOUBTS_ALL,
    ENGLISH,
    PACK_GAP,
    VIETNAMESE,
    Ask,
    listener,
    noise,
    recognizer,
    said,
)
from tests.speech.sounds import silence
from v2td.bundled import Recording
from v2td.engine import gate, packing
from v2td.engine.batch import WindowRequest, WindowResult
from v2td.engine.packing import Place
from v2td.jobs import SAMPLE_RATE, Span

pytestmark = pytest.mark.slow  # loads a model

FULL = 3000  # mel frames
TWELVE = ENGLISH * 2


def layout(asked: Sequence[WindowRequest]) -> list[list[Place]]:
    return packing.pack([request.seconds for request in asked], PACK_GAP)


@pytest.mark.parametrize("clips", [TWELVE, VIETNAMESE], ids=["en", "vi"])
def test_clips_of_one_language_share_windows(model: WhisperModel, ask: Ask, clips: tuple[Recording, ...]) -> None:
    hear, watched = listener(model)
    asked = [ask(recording, mode="packed") for recording in clips]
    windows = len(layout(asked))
    assert windows <= 3
    results = hear(asked)
    redone = sum(result.redone for result in results)
    assert redone <= len(clips) // 4
    assert watched.encoded == [(1, FULL)] * (windows + redone)
    assert watched.decoded[0] == (len(clips), 1), "each hears its part of the windows"
    check_texts(clips, results, error=0.05)
    for recording, result in zip(clips, results, strict=True):
        assert result.language == recording.language
        for heard, spoken in zip(result.segments, recording.segments, strict=True):
            assert heard.start == pytest.approx(spoken.start, abs=0.5)
            assert heard.end == pytest.approx(spoken.end, abs=0.5)
            assert 0 <= heard.start < heard.end <= recording.seconds + 0.01
        assert model.hf_tokenizer.decode(result.tokens).split() == said(result).split()


def check_texts(clips: Sequence[Recording], results: Sequence[WindowResult], error: float) -> None:
    """Each has its own text: few words are wrong in all, and in none so many that they could be a neighbour's."""
    texts = [said(result) for result in results]
    assert jiwer.wer([recording.text for recording in clips], texts) <= error
    for recording, text in zip(clips, texts, strict=True):
        assert jiwer.wer(recording.text, text) <= 0.25, text


def test_nothing_among_messages_stays_nothing(model: WhisperModel, ask: Ask) -> None:
    hear, _ = listener(model)
    erring = [Span(0, 2 * SAMPLE_RATE)]  # the VAD takes it for speech
    nothing = [
        ask(silence(2.0), language="en", mode="packed"),
        ask(noise(2.5), language="en", mode="packed"),
        ask(noise(2.0), language="en", mode="packed", speech=erring),
    ]
    messages = [ask(recording, mode="packed") for recording in ENGLISH]
    results = hear([messages[0], nothing[0], *messages[1:4], nothing[1], nothing[2], *messages[4:]])
    assert [said(results[at]) for at in (1, 5, 6)] == ["", "", ""]
    assert (results[6].flags, results[6].redone) == ((gate.COVERAGE,), True)
    heard = [result for at, result in enumerate(results) if at not in (1, 5, 6)]
    assert [said(result) for result in heard] == [recording.text for recording in ENGLISH]


def test_full_and_packed_windows_in_one_call(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model)
    clips = [ask(recording, mode="packed") for recording in ENGLISH[:3]]
    results = hear([clips[0], ask(VIETNAMESE[0]), *clips[1:]])
    assert watched.decoded == [(1, 1), (3, 1)]
    expected = [ENGLISH[0].text, VIETNAMESE[0].text, ENGLISH[1].text, ENGLISH[2].text]
    assert [said(result) for result in results] == expected


def test_a_clip_whose_text_went_missing_is_heard_again_alone(
    model: WhisperModel, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_text = packing.own_text

    def lose_the_second(segments: Sequence[dict[str, Any]], place: Place) -> list[dict[str, Any]]:
        return [] if place.clip == 1 else own_text(segments, place)

    monkeypatch.setattr(packing, "own_text", lose_the_second)
    hear, watched = listener(model)
    results = hear([ask(recording, mode="packed") for recording in ENGLISH[:3]])
    assert [result.redone for result in results] == [False, True, False]
    assert [result.flags for result in results] == [(), (gate.COVERAGE,), ()]
    assert [said(result) for result in results] == [recording.text for recording in ENGLISH[:3]]
    assert watched.encoded == [(1, FULL)] * 2, "the shared window, and the second clip by itself"
    assert watched.decoded == [(3, 1), (1, 5)]
    (segment,) = results[1].segments
    assert segment.end == pytest.approx(ENGLISH[1].segments[0].end, abs=0.5), "in the time of its own window"


def test_little_silence_between_clips_costs_few_words(model: WhisperModel, ask: Ask) -> None:
    """The smallest gap, and none of their own: timestamps reach into neighbours, and doubtful clips are found."""
    hear, _ = listener(model, gap=0.2)
    clips = TWELVE[:8]
    check_texts(clips, hear([tight(ask, recording) for recording in clips]), error=0.1)


def tight(ask: Ask, recording: Recording) -> WindowRequest:
    """The recording without the silence around it."""
    asked = ask(recording, mode="packed")
    pieces = (Span(asked.window.speech[0].start, asked.window.speech[-1].end),)
    return replace(asked, window=replace(asked.window, pieces=pieces))


def test_every_clip_is_heard_again_where_all_is_doubted(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model, DOUBTS_ALL)
    results = hear([ask(recording, mode="packed") for recording in VIETNAMESE[:3]])
    assert [said(result) for result in results] == [recording.text for recording in VIETNAMESE[:3]]
    assert all(result.redone and result.language == "vi" for result in results)
    assert watched.encoded == [(1, FULL)] * 4


def test_whole_windows_of_clips_give_way(model: WhisperModel, ask: Ask) -> None:
    recognizing, watched = recognizer(model, gives_way=lambda: bool(watched.encoded))
    asked = [ask(recording, mode="packed") for recording in TWELVE]
    first, *others = layout(asked)
    results = recognizing.transcribe(asked)
    for place in first:
        result = results[place.clip]
        assert result is not None
        assert said(result) == TWELVE[place.clip].text
    assert all(results[place.clip] is None for places in others for place in places)
    assert len(others) >= 1
