import base64
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.outcomes import coordinates, failure, transcript
from v2td.jobs import SourceRecord, Word
from v2td.store import StoredFailure, StoredSegment, StoredTranscription
from v2td.store.encoding import MAX_PAYLOAD_BYTES, encode_headers, record_time
from v2td.store.rows import (
    MAX_SHARED_BYTES,
    FailureRow,
    SegmentRow,
    TranscriptionRow,
    failure_row,
    segment_rows,
    transcription_row,
)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://example.com/a.wav", "https://example.com/a.wav"),
        ("https://example.com/a.wav?X-Amz-Signature=secret#t=1", "https://example.com/a.wav"),
        ("https://user:secret@example.com:8443/a@b.wav", "https://example.com:8443/a@b.wav"),
        ("http://user:sec@ret@example.com", "http://example.com"),
        (" HTTPS://user:secret@example.com/a?b", " HTTPS://example.com/a"),
        ("http://[broken/a?secret", "http://[broken/a"),
        ("http://example.com?secret", "http://example.com"),
        ("ftp://user:secret@host/a", "ftp://host/a"),
        ("s3://bucket/dir/../a?b=c#d@e.wav", "s3://bucket/dir/../a?b=c#d@e.wav"),
        ("S3://bucket/a?b", "S3://bucket/a?b"),
        ("s3://AKIA:secret@bucket/a?b@c", "s3://bucket/a?b@c"),
        ("file:///srv/a?b#c.wav", "file:///srv/a?b#c.wav"),
        ("", ""),
    ],
)
def test_the_stored_url_holds_no_secret_and_keeps_raw_keys(url: str, public: str) -> None:
    assert failure_row(failure(1, audio_url=url)).audio_url == public


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.binary())))
def test_headers_can_be_had_back(headers: list[tuple[str, bytes]]) -> None:
    def decode(value: Any) -> bytes:
        return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])

    assert [(name, decode(value)) for name, value in encode_headers(tuple(headers))] == headers


def test_the_record_is_bounded() -> None:
    big = b"x" * (MAX_PAYLOAD_BYTES + 1)
    row = failure_row(failure(1, record=SourceRecord(big, big, (("a", b"1"), ("b", big), ("c", b"2")))))
    assert row.record_key == row.payload == big[:-1]
    assert row.headers == [["a", "1"], ["v2td-truncated", ""]]


def test_the_row_of_a_record_that_another_failure_keeps_is_small() -> None:
    record = SourceRecord(b"k" * 9000, b"v" * 9000, (("a", b"1"), ("b", b"x" * 9000)))
    row = failure_row(failure(1, record=record, whole_in=coordinates(1), coordinates=coordinates(1, record_index=7)))
    assert (row.record_key, row.payload) == (b"k" * MAX_SHARED_BYTES, None)
    assert row.headers == [["a", "1"], ["v2td-truncated", ""], ["v2td-whole-record", str(coordinates(1).row_id())]]


def test_a_transcript_is_one_row_and_one_for_each_segment() -> None:
    heard = transcript(7, "one", "two", job={"metadata": {"a": 1}, "tenant": "acme"})
    row = transcription_row(heard)
    assert (row.id, row.revision, row.kafka_offset, row.tenant) == (heard.job.id, 0, 7, "acme")
    assert (row.text, row.duration, row.speech_coverage_ratio) == ("one two", 1.5, 0.75)
    assert row.metadata == {"a": 1}
    assert [(r.transcription_id, r.segment_index, r.text) for r in segment_rows(heard)] == [
        (heard.job.id, 0, "one"),
        (heard.job.id, 1, "two"),
    ]


def test_no_speech_has_no_coverage() -> None:
    assert transcription_row(transcript(1, speech_seconds=0.0, covered_seconds=0.0)).speech_coverage_ratio is None


def test_words_are_objects() -> None:
    spoken = transcript(1).segments[0]
    object.__setattr__(spoken, "words", (Word(0.5, 0.9, " good", 0.75),))
    (row,) = segment_rows(transcript(1, segments=(spoken,)))
    assert row.words == [{"start": 0.5, "end": 0.9, "word": " good", "probability": 0.75}]


def test_record_time_keeps_milliseconds_and_knows_none() -> None:
    assert record_time(1_700_000_000_123) == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
    assert record_time(253_402_300_799_999) == datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    assert [record_time(ms) for ms in (-1, 253_402_300_800_000, 2**63 - 1)] == [None, None, None]


def test_what_is_read_is_what_is_written() -> None:
    def names(stored: type) -> set[str]:
        return {field.name for field in fields(stored)}

    assert names(StoredTranscription) == {*TranscriptionRow._fields, "created_at"}
    assert names(StoredSegment) == {*SegmentRow._fields} - {"transcription_id", "revision"}
    kept_apart = {"record_timestamp_ms", "record_key", "payload", "headers"}
    assert names(StoredFailure) == ({*FailureRow._fields} - kept_apart) | {"replay_state", "created_at"}


def test_text_of_every_kind_is_cleaned() -> None:
    dirty = "a\0b\ud800"
    row = transcription_row(
        transcript(1, dirty, at={"topic": dirty}, job={"job_id": dirty, "audio_url": dirty, "tenant": dirty})
    )
    assert {row.topic, row.job_id, row.audio_url, row.tenant, row.text} == {"ab"}
    failed = failure_row(failure(1, coordinates=coordinates(1, topic=dirty), reason=dirty, job_id=dirty))
    assert {failed.topic, failed.job_id} == {"ab"}
    assert failed.reason == r"a\x00b\ud800"
