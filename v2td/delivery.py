"""An outcome becomes durable: dead letter or delayed retry, row, metrics; then it is told to whoever wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from random import Random
from uuid import UUID

from v2td import announcements, failpoints, metrics, store
from v2td.errors import ServiceError
from v2td.intake import DeadLetters, Result, ResultsTopic
from v2td.jobs import Failure, Outcome, SourceRecord, Transcript
from v2td.logs import get_logger
from v2td.messages.headers import redo_of
from v2td.retry import Backoff
from v2td.stages import Stage, Trail, exemplar_of
from v2td.store import StoredTranscription
from v2td.store.rows import REQUESTED, coordinates_of, replay_of
from v2td.webhooks import Ending, Webhooks

log = get_logger(__name__)

WINDOW_SECONDS = 30.0  # the least that a model hears, and takes the time for

_WRITE = Stage("write")
# There from the start, with 0: rates of what begins with 1 do not see the first.
_TRANSCRIBED, _FAILED = metrics.JOBS_FINISHED.labels("transcribed"), metrics.JOBS_FINISHED.labels("failed")
BACKOFF = Backoff(initial=0.5, maximum=20)


class Delivery:
    """Delivers outcomes. `results` and `webhooks` are None where nobody is told so; `database` is then not asked."""

    def __init__(
        self,
        dead_letters: DeadLetters,
        writer: store.Writer,
        results: ResultsTopic | None = None,
        database: store.Database | None = None,
        webhooks: Webhooks | None = None,
    ) -> None:
        self._dead_letters = dead_letters
        self._writer = writer
        self._results = results if results is not None and results.wanted else None
        self._webhooks = webhooks if webhooks is not None and webhooks.wanted else None
        self._database = database
        self._random = Random()  # noqa: S311 (jitter)

    async def deliver(self, outcome: Outcome, trail: Trail | None = None) -> Outcome:
        """Make an outcome durable; return it as it was written, once it is told. What became a job has a trail.

        A failure's dead letter goes first, so that no row is without its letter; the result goes last, so that none is
        told that is not there. Raises ServiceError.
        """
        await failpoints.reach("pipeline.heard")
        trace = trail.trace if trail else None
        if isinstance(outcome, Failure):
            outcome = await self._sent(replace(outcome, trace=trace.told) if trace and trace.sampled else outcome)
            await failpoints.reach("pipeline.letter_sent")
        with _WRITE.under_way(trail):
            durable, new = await self._writer.write(outcome)
        await failpoints.reach("pipeline.written")
        if isinstance(durable, Failure) and durable.retried_later:
            metrics.JOBS_DELAYED.inc()
            log.warning("will be tried again later", error_class=durable.error_class, reason=durable.reason)
        elif isinstance(durable, Failure):
            _FAILED.inc()
            metrics.JOBS_FAILED.labels(durable.error_class).inc()
            log.warning("failed", error_class=durable.error_class, reason=durable.reason, attempts=durable.attempts)
        else:
            _publish(durable, exemplar_of(trail))
        asked = durable if isinstance(durable, Failure) else durable.job
        hooked = self._webhooks is not None and self._webhooks.tells(asked.webhook_url)
        if (hooked or self._results is not None) and not (isinstance(durable, Failure) and durable.retried_later):
            await self._tell(durable, trace.traceparent if trace else None, new=new)
            await failpoints.reach("pipeline.told")
        return durable

    async def _tell(self, outcome: Outcome, traceparent: str | None, *, new: bool) -> None:
        """Tell the outcome; where the job had another one already, which another instance wrote, tell that."""
        asked = outcome if isinstance(outcome, Failure) else outcome.job
        row_id = coordinates_of(outcome).row_id()
        if new:
            results = [announcements.result_of(outcome)]
        else:
            results = await self._results_of([row_id], (row_id, asked.redo.revision) if asked.redo else None)
        if self._webhooks is not None:
            replay = replay_of(outcome)
            record = replay.record.row_id() if replay else row_id
            await self._webhooks.note([Ending(each, record, asked.webhook_url, asked.metadata) for each in results])
        if self._results is not None:
            for result in results:
                await self._results.tell(result, asked.record.key, traceparent)

    async def tell_again(self, ids: Collection[UUID], record: SourceRecord) -> None:
        """Tell the outcomes that a record had before it came again: it may be for that that it was not resolved.

        `ids` are those of its jobs; that of the record itself stands for what it replayed, or had done again. Waits
        for Postgres.
        """
        if (self._results is None and self._webhooks is None) or not ids:
            return
        results = await self._results_of(ids, redo_of(record.headers))
        if self._webhooks is not None:
            asked = self._webhooks.asked_by(record)
            await self._webhooks.note(
                [
                    # A record that replays a job, or has it done again, is itself the only one of the ids.
                    Ending(each, each.id if each.id in ids else min(ids), *asked.get(each.record_index, (None, {})))
                    for each in results
                ]
            )
        if self._results is not None:
            for result in results:
                await self._results.tell(result, record.key)

    async def _results_of(self, ids: Collection[UUID], redo: tuple[UUID, int] | None) -> list[Result]:
        """Return what is told of the newest rows; where a revision was asked for, of that one."""
        assert self._database is not None
        tries = 0
        while True:
            try:
                rows = await store.outcomes(self._database, ids)
                again = None if redo is None else await store.redos.outcome(self._database, *redo)
            except ServiceError as error:
                tries += 1
                log.warning("results not looked up yet", error=str(error), tries=tries)
                await asyncio.sleep(BACKOFF.pause(tries, self._random))
                continue
            told = []
            for row in rows:
                if redo is not None and again is not None and row.id == redo[0]:  # else anybody may have said so
                    told.append(announcements.done_again(again, redo[1]))
                elif isinstance(row, StoredTranscription):
                    told.append(announcements.transcribed(row))
                elif row.replay_state != REQUESTED:
                    told.append(announcements.failed(row))
            return told

    async def _sent(self, failure: Failure) -> Failure:
        """Send the failure's dead letter, or its record to the retry topic; return the failure as its row is to be."""
        if failure.redo is not None:  # the transcription that is there stays; who asked is told by `redos`
            return replace(failure, retried_later=False)
        if failure.retried_later:
            waited = failure.replay.round if failure.replay else 0
            if await self._dead_letters.delay(failure, waited + 1):
                return failure
            failure = replace(failure, retried_later=False)
        await self._dead_letters.send(failure)
        return failure


def _publish(transcript: Transcript, exemplar: dict[str, str] | None) -> None:
    seconds = transcript.duration_seconds
    cached = transcript.timings.get("cached")
    _TRANSCRIBED.inc()
    if cached is None:  # of a text that was there already nobody is slow or fast
        size = metrics.file_size_range(transcript.audio_bytes)
        throughput = transcript.audio_bytes / metrics.MEGABYTE / seconds
        metrics.TRANSCRIPTION_DURATION.labels(transcript.provider, size).observe(seconds, exemplar)
        metrics.PROVIDER_THROUGHPUT.labels(transcript.provider).set(throughput)
        metrics.AUDIO_SECONDS.inc(transcript.audio_seconds)
        metrics.REAL_TIME_RATIO.observe(_working_seconds(transcript) / max(transcript.audio_seconds, WINDOW_SECONDS))
        metrics.SPEECH_SECONDS.inc(transcript.speech_seconds)
    log.info(
        "transcribed",
        audio_seconds=round(transcript.audio_seconds, 2),
        seconds=round(seconds, 2),
        language=transcript.language,
        segments=len(transcript.segments),
        **({} if cached is None else {"cached": cached}),
    )


def _working_seconds(transcript: Transcript) -> float:
    """Return how long the last attempt took, without the wait for others to be decoded."""
    timings = transcript.timings
    return float(
        timings.get("fetch", 0) + timings["transcribe"] if "transcribe" in timings else transcript.duration_seconds
    )
