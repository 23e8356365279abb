from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.messages.examples import (
    AWS_TEST_EVENT,
    COORDINATES,
    MINIO_EVENT,
    URL,
    aws_entry,
    cloud_event,
    read,
    read_failure,
)
from v2td.errors import ErrorClass
from v2td.jobs import Failure, Job, Replay
from v2td.messages.record import LARGE_RECORD

PRESIGNED = "https://user:secret@example.com/a.wav?X-Amz-Signature=secret"


def test_a_failure_keeps_what_could_be_read_without_its_secrets() -> None:
    failure = read_failure({"audio_url": PRESIGNED, "id": "a", "beam_size": 99})
    assert (failure.job_id, failure.audio_url) == ("a", "https://example.com/a.wav")
    assert "secret" not in failure.reason


def test_a_failure_keeps_nothing_that_postgres_cannot() -> None:
    failure = read_failure({"audio_url": "http://h/\0", "id": "\ud800"})
    assert (failure.job_id, failure.audio_url) == (None, None)
    failure = read_failure({"audio_url": 5, "id": "x" * 10_000})
    assert (failure.job_id, failure.audio_url) == (None, None)


def test_a_bad_value_for_one_key_does_not_hide_the_other() -> None:
    assert read_failure({"id": "a"}).job_id == "a"
    assert read_failure({"audio_url": URL, "id": 5}).audio_url == URL


def test_the_first_failure_of_a_large_record_keeps_its_value_for_all() -> None:
    entries = [aws_entry("a.wav"), {}, aws_entry("b.wav"), {}, {}]
    job, first, other_job, *further = read({"Records": entries, "padding": "x" * LARGE_RECORD})
    assert isinstance(job, Job)
    assert isinstance(other_job, Job)
    assert isinstance(first, Failure)
    assert first.whole_in is None
    assert [each.whole_in for each in further if isinstance(each, Failure)] == [first.coordinates] * 2
    replayed = [replace(each, replay=Replay(COORDINATES)) for each in further if isinstance(each, Failure)]
    assert [each.whole_in for each in replayed] == [None, None], "a replay may be of a record whose first is long gone"


def test_each_failure_of_a_small_record_keeps_its_value() -> None:
    assert [each.whole_in for each in read({"Records": [{}] * 100}) if isinstance(each, Failure)] == [None] * 100


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_keys = ["audio_url", "id", "metadata", "output", "languages", "expires_at", "priority", "channels"]
_mangled = st.builds(
    lambda message, changes: {**message, **changes},
    st.sampled_from([{"audio_url": URL}, MINIO_EVENT, AWS_TEST_EVENT, cloud_event(data={"audio_url": URL})]),
    st.dictionaries(st.sampled_from([*_keys, "Records", "Event", "specversion", "data", "data_base64"]), _anything),
)


def _is_writable(text: str | None) -> bool:
    return text is None or ("\0" not in text and text.encode() != b"")


def _check(value: bytes) -> None:
    for outcome in read(value):
        assert isinstance(outcome, Job | Failure)
        assert outcome.coordinates.offset == COORDINATES.offset
        assert _is_writable(outcome.job_id)
        assert _is_writable(outcome.audio_url)
        if isinstance(outcome, Failure):
            assert outcome.error_class in (ErrorClass.BAD_MESSAGE, ErrorClass.BAD_FIELD)
            assert _is_writable(outcome.reason)
            assert len(outcome.reason) < 1000


@given(st.binary())
def test_no_bytes_raise(value: bytes) -> None:
    _check(value)


@given(_mangled)
def test_no_mangled_message_raises(message: dict[str, Any]) -> None:
    _check(json.dumps(message).encode())


@given(_mangled, st.data())
def test_no_damaged_message_raises(message: dict[str, Any], data: st.DataObject) -> None:
    value = bytearray(json.dumps(message).encode())
    at = data.draw(st.integers(0, len(value) - 1))
    value[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    _check(bytes(value))
