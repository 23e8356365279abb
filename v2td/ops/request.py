"""A job as its producer writes it, read by the daemon's own definition: what is refused there is refused here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from v2td.config import Settings
from v2td.errors import JobError
from v2td.jobs import Coordinates, Failure, Job, SourceRecord
from v2td.messages import Known, jobs_of

NOWHERE = Coordinates("", "", 0, 0, 0)


def message(fields: Mapping[str, Any]) -> bytes:
    """Return the record value that says `fields`; None says nothing."""
    return json.dumps({key: value for key, value in fields.items() if value is not None}).encode()


def read(value: bytes, settings: Settings) -> Job:
    """Return the job, whose coordinates mean nothing, that a message with one job asks for; raises JobError."""
    record = SourceRecord(None, value, ())
    (found,) = jobs_of(record, NOWHERE, settings=settings.messages, known=Known.of(settings))
    if isinstance(found, Failure):
        raise JobError(found.error_class, found.reason)
    return found
