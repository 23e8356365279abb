from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.messages.examples import (
    AWS_TEST_EVENT,
    MINIO_EVENT,
    URL,
    aws_entry,
    cloud_event,
    read,
    read_failure,
    read_job,
)
from v2td.errors import ErrorClass
from v2td.jobs import Failure, Job

JOB = {"audio_url": URL, "id": "a", "metadata": {"n": 1}}


def encoded(value: Any) -> str:
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "event",
    [
        cloud_event(data=JOB),
        cloud_event(data=JOB, datacontenttype="application/json"),
        cloud_event(data=JOB, datacontenttype="application/vnd.v2td.job+json; charset=utf-8"),
        cloud_event(data=JOB, subject="x", time="2030-01-01T00:00:00Z", traceparent="00-1-2-01", dataschema="urn:x"),
        cloud_event(data_base64=encoded(JOB)),
        cloud_event(data=JOB) | {"data_base64": None, "datacontenttype": None},
    ],
    ids=["data", "json", "+json", "extensions", "base64", "null attributes"],
)
def test_the_job_in_an_envelope_is_the_job(event: dict[str, Any]) -> None:
    job = read_job(event)
    assert (job.audio_url, job.job_id, job.metadata) == (URL, "a", {"n": 1})


def test_a_notification_in_an_envelope_is_its_jobs() -> None:
    assert read_job(cloud_event(data=MINIO_EVENT)).audio_url == "s3://recordings/hello wörld.wav"
    assert read(cloud_event(data=AWS_TEST_EVENT)) == ()
    good, bad = read(cloud_event(data_base64=encoded({"Records": [aws_entry("a.wav"), {}]})))
    assert isinstance(good, Job)
    assert isinstance(bad, Failure)
    assert bad.coordinates.record_index == 1


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (cloud_event(data=JOB, specversion="0.3"), "CloudEvent: specversion is not '1.0'"),
        (cloud_event(data=JOB) | {"specversion": 1.0}, "CloudEvent: specversion is not '1.0'"),
        (cloud_event(data=JOB, id=None), "CloudEvent: id: missing or not a string"),
        (cloud_event(data=JOB, id=""), "CloudEvent: id: missing or not a string"),
        (cloud_event(data=JOB, source=5), "CloudEvent: source: missing or not a string"),
        (cloud_event(data=JOB, type=None), "CloudEvent: type: missing or not a string"),
        (cloud_event(data=JOB, datacontenttype="text/xml"), "CloudEvent: datacontenttype: 'text/xml' is not JSON"),
        (cloud_event(data=JOB, datacontenttype=5), "CloudEvent: datacontenttype: '5' is not JSON"),
        (cloud_event(data=JOB, datacontenttype="application/jsonx"), "CloudEvent: datacontenttype: "),
        (cloud_event(), "CloudEvent: exactly one of data and data_base64 is needed"),
        (cloud_event(data=JOB, data_base64=encoded(JOB)), "CloudEvent: exactly one of data and data_base64"),
        (cloud_event(data_base64="{}"), "CloudEvent: data_base64: not base64"),
        (cloud_event(data_base64="ü"), "CloudEvent: data_base64: not base64"),
        (cloud_event(data_base64=5), "CloudEvent: data_base64: not base64"),
        (cloud_event(data_base64=""), "the value is empty"),
        (cloud_event(data_base64=encoded(b'{"a":1,"a":1}')), "duplicate key 'a'"),
        (cloud_event(data_base64=encoded(b"[" * 10_000)), "nested deeper than 32 levels"),
        (cloud_event(data="text"), "not a JSON object"),
        (cloud_event(data=json.dumps(JOB)), "not a JSON object"),
        (cloud_event(data=cloud_event(data=JOB)), "unknown key "),
    ],
)
def test_a_broken_envelope_is_a_bad_message(event: dict[str, Any], reason: str) -> None:
    failure = read_failure(event)
    assert (failure.error_class, failure.reason[: len(reason)]) == (ErrorClass.BAD_MESSAGE, reason)


def test_the_job_inside_is_checked_like_any() -> None:
    failure = read_failure(cloud_event(data={"audio_url": URL, "id": "a", "beam_size": 99}))
    assert (failure.error_class, failure.job_id, failure.audio_url) == (ErrorClass.BAD_FIELD, "a", URL)
