"""Everything known of a job, looked up in one go; which job is meant by a name that several have is for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from v2td.config import Settings
from v2td.store import Database, Reader, StoredSegment, open_database
from v2td.store.dossier import Dossier, dossier, under_way


@dataclass(frozen=True, slots=True)
class Shown:
    """A job with its newest revision's segments."""

    dossier: Dossier
    segments: tuple[StoredSegment, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the jobs that a name may mean."""

    id: UUID
    state: str
    when: str
    audio_url: str


async def look_up(settings: Settings, job: str) -> Shown | list[Candidate]:
    """Return what is known of JOB (a row's id, or a message's own), or the several jobs that it may mean.

    None known is an empty list. Raises ServiceError.
    """
    async with open_database(settings.database, "v2td show", read_only=True) as database:
        found = await Reader(database).find(job)
        ids = [each.id for each in found] or await under_way(database, job)
        if len(ids) != 1:
            return await _candidates(database, ids)
        known = await dossier(database, ids[0])
        return Shown(known, await Reader(database).segments(ids[0]) if known.revisions else ())


async def _candidates(database: Database, ids: Sequence[UUID]) -> list[Candidate]:
    return [_candidate(await dossier(database, each)) for each in ids]


def _candidate(known: Dossier) -> Candidate:
    if known.revisions:
        newest = known.revisions[0]
        return Candidate(known.id, "transcribed", f"{newest.created_at:%Y-%m-%d %H:%M:%S}", newest.audio_url)
    if known.failure is not None:
        failure = known.failure.failure
        return Candidate(
            known.id, failure.error_class, f"{failure.created_at:%Y-%m-%d %H:%M:%S}", failure.audio_url or "-"
        )
    return Candidate(known.id, "under way", "-", "-")
