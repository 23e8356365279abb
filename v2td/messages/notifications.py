"""Bucket notifications of MinIO and S3 as jobs: what was put into a bucket is to be transcribed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from v2td.errors import ErrorClass, JobError
from v2td.messages.strict_json import shown

# What v2td writes with each file of a transcript, and MinIO tells again: nobody wants a transcript transcribed.
ROW_ID_METADATA = "v2td-id"
_OURS = f"x-amz-meta-{ROW_ID_METADATA}"

# MinIO counts these among s3:ObjectCreated:*, of an object that was there before.
_OLD_OBJECT = frozenset({"PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold"})
_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def is_notification(message: Mapping[str, Any]) -> bool:
    """Tell a notification from a job."""
    return "audio_url" not in message and ("Records" in message or message.get("Event") == "s3:TestEvent")


def created(message: Mapping[str, Any], max_entries: int) -> list[tuple[int, Any]]:
    """Return (index, entry) of the Records that tell of a new object; broken entries are among them.

    Files of transcripts are not, where the server tells their metadata (MinIO does, S3 does not).

    Raises:
        JobError: bad_message when Records is no list, or longer than max_entries.
    """
    entries = message.get("Records", [])  # S3 sends its test event without
    if not isinstance(entries, list):
        raise _bad("Records: not an array")
    if len(entries) > max_entries:
        raise _bad(f"Records: {len(entries)} entries, more than the {max_entries} allowed")
    return [(index, entry) for index, entry in enumerate(entries) if _tells_of_new_object(entry) and not _ours(entry)]


def job_fields(entry: Any) -> dict[str, Any]:
    """Return the keys of the job message that an entry of Records stands for.

    Raises:
        JobError: bad_message when the entry does not name an object.
    """
    if not isinstance(_member(entry, "eventName"), str):
        raise _bad("eventName: missing or not a string")
    s3 = _member(entry, "s3")
    bucket = _member(_member(s3, "bucket"), "name")
    key = _member(_member(s3, "object"), "key")
    version = _member(_member(s3, "object"), "versionId")  # of a bucket that keeps versions
    if not isinstance(bucket, str) or not bucket or "/" in bucket:
        raise _bad("s3.bucket.name: missing or not a bucket's name")
    if not isinstance(key, str) or not key:
        raise _bad("s3.object.key: missing or not a string")
    fields = {"audio_url": f"s3://{bucket}/{_form_decoded(key)}"}
    return fields | {"version_id": version} if version else fields


def _tells_of_new_object(entry: Any) -> bool:
    name = _member(entry, "eventName")
    if not isinstance(name, str):  # broken
        return True
    # MinIO writes s3:ObjectCreated:Put, AWS ObjectCreated:Put.
    what, _, how = name.removeprefix("s3:").partition(":")
    return what == "ObjectCreated" and how not in _OLD_OBJECT


def _ours(entry: Any) -> bool:
    metadata = _member(_member(_member(entry, "s3"), "object"), "userMetadata")
    return isinstance(metadata, dict) and any(name.lower() == _OURS for name in metadata)


def _member(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _form_decoded(key: str) -> str:
    if broken := _BROKEN_ESCAPE.search(key):
        raise _bad(f"s3.object.key: broken escape {shown(key[broken.start() :][:3])}")
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise _bad("s3.object.key: not UTF-8") from None


def _bad(reason: str) -> JobError:
    return JobError(ErrorClass.BAD_MESSAGE, f"notification: {reason}")
