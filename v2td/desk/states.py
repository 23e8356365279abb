"""What is known of a job: from this instance's memory, from Postgres, and from what was submitted."""

from __future__ import annotations

import time
from typing import TypeVar
from uuid import UUID

from v2td.admin.jobs_desk import DeskError, Trouble
from v2td.admin.jobs_shapes import Fault, Heard, JobState, Links, Progress, State, Step
from v2td.board import Board, Finished
from v2td.desk.positions import Positions
from v2td.desk.submitting import Submitting
from v2td.errors import ErrorClass
from v2td.messages import without_secrets
from v2td.messages.request import MAX_ID
from v2td.messages.storable import is_storable
from v2td.stages import Trail
from v2td.store import Database, Reader, StoredFailure, StoredOutcome, StoredTranscription, ledger, submissions
from v2td.store.submissions import Submission

T = TypeVar("T")


class States:
    """Looks jobs up; `submitting` has those whose rows do not tell yet."""

    def __init__(
        self,
        database: Database,
        board: Board,
        submitting: Submitting,
        positions: Positions,
    ) -> None:
        self._database = database
        self._reader = Reader(database)
        self._board = board
        self._submitting = submitting
        self._positions = positions

    async def of(self, job: str) -> JobState:
        """Return what is known of a job; raises DeskError when it is unknown or several are, ServiceError."""
        _check(job)
        row_id = _as_uuid(job)
        if row_id is None or (found := await self._by_id(row_id)) is None:
            found = await self._named(job)
        return found

    async def ended(self, job: str) -> StoredOutcome:
        """Return the outcome of a job; raises DeskError when it has none, or several are meant, ServiceError."""
        _check(job)
        found = await self._reader.find(job)
        return _one({each.id: each for each in found})

    async def _by_id(self, row_id: UUID) -> JobState | None:
        trail = self._board.find(row_id)
        if isinstance(trail, Trail):
            return _under_way(trail)
        outcomes = [each for each in await self._reader.find(str(row_id)) if each.id == row_id]
        if outcomes:
            return _ended(outcomes[0], trail)
        if trail is not None:  # a replica does not know it yet
            return _lately(trail)
        return await self._submitted(row_id)

    async def _submitted(self, row_id: UUID) -> JobState | None:
        submission = self._submitting.find(row_id)
        if submission is None:
            rows = await submissions.find(self._database, row_id)
            if not rows:
                return None
            submission = rows[0]
        saved = await submissions.windows_saved(self._database, row_id)
        return await self._queued(submission, saved)

    async def _named(self, name: str) -> JobState:
        """Return the state of the one job that its message calls so."""
        ids = {each.job.id for each in self._board.under_way if each.job.job_id == name}
        ids |= {each.id for each in await self._reader.find(name) if each.job_id == name}
        ids |= {each.id for each in await submissions.find(self._database, name) if each.id is not None}
        ids |= self._submitting.named(name)
        found = await self._by_id(_one({each: each for each in ids}))
        if found is None:
            raise _unknown()
        return found

    async def _queued(self, submission: Submission, saved: int) -> JobState:
        assert submission.id is not None
        assert submission.kafka_partition is not None
        assert submission.kafka_offset is not None
        at = (submission.topic, submission.kafka_partition, submission.kafka_offset)
        return JobState(
            id=submission.id,
            job_id=submission.job_id,
            state="running" if saved else "queued",
            topic=submission.topic,
            partition=submission.kafka_partition,
            offset=submission.kafka_offset,
            audio_url=submission.audio_url,
            priority=None,
            submitted_at=submission.created_at,
            ended_at=None,
            position=None if saved else await self._positions.of(*at),
            windows_saved=saved,
            progress=None,
            fault=None,
            heard=None,
            timings={},
            steps=[],
            committed_seconds=None,
            links=links(submission.id),
        )


def links(job: UUID, revision: int | None = None) -> Links:
    """Return where to go on from a job; `revision`: it has a transcript."""
    transcript = None if revision is None else f"/v1/transcripts/{job}?revision={revision}"
    return Links(self=f"/v1/jobs/{job}", events=f"/v1/jobs/{job}/events", transcript=transcript)


def state_of(outcome: StoredOutcome) -> State:
    """Return what an outcome is."""
    if isinstance(outcome, StoredTranscription):
        return "transcribed"
    if outcome.replay_state == ledger.REQUESTED:
        return "retrying"
    if outcome.replay_state == ledger.DROPPED:
        return "dropped"
    return "cancelled" if outcome.error_class == ErrorClass.CANCELLED else "failed"


def _under_way(trail: Trail) -> JobState:
    job = trail.job
    progress = Progress(
        stage=trail.stage,
        attempt=trail.attempt,
        seconds=round(time.monotonic() - trail.began, 3),
        windows_known=trail.windows_known,
        windows_done=len(trail.windows_heard),
        windows_complete=trail.windows_cut,
    )
    at = job.coordinates
    return JobState(
        id=job.id,
        job_id=job.job_id,
        state="running",
        topic=at.topic,
        partition=at.partition,
        offset=at.offset,
        audio_url=without_secrets(job.audio_url),
        priority=trail.priority,
        submitted_at=None,
        ended_at=None,
        position=None,
        windows_saved=0,
        progress=progress,
        fault=None,
        heard=None,
        timings={},
        steps=_steps(trail),
        committed_seconds=None,
        links=links(job.id),
    )


def _ended(outcome: StoredOutcome, finished: Finished | None) -> JobState:
    row = outcome if isinstance(outcome, StoredTranscription) else None
    return JobState(
        id=outcome.id,
        job_id=outcome.job_id,
        state=state_of(outcome),
        topic=outcome.topic,
        partition=outcome.kafka_partition,
        offset=outcome.kafka_offset,
        audio_url=outcome.audio_url,
        priority=finished.trail.priority if finished else None,
        submitted_at=None,
        ended_at=outcome.created_at,
        position=None,
        windows_saved=0,
        progress=None,
        fault=_fault(outcome) if isinstance(outcome, StoredFailure) else None,
        heard=_heard(row) if row else None,
        timings=row.timings if row else {},
        steps=_steps(finished.trail) if finished else [],
        committed_seconds=_committed_seconds(finished),
        links=links(outcome.id, row.revision if row else None),
    )


def _lately(finished: Finished) -> JobState:
    """Return what is known of a job that a replica of Postgres will know in a moment."""
    state = _under_way(finished.trail)
    return state.model_copy(update={"progress": None, "committed_seconds": _committed_seconds(finished)})


def _fault(failure: StoredFailure) -> Fault:
    return Fault(error_class=failure.error_class, reason=failure.reason, attempts=failure.attempts)


def _heard(row: StoredTranscription) -> Heard:
    return Heard(
        revision=row.revision,
        language=row.language,
        language_probability=row.language_probability,
        audio_seconds=row.audio_seconds,
        speech_seconds=row.speech_seconds,
        processing_seconds=row.duration,
        provider=row.provider,
        model=row.model,
        task=row.task,
        truncated=row.truncated,
        cached_from=row.cached_from,
    )


def _steps(trail: Trail) -> list[Step]:
    return [
        Step(stage=each.stage, start=round(each.start, 6), seconds=round(each.seconds, 6), attempt=each.attempt)
        for each in trail.steps
    ]


def _committed_seconds(finished: Finished | None) -> float | None:
    if finished is None or finished.committed is None:
        return None
    return round(finished.committed - finished.trail.began, 6)


def _check(job: str) -> None:
    """Refuse what no job can be called, before Postgres is asked for something else."""
    if not job or len(job) > MAX_ID or not is_storable(job):
        raise _unknown()


def _as_uuid(job: str) -> UUID | None:
    try:
        return UUID(job)
    except ValueError:
        return None


def _one(found: dict[UUID, T]) -> T:
    if not found:
        raise _unknown()
    if len(found) > 1:
        named = ", ".join(map(str, found))
        raise DeskError(Trouble.CONFLICT, f"{len(found)} jobs are called so: name one by its id ({named})")
    return next(iter(found.values()))


def _unknown() -> DeskError:
    return DeskError(Trouble.UNKNOWN, "no such job: it is unknown to Postgres, and was not submitted by this API")
