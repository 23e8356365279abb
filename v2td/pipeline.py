"""A job's journey: fetch → (cache?) → prepare → route → transcribe, as often as it takes, → files → row → resolve.

Every job ends as exactly one outcome, and its record counts as done only when that outcome is durable. The job's
own fault becomes a Failure; ours (ServiceError) leaves the record unfinished and ends the daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from random import Random
from uuid import UUID

import structlog

from v2td import failpoints, metrics
from v2td.attempt import Attempts, Hearers, Journey
from v2td.board import Board
from v2td.circuit import Circuit
from v2td.commands import Commands, Following
from v2td.config import Settings
from v2td.delivery import Delivery
from v2td.errors import ErrorClass, JobError, NoRoomError, ServiceError, TransientJobError
from v2td.jobs import Coordinates, Failure, Job, Outcome, SourceRecord
from v2td.limit import Deadlines, PriorityLimit, ranked
from v2td.logs import get_logger
from v2td.messages import without_secrets
from v2td.messages.headers import asks_again
from v2td.outputs import Outputs
from v2td.progress import Journals
from v2td.replays import Replays
from v2td.retry import Backoff
from v2td.stages import Trail

log = get_logger(__name__)

NO_ROOM_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a journey passes through; all open. `outputs` writes nothing where nobody asks for files."""

    hearers: Hearers
    outputs: Outputs
    delivery: Delivery
    journals: Journals
    replays: Replays
    commands: Commands


class Pipeline:
    """Takes jobs on their journey, `max_prepared` of them decoded or being transcribed at once."""

    def __init__(self, rooms: Rooms, settings: Settings, max_prepared: int, board: Board | None = None) -> None:
        self._rooms = rooms
        self.board = board or Board()
        self._settings = settings
        self._languages = settings.kafka.languages_by_topic
        self.attempts = Attempts(rooms.hearers, settings, max_prepared)
        # Kafka's records are bounded by the intake; one notification may name a thousand recordings.
        self._under_way = PriorityLimit(settings.pipeline.max_in_flight)
        limits = settings.pipeline
        self._backoff = Backoff(limits.retry_initial_seconds, limits.retry_factor, limits.retry_max_seconds)
        self._random = Random()  # noqa: S311 (jitter)
        self._delivery = rooms.delivery
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
        if not found and asks_again(record.headers):  # what it asked for is there, and perhaps not told
            durable |= {at.row_id()}
        await self._delivery.tell_again(durable, record)
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
            with self._rooms.commands.following(job) as following:
                try:
                    await self._rooms.commands.catch_up(following)
                    began = await self._circuit.admit()
                    async with self._under_way.inside(job.priority):
                        await self._work(job, following, began)
                except asyncio.CancelledError:
                    if (reason := following.cancelled()) is None:
                        raise
                    await self._cancel_early(following, reason)

    async def _work(self, job: Job, following: Following, began: float) -> None:
        """Return when the job's outcome is durable; `began` is when it was let in."""
        metrics.JOBS_IN_FLIGHT.inc()
        trail, durable = self.board.open(job), None
        try:
            with ranked(job.priority, trail.rank):
                outcome = await self._outcome(job, trail, following)
            durable = await self._delivery.deliver(outcome, trail)
            self._circuit.judge(durable, began)
        finally:
            metrics.JOBS_IN_FLIGHT.dec()
            self.board.close(trail, durable)

    async def _outcome(self, job: Job, trail: Trail, following: Following) -> Outcome:
        """Return the job's outcome; from then on no command reaches it."""
        try:
            outcome = await self._with_files(await self.transcribe(job, trail))
        except asyncio.CancelledError:
            if (reason := following.cancelled()) is None:
                raise
        else:
            if (reason := following.cancelled()) is None:
                return outcome
        return _failure(job, trail.attempt, JobError(ErrorClass.CANCELLED, reason))

    async def _cancel_early(self, following: Following, reason: str) -> None:
        """Return when it is durable that a job was cancelled before its turn."""
        job = following.job
        trail, durable = self.board.open(job), None
        trail.rank(following.value)
        try:
            durable = await self._delivery.deliver(_failure(job, 0, JobError(ErrorClass.CANCELLED, reason)), trail)
        finally:
            self.board.close(trail, durable)

    async def transcribe(self, job: Job, trail: Trail | None = None) -> Outcome:
        """Return the job's outcome after as many attempts as it takes or may have; nothing is written yet."""
        deadlines = Deadlines(self._settings.pipeline, job.expires_at)
        async with self._rooms.journals.journal(job) as journal:
            journey = Journey(self._in_language_of_topic(job), trail or Trail(job), deadlines, journal)
            try:
                async with deadlines.expiry:
                    return await self._tries(journey)
            except TimeoutError:
                return _failure(journey.job, journey.attempt, deadlines.expired())

    def _in_language_of_topic(self, job: Job) -> Job:
        """Return the job in the language that its topic is known for, unless it says something about languages."""
        options = job.options
        language = self._languages.get(job.coordinates.topic)
        if language is None or options.language or options.languages or options.multilingual:
            return job
        return replace(job, options=replace(options, language=language))

    async def _tries(self, journey: Journey) -> Outcome:
        """Return the outcome. Raises ServiceError, and no TimeoutError but that of expiry."""
        job = journey.job
        while True:
            try:
                self._rooms.outputs.check(job)  # before hours of work
                return await self.attempts.make(journey)
            except NoRoomError as error:  # ours: the attempt does not count
                log.warning("waiting for room", error=str(error))
                await asyncio.sleep(NO_ROOM_SECONDS * self._random.uniform(0.5, 1))  # no longer: others wait, too
            except TransientJobError as error:
                if journey.attempt >= self._settings.pipeline.attempts or journey.deadlines.overdue():
                    return replace(_failure(journey.job, journey.attempt, error), retried_later=self._may_wait(job))
                metrics.JOB_RETRIES.labels(error.error_class).inc()
                pause = self._backoff.pause(journey.attempt, self._random, error.retry_after)
                log.info("trying again", attempt=journey.attempt, error=str(error), pause_seconds=round(pause, 2))
                journey.trail.stage = "retry"
                await asyncio.sleep(pause)  # no slot, no file and no memory is held meanwhile
                journey.trail.stage = None
                journey.attempt += 1
                journey.journal.again()
            except JobError as error:
                return _failure(journey.job, journey.attempt, error)
            except ServiceError:
                raise
            except Exception as error:  # a bug of ours that this recording found: the others go on
                log.exception("unexpected")
                poison = JobError(ErrorClass.POISON, f"unexpected {type(error).__name__}: {error}")
                return _failure(journey.job, journey.attempt, poison)

    def _may_wait(self, job: Job) -> bool:
        """Whether a passing fault that lasts may be tried again much later."""
        kafka = self._settings.kafka
        return kafka.retry_topic is not None and (job.replay is None or job.replay.round < kafka.retry_rounds)

    async def _with_files(self, outcome: Outcome) -> Outcome:
        """Return the outcome when the files of a transcript are where they are to be, or what it failed with.

        They come before the row: a job whose row is durable is not done again after a restart.
        """
        if isinstance(outcome, Failure):
            return outcome
        for attempt in range(1, self._settings.pipeline.attempts + 1):
            try:
                outputs = await self._rooms.outputs.write(outcome, outcome.job.audio_url)
                await failpoints.reach("pipeline.output_written")
            except TransientJobError as error:
                failed: JobError = error
                if attempt < self._settings.pipeline.attempts:
                    await asyncio.sleep(self._backoff.pause(attempt, self._random, error.retry_after))
            except JobError as error:
                failed = error
                break
            except ServiceError:
                raise
            except Exception as error:  # a bug of ours that this transcript found: the others go on
                log.exception("unexpected")
                failed = JobError(ErrorClass.POISON, f"unexpected {type(error).__name__}: {error}")
                break
            else:
                return replace(outcome, timings={**outcome.timings, "outputs": list(outputs)}) if outputs else outcome
        if self._settings.output.on_error == "ignore":
            log.warning("no files", reason=failed.reason)
            return replace(outcome, timings={**outcome.timings, "outputs_failed": failed.reason})
        later = isinstance(failed, TransientJobError) and self._may_wait(outcome.job)
        return replace(_failure(outcome.job, outcome.timings.get("attempts", 1), failed), retried_later=later)


def _failure(job: Job, attempts: int, error: JobError) -> Failure:
    return Failure(
        coordinates=job.coordinates,
        error_class=error.error_class,
        reason=error.reason,
        attempts=attempts,
        record=job.record,
        job_id=job.job_id,
        audio_url=without_secrets(job.audio_url),
        replay=job.replay,
        redo=job.redo,
        webhook_url=job.webhook_url,
        metadata=job.metadata,
    )
