"""The topic of results: each outcome once it is durable, for whoever would rather be told than ask Postgres.

A record may be told more than once: readers drop repetitions by the header `v2td-id` and the revision in the value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

from aiokafka.errors import KafkaError

from v2td import metrics
from v2td.config import KafkaSettings
from v2td.intake.sender import Sender
from v2td.jobs import SourceRecord
from v2td.logs import get_logger
from v2td.messages.headers import ROW_ID, TRACEPARENT

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome as its row has it; `outputs` are the URLs of its files, `revision` is 0 unless it was done again.

    What only one of the two kinds has is None, or nothing, in the other. Text is clean UTF-8.
    """

    id: UUID
    revision: int
    status: Literal["transcribed", "failed"]
    job_id: str | None
    cluster: str
    topic: str
    partition: int
    offset: int
    record_index: int
    audio_url: str | None
    tenant: str | None = None
    provider: str | None = None
    model: str | None = None
    task: str | None = None
    language: str | None = None
    audio_seconds: float | None = None
    text: str | None = None
    outputs: tuple[str, ...] = ()
    cached_from: UUID | None = None
    error_class: str | None = None
    reason: str | None = None
    attempts: int | None = None

    def value(self, max_text_bytes: int) -> bytes:
        """Return the record's value; a text longer than that is left out, which `text_omitted` says."""
        return json.dumps(self.fields(max_text_bytes), ensure_ascii=False, default=str).encode()

    def fields(self, max_text_bytes: int) -> dict[str, Any]:
        """Return what the value says, ids as UUIDs."""
        left_out = self.text is not None and len(self.text.encode()) > max_text_bytes
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        fields |= {"text": None if left_out else self.text, "text_omitted": left_out, "outputs": list(self.outputs)}
        return fields


class ResultsTopic:
    """The producer of results, an async context manager; without kafka.results_topic it tells nothing."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.results_topic
        self._text_bytes = settings.results_text_bytes
        self._sender = None if self._topic is None else Sender(settings, "result", self._topic)

    @property
    def wanted(self) -> bool:
        """Whether anything is told."""
        return self._sender is not None

    async def __aenter__(self) -> Self:
        if self._sender is not None:
            await self._sender.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._sender is not None:
            await self._sender.__aexit__(*error)

    async def tell(self, result: Result, key: bytes | None, traceparent: str | None = None) -> None:
        """Return once the brokers have it, however long they are away; `traceparent` becomes a header.

        `key` is that of the record that asked for the job; None, which no compacted topic takes, becomes the row id.
        What is too large goes without its text, then without its key; what is refused even then, or for another
        reason and for a while, is logged and given up: it is in its row. ServiceError when the topic may not be
        written.
        """
        if self._sender is None or self._topic is None:
            return
        row_id = str(result.id).encode()
        headers = ((ROW_ID, row_id), *(() if traceparent is None else ((TRACEPARENT, traceparent.encode()),)))
        forms = [(row_id if key is None else key, self._text_bytes), (row_id if key is None else key, 0), (row_id, 0)]
        try:
            for each, text_bytes in forms:
                record = SourceRecord(each, result.value(text_bytes), headers)
                if await self._sender.acknowledged(self._topic, record):
                    metrics.RESULTS_TOLD.inc()
                    return
        except KafkaError as error:
            log.error("result refused", id=str(result.id), error=str(error))
        else:
            log.error("result refused", id=str(result.id), error="too large, even without its text and key")
