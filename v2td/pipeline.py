"""A job's journey as one function: fetch → prepare → transcribe → write → resolve.

Every job ends as exactly one outcome, and its record counts as done only when that outcome is durable. The job's
own fault becomes a Failure; ours (ServiceError) leaves the record unfinished and ends the daemon.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import structlog

from v2td import failpoints, metrics
from v2td.circuit import Circuit
from v2td.config import Settings
from v2td.delivery import Delivery
from v2td.engine import Engine, Hearing, Recognition
from v2td.errors import ErrorClass, JobError, NoRoomError, ServiceError, TransientJobError
from v2td.fetch import Downloader
from v2td.intake import DeadLetters
from v2td.jobs import Audio, Coordinates, Failure, Job, Outcome, SourceRecord, Transcript, WindowTiming
from v2td.limit import Deadlines, PreparedLimit, PriorityLimit
from v2td.logs import get_logger
from v2td.messages import without_secrets
from v2td.progress import Journal, Journals
from v2td.replays import Replays
from v2td.retry import Backoff
from v2td.speech import Decoders, Speech, covered_by_channel, to_recording
from v2td.stages import Stage
from v2td.store import Writer

log = get_logger(__name__)

PROVIDER = "local"
NO_ROOM_SECONDS = 5.0


_FETCH, _QUEUE, _PREPARE, _TRANSCRIBE = map(Stage, ("fetch", "queue", "prepare", "transcribe"))


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a journey passes through; all open."""

    downloader: Downloader
    decoders: Decoders
    engine: Engine
    dead_letters: DeadLetters
    writer: Writer
    journals: Journals
    replays: Replays


@dataclass(slots=True)
class _Journey:
    """What is known of a job on its way; `began` is its time.monotonic()."""

    job: Job
    began: float
    deadlines: Deadlines
    journal: Journal
    attempt: int = 1


class Pipeline:
    """Takes jobs on their journey, `max_prepared` of them decoded or being transcribed at once."""

    def __init__(self, rooms: Rooms, settings: Settings, max_prepared: int) -> None:
        self._rooms = rooms
        self._settings = settings
        self._languages = settings.kafka.languages_by_topic
        self._prepared = PreparedLimit(max_prepared)
        # Kafka's records are bounded by the intake; one notification may name a thousand recordings.
        self._under_way = PriorityLimit(settings.pipeline.max_in_flight)
        limits = settings.pipeline
        self._backoff = Backoff(limits.retry_initial_seconds, limits.retry_factor, limits.retry_max_seconds)
        self._random = Random()  # noqa: S311 (jitter)
        self._delivery = Delivery(rooms.dead_letters, rooms.writer)
        self._circuit = Circuit(limits)

    def circuit_open(self) -> bool:
        """Whether intake has to pause since too many jobs fail."""
        return self._circuit.is_open

    async def handle(self, at: Coordinates, record: SourceRecord, durable: frozenset[UUID]) -> None:
        """Return when every job that the record names has a durable outcome; those in `durable` have one already.

        Raises ServiceError only. Cancellation leaves the record unfinished, and no file or process behind.
        """
        found = await self._rooms.replays.jobs_of(at, record)
        if not found:
            metrics.RECORDS_SKIPPED.labels(at.topic).inc()
        jobs = [each for each in found if each.coordinates.row_id() not in durable]
        metrics.JOBS_KNOWN.inc(len(found) - len(jobs))
        if len(jobs) == 1:  # as nearly always: no task of its own
            await self._run(jobs[0])
        else:
            async with asyncio.TaskGroup() as group:
                for each in jobs:
                    group.create_task(self._run(each))

    async def note_unreadable(self, first: Coordinates, last_offset: int, reason: str) -> None:
        """Return when it is durable that the records of these offsets could not be read. Raises ServiceError only."""
        which = f"offset {first.offset}" if first.offset == last_offset else f"offsets {first.offset} to {last_offset}"
        problem = f"{which} cannot be read: {reason}"
        failure = Failure(first, ErrorClass.BAD_MESSAGE, problem, 1, SourceRecord(None, None, ()))
        await self._delivery.deliver(failure)

    async def _run(self, job: Job | Failure) -> None:
        at = job.coordinates
        with structlog.contextvars.bound_contextvars(job=str(at.row_id()), job_id=job.job_id):
            if isinstance(job, Failure):
                await self._delivery.deliver(job)
                return
            began = await self._circuit.admit()
            async with self._under_way.inside(job.priority):
                metrics.JOBS_IN_FLIGHT.inc()
                try:
                    self._circuit.judge(await self._delivery.deliver(await self.transcribe(job)), began)
                finally:
                    metrics.JOBS_IN_FLIGHT.dec()

    async def transcribe(self, job: Job) -> Outcome:
        """Return the job's outcome after as many attempts as it takes or may have; nothing is written yet."""
        deadlines = Deadlines(self._settings.pipeline, job.expires_at)
        async with self._rooms.journals.journal(job) as journal:
            journey = _Journey(self._in_language_of_topic(job), time.monotonic(), deadlines, journal)
            try:
                async with deadlines.expiry:
                    return await self._tries(journey)
            except TimeoutError:
                return _failure(journey, deadlines.expired())

    def _in_language_of_topic(self, job: Job) -> Job:
        """Return the job in the language that its topic is known for, unless it says something about languages."""
        options = job.options
        language = self._languages.get(job.coordinates.topic)
        if language is None or options.language or options.languages or options.multilingual:
            return job
        return replace(job, options=replace(options, language=language))

    async def _tries(self, journey: _Journey) -> Outcome:
        """Return the outcome. Raises ServiceError, and no TimeoutError but that of expiry."""
        job = journey.job
        while True:
            try:
                return await self._attempt(journey)
            except NoRoomError as error:  # ours: the attempt does not count
                log.warning("waiting for room", error=str(error))
                await asyncio.sleep(NO_ROOM_SECONDS * self._random.uniform(0.5, 1))  # no longer: others wait, too
            except TransientJobError as error:
                if journey.attempt >= self._settings.pipeline.attempts or journey.deadlines.overdue():
                    return replace(_failure(journey, error), retried_later=self._may_wait(job))
                metrics.JOB_RETRIES.labels(error.error_class).inc()
                pause = self._backoff.pause(journey.attempt, self._random, error.retry_after)
                log.info("trying again", attempt=journey.attempt, error=str(error), pause_seconds=round(pause, 2))
                await asyncio.sleep(pause)  # no slot, no file and no memory is held meanwhile
                journey.attempt += 1
                journey.journal.again()
            except JobError as error:
                return _failure(journey, error)
            except ServiceError:
                raise
            except Exception as error:  # a bug of ours that this recording found: the others go on
                log.exception("unexpected")
                return _failure(journey, JobError(ErrorClass.POISON, f"unexpected {type(error).__name__}: {error}"))

    def _may_wait(self, job: Job) -> bool:
        """Whether a passing fault that lasts may be tried again much later."""
        kafka = self._settings.kafka
        return kafka.retry_topic is not None and (job.replay is None or job.replay.round < kafka.retry_rounds)

    async def _attempt(self, journey: _Journey) -> Transcript:
        job = journey.job
        journey.journal.check()
        timings: dict[str, Any] = {"attempts": journey.attempt}
        journey.deadlines.start_attempt()
        with _FETCH.under_way(timings):
            audio = await self._rooms.downloader.fetch(job.audio_url)
        try:
            await failpoints.reach("pipeline.fetched")
            waiting = time.monotonic()
            async with self._prepared.inside(job.priority, audio.size_bytes):
                _QUEUE.record(time.monotonic() - waiting, timings)
                return await self._hear(journey, audio, timings)
        finally:
            self._rooms.downloader.discard(audio)

    async def _hear(self, journey: _Journey, audio: Audio, timings: dict[str, Any]) -> Transcript:
        options = journey.job.options
        deadlines = journey.deadlines
        journal = journey.journal

        def died(kind: str) -> None:
            self._rooms.journals.note_death()
            journal.died(kind)

        prepare = self._rooms.decoders.prepare(audio, options.channels, partial(died, "decoder"))
        try:
            async with prepare as speech, deadlines.attempt:
                hearing = Hearing(
                    pcm=speech.pcm,
                    channels=speech.channels,
                    windows=speech.windows,
                    options=options,
                    priority=journey.job.priority,
                    began=journey.began,
                    on_progress=lambda: deadlines.heard(speech.audio_seconds),
                    on_done=speech.release,
                    known=lambda request: journal.known(request, audio.sha256),
                    on_heard=lambda request, result: journal.heard(request, audio.sha256, result),
                    on_death=partial(died, "slot"),
                )
                with _TRANSCRIBE.under_way(timings):
                    recognition = await self._rooms.engine.transcribe(hearing)
        except TimeoutError as error:
            raise TransientJobError(ErrorClass.TIMEOUT, "the transcription took longer than it may") from error
        _PREPARE.record(speech.decode_seconds, timings)
        return self._transcript(journey, audio, speech, recognition, timings)

    def _transcript(
        self, journey: _Journey, audio: Audio, speech: Speech, recognition: Recognition, timings: dict[str, Any]
    ) -> Transcript:
        heard = (to_recording(each, window) for window, result in recognition.windows for each in result.segments)
        segments = tuple(sorted(heard, key=lambda segment: segment.start))
        timings["redone_windows"] = recognition.redone_windows
        timings["flags"] = list(recognition.flags)
        if recognition.channel_languages:
            timings["channel_languages"] = {str(channel): each for channel, each in recognition.channel_languages}
        if speech.damage:
            timings["damage"] = speech.damage
        timings["windows"] = [_timing(each) for each in recognition.timings]
        return Transcript(
            job=journey.job,
            audio_sha256=audio.sha256,
            audio_bytes=audio.size_bytes,
            audio_seconds=speech.audio_seconds,
            speech_seconds=speech.speech_seconds,
            covered_seconds=covered_by_channel(segments, [window for window, _ in recognition.windows]),
            language=recognition.language,
            language_probability=recognition.language_probability,
            segments=segments,
            provider=PROVIDER,
            model=self._settings.engine.model,
            truncated=speech.truncated,
            duration_seconds=time.monotonic() - journey.began,
            timings=timings,
        )


def _failure(journey: _Journey, error: JobError) -> Failure:
    job = journey.job
    return Failure(
        coordinates=job.coordinates,
        error_class=error.error_class,
        reason=error.reason,
        attempts=journey.attempt,
        record=job.record,
        job_id=job.job_id,
        audio_url=without_secrets(job.audio_url),
        replay=job.replay,
    )


def _timing(window: WindowTiming) -> dict[str, Any]:
    return {
        "index": window.index,
        "slot": window.slot,
        "start": round(window.start, 6),
        "seconds": round(window.seconds, 6),
        "flags": window.flags,
        "batch": window.batch,
    }
