"""Messages: the bytes of a Kafka record come in, jobs (or why there are none) go out.

Accepted are v2td's own job message (strict JSON, `v2td schema message`), bucket notifications of MinIO and
S3, and CloudEvents 1.0 (structured JSON) around either. Pure: no I/O, no clock, blocks on nothing.

`jobs_of` reads a record; `message_schema` is the JSON Schema of the job message; `without_secrets` is how
an audio_url is shown or stored.
"""

from __future__ import annotations

from v2td.config.languages import LANGUAGES
from v2td.messages.record import jobs_of
from v2td.messages.request import Known
from v2td.messages.schema import message_schema
from v2td.messages.urls import without_secrets

__all__ = ["LANGUAGES", "Known", "jobs_of", "message_schema", "without_secrets"]
