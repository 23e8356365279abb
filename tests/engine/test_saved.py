"""What was heard comes back from JSON as it went in, and only as the answer to the same question."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.engine import saved
from v2td.engine.batch import WindowRequest, WindowResult
from v2td.jobs import Options, Segment, Span, Window, Word

numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.builds(Word, numbers, numbers, st.text(), numbers)
segments = st.builds(
    Segment,
    *(numbers, numbers, st.text(), numbers, numbers, numbers, numbers),
    st.none() | st.lists(words, max_size=3).map(tuple),
    st.none() | st.integers(0, 7),
)
results = st.builds(
    WindowResult,
    st.lists(segments, max_size=3).map(tuple),
    st.sampled_from(["en", "vi"]),
    st.lists(st.tuples(st.sampled_from(["en", "vi"]), numbers), max_size=2).map(tuple),
    st.lists(st.integers(0, 60_000), max_size=5).map(tuple),
    st.lists(st.sampled_from(["logprob", "sparse"]), max_size=2).map(tuple),
    st.booleans(),
)
REQUEST = WindowRequest(
    Path("/tmp/1.pcm"), 1, Window(3, (Span(0, 16_000),), (Span(100, 15_000),)), Options(), 0, "full", ()
)


@given(results)
def test_a_result_survives(result: WindowResult) -> None:
    assert saved.from_json(json.loads(json.dumps(saved.to_json(result)))) == result


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"segments": [{"start": 0}], "language": "en", "languages": [], "tokens": [], "flags": [], "redone": False},
        {"segments": [], "language": "en", "languages": [["en"]], "tokens": [], "flags": [], "redone": False},
    ],
)
def test_what_another_version_wrote_is_not_taken(value: dict[str, Any]) -> None:
    assert saved.from_json(value) is None


def test_a_number_that_json_cannot_hold_is_not_taken() -> None:
    result = WindowResult((Segment(0, 1, "x", float("-inf"), 0, 1, 0),), "en", (), (), (), redone=False)
    value = saved.to_json(result)
    value["segments"][0]["avg_logprob"] = None  # as the store keeps it
    assert saved.from_json(value) is None


@pytest.mark.parametrize(
    ("request_", "audio", "model"),
    [
        (replace(REQUEST, options=Options(language="vi")), "a", "base"),
        (replace(REQUEST, options=Options(prompt="Hello")), "a", "base"),
        (replace(REQUEST, beam_size=5), "a", "base"),
        (replace(REQUEST, mode="short"), "a", "base"),
        (replace(REQUEST, previous=(1,)), "a", "base"),
        (replace(REQUEST, window=replace(REQUEST.window, channel=1)), "a", "base"),
        (replace(REQUEST, window=replace(REQUEST.window, pieces=(Span(0, 16_001),))), "a", "base"),
        (REQUEST, "b", "base"),
        (REQUEST, "a", "small"),
    ],
)
def test_whatever_decides_the_text_is_in_the_digest(request_: WindowRequest, audio: str, model: str) -> None:
    assert saved.request_sha256(request_, audio, model) != saved.request_sha256(REQUEST, "a", "base")


def test_where_the_pcm_lies_is_not() -> None:
    elsewhere = replace(REQUEST, pcm=Path("/tmp/2.pcm"))
    assert saved.request_sha256(elsewhere, "a", "base") == saved.request_sha256(REQUEST, "a", "base")
