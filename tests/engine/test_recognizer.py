"""Batches of windows through the bundled model, in this process: the same text as one by one, for less."""

from dataclasses import replace

import pytest
from faster_whisper import WhisperModel

from tests.engine.clips import (
    DOUBTS_ALL,
    ENGLISH,
    SHORT,
    VIETNAMESE,
    Ask,
    listener,
    noise,
    recognizer,
    said,
)
from tests.speech.sounds import silence
from v2td.bundled import Recording
from v2td.config import QualitySettings
from v2td.engine import gate
from v2td.engine.recognizer import LANGUAGES_TOLD
from v2td.jobs import SAMPLE_RATE, Span

pytestmark = pytest.mark.slow  # loads a model

FULL = 3000  # mel frames
HANOI, DUONG = ENGLISH[0], VIETNAMESE[0]
FEW = (*ENGLISH[:3], *VIETNAMESE[:2])


def test_a_batch_says_what_its_windows_say_one_by_one(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model)
    asked = [ask(recording) for recording in SHORT]
    together = hear(asked)
    assert watched.encoded == [(1, FULL)] * len(SHORT), "a CPU encodes one by one, and each once"
    assert watched.decoded == [(len(SHORT), 1)], "both languages in one call, greedily"
    for recording, request, result in zip(SHORT, asked, together, strict=True):
        (alone,) = hear([request])
        assert said(result) == said(alone) == recording.text
        assert [each.start for each in result.segments] == pytest.approx([each.start for each in alone.segments])
        assert result.language == recording.language
        assert (result.languages, result.flags, result.redone) == ((), (), False)
        assert model.hf_tokenizer.decode(result.tokens).split() == recording.text.split()


def test_times_are_when_it_was_said_in_the_window(model: WhisperModel, ask: Ask) -> None:
    """Most of the pause between two sentences is cut out, so the second is earlier in the window."""
    hear, _ = listener(model)
    recording = next(each for each in ENGLISH if len(each.segments) == 2 and pause(each).length > SAMPLE_RATE)
    asked, cut = ask(recording), pause(recording)
    pieces = (Span(0, cut.start), Span(cut.end, asked.window.length))
    (result,) = hear([replace(asked, window=replace(asked.window, pieces=pieces))])
    assert said(result) == recording.text
    first, second = result.segments
    assert first.start == pytest.approx(recording.segments[0].start, abs=0.4)
    assert second.start == pytest.approx(recording.segments[1].start - cut.length / SAMPLE_RATE, abs=0.4)


def pause(recording: Recording) -> Span:
    """The silence between the first sentences, but for the padding that is kept."""
    first, second = recording.segments[:2]
    return Span(round((first.end + 0.3) * SAMPLE_RATE), round((second.start - 0.3) * SAMPLE_RATE))


def test_languages_are_detected_in_one_batch_from_what_is_encoded_anyway(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model)
    results = hear([ask(recording, language=None) for recording in SHORT])
    assert watched.encoded == [(1, FULL)] * len(SHORT)
    assert watched.decoded == [(len(SHORT), 1)]
    for recording, result in zip(SHORT, results, strict=True):
        assert result.language == result.languages[0][0] == recording.language
        assert said(result) == recording.text
        probabilities = [probability for _, probability in result.languages]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(probabilities) == LANGUAGES_TOLD
        assert 0.5 < sum(probabilities) <= 1.001


def test_only_the_allowed_languages_are_detected(model: WhisperModel, ask: Ask) -> None:
    hear, _ = listener(model)
    results = hear(
        [
            ask(HANOI, language=None, languages=("vi", "en")),
            ask(HANOI, language=None, languages=("vi", "fr")),
            ask(DUONG, language=None, languages=("en",)),
        ]
    )
    assert [result.language for result in results] == ["en", "vi", "en"]
    assert [{each for each, _ in result.languages} for result in results] == [{"vi", "en"}, {"vi", "fr"}, {"en"}]


def test_multilingual_windows_speak_for_themselves_whatever_the_job_says(model: WhisperModel, ask: Ask) -> None:
    hear, _ = listener(model)
    results = hear([ask(each, language="en", multilingual=True) for each in (DUONG, HANOI)])
    assert [(result.language, said(result)) for result in results] == [("vi", DUONG.text), ("en", HANOI.text)]


def test_the_language_found_is_kept_when_a_window_is_heard_again(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model, DOUBTS_ALL)
    (result,) = hear([ask(DUONG, language=None)])
    assert result.redone
    assert result.language == result.languages[0][0] == "vi"
    assert said(result) == DUONG.text
    vietnamese = model.hf_tokenizer.token_to_id("<|vi|>")
    assert [prompt[-2] for prompt in watched.prompts] == [vietnamese] * 2


def test_beams_are_those_that_are_asked_for(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model)
    asked = [ask(recording, beam_size=beams) for recording in (HANOI, DUONG) for beams in (5, 0, 2)]
    results = hear(asked)
    assert sorted(watched.decoded) == [(2, 1), (2, 2), (2, 5)]
    assert [said(result) for result in results] == [HANOI.text] * 3 + [DUONG.text] * 3


def test_prompts_of_equal_length_are_decoded_together(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model)
    asked = [
        ask(HANOI, prompt="Please call me."),
        ask(DUONG),
        ask(DUONG, prompt="Please call me."),
        ask(HANOI, task="translate"),
        ask(HANOI, previous=(220,)),
    ]
    results = hear(asked)
    assert sorted(windows for windows, _ in watched.decoded) == [1, 2, 2]
    assert [result.language for result in results] == ["en", "vi", "vi", "en", "en"]
    assert [said(result) for result in results[:3]] == [HANOI.text, DUONG.text, DUONG.text]


def test_words_lie_in_their_segments(model: WhisperModel, ask: Ask) -> None:
    hear, watched = listener(model)
    results = hear([ask(recording, word_timestamps=True) for recording in SHORT])
    assert watched.decoded == [(len(SHORT), 1)]
    for recording, result in zip(SHORT, results, strict=True):
        assert said(result) == recording.text
        for segment in result.segments:
            assert segment.words
            assert "".join(word.text for word in segment.words).strip() == segment.text.strip()
            assert segment.start <= segment.words[0].start
            assert segment.words[-1].end <= segment.end <= recording.seconds + 0.01
            for word, after in zip(segment.words, segment.words[1:], strict=False):
                assert word.start <= word.end <= after.start


@pytest.mark.parametrize("words", [False, True])
def test_a_doubtful_window_is_heard_again_from_what_is_encoded_already(
    model: WhisperModel, ask: Ask, words: bool
) -> None:
    hear, watched = listener(model, DOUBTS_ALL)
    results = hear([ask(HANOI, word_timestamps=words), ask(DUONG, word_timestamps=words)])
    assert watched.encoded == [(1, FULL)] * 2
    assert watched.decoded == [(2, 1), (1, 5), (1, 5)], "then with beams, alone"
    for recording, result in zip((HANOI, DUONG), results, strict=True):
        assert (said(result), result.flags, result.redone) == (recording.text, (gate.LOGPROB,), True)
        assert all(bool(segment.words) == words for segment in result.segments)


def test_what_needed_a_higher_temperature_says_so(model: WhisperModel, ask: Ask) -> None:
    hopeless = QualitySettings(doubt_logprob=0, logprob_min=0)  # nothing is that sure, so every temperature is tried
    hear, watched = listener(model, hopeless)
    (result,) = hear([ask(HANOI)])
    assert gate.FALLBACK in result.flags
    assert any(segment.temperature > 0 for segment in result.segments)
    assert len(watched.decoded) > 2


def test_silence_and_noise_have_no_text(model: WhisperModel, ask: Ask) -> None:
    hear, _ = listener(model)
    everything = [Span(0, 3 * SAMPLE_RATE)]
    for sound in (silence(3.0), noise(3.0)):
        for speech in ((), everything):  # even where the VAD errs
            (result,) = hear([ask(sound, language="en", speech=speech)])
            assert said(result) == ""
            assert result.redone == bool(speech)
            assert result.flags == ((gate.COVERAGE,) if speech else ())


def test_short_windows_are_encoded_unpadded_and_grouped_by_length(model: WhisperModel, ask: Ask) -> None:
    """The bundled weights are not adapted to them, so only the way is seen here, not the text."""
    hear, watched = listener(model, QualitySettings(doubt_logprob=-10, compression_ratio_max=100, repeats_max=448))
    asked = [ask(recording, mode="short") for recording in (HANOI, ENGLISH[1], DUONG)]
    asked = [replace(each, window=replace(each.window, speech=())) for each in asked]
    frames = [each.frames for each in asked]
    results = hear(asked)
    assert sorted(watched.encoded) == sorted((1, each) for each in frames)
    assert max(frames) < FULL
    assert len(watched.decoded) == len(set(frames))
    for request, result in zip(asked, results, strict=True):
        assert not result.redone
        assert all(0 <= each.start <= each.end <= request.seconds for each in result.segments)


@pytest.mark.parametrize("encoded", [1, 4])
def test_windows_that_are_not_encoded_yet_give_way(model: WhisperModel, ask: Ask, encoded: int) -> None:
    recognizing, watched = recognizer(model, gives_way=lambda: len(watched.encoded) >= encoded)
    results = recognizing.transcribe([ask(recording) for recording in SHORT])
    assert watched.encoded == [(1, FULL)] * encoded
    assert watched.decoded == [(encoded, 1)]
    for recording, result in zip(SHORT[:encoded], results, strict=False):
        assert result is not None
        assert said(result) == recording.text
    assert results[encoded:] == (None,) * (len(SHORT) - encoded)


def test_what_cannot_be_decoded_in_the_same_call_gives_way(model: WhisperModel, ask: Ask) -> None:
    recognizing, watched = recognizer(model, gives_way=lambda: True)
    results = recognizing.transcribe([ask(HANOI, beam_size=5), ask(DUONG), ask(DUONG, beam_size=2)])
    assert watched.decoded == [(1, 1)]
    assert [result and said(result) for result in results] == [None, DUONG.text, None]


class TestGraphicsMemory:
    """A GPU encodes together. The way of a batch is the same here, and its memory can be told to be small."""

    def test_windows_are_encoded_together(self, model: WhisperModel, ask: Ask) -> None:
        hear, watched = listener(model, device="cuda")
        results = hear([ask(recording) for recording in FEW])
        assert watched.encoded == [(len(FEW), FULL)]
        assert [said(result) for result in results] == [recording.text for recording in FEW]

    @pytest.mark.parametrize("room", [1, 3])
    def test_a_batch_that_does_not_fit_is_halved_until_it_does(self, model: WhisperModel, ask: Ask, room: int) -> None:
        hear, watched = listener(model, device="cuda")
        watched.room = room
        results = hear([ask(recording, language=None) for recording in FEW])
        assert [said(result) for result in results] == [recording.text for recording in FEW]
        assert [result.language for result in results] == [recording.language for recording in FEW]
        tried = [windows for windows, _ in watched.encoded]
        assert tried[0] == len(FEW)
        assert sum(windows for windows in tried if windows <= room) == len(FEW), "each once where it fits"

    def test_one_window_that_does_not_fit_is_an_error(self, model: WhisperModel, ask: Ask) -> None:
        hear, watched = listener(model, device="cuda")
        watched.room = 0
        with pytest.raises(RuntimeError, match="out of memory"):
            hear([ask(HANOI), ask(DUONG)])
        assert watched.encoded == [(2, FULL), (1, FULL)]

    def test_other_errors_are_not_tried_again(self, model: WhisperModel, ask: Ask) -> None:
        hear, watched = listener(model, device="cuda")
        watched.room, watched.error = 0, "cuDNN failed with status CUDNN_STATUS_EXECUTION_FAILED"
        with pytest.raises(RuntimeError, match="cuDNN failed"):
            hear([ask(HANOI), ask(DUONG)])
        assert watched.encoded == [(2, FULL)]
