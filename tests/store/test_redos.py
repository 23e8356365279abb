"""Another revision of a transcription: who may ask for it, what is written, and what a failed one leaves alone."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.store.conftest import Writing
from tests.store.outcomes import coordinates, failure, transcript
from v2td.jobs import Coordinates, Options, Output, Redo, Replay, SourceRecord, Transcript
from v2td.store import (
    Database,
    Reader,
    StoredTranscription,
    durable_jobs,
    ensure_partitions,
    forget_old,
    outcomes,
    redos,
)
from v2td.store.batch import insert
from v2td.store.connection import Connection
from v2td.store.redos import Selection, Term, Wish
from v2td.store.requests import fields_of, request_of
from v2td.store.rows import rows_of

RECORD = SourceRecord(b"key", b'{"audio_url": "https://example.com/1.wav", "model": "large"}', ())
DIGEST = Replay.digest(RECORD)
AT = coordinates(7, topic="jobs", timestamp_ms=1_790_000_000_000)  # of the record that asks
FIRST = transcript(1, "good morning")


def again(revision: int = 1, text: str = "good evening", at: Coordinates = AT, **changes: Any) -> Transcript:
    redo = {"record": RECORD, "replay": Replay(at), "redo": Redo(revision, "large")}
    return transcript(1, text, job=redo, model="large", **changes)


async def noted(store: Database, *, sent: bool = True) -> int:
    revisions = await redos.note(store, "large", None, [Wish(FIRST.job.id, DIGEST)])
    if sent:
        await redos.mark_sent(store, list(revisions.items()))
    return revisions[FIRST.job.id]


async def test_a_revision_is_a_row_of_its_own_and_reads_show_the_newest(
    store: Database, writing: Writing, sql: Connection
) -> None:
    async with writing() as writer:
        await writer.write(FIRST)
        revision = await noted(store)
        await writer.write(again(revision, "good evening"))
        await writer.write(again(revision, "good evening"))  # its record came twice
    rows = await sql.fetch("SELECT revision, text, model FROM transcriptions ORDER BY revision")
    assert [tuple(row) for row in rows] == [(0, "good morning", "demo"), (1, "good evening", "large")]
    reader = Reader(store)
    (found,) = await reader.find(str(FIRST.job.id))
    assert isinstance(found, StoredTranscription)
    assert (found.revision, found.text) == (1, "good evening")
    assert [each.text for each in await reader.segments(FIRST.job.id)] == ["good evening"]
    assert await redos.ended(store, [(FIRST.job.id, 1)]) == {(FIRST.job.id, 1): redos.Ended(None, "large", "local")}
    durable = await durable_jobs(store, AT.cluster_id, AT.topic, AT.partition, 0)
    assert durable[AT.offset] == frozenset({AT.row_id()}), "the record that asked is done"


async def test_a_redo_that_fails_leaves_the_transcription_and_no_failure(
    store: Database, writing: Writing, sql: Connection
) -> None:
    failed = failure(1, record=RECORD, replay=Replay(AT), redo=Redo(1, "large"), reason="gone")
    async with writing() as writer:
        await writer.write(FIRST)
        await noted(store)
        await writer.write(failed)
    assert await sql.fetchval("SELECT count(*) FROM failures") == 0
    assert await sql.fetchval("SELECT count(*) FROM transcriptions") == 1
    assert await redos.ended(store, [(FIRST.job.id, 1)]) == {(FIRST.job.id, 1): redos.Ended("not_audio: gone")}
    assert await redos.find_redo(store, FIRST.job.id, 1, RECORD) == "done"
    assert (await durable_jobs(store, AT.cluster_id, AT.topic, AT.partition, 0))[AT.offset] == {AT.row_id()}
    assert await noted(store) == 2, "a revision that failed is not asked for under the same number"


async def test_a_failure_that_comes_after_the_revision_says_nothing(store: Database, writing: Writing) -> None:
    async with writing() as writer:
        await writer.write(FIRST)
        await noted(store)
        await writer.write(again())
        other = replace(AT, offset=8)
        await writer.write(failure(1, record=RECORD, replay=Replay(other), redo=Redo(1, "large")))
    assert (await redos.ended(store, [(FIRST.job.id, 1)]))[FIRST.job.id, 1].failed is None


async def test_revisions_in_one_flush_are_all_written(store: Database, sql: Connection) -> None:
    """With them the job's own record, delivered again, and a failure of what another record made."""
    async with store.raw() as connection:
        await ensure_partitions(connection, 1)
        await insert(connection, [rows_of(FIRST)])
        for _ in range(3):
            await noted(store)
        ats = [replace(AT, offset=offset) for offset in (7, 8, 9)]
        written = await insert(
            connection,
            [
                rows_of(again(1, "one", ats[0])),
                rows_of(FIRST),
                rows_of(failure(1, record=RECORD, replay=Replay(ats[1]), redo=Redo(2, "large"))),
                rows_of(failure(1, record=RECORD, replay=Replay(ats[2]), redo=Redo(1, "large"))),
                rows_of(again(3, "three", ats[2])),
                rows_of(transcript(2)),
            ],
        )
    assert (written.transcriptions, written.failures, written.redos) == (3, 0, 1)
    found = await sql.fetch("SELECT revision, text FROM transcriptions WHERE id = $1 ORDER BY revision", FIRST.job.id)
    assert [row["text"] for row in found] == ["good morning", "one", "three"]
    assert await sql.fetchval("SELECT failed FROM redos WHERE revision = 2") == "not_audio: this is text"
    assert await sql.fetchval("SELECT failed FROM redos WHERE revision = 1") is None


async def test_only_the_record_that_was_noted_may_ask(store: Database, writing: Writing) -> None:
    row_id = FIRST.job.id
    async with writing() as writer:
        await writer.write(FIRST)
        assert await redos.find_redo(store, row_id, 1, RECORD) is None
        await noted(store, sent=False)  # Kafka may have it all the same
        assert await redos.find_redo(store, row_id, 1, RECORD) == (FIRST.job.coordinates, Redo(1, "large", None))
        for other in (replace(RECORD, key=b"other"), replace(RECORD, value=b'{"audio_url": "https://evil.com/1.wav"}')):
            assert await redos.find_redo(store, row_id, 1, other) is None
        assert await redos.find_redo(store, row_id, 2, RECORD) is None
        assert await redos.find_redo(store, uuid4(), 1, RECORD) is None
        await redos.withdraw(store, (row_id, 1))
        assert await redos.find_redo(store, row_id, 1, RECORD) is None
        await noted(store)
        await writer.write(again())
        assert await redos.find_redo(store, row_id, 1, RECORD) == "done"


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 1_780_000_000_123])
async def test_the_job_keeps_its_coordinates(store: Database, writing: Writing, timestamp_ms: int) -> None:
    first = transcript(1, at={"timestamp_ms": timestamp_ms, "record_index": 3, "topic": "tp"})
    async with writing() as writer:
        await writer.write(first)
    await redos.note(store, "large", None, [Wish(first.job.id, DIGEST)])
    found = await redos.find_redo(store, first.job.id, 1, RECORD)
    assert isinstance(found, tuple)
    assert found[0] == first.job.coordinates
    (original,) = (await redos.originals(store, [first.job.id])).values()
    assert redos.coordinates_of(original) == first.job.coordinates


async def test_a_transcription_that_is_gone_is_not_waited_for(
    store: Database, writing: Writing, sql: Connection
) -> None:
    async with writing() as writer:
        await writer.write(FIRST)
        await noted(store)
    await sql.execute("DELETE FROM transcriptions")
    assert await redos.find_redo(store, FIRST.job.id, 1, RECORD) == "done"
    (end,) = (await redos.ended(store, [(FIRST.job.id, 1)])).values()
    assert end.failed == "the transcription is gone"


async def test_two_who_ask_at_once_get_numbers_of_their_own(store: Database, writing: Writing) -> None:
    async with writing() as writer:
        await writer.write(FIRST)
    numbers = await asyncio.gather(*(noted(store) for _ in range(6)))
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


async def test_what_was_asked_for_is_known(store: Database, writing: Writing) -> None:
    ids = [FIRST.job.id, uuid4()]
    async with writing() as writer:
        await writer.write(FIRST)
        assert await redos.asked(store, "large", None, ids) == {}
        await noted(store, sent=False)
        (asked,) = (await redos.asked(store, "large", None, ids)).values()
        assert asked == redos.Asked(1, DIGEST, sent=False, failed=None, done=False)
        assert await redos.asked(store, None, None, ids) == {}
        assert await redos.asked(store, "large", "local", ids) == {}
        await noted(store)
        await writer.write(again(2))
        (asked,) = (await redos.asked(store, "large", None, ids)).values()
        assert asked == redos.Asked(2, DIGEST, sent=True, failed=None, done=True)


async def test_the_newest_revisions_that_fit_are_found(
    store: Database, writing: Writing, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redos, "FOUND_AT_ONCE", 2)  # in pages
    heard = [transcript(n, language="vi" if n % 2 else None, provider=f"p{n}") for n in range(1, 6)]
    async with writing() as writer:
        for each in heard:
            await writer.write(each)
        await noted(store)
        await writer.write(again(1, provider="p1"))
    await sql.execute(
        "UPDATE transcriptions SET created_at = now() - (10 - kafka_offset) * interval '1 hour' WHERE revision = 0"
    )

    async def offsets(**which: Any) -> list[int]:
        by_id = {each.job.id: each.job.coordinates.offset for each in heard}
        return [by_id[each.id] for each in await redos.find(store, Selection(**which))]

    now = datetime.now(UTC)
    assert await offsets() == [2, 3, 4, 5, 1], "oldest first, and the first one was done again just now"
    assert await offsets(since=now - timedelta(hours=7, minutes=30)) == [3, 4, 5, 1]
    assert await offsets(until=now - timedelta(hours=6, minutes=30)) == [2, 3]
    assert await offsets(jobs=("job-3", str(heard[1].job.id), "nobody")) == [2, 3]
    assert await offsets(terms=(Term("model", "demo"),)) == [2, 3, 4, 5]
    assert await offsets(terms=(Term("model", "demo", negated=True),)) == [1]
    assert await offsets(terms=(Term("language", "vi"), Term("provider", "p3"))) == [3]
    assert await offsets(terms=(Term("language", "vi", negated=True),)) == [2, 4, 1], "NULL is not vi; redone as en"
    assert await offsets(terms=(Term("provider", "' OR true --"),)) == []


async def test_outcomes_tell_the_newest_revision_by_the_record_that_asked(store: Database, writing: Writing) -> None:
    async with writing() as writer:
        await writer.write(FIRST)
        await noted(store)
        await writer.write(again())
    (found,) = await outcomes(store, [AT.row_id()])
    assert isinstance(found, StoredTranscription)
    assert (found.id, found.revision) == (FIRST.job.id, 1)


async def test_old_wishes_are_forgotten(store: Database, writing: Writing, sql: Connection) -> None:
    async with writing() as writer:
        await writer.write(FIRST)
        await noted(store)
        await noted(store)
    await sql.execute("UPDATE redos SET created_at = now() - interval '31 days' WHERE revision = 1")
    assert await forget_old(store, 30) == 1
    assert await sql.fetchval("SELECT array_agg(revision) FROM redos") == [2]


def test_a_request_is_what_no_other_column_tells() -> None:
    job = FIRST.job
    assert request_of(replace(job, options=Options())) == {}
    options = Options(
        language="vi", languages=("vi", "en"), task="translate", prompt="Tên", beam_size=3, channels="split"
    )
    full = replace(
        job,
        options=options,
        version_id="v1",
        output=Output("texts", "a/b", ("json", "srt")),
        audio_url="https://example.com/1.wav?X-Amz-Signature=secret",
        record=SourceRecord(b"\xff", b"value", ()),
    )
    request = request_of(full)
    assert request == {
        "language": "vi",
        "languages": ["vi", "en"],
        "prompt": "Tên",
        "beam_size": 3,
        "channels": "split",
        "version_id": "v1",
        "output": {"bucket": "texts", "key": "a/b", "formats": ["json", "srt"]},
        "url_cut": True,
        "record_key": {"base64": "/w=="},
    }
    assert "secret" not in str(request)
    assert set(request) - set(fields_of(request)) == {"url_cut", "record_key"}
