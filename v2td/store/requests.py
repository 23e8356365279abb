"""What a message asked for, as `transcriptions.request` keeps it: what no other column tells. Pure."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

from v2td.jobs import Job, Options
from v2td.messages import without_secrets
from v2td.store.encoding import encode_bytes

MAX_KEY_BYTES = 1024  # of the record's key; a longer one is not kept
OPTIONS = tuple(field.name for field in fields(Options) if field.name != "task")  # which has a column
_DEFAULTS = Options()


def request_of(job: Job) -> dict[str, Any]:
    """Return what `fields_of` makes a message of; what has its default is left out.

    `url_cut` says that `audio_url` in the row is not all of it: secrets are not kept.
    """
    request: dict[str, Any] = dict(_options(job.options))
    if job.version_id is not None:
        request["version_id"] = job.version_id
    if (output := job.output) is not None:
        request["output"] = {"bucket": output.bucket, "key": output.key, "formats": list(output.formats)}
    if without_secrets(job.audio_url) != job.audio_url:
        request["url_cut"] = True
    if (key := job.record.key) is not None and len(key) <= MAX_KEY_BYTES:
        request["record_key"] = encode_bytes(key)
    return request


def fields_of(request: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a message that asks for the same."""
    return {name: value for name, value in request.items() if name not in ("url_cut", "record_key")}


@lru_cache(maxsize=1024)  # the same for most jobs
def _options(options: Options) -> tuple[tuple[str, Any], ...]:
    found = ((name, getattr(options, name)) for name in OPTIONS if getattr(options, name) != getattr(_DEFAULTS, name))
    return tuple((name, list(value) if isinstance(value, tuple) else value) for name, value in found)
