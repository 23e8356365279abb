import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config.languages import LANGUAGES, NAMES
from v2td.errors import ProviderFailedError, ProviderRefusedError
from v2td.jobs import SAMPLE_RATE, Span
from v2td.providers.openai_answers import Sent, language_of, read, refusal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "sk-secret"


def sent(start: float = 10, end: float = 20, *, words: bool = False, speech: tuple[float, float] | None = None) -> Sent:
    first, last = speech or (start, end)
    spans = (Span(int(first * SAMPLE_RATE), int(last * SAMPLE_RATE)),)
    return Sent(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE), spans, None, words)


def answer(*segments: dict[str, object], **more: object) -> bytes:
    return json.dumps({"text": "all", "segments": segments, **more}).encode()


def said(start: float, end: float, text: str = " a", **more: object) -> dict[str, object]:
    return {"start": start, "end": end, "text": text, **more}


def test_times_are_put_back_and_kept_inside() -> None:
    content = answer(said(8, 99), said(1, 2), said(-5, 0.5), said(5, 4), said(50, 60))
    found = [(each.start, each.end) for each in read(content, sent()).segments]
    assert found == [(10, 10.5), (11, 12), (15, 15), (18, 20), (20, 20)]


def test_borders_in_silence_move_to_the_speech() -> None:
    (segment,) = read(answer(said(0, 10)), sent(speech=(12, 15))).segments
    assert (segment.start, segment.end) == (12, 15)


def test_segments_without_text_are_left_out() -> None:
    assert [each.text for each in read(answer(said(0, 1, "  "), said(1, 2, " b")), sent()).segments] == [" b"]


def test_nothing_was_said() -> None:
    assert read(b'{"text": ""}', sent()).segments == ()
    assert read(b'{"text": " ", "segments": []}', sent()).segments == ()


def test_plain_text_is_one_segment() -> None:
    (segment,) = read(b'{"text": "hello", "segments": null, "usage": {}}', sent(speech=(11, 12))).segments
    assert (segment.text, segment.start, segment.end) == ("hello", 11, 12)
    assert segment.compression_ratio == pytest.approx(5 / 13)


def test_what_no_database_can_hold_is_taken_out() -> None:
    content = b'{"text": "", "segments": [{"text": " a\\u0000b", "start": 0, "end": 1}]}'
    assert [each.text for each in read(content, sent()).segments] == [" ab"]
    assert refusal(400, b'{"error": "a\\ud800"}', None, NOW, KEY).reason == "the API answered 400: a?"


def test_words_of_the_answer_are_given_to_their_segments() -> None:
    words = [{"word": word, "start": at, "end": at + 0.5} for word, at in (("a", 0), ("b", 1), ("c", 2.9), ("d", 9))]
    content = answer(said(2.8, 4), said(0, 2), words=words)
    first, second = read(content, sent(words=True)).segments
    assert first.words is not None
    assert second.words is not None
    assert [(each.text, each.start, each.end) for each in first.words] == [("a", 10, 10.5), ("b", 11, 11.5)]
    assert [(each.text, each.start, each.end) for each in second.words] == [("c", 12.9, 13.4), ("d", 14, 14)]
    assert [each.words for each in read(content, sent()).segments] == [None, None]


def test_an_api_without_words_is_not_taken_for_one_with_them() -> None:
    with pytest.raises(ProviderRefusedError, match="words"):
        read(answer(said(0, 2)), sent(words=True))
    assert read(answer(said(0, 2)), sent()).segments
    assert read(b'{"text": "", "segments": []}', sent(words=True)).segments == ()


def test_words_may_come_in_their_segments() -> None:
    word = {"word": " a", "start": 0.5, "end": 1, "probability": 0.4}
    (segment,) = read(answer(said(0, 2, words=[word])), sent(words=True)).segments
    assert segment.words is not None
    assert [(each.text, each.start, each.end, each.probability) for each in segment.words] == [(" a", 10.5, 11, 0.4)]


@given(
    st.lists(st.tuples(st.floats(-5, 30), st.floats(-5, 30)), min_size=1),
    st.lists(st.tuples(st.floats(-5, 30), st.floats(-5, 30)), min_size=1),
)
def test_whatever_the_times_are_words_lie_in_segments_and_all_in_what_was_sent(
    segments: list[tuple[float, float]], words: list[tuple[float, float]]
) -> None:
    content = answer(
        *(said(start, end) for start, end in segments),
        words=[{"word": str(index), "start": start, "end": end} for index, (start, end) in enumerate(words)],
    )
    found = read(content, sent(words=True)).segments
    assert len(found) == len(segments)
    assert list(found) == sorted(found, key=lambda each: each.start)
    told = []
    for segment in found:
        assert 10 <= segment.start <= segment.end <= 20
        assert segment.words is not None
        for word in segment.words:
            assert segment.start <= word.start <= word.end <= segment.end
            told.append(word.text)
    assert sorted(told) == sorted(str(index) for index in range(len(words)))


@pytest.mark.parametrize("code", LANGUAGES)
def test_languages_are_known_by_name_and_by_code(code: str) -> None:
    assert {language_of(each) for each in (code, code.upper(), NAMES[code], NAMES[code].title())} == {code}


@pytest.mark.parametrize(
    ("given", "code"),
    [("pt-BR", "pt"), ("zh_CN", "zh"), (None, None), ("", None), ("unknown", None), ("klingon", None)],
)
def test_other_names_of_languages(given: str | None, code: str | None) -> None:
    assert language_of(given) == code


@given(st.binary(max_size=200))
def test_no_body_of_an_error_is_too_strange(body: bytes) -> None:
    assert str(refusal(500, body, None, NOW, KEY)).startswith("provider_error: the API answered 500")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["text", "segments", "start", "end", "words", "language"]), inner)
        ),
    )
)
def test_no_answer_is_too_strange(content: object) -> None:
    with suppress(ProviderFailedError, ProviderRefusedError):
        found = read(json.dumps(content).encode(), sent(words=True))
        assert all(10 <= each.start <= each.end <= 20 for each in found.segments)


def test_messages_are_one_line_of_bounded_length_without_the_key() -> None:
    body = json.dumps({"error": {"message": f"a\n{KEY}  b\0" + "x" * 1000}}).encode()
    error = refusal(400, body, None, NOW, KEY)
    assert isinstance(error, ProviderRefusedError)
    assert error.reason.startswith("the API answered 400: a … b")
    assert len(error.reason) < 250


@pytest.mark.parametrize("body", [b'{"error": "busy"}', b'{"error": {"message": "busy"}}', b'{"message": "busy"}'])
def test_errors_come_in_several_shapes(body: bytes) -> None:
    told = refusal(503, body, "3", NOW, KEY)
    assert isinstance(told, ProviderFailedError)
    assert told.retry_after == 3
    assert told.reason in {"the API answered 503: busy", "the API answered 503"}
