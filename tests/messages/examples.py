"""What the message tests share: a record from a value, and the events that servers were seen to send."""

from __future__ import annotations

import json
from typing import Any

from v2td.config.settings import MessageSettings
from v2td.jobs import Coordinates, Failure, Job, SourceRecord
from v2td.messages import Known, jobs_of

COORDINATES = Coordinates("cluster", "v2td-jobs", 3, 41, 1_760_000_000_000)
URL = "https://example.com/call.mp3"

MINIO_EVENT: dict[str, Any] = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "recordings/hello wörld.wav",
    "Records": [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "awsRegion": "",
            "eventTime": "2026-10-04T10:20:30.123Z",
            "eventName": "s3:ObjectCreated:Put",
            "userIdentity": {"principalId": "minioadmin"},
            "requestParameters": {"principalId": "minioadmin", "region": "", "sourceIPAddress": "127.0.0.1"},
            "responseElements": {"x-amz-request-id": "17A", "x-minio-origin-endpoint": "http://127.0.0.1:9000"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "Config",
                "bucket": {
                    "name": "recordings",
                    "ownerIdentity": {"principalId": "minioadmin"},
                    "arn": "arn:aws:s3:::recordings",
                },
                "object": {
                    "key": "hello+w%C3%B6rld.wav",
                    "size": 3,
                    "eTag": "acbd18db4cc2f85cedef654fccc4a4d8",
                    "contentType": "audio/wav",
                    "userMetadata": {"content-type": "audio/wav"},
                    "sequencer": "17A1B2C3D4E5F607",
                },
            },
            "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO"},
        }
    ],
}

AWS_TEST_EVENT: dict[str, Any] = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2014-10-13T15:57:02.089Z",
    "Bucket": "recordings",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
}


def aws_entry(key: str, name: str = "ObjectCreated:Put", bucket: str = "recordings") -> dict[str, Any]:
    """Return an entry of Records as AWS writes it; `key` is form-encoded already."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": "1970-01-01T00:00:00.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "testConfigRule",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e"},
        },
    }


def cloud_event(**attributes: Any) -> dict[str, Any]:
    """Return a CloudEvent without data; an attribute that is None is left out."""
    event = {"specversion": "1.0", "id": "e-1", "source": "/calls", "type": "com.example.call", **attributes}
    return {key: value for key, value in event.items() if value is not None}


def read(value: Any, *, model: str = "demo", **settings: Any) -> tuple[Job | Failure, ...]:
    """Read a record whose value is `value`: bytes, None, or what is to be written as JSON."""
    if not isinstance(value, bytes | None):
        value = json.dumps(value).encode()
    record = SourceRecord(b"key", value, (("header", b"x"),))
    outcomes = jobs_of(
        record, COORDINATES, settings=MessageSettings(**settings), known=Known(frozenset({model}), webhooks=True)
    )
    assert all(outcome.record is record for outcome in outcomes)
    return outcomes


def read_job(value: Any, **settings: Any) -> Job:
    """Read a record that is exactly one job."""
    (job,) = read(value, **settings)
    assert isinstance(job, Job), job
    assert job.coordinates == COORDINATES
    return job


def read_failure(value: Any, **settings: Any) -> Failure:
    """Read a record that is exactly one failure."""
    (failure,) = read(value, **settings)
    assert isinstance(failure, Failure), failure
    assert failure.coordinates == COORDINATES
    assert failure.attempts == 1
    return failure
