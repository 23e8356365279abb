import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.store.sanitise import clean_json, clean_text, encode_json

ANY_TEXT = st.text(st.characters())  # surrogates and NUL among them
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
)
GOOD_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
GOOD_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | GOOD_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(GOOD_TEXT, inner),
)


@given(ANY_TEXT)
def test_clean_text_is_storable_and_keeps_all_other_characters(text: str) -> None:
    clean = clean_text(text)
    assert clean == "".join(c for c in text if c != "\0" and not "\ud800" <= c <= "\udfff")
    clean.encode()


@given(GOOD_JSON)
def test_good_json_stays_as_it_is(value: Any) -> None:
    assert clean_json(value) == value


@given(ANY_JSON)
def test_clean_json_is_valid_json_without_nul_and_surrogates(value: Any) -> None:
    clean = clean_json(value)
    written = json.dumps(clean, allow_nan=False, ensure_ascii=False)
    written.encode()
    assert "\\u0000" not in json.dumps(clean).replace("\\\\", "")
    assert clean_json(clean) == clean


@given(ANY_JSON)
def test_json_is_encoded_as_what_it_is_cleaned_to(value: Any) -> None:
    assert json.loads(encode_json(value)) == clean_json(value)


def test_only_a_nul_is_taken_for_one() -> None:
    assert json.loads(encode_json(["\\u0000", "\\\\u0000", "a\0"])) == ["\\u0000", "\\\\u0000", "a"]


def test_tuples_are_arrays_and_nan_is_null() -> None:
    assert clean_json({"a\0": (1, float("nan"), float("-inf"), "\ud800x")}) == {"a": [1, None, None, "x"]}


def test_endless_nesting_is_told() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RecursionError):
        clean_json(value)
    with pytest.raises(RecursionError):
        encode_json(value)
