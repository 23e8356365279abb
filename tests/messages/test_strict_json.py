from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config.settings import MessageSettings
from v2td.errors import ErrorClass, JobError
from v2td.messages.strict_json import parse

LIMITS = MessageSettings()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def refused(value: bytes | None, limits: MessageSettings = LIMITS) -> str:
    with pytest.raises(JobError) as caught:
        parse(value, limits)
    assert caught.value.error_class is ErrorClass.BAD_MESSAGE
    return caught.value.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, "tombstone", id="M1 tombstone"),
        pytest.param(b"", "empty", id="M2 empty"),
        pytest.param(b'{"a": "\xff"}', "not UTF-8: byte 0xff at offset 7", id="M3 invalid UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', "not UTF-8: byte 0xed at offset 1", id="M3 surrogate in UTF-8"),
        pytest.param(b'"\xc0\x80"', "not UTF-8", id="M3 overlong NUL"),
        pytest.param("{}".encode("utf-16"), "looks like UTF-16", id="M4 UTF-16 with a mark"),
        pytest.param("{}".encode("utf-16-be"), "not JSON", id="M4 UTF-16 without"),
        pytest.param(b"\xef\xbb\xbf{}", "byte order mark", id="M4 UTF-8 with a mark"),
        pytest.param(b'{"a": [1, ', "not JSON: Expecting value: line 1 column 11", id="M5 truncated"),
        pytest.param(b'{"a": "x', "Unterminated string", id="M5 truncated in a string"),
        pytest.param(b"{} {}", "Extra data: line 1 column 4", id="M5 two values"),
        pytest.param(b"{'a': 1}", "not JSON", id="M5 Python"),
        pytest.param(b'{"a": 1,}', "not JSON", id="M5 trailing comma"),
        pytest.param(b'"a\nb"', "control character", id="M5 raw line break"),
        pytest.param(b"01", "not JSON", id="M5 leading zero"),
        pytest.param(b"1" * 5000, "an integer of 5000 digits", id="M8 5000 digits"),
        pytest.param(b"[NaN]", "not JSON: NaN", id="M9 NaN"),
        pytest.param(b"[-Infinity]", "not JSON: -Infinity", id="M9 -Infinity"),
        pytest.param(b'{"a": {"b": 1, "b": 1}}', "duplicate key 'b'", id="M13 duplicate keys"),
        pytest.param(b'{"a": 1, "\\u0061": 2}', "duplicate key 'a'", id="M13 one of them escaped"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_its_place(value: bytes | None, reason: str) -> None:
    assert reason in refused(value)


def test_m12_the_limit_in_bytes_is_exact() -> None:
    at_limit = b'"' + b"x" * (LIMITS.max_bytes - 2) + b'"'
    assert len(parse(at_limit, LIMITS)) == LIMITS.max_bytes - 2
    assert refused(at_limit + b" ") == "262145 bytes, more than the 262144 allowed"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_m7_deep_nesting_is_refused_quickly(opening: bytes) -> None:
    started = time.monotonic()
    assert "nested deeper than 32 levels" in refused(opening * (100_000 // len(opening)) + b"1")
    assert time.monotonic() - started < 1


def test_the_limit_of_nesting_is_exact_and_brackets_in_strings_do_not_count() -> None:
    assert parse(b"[" * LIMITS.max_depth + b"]" * LIMITS.max_depth, LIMITS)
    assert "at character 32" in refused(b"[" * 33 + b"]" * 33)
    brackets = "[{" * 1000 + '\\"[' * 50
    assert parse(json.dumps([brackets, [], {}]).encode(), LIMITS) == [brackets, [], {}]
    assert len(parse(b"[" + b"[]," * 1000 + b"{}]", LIMITS)) == 1001


@pytest.mark.parametrize(
    "value",
    [b'"' + b'\\"' * 130_000, b'"\\' * 130_000, b"[" + b"[]," * 80_000, b"[" + b'"\\\\",' * 40_000],
    ids=["escaped quotes", "quote and backslash", "many arrays", "many strings"],
)
def test_no_input_takes_quadratic_time(value: bytes) -> None:
    started = time.monotonic()
    refused(value)
    assert time.monotonic() - started < 2  # quadratic would be minutes


@pytest.mark.parametrize("value", [b"[[[[[1]]]]]", b"[12345]", b'["0123456789"]'])
def test_limits_may_be_set(value: bytes) -> None:
    assert parse(value, LIMITS)
    assert refused(value, MessageSettings(max_depth=4, max_digits=4, max_bytes=13))


def test_integers_are_exact_up_to_the_limit() -> None:
    digits = "9" * LIMITS.max_digits
    assert parse(digits.encode(), LIMITS) == int(digits)
    assert "an integer of 1001 digits" in refused(b"9" * (LIMITS.max_digits + 1))


@pytest.mark.parametrize(
    ("literal", "number"),
    [
        (b"1e400", math.inf),
        (b"-1e400", -math.inf),
        (b"1e-400", math.inf),
        (b"0e-400", 0.0),
        (b"0.00", 0.0),
        (b"5e-324", 5e-324),
        (b"1.7976931348623157e308", 1.7976931348623157e308),
        (b"1." + b"1" * 200_000, 10 / 9),
    ],
)
def test_numbers_that_a_double_cannot_hold_read_as_infinity(literal: bytes, number: float) -> None:
    assert parse(literal, LIMITS) == number


def test_reasons_quote_foreign_keys_bounded_and_printable() -> None:
    key = "\x1b[31m\0\ud800\u202e\n" + "k" * 1000
    reason = refused(json.dumps({key: 1})[:-1].encode() + b"," + json.dumps({key: 2})[1:].encode())
    assert len(reason) < 150
    assert reason.isprintable()


@given(json_values)
def test_any_json_value_comes_back_equal(value: Any) -> None:
    for ascii_only in (True, False):
        assert parse(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8"), LIMITS) == value


@given(st.binary() | st.text().map(str.encode) | st.text(alphabet='[]{}",:\\0129.eE+- aunltrfse').map(str.encode))
def test_what_is_accepted_is_what_the_json_module_accepts(value: bytes) -> None:
    try:
        parsed = parse(value, LIMITS)
    except JobError:
        return
    assert parsed == json.loads(value) or "inf" in repr(parsed)
