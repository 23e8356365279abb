"""An outcome becomes durable: dead letter or delayed retry, row, metrics, and a word to the circuit breaker."""

from __future__ import annotations

import time
from dataclasses import replace

from v2td import failpoints, metrics
from v2td.breaker import CircuitBreaker
from v2td.config import PipelineSettings
from v2td.errors import PERHAPS_OURS
from v2td.intake import DeadLetters
from v2td.jobs import Failure, Outcome, Transcript
from v2td.logs import get_logger
from v2td.stages import Stage
from v2td.store import Writer

log = get_logger(__name__)

_WRITE = Stage("write")
_TRANSCRIBED = metrics.JOBS_FINISHED.labels("transcribed")


class Delivery:
    """Delivers outcomes; opens the circuit when too many of them are failures that may be ours."""

    def __init__(self, dead_letters: DeadLetters, writer: Writer, settings: PipelineSettings) -> None:
        self._dead_letters = dead_letters
        self._writer = writer
        self._circuit = CircuitBreaker(
            ratio=settings.breaker_ratio,
            seconds=settings.breaker_seconds,
            jobs=settings.breaker_jobs,
            pause_seconds=settings.breaker_pause_seconds,
        )

    async def deliver(self, outcome: Outcome, began: float) -> None:
        """Make the outcome of a job that began then durable.

        A failure's dead letter goes first, so that no row is without its letter. Raises ServiceError.
        """
        await failpoints.reach("pipeline.heard")
        if isinstance(outcome, Failure):
            outcome = await self._sent(outcome)
            await failpoints.reach("pipeline.letter_sent")
        with _WRITE.under_way({}):
            durable = await self._writer.write(outcome)
        await failpoints.reach("pipeline.written")
        self._judge(durable, began)
        if isinstance(durable, Failure) and durable.retried_later:
            metrics.JOBS_DELAYED.inc()
            log.warning("will be tried again later", error_class=durable.error_class, reason=durable.reason)
        elif isinstance(durable, Failure):
            metrics.JOBS_FINISHED.labels("failed").inc()
            metrics.JOBS_FAILED.labels(durable.error_class).inc()
            log.warning("failed", error_class=durable.error_class, reason=durable.reason, attempts=durable.attempts)
        else:
            _publish(durable)

    async def _sent(self, failure: Failure) -> Failure:
        """Send the failure's dead letter, or its record to the retry topic; return the failure as its row is to be."""
        if failure.retried_later:
            waited = failure.replay.round if failure.replay else 0
            if await self._dead_letters.delay(failure, waited + 1):
                return failure
            failure = replace(failure, retried_later=False)
        await self._dead_letters.send(failure)
        return failure

    def _judge(self, durable: Outcome, began: float) -> None:
        """Let the circuit breaker know of an outcome."""
        failed = isinstance(durable, Failure) and durable.error_class in PERHAPS_OURS
        now = time.monotonic()
        if self._circuit.observe(failed=failed, began=began, now=now):
            log.error("too many jobs fail: intake pauses", seconds=round((self._circuit.open_until(now) or now) - now))

    def circuit_open(self) -> bool:
        """Whether intake has to pause since too many jobs fail."""
        is_open = self._circuit.open_until(time.monotonic()) is not None
        metrics.CIRCUIT_OPEN.set(is_open)
        return is_open


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
