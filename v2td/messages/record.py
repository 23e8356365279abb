"""A Kafka record becomes jobs, or the failures that it ends as."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from v2td.config.settings import MessageSettings
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Coordinates, Failure, Job, Options, Output, SourceRecord
from v2td.messages import cloudevents, notifications
from v2td.messages.request import MAX_ID, MAX_URL, Known, Request, parse_request, webhook_url_of
from v2td.messages.storable import is_storable
from v2td.messages.strict_json import parse
from v2td.messages.urls import without_secrets

LARGE_RECORD = 4096  # bytes of key, value and headers; what is larger is kept once, however many failures it is


def jobs_of(
    record: SourceRecord, coordinates: Coordinates, *, settings: MessageSettings, known: Known
) -> tuple[Job | Failure, ...]:
    """Return what the record asks for: one job, or one for each new object that a notification tells of.

    `coordinates` are the record's; each element carries its own record_index. `known` is what jobs may ask for. An
    expired job is a job here. Never raises, whatever the record holds: what is bad is a Failure, and does not spoil
    its neighbours. Of several failures of a large record the first is to keep its value:
    the others' `whole_in` names it. Empty when a notification tells of no new object.
    """
    try:
        entries, fields_of = _entries(record.value, settings)
    except JobError as error:
        return (_failure(error, coordinates, record, {}),)
    outcomes = (
        _job_or_failure(entry, fields_of, _numbered(coordinates, index), record, settings=settings, known=known)
        for index, entry in entries
    )
    return tuple(_kept_once(outcomes) if _size(record) > LARGE_RECORD else outcomes)


def _kept_once(outcomes: Iterable[Job | Failure]) -> Iterator[Job | Failure]:
    """A thousand failures, each with a letter and a row, would make a thousand copies of their record."""
    first: Coordinates | None = None
    for each in outcomes:
        if isinstance(each, Job):
            yield each
        else:
            yield replace(each, whole_in=first)
            first = first or each.coordinates


def _size(record: SourceRecord) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def _numbered(coordinates: Coordinates, index: int) -> Coordinates:
    return coordinates if index == coordinates.record_index else replace(coordinates, record_index=index)


def _entries(
    value: bytes | None, settings: MessageSettings
) -> tuple[Sequence[tuple[int, Any]], Callable[[Any], dict[str, Any]]]:
    """Return the numbered jobs of a message as they stand there, and what makes job fields of one."""
    message = _as_object(parse(value, settings))
    if cloudevents.is_cloudevent(message):
        message = _as_object(cloudevents.data_of(message, settings))
    if notifications.is_notification(message):
        return notifications.created(message, settings.max_entries), notifications.job_fields
    return [(0, message)], dict


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise JobError(ErrorClass.BAD_MESSAGE, "not a JSON object")
    return value


def _job_or_failure(
    entry: Any,
    fields_of: Callable[[Any], dict[str, Any]],
    coordinates: Coordinates,
    record: SourceRecord,
    *,
    settings: MessageSettings,
    known: Known,
) -> Job | Failure:
    fields: dict[str, Any] = {}
    try:
        fields = fields_of(entry)
        request = parse_request(fields, ignore_unknown_keys=settings.unknown_keys == "ignore", known=known)
    except JobError as error:
        failure = _failure(error, coordinates, record, fields)
        return replace(failure, webhook_url=webhook_url_of(fields)) if known.webhooks else failure
    return _job(request, coordinates, record)


def _job(request: Request, coordinates: Coordinates, record: SourceRecord) -> Job:
    options = Options(
        language=request.language,
        languages=tuple(request.languages),
        task=request.task,
        prompt=request.prompt,
        hotwords=request.hotwords,
        beam_size=request.beam_size,
        word_timestamps=request.word_timestamps,
        condition_on_previous_text=request.condition_on_previous_text,
        multilingual=request.multilingual,
        channels=request.channels,
    )
    asked = request.output
    return Job(
        coordinates=coordinates,
        audio_url=request.audio_url,
        options=options,
        job_id=request.id,
        priority=request.priority,
        tenant=request.tenant,
        expires_at=request.expires_at,
        metadata=request.metadata,
        record=record,
        provider=request.provider,
        model=request.model,
        output=Output(asked.bucket, asked.key, tuple(asked.formats)) if asked else None,
        version_id=request.version_id,
        webhook_url=request.webhook_url,
    )


def _failure(error: JobError, coordinates: Coordinates, record: SourceRecord, fields: dict[str, Any]) -> Failure:
    audio_url = _readable(fields.get("audio_url"), MAX_URL)
    return Failure(
        coordinates=coordinates,
        error_class=error.error_class,
        reason=error.reason,
        attempts=1,
        record=record,
        job_id=_readable(fields.get("id"), MAX_ID),
        audio_url=(without_secrets(audio_url) or None) if audio_url else None,  # nothing may be left of it
    )


def _readable(value: Any, max_length: int) -> str | None:
    """What a row can keep of a message that was refused: text that is good by itself."""
    good = isinstance(value, str) and 0 < len(value) <= max_length and is_storable(value)
    return value if good else None
