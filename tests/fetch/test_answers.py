from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.errors import ErrorClass, TransientJobError
from v2td.fetch.answers import Pace, refusal
from v2td.retry import retry_after_seconds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code", "error_class", "transient"),
    [
        (204, "", ErrorClass.HTTP_ERROR, False),
        (206, "", ErrorClass.HTTP_ERROR, False),
        (304, "", ErrorClass.HTTP_ERROR, False),
        (400, "", ErrorClass.HTTP_ERROR, False),
        (401, "", ErrorClass.ACCESS_DENIED, False),
        (403, "", ErrorClass.ACCESS_DENIED, False),
        (404, "", ErrorClass.NOT_FOUND, False),
        (408, "", ErrorClass.HTTP_ERROR, True),
        (410, "", ErrorClass.NOT_FOUND, False),
        (425, "", ErrorClass.HTTP_ERROR, True),
        (429, "", ErrorClass.HTTP_ERROR, True),
        (500, "", ErrorClass.HTTP_ERROR, True),
        (503, "", ErrorClass.HTTP_ERROR, True),
        (404, "NoSuchKey", ErrorClass.NOT_FOUND, False),
        (404, "NoSuchBucket", ErrorClass.NOT_FOUND, False),
        (400, "RequestTimeout", ErrorClass.HTTP_ERROR, True),
        (400, "ExpiredToken", ErrorClass.ACCESS_DENIED, False),
        (403, "SignatureDoesNotMatch", ErrorClass.ACCESS_DENIED, False),
        (403, "RequestTimeTooSkewed", ErrorClass.ACCESS_DENIED, False),
        (503, "SlowDown", ErrorClass.HTTP_ERROR, True),
    ],
)
def test_fates(status: int, code: str, error_class: ErrorClass, transient: bool) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode() if code else b"<html>no</html>"
    error = refusal(status, body, "7", NOW)
    assert error.error_class is error_class
    assert isinstance(error, TransientJobError) is transient
    assert str(status) in error.reason
    assert code in error.reason
    if isinstance(error, TransientJobError):
        assert error.retry_after == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("0", 0),
        (" 120 ", 120),
        ("-5", None),
        ("1.5", None),
        ("１２", None),
        ("9" * 5000, None),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("Thu, 99 Jan 2026 00:01:00 GMT", None),
        ("Thu, 99999999999999999999 Jan 2026 00:01:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text(max_size=40))
def test_retry_after_reads_any_text(text: str) -> None:
    seconds = retry_after_seconds(text, NOW)
    assert seconds is None or seconds >= 0


@given(
    st.integers(min_value=0), st.integers(min_value=0), st.integers(), st.sampled_from(["GMT", "-0000", "+2359", "Z"])
)
def test_retry_after_reads_any_date(day: int, year: int, hour: int, zone: str) -> None:
    seconds = retry_after_seconds(f"Thu, {day} Jan {year} {hour}:00:00 {zone}", NOW)
    assert seconds is None or seconds >= 0


def test_pace_judges_whole_windows() -> None:
    pace = Pace(100, 30, now=0)
    assert not pace.is_too_slow(1, 29.9)  # the window is not over
    assert not pace.is_too_slow(2999, 30)  # 3000 bytes in 30 s
    assert pace.is_too_slow(2999, 60)
    assert not pace.is_too_slow(3000, 90)
    assert pace.is_too_slow(3000, 121)  # the window was longer, so it needed more


def test_pace_of_zero_allows_silence() -> None:
    assert not Pace(0, 30, now=0).is_too_slow(0, 1000)
