"""Pages of what has ended, as the API shows them."""

from __future__ import annotations

from v2td.admin.jobs_desk import DeskError, JobsWanted, TranscriptsWanted, Trouble
from v2td.admin.jobs_shapes import EndedJob, Jobs, Passage, TranscriptItem, Transcripts
from v2td.desk.states import links, state_of
from v2td.errors import ErrorClass
from v2td.store import Database, StoredFailure, ledger, lists, search
from v2td.store.lists import Listed, ListedTranscription, Position, Wanted

_REPLAY_STATES = {"retrying": ledger.REQUESTED, "dropped": ledger.DROPPED}


class Lists:
    """Reads pages, of the replica where there is one; every method raises DeskError for a bad cursor, ServiceError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def jobs(self, wanted: JobsWanted) -> Jobs:
        """Return a page of jobs."""
        state, error_class = wanted.state, wanted.error_class
        cancelled = str(ErrorClass.CANCELLED)
        classes = None if error_class is None else [error_class]
        if state == "cancelled":
            if error_class not in (None, cancelled):
                return Jobs(data=[], next=None)
            classes = [cancelled]
        page = await lists.jobs(
            self._database,
            Wanted(wanted.topic, wanted.since, wanted.until, wanted.limit, _behind(wanted.cursor)),
            transcribed=state in (None, "transcribed") and error_class is None,
            failed=state != "transcribed",
            classes=classes,
            not_classes=[cancelled] if state == "failed" else [],
            replay_state=_REPLAY_STATES.get(state, ledger.FAILED) if state is not None else None,
        )
        return Jobs(data=[_job(each) for each in page.rows], next=str(page.next) if page.next else None)

    async def transcripts(self, wanted: TranscriptsWanted) -> Transcripts:
        """Return a page of transcripts."""
        if wanted.query is not None:
            return await self._found(wanted, wanted.query)
        range_ = Wanted(None, wanted.since, wanted.until, wanted.limit, _behind(wanted.cursor))
        page = await lists.transcriptions(self._database, range_, wanted.language)
        return Transcripts(data=[_transcript(each) for each in page.rows], next=str(page.next) if page.next else None)

    async def _found(self, wanted: TranscriptsWanted, query: str) -> Transcripts:
        try:
            page = await search.search(
                self._database,
                query,
                language=wanted.language,
                since=wanted.since,
                until=wanted.until,
                limit=wanted.limit,
                cursor=wanted.cursor,
            )
        except search.InvalidSearchError as error:
            raise DeskError(Trouble.BAD, str(error)) from None
        return Transcripts(data=[_match(each) for each in page.matches], next=page.cursor)


def _behind(cursor: str | None) -> Position | None:
    try:
        return None if cursor is None else Position.parse(cursor)
    except ValueError:
        raise DeskError(Trouble.BAD, "cursor: not one that this list has given") from None


def _job(row: Listed) -> EndedJob:
    heard = None if isinstance(row, StoredFailure) else row
    fault = row if isinstance(row, StoredFailure) else None
    return EndedJob(
        id=row.id,
        job_id=row.job_id,
        state="transcribed" if fault is None else state_of(fault),
        topic=row.topic,
        partition=row.kafka_partition,
        offset=row.kafka_offset,
        audio_url=row.audio_url,
        error_class=fault.error_class if fault else None,
        reason=fault.reason if fault else None,
        revision=heard.revision if heard else None,
        language=heard.language if heard else None,
        audio_seconds=heard.audio_seconds if heard else None,
        processing_seconds=heard.duration if heard else None,
        provider=heard.provider if heard else None,
        model=heard.model if heard else None,
        ended_at=row.created_at,
        links=links(row.id, heard.revision if heard else None),
    )


def _transcript(row: ListedTranscription) -> TranscriptItem:
    return TranscriptItem(
        id=row.id,
        revision=row.revision,
        job_id=row.job_id,
        tenant=row.tenant,
        language=row.language,
        audio_url=row.audio_url,
        audio_seconds=row.audio_seconds,
        provider=row.provider,
        model=row.model,
        beginning=row.beginning,
        passages=[],
        created_at=row.created_at,
        links=links(row.id, row.revision),
    )


def _match(match: search.Match) -> TranscriptItem:
    return TranscriptItem(
        id=match.id,
        revision=match.revision,
        job_id=match.job_id,
        tenant=match.tenant,
        language=match.language,
        audio_url=match.audio_url,
        audio_seconds=match.audio_seconds,
        provider=match.provider,
        model=match.model,
        beginning=None,
        passages=[
            Passage(
                start=each.start_seconds, end=each.end_seconds, channel=each.channel, text=each.text, marks=each.marks
            )
            for each in match.passages
        ],
        created_at=match.created_at,
        links=links(match.id, match.revision),
    )
