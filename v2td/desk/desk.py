"""What the jobs API asks of the daemon, done."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from v2td.admin.jobs_desk import DeskError, JobsWanted, Text, TranscriptsWanted, Trouble
from v2td.admin.jobs_shapes import Act, Acts, Given, Jobs, JobState, Submitted, Transcripts
from v2td.board import Board
from v2td.config import Settings
from v2td.desk.acts import Changes
from v2td.desk.lists import Lists
from v2td.desk.positions import Committed, Positions
from v2td.desk.states import States, links
from v2td.desk.submitting import Submitting
from v2td.desk.transcripts import text_of
from v2td.store import Database, audit

MAX_NUMBER = 2**63 - 1  # of Postgres's bigint


class Desk:
    """Serves many at a time; an async context manager. `committed` tells a partition's offset where it is known."""

    def __init__(self, settings: Settings, database: Database, board: Board, committed: Committed) -> None:
        self._database = database
        self._submitting = Submitting(settings, database)
        self._states = States(database, board, self._submitting, Positions(settings.kafka, committed))
        self._changes = Changes(settings, database, self._states)
        self._lists = Lists(database)

    async def __aenter__(self) -> Self:
        await self._submitting.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._submitting.__aexit__()

    async def submit(self, body: bytes, key: str | None, trace: str | None = None) -> tuple[Submitted, bool]:
        """Return where Kafka has the job, and whether it was there before under this key; it joins the trace."""
        taken = await self._submitting.submit(body, key, trace)
        job = taken.submission
        assert job.id is not None
        assert job.kafka_partition is not None
        assert job.kafka_offset is not None
        submitted = Submitted(
            id=job.id,
            job_id=job.job_id,
            topic=job.topic,
            partition=job.kafka_partition,
            offset=job.kafka_offset,
            links=links(job.id, 0),
        )
        return submitted, taken.repeated

    async def state(self, job: str) -> JobState:
        """Return what is known of a job."""
        return await self._states.of(job)

    async def cancel(self, job: str) -> Given:
        """Ask that a job ends."""
        return await self._changes.cancel(job)

    async def prioritise(self, job: str, priority: int) -> Given:
        """Ask that a job becomes more, or less, urgent."""
        return await self._changes.prioritise(job, priority)

    async def replay(self, job: str) -> Given:
        """Have a failed job done again."""
        return await self._changes.replay(job)

    async def pause(self, instance: str | None) -> Given:
        """Ask that no more jobs are taken up; None: by nobody in the group."""
        return await self._changes.intake("pause", instance)

    async def resume(self, instance: str | None) -> Given:
        """Ask that jobs are taken up again."""
        return await self._changes.intake("resume", instance)

    async def transcript(self, job: str, revision: int | None) -> Text:
        """Return a transcript; None: its newest revision."""
        return await text_of(self._database, self._states, job, revision)

    async def jobs(self, wanted: JobsWanted) -> Jobs:
        """Return a page of jobs that have ended."""
        return await self._lists.jobs(wanted)

    async def transcripts(self, wanted: TranscriptsWanted) -> Transcripts:
        """Return a page of transcripts."""
        return await self._lists.transcripts(wanted)

    async def acts(self, since: datetime | None, limit: int, cursor: str | None) -> Acts:
        """Return a page of the audit log."""
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and int(cursor[:20]) <= MAX_NUMBER):
            raise DeskError(Trouble.BAD, "cursor: not one that this list has given")
        before = None if cursor is None else int(cursor)
        found = await audit.entries(self._database, before=before, since=since, limit=limit + 1)
        shown = found[:limit]
        acts = [
            Act(
                id=each.id,
                at=each.at,
                actor=each.actor,
                action=each.action,
                target=each.target,
                details=each.details,
                error=each.error,
            )
            for each in shown
        ]
        return Acts(data=acts, next=str(shown[-1].id) if len(found) > limit else None)
