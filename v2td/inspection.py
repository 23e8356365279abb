"""Everything about one job, and the last failures, for a person who may see them; recordings to listen to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from v2td.admin import Unplayable
from v2td.board import Board, Finished
from v2td.errors import JobError, NoRoomError, ServiceError
from v2td.fetch import Downloader
from v2td.formats import FORMATS
from v2td.messages import without_secrets
from v2td.stages import Trail
from v2td.store import Database, Reader, StoredFailure, StoredTranscription, ledger, submissions
from v2td.store.reader import StoredOutcome
from v2td.store.submissions import Submission
from v2td.waterfall import bars

LAST_FAILURES = 500  # that are looked at
EXAMPLES = 3  # shown of each class
MAX_BYTES = 200_000_000  # of a recording that a browser is to hold in memory

ELSEWHERE = "queued_or_elsewhere"  # in Kafka, and not here: another instance may work on it

_UNSHOWN = {"options_sha256", "cluster_id", "request"}


class Inspection:
    """Looks jobs up, in this process's memory and in the database. Raises ServiceError."""

    def __init__(self, board: Board, database: Database, downloader: Downloader) -> None:
        self._board = board
        self._database = database
        self._reader = Reader(database)
        self._downloader = downloader

    async def job(self, job: str) -> list[dict[str, Any]]:
        """Return all that is known of JOB, a row's id or a message's own id; several when messages share it."""
        rows = {each.id: each for each in await self._reader.find(job)}
        here = self._remembered(job)
        handed_in = {each.id: each for each in await self._handed_in(job) if each.id is not None}
        ids = [*dict.fromkeys((*here, *rows, *handed_in))]
        if len(ids) > 1:
            return [_named(rows.get(each) or here.get(each) or handed_in[each]) for each in ids]
        if not ids:
            return []
        (row_id,) = ids
        row, remembered = rows.get(row_id), self._board.find(row_id)
        if row is None:  # a replica may not have that of a job that has ended
            return [_in_memory(remembered) if remembered else _elsewhere(handed_in[row_id])]
        told = _stored(row, remembered if isinstance(remembered, Finished) else None)
        if isinstance(row, StoredTranscription):
            told["formats"] = sorted(FORMATS)
            told["segments"] = [asdict(each) for each in await self._reader.segments(row.id)]
        if isinstance(remembered, Trail):  # it is being done again
            told["under_way"] = _in_memory(remembered)
        return [told]

    async def failures(self) -> dict[str, Any]:
        """Return the last failures by class, most first: how many, and the newest of each."""
        last = await ledger.failures(self._database, ledger.Selection(states=ledger.STATES), LAST_FAILURES)
        classes: dict[str, list[StoredFailure]] = {}
        for each in last:
            classes.setdefault(each.error_class, []).append(each)
        ordered = sorted(classes.items(), key=lambda item: -len(item[1]))
        return {
            "looked_at": len(last),
            "classes": [
                {"error_class": name, "count": len(each), "examples": [_stored(one) for one in each[:EXAMPLES]]}
                for name, each in ordered
            ],
        }

    @asynccontextmanager
    async def recording(self, job: UUID) -> AsyncIterator[Path]:
        """Yield a job's recording as a file, fetched as for a job; Unplayable says why there is none."""
        url = await self._url_of(job)
        try:
            audio = await self._downloader.fetch(url)
        except JobError as error:
            cut = "" if url.startswith(("s3:", "file:")) else "; what is secret in a URL is not kept"
            raise Unplayable(404, f"the recording cannot be fetched any more: {error.reason}{cut}") from None
        except (NoRoomError, ServiceError) as error:
            raise Unplayable(503, f"the recording cannot be fetched now: {error}") from None
        try:
            if audio.size_bytes > MAX_BYTES:
                raise Unplayable(413, f"the recording has {audio.size_bytes} bytes: too many for a page")
            yield audio.path
        finally:
            self._downloader.discard(audio)

    def _remembered(self, job: str) -> dict[UUID, Trail | Finished]:
        """Return what is known here of the job of this id, else of those under way that their messages call so."""
        row_id = _as_uuid(job)
        found = None if row_id is None else self._board.find(row_id)
        if row_id is not None and found is not None:
            return {row_id: found}
        return {each.job.id: each for each in self._board.under_way if each.job.job_id == job}

    async def _handed_in(self, job: str) -> list[Submission]:
        """Return what came by the API, and may wait in Kafka still, or be another instance's."""
        row_id = _as_uuid(job)
        found = [] if row_id is None else await submissions.find(self._database, row_id)
        return found or await submissions.find(self._database, job)

    async def _url_of(self, job: UUID) -> str:
        remembered = self._board.find(job)
        if isinstance(remembered, Trail):  # with all that is secret in it
            return remembered.job.audio_url
        found = await self._reader.find(str(job))
        url = found[0].audio_url if found else None
        if url is None:
            raise Unplayable(404, "no job of this id has a recording")
        return url


def _as_uuid(job: str) -> UUID | None:
    try:
        return UUID(job)
    except ValueError:
        return None


def _named(known: StoredOutcome | Trail | Finished | Submission) -> dict[str, Any]:
    match known:
        case Trail() | Finished():
            told = _in_memory(known)
            return {"id": told["id"], "state": told["state"], "job_id": told["job_id"], "created_at": None}
        case StoredTranscription():
            state = "transcribed"
        case StoredFailure():
            state = "failed"
        case Submission():
            state = ELSEWHERE
    return {"id": known.id, "state": state, "job_id": known.job_id, "created_at": known.created_at}


def _stored(row: StoredOutcome, finished: Finished | None = None) -> dict[str, Any]:
    told = {name: value for name, value in asdict(row).items() if name not in _UNSHOWN}
    timings = told.pop("timings", {})
    told |= _named(row)
    committed = None
    if finished is not None:
        told["priority"] = finished.trail.priority
        committed = None if finished.committed is None else finished.committed - finished.trail.began
    told["exact"] = finished is not None
    told["bars"] = [asdict(bar) for bar in bars(timings, finished.trail.steps if finished else (), committed)]
    told["flags"] = timings.get("flags", [])
    told["redone_windows"] = timings.get("redone_windows")
    return told


def _in_memory(remembered: Trail | Finished) -> dict[str, Any]:
    ended = isinstance(remembered, Finished)
    trail = remembered.trail if isinstance(remembered, Finished) else remembered
    job, at = trail.job, trail.job.coordinates
    return {
        "id": job.id,
        "state": "ended" if ended else "under_way",
        "job_id": job.job_id,
        "topic": at.topic,
        "kafka_partition": at.partition,
        "kafka_offset": at.offset,
        "record_index": at.record_index,
        "tenant": job.tenant,
        "audio_url": without_secrets(job.audio_url),
        "priority": trail.priority,
        "attempts": trail.attempt,
        "stage": trail.stage,
        "windows_heard": len(trail.windows_heard),
        "windows_known": trail.windows_known,
        "windows_cut": trail.windows_cut,
        "exact": True,
        "bars": [asdict(bar) for bar in bars({}, trail.steps)],
    }


def _elsewhere(submission: Submission) -> dict[str, Any]:
    return {
        "id": submission.id,
        "state": ELSEWHERE,
        "job_id": submission.job_id,
        "topic": submission.topic,
        "kafka_partition": submission.kafka_partition,
        "kafka_offset": submission.kafka_offset,
        "record_index": 0,
        "audio_url": submission.audio_url,
        "submitted_at": submission.created_at,
        "exact": True,
        "bars": [],
    }
