"""CloudEvents 1.0 in the structured JSON form: the envelope around a job or a notification."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from v2td.config.settings import MessageSettings
from v2td.errors import ErrorClass, JobError
from v2td.messages.strict_json import parse, shown

_JSON = re.compile(r"[a-z]+/(?:[^\s;/]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def is_cloudevent(message: Mapping[str, Any]) -> bool:
    """Tell an envelope from a job."""
    return "audio_url" not in message and "specversion" in message


def data_of(event: Mapping[str, Any], limits: MessageSettings) -> Any:
    """Return the JSON value that the event carries.

    Raises:
        JobError: bad_message when the envelope is broken, or holds no JSON.
    """
    if event["specversion"] != "1.0":
        raise _bad("specversion is not '1.0'")
    for name in ("id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise _bad(f"{name}: missing or not a string")
    content_type = event.get("datacontenttype")
    if content_type is not None and not (isinstance(content_type, str) and _JSON.fullmatch(content_type)):
        raise _bad(f"datacontenttype: {shown(str(content_type))} is not JSON")
    data, encoded = event.get("data"), event.get("data_base64")
    if (data is None) == (encoded is None):
        raise _bad("exactly one of data and data_base64 is needed")
    return data if encoded is None else parse(_decoded(encoded), limits)


def _decoded(encoded: Any) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise _bad("data_base64: not base64") from None


def _bad(reason: str) -> JobError:
    return JobError(ErrorClass.BAD_MESSAGE, f"CloudEvent: {reason}")
