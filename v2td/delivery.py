"""An outcome becomes durable: dead letter or delayed retry, row, metrics."""

from __future__ import annotations

from dataclasses import replace

from v2td import failpoints, metrics
from v2td.intake import DeadLetters
from v2td.jobs import Failure, Outcome, Transcript
from v2td.logs import get_logger
from v2td.stages import Stage
from v2td.store import Writer

log = get_logger(__name__)

_WRITE = Stage("write")
_TRANSCRIBED = metrics.JOBS_FINISHED.labels("transcribed")


class Delivery:
    """Delivers outcomes."""

    def __init__(self, dead_letters: DeadLetters, writer: Writer) -> None:
        self._dead_letters = dead_letters
        self._writer = writer

    async def deliver(self, outcome: Outcome) -> Outcome:
        """Make an outcome durable; return it as it was written.

        A failure's dead letter goes first, so that no row is without its letter. Raises ServiceError.
        """
        await failpoints.reach("pipeline.heard")
        if isinstance(outcome, Failure):
            outcome = await self._sent(outcome)
            await failpoints.reach("pipeline.letter_sent")
        with _WRITE.under_way({}):
            durable = await self._writer.write(outcome)
        await failpoints.reach("pipeline.written")
        if isinstance(durable, Failure) and durable.retried_later:
            metrics.JOBS_DELAYED.inc()
            log.warning("will be tried again later", error_class=durable.error_class, reason=durable.reason)
        elif isinstance(durable, Failure):
            metrics.JOBS_FINISHED.labels("failed").inc()
            metrics.JOBS_FAILED.labels(durable.error_class).inc()
            log.warning("failed", error_class=durable.error_class, reason=durable.reason, attempts=durable.attempts)
        else:
            _publish(durable)
        return durable

    async def _sent(self, failure: Failure) -> Failure:
        """Send the failure's dead letter, or its record to the retry topic; return the failure as its row is to be."""
        if failure.retried_later:
            waited = failure.replay.round if failure.replay else 0
            if await self._dead_letters.delay(failure, waited + 1):
                return failure
            failure = replace(failure, retried_later=False)
        await self._dead_letters.send(failure)
        return failure


def _publish(transcript: Transcript) -> None:
    seconds = transcript.duration_seconds
    _TRANSCRIBED.inc()
    size = metrics.file_size_range(transcript.audio_bytes)
    metrics.TRANSCRIPTION_DURATION.labels(transcript.provider, size).observe(seconds)
    metrics.PROVIDER_THROUGHPUT.labels(transcript.provider).set(transcript.audio_bytes / metrics.MEGABYTE / seconds)
    metrics.AUDIO_SECONDS.inc(transcript.audio_seconds)
    metrics.SPEECH_SECONDS.inc(transcript.speech_seconds)
    log.info(
        "transcribed",
        audio_seconds=round(transcript.audio_seconds, 2),
        seconds=round(seconds, 2),
        language=transcript.language,
        segments=len(transcript.segments),
    )
