from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from v2td.messages.storable import is_storable, storable

_text = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
_good = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)
_flaws = st.sampled_from(["\0", "a\0b", "\ud800", "x\udfff", math.inf, -math.inf, 10**309, -(10**309)])


def _wrap(flaw: Any, around: list[tuple[str, list[Any]]]) -> Any:
    for key, siblings in around:
        flaw = [*siblings, {key: flaw}]
    return flaw


@given(_good)
def test_what_postgres_can_keep_comes_back_itself(value: Any) -> None:
    assert is_storable(value)
    assert storable(value) is value


@given(_flaws, st.lists(st.tuples(_text, st.lists(_good, max_size=2)), max_size=4))
def test_a_flaw_is_found_wherever_it_lies(flaw: Any, around: list[tuple[str, list[Any]]]) -> None:
    value = _wrap(flaw, around)
    assert not is_storable(value)
    with pytest.raises(PydanticCustomError):
        storable(value)


@given(st.sampled_from(["\0", "\ud800"]), st.lists(st.tuples(_text, st.lists(_good, max_size=2)), max_size=4))
def test_a_flawed_key_is_found_wherever_it_lies(key: str, around: list[tuple[str, list[Any]]]) -> None:
    assert not is_storable(_wrap({key: 1}, around))


def test_the_largest_numbers_are_kept() -> None:
    assert is_storable([1.7976931348623157e308, int(1.7976931348623157e308), 5e-324, -0.0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("\0", "text with a NUL character"),
        ([0, {"a b": ["\ud800"]}], "text with a lone surrogate at '[1].a b[0]'"),
        ({"a": {"\0": 1}}, "text with a NUL character at '.a'"),
        ({"a": 10**309}, "a number that a double cannot hold at '.a'"),
    ],
)
def test_the_error_says_what_and_where(value: Any, message: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        storable(value)
    assert caught.value.message() == message
