import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it ships no annotations

from tests.admin.speaking import segment, transcript
from v2td.admin import Upload
from v2td.admin.form import Form, Format, Granularity, known_name, parse
from v2td.admin.openai_shapes import TextOnly, Verbose
from v2td.admin.refusals import RefusedError
from v2td.admin.renderings import MEDIA_TYPES, render
from v2td.config.languages import LANGUAGES, NAMES
from v2td.jobs import Audio, Options, Word

UPLOAD = Upload(Audio(Path("a.wav"), 5, "00", temporary=True), Options(task="translate", channels="split"))
WORDS = (Word(0.5, 0.75, " Good", 0.5), Word(0.75, 1.5, " day.", 0.25))
HEARD = transcript(UPLOAD, (segment(" Good day.", 0.5, words=WORDS, channel=1), segment(" Đi --> 1.", 63.0, channel=0)))


def test_each_format_is_openais() -> None:
    assert json.loads(render(HEARD, "json", ())) == {
        "text": "Good day. Đi --> 1.",
        "usage": {"type": "duration", "seconds": 2.5},
    }
    assert render(HEARD, "text", ()) == "Good day. Đi --> 1.\n"
    assert render(HEARD, "srt", ()) == (
        "1\n00:00:00,500 --> 00:00:01,500\n[channel 1] Good day.\n\n"
        "2\n00:01:03,000 --> 00:01:04,000\n[channel 0] Đi -> 1.\n\n"
    )
    assert render(HEARD, "vtt", ()).startswith("WEBVTT\n\n00:00.500 --> 00:01.500\n<v Channel 1>Good day.\n\n")
    assert set(MEDIA_TYPES) == set(get_args(Format))


@pytest.mark.parametrize("granularities", [(), ("segment",), ("word",), ("word", "segment")])
def test_verbose_json_has_what_is_asked_for_and_fits_its_description(granularities: tuple[Granularity, ...]) -> None:
    content = json.loads(render(HEARD, "verbose_json", granularities))
    Draft202012Validator(Verbose.model_json_schema()).validate(content)
    assert ("segments" in content) == (granularities != ("word",))
    assert ("words" in content) == ("word" in granularities)
    assert (content["task"], content["language"], content["duration"]) == ("translate", "english", 2.5)
    if "words" in content:
        assert content["words"][1] == {"word": "day.", "start": 0.75, "end": 1.5, "probability": 0.25}
    if "segments" in content:
        assert [(each["id"], each["seek"], each["channel"]) for each in content["segments"]] == [
            (0, 50, 1),
            (1, 6300, 0),
        ]
        assert content["segments"][0]["text"] == " Good day."


def test_json_fits_its_description() -> None:
    Draft202012Validator(TextOnly.model_json_schema()).validate(json.loads(render(HEARD, "json", ())))


def test_a_language_has_openais_name() -> None:
    for code, name in (("en", "english"), ("ht", "haitian creole"), ("yue", "cantonese"), (None, ""), ("xx", "xx")):
        heard = transcript(UPLOAD, (), language=code)
        assert json.loads(render(heard, "verbose_json", ()))["language"] == name
    assert list(NAMES) == list(LANGUAGES)
    assert len(set(NAMES.values())) == len(NAMES)


@given(
    st.dictionaries(
        st.one_of(st.sampled_from([*Form.model_json_schema(by_alias=True)["properties"]]), st.text(max_size=20)),
        st.lists(
            st.one_of(st.text(max_size=30), st.sampled_from(["en", "vi", "true", "word", "1", "json"])), min_size=1
        ),
    )
)
def test_a_form_is_taken_or_refused_and_nothing_else(fields: dict[str, list[str]]) -> None:
    refused = _refused(fields)
    if refused is not None:
        assert refused.status in {400, 404}
        message = refused.error["message"]
        assert message
        assert len(message) < 1000
        message.encode()  # no lone surrogate


def _refused(fields: dict[str, list[str]]) -> RefusedError | None:
    try:
        form = parse({known_name(name): values for name, values in fields.items()})
        form.options("transcribe")
        form.known_model(["demo"])
    except RefusedError as error:
        return error
    return None
