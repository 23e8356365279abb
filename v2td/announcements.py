"""An outcome's row as others are told of it: in kafka.results_topic, and by webhooks. Pure."""

from __future__ import annotations

from typing import Any

from v2td.intake import Result
from v2td.jobs import Failure, Outcome
from v2td.store import StoredFailure, StoredTranscription, redos
from v2td.store.rows import FailureRow, TranscriptionRow, failure_row, transcription_row


def result_of(outcome: Outcome) -> Result:
    """Return what is told of an outcome that was just written."""
    if isinstance(outcome, Failure):
        return failed(failure_row(outcome), outcome.redo.revision if outcome.redo else 0)
    return transcribed(transcription_row(outcome))


def transcribed(row: TranscriptionRow | StoredTranscription) -> Result:
    """Return what is told of a transcription."""
    return Result(
        **_place(row),
        revision=row.revision,
        status="transcribed",
        tenant=row.tenant,
        provider=row.provider,
        model=row.model,
        task=row.task,
        language=row.language,
        audio_seconds=row.audio_seconds,
        text=row.text,
        outputs=tuple(row.timings.get("outputs", ())),
        cached_from=row.cached_from,
    )


def failed(row: FailureRow | StoredFailure, revision: int = 0) -> Result:
    """Return what is told of a failure."""
    return Result(
        **_place(row),
        revision=revision,
        status="failed",
        error_class=row.error_class,
        reason=row.reason,
        attempts=row.attempts,
    )


def done_again(found: StoredTranscription | redos.Failed, revision: int) -> Result:
    """Return what is told of a revision that is there, or will never be."""
    if isinstance(found, StoredTranscription):
        return transcribed(found)
    place = _place(found.transcription)
    return Result(**place, revision=revision, status="failed", error_class=found.error_class, reason=found.reason)


def _place(row: TranscriptionRow | FailureRow | StoredTranscription | StoredFailure) -> dict[str, Any]:
    return {
        "id": row.id,
        "job_id": row.job_id,
        "cluster": row.cluster_id,
        "topic": row.topic,
        "partition": row.kafka_partition,
        "offset": row.kafka_offset,
        "record_index": row.record_index,
        "audio_url": row.audio_url,
    }
