"""The body of a request, read as the intake would read it from Kafka. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from v2td.admin.jobs_desk import DeskError, Trouble
from v2td.config import MessageSettings
from v2td.errors import ErrorClass, JobError
from v2td.messages import Known, without_secrets
from v2td.messages.request import Request, parse_request
from v2td.messages.strict_json import parse


@dataclass(frozen=True, slots=True)
class Message:
    """A message that the intake will take: key and value of its record, the same for all bodies that ask the same."""

    key: bytes
    value: bytes
    job_id: str | None
    shown_url: str  # without credentials and query


def read(body: bytes, settings: MessageSettings, known: Known) -> Message:
    """Return the message that a body asks for; raises DeskError, which names field, value and cure."""
    try:
        fields = parse(body, settings)
        if not isinstance(fields, dict):
            raise JobError(ErrorClass.BAD_MESSAGE, "not a JSON object")
        request = parse_request(fields, ignore_unknown_keys=settings.unknown_keys == "ignore", known=known)
    except JobError as error:
        trouble = Trouble.INVALID if error.error_class is ErrorClass.BAD_FIELD else Trouble.BAD
        raise DeskError(trouble, error.reason) from None
    value = _dumped({name: fields[name] for name in Request.model_fields if fields.get(name) is not None})
    if len(value) > settings.max_bytes:  # numbers may be longer than they were written
        raise DeskError(Trouble.TOO_LARGE, f"more than {settings.max_bytes} bytes (messages.max_bytes)")
    shown_url = without_secrets(request.audio_url)
    return Message((request.id or shown_url).encode(), value, request.id, shown_url)


def _dumped(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()
