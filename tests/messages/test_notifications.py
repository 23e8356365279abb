from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messages.examples import AWS_TEST_EVENT, COORDINATES, MINIO_EVENT, aws_entry, read, read_failure, read_job
from v2td.errors import ErrorClass
from v2td.jobs import Failure, Job, Options


def test_minio_tells_of_a_new_object() -> None:
    job = read_job(MINIO_EVENT)
    assert job.audio_url == "s3://recordings/hello wörld.wav"
    assert (job.options, job.job_id, job.metadata) == (Options(), None, {})


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("HappyFace.jpg", "HappyFace.jpg"),
        ("a+b.wav", "a b.wav"),
        ("a%2Bb.wav", "a+b.wav"),
        ("a%2525.wav", "a%25.wav"),
        ("2030/01/%C4%91i%E1%BB%87n+tho%E1%BA%A1i.mp3", "2030/01/điện thoại.mp3"),
        ("q%3Fx%3D1%23frag%40.wav", "q?x=1#frag@.wav"),
        ("%2Fleading//double/../up", "/leading//double/../up"),
        ("tab%09line%0A", "tab\tline\n"),
    ],
)
def test_keys_are_form_encoded_in_the_event_and_raw_in_the_url(encoded: str, key: str) -> None:
    assert read_job({"Records": [aws_entry(encoded)]}).audio_url == f"s3://recordings/{key}"


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=100))
def test_any_key_comes_back(key: str) -> None:
    assert read_job({"Records": [aws_entry(quote_plus(key))]}).audio_url == f"s3://recordings/{key}"


def test_several_records_are_several_jobs_told_apart_by_their_index() -> None:
    entries = [
        aws_entry("0.wav"),
        aws_entry("1.wav", "ObjectRemoved:Delete"),
        aws_entry("2.wav", "s3:ObjectCreated:CompleteMultipartUpload"),
        aws_entry("3.wav", "s3:ObjectAccessed:Get"),
        aws_entry("4.wav", "ObjectCreated:Copy"),
    ]
    jobs = read({"Records": entries})
    assert all(isinstance(job, Job) for job in jobs)
    assert [(job.coordinates.record_index, job.audio_url) for job in jobs] == [
        (index, f"s3://recordings/{index}.wav") for index in (0, 2, 4)
    ]
    assert len({job.coordinates.row_id() for job in jobs}) == 3
    assert {job.coordinates.offset for job in jobs} == {COORDINATES.offset}


@pytest.mark.parametrize(
    "message",
    [
        AWS_TEST_EVENT,
        {"Records": []},
        {"Records": [aws_entry("a", "s3:ObjectRemoved:Delete"), aws_entry("b", "ObjectCreatedNot:Put")]},
        {"Records": [aws_entry("a", "s3:ObjectCreated:PutRetention"), aws_entry("b", "s3:ObjectCreated:PutLegalHold")]},
    ],
    ids=["test event", "no records", "other events", "old objects"],
)
def test_no_new_object_is_no_job(message: dict[str, Any]) -> None:
    assert read(message) == ()


def without(path: str) -> dict[str, Any]:
    """Return an entry that lacks one member."""
    entry = aws_entry("a.wav")
    *parents, last = path.split(".")
    inner = entry
    for name in parents:
        inner = inner[name]
    del inner[last]
    return entry


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (5, "eventName: missing or not a string"),
        ({}, "eventName: missing or not a string"),
        (without("eventName"), "eventName: missing or not a string"),
        (aws_entry("a.wav") | {"eventName": 5}, "eventName: missing or not a string"),
        (without("s3"), "s3.bucket.name: missing or not a bucket's name"),
        (without("s3.bucket"), "s3.bucket.name: missing or not a bucket's name"),
        (without("s3.bucket.name"), "s3.bucket.name: missing or not a bucket's name"),
        (aws_entry("a.wav", bucket="a/b"), "s3.bucket.name: missing or not a bucket's name"),
        (without("s3.object"), "s3.object.key: missing or not a string"),
        (without("s3.object.key"), "s3.object.key: missing or not a string"),
        (aws_entry(""), "s3.object.key: missing or not a string"),
        (aws_entry("100%.wav"), "s3.object.key: broken escape '%.w'"),
        (aws_entry("%FF.wav"), "s3.object.key: not UTF-8"),
    ],
)
def test_a_broken_entry_fails_by_itself_and_spoils_no_other(entry: Any, reason: str) -> None:
    first, broken, last = read({"Records": [aws_entry("0.wav"), entry, aws_entry("2.wav")]})
    assert isinstance(first, Job)
    assert isinstance(last, Job)
    assert last.coordinates.record_index == 2
    assert isinstance(broken, Failure)
    assert broken.coordinates.record_index == 1
    assert (broken.error_class, broken.reason) == (ErrorClass.BAD_MESSAGE, f"notification: {reason}")


def test_a_key_that_postgres_cannot_hold_is_a_bad_field() -> None:
    failure = read_failure({"Records": [aws_entry("a%00.wav")]})
    assert (failure.error_class, failure.reason) == (
        ErrorClass.BAD_FIELD,
        "audio_url: text with a NUL character",
    )


@pytest.mark.parametrize("records", [None, "x", {"0": aws_entry("a.wav")}, 5])
def test_records_that_are_no_array_are_a_bad_message(records: Any) -> None:
    failure = read_failure({"EventName": "s3:ObjectCreated:Put", "Records": records})
    assert (failure.error_class, failure.reason) == (ErrorClass.BAD_MESSAGE, "notification: Records: not an array")


def test_one_message_cannot_become_any_number_of_rows() -> None:
    assert len(read({"Records": [{}] * 1000})) == 1000
    assert "1001 entries, more than the 1000 allowed" in read_failure({"Records": [{}] * 1001}).reason


def test_the_version_that_was_put_is_the_one_to_transcribe() -> None:
    entry = aws_entry("a.wav")
    entry["s3"]["object"]["versionId"] = "bf6e3f30-49da-4c0a-b21d-e8ac4ef3f7ee"
    assert read_job({"Records": [entry]}).version_id == "bf6e3f30-49da-4c0a-b21d-e8ac4ef3f7ee"
    for nothing in ("", None):
        entry["s3"]["object"]["versionId"] = nothing
        assert read_job({"Records": [entry]}).version_id is None
    entry["s3"]["object"]["versionId"] = 5
    failure = read_failure({"Records": [entry]})
    assert (failure.error_class, failure.audio_url) == (ErrorClass.BAD_MESSAGE, "s3://recordings/a.wav")


def test_files_of_transcripts_are_no_jobs_where_the_server_tells_whose_they_are() -> None:
    ours, theirs, odd = (aws_entry(f"{number}.wav") for number in range(3))
    ours["s3"]["object"]["userMetadata"] = {"X-Amz-Meta-V2td-Id": "1", "content-type": "application/json"}
    theirs["s3"]["object"]["userMetadata"] = {"X-Amz-Meta-Caller": "v2td-id"}
    odd["s3"]["object"]["userMetadata"] = ["x-amz-meta-v2td-id"]
    jobs = read({"Records": [ours, theirs, odd]})
    assert [each.coordinates.record_index for each in jobs] == [1, 2]
    assert read({"Records": [ours]}) == ()
