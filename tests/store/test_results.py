"""What was transcribed before is found by its content."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.store.conftest import Writing
from tests.store.outcomes import coordinates, failure, segment, transcript
from v2td.errors import ServiceError
from v2td.jobs import Outcome, Redo, Segment, Word
from v2td.store import Database, StoredSegment, StoredTranscription, find_result
from v2td.store.connection import Connection
from v2td.store.results import _NEWEST

AUDIO = "ab" * 32
ONE, OTHER = "01" * 32, "02" * 32


async def write(writing: Writing, *outcomes: Outcome) -> None:
    async with writing() as writer:
        for outcome in outcomes:
            await writer.write(outcome)


async def find(store: Database, *digests: str, audio: str = AUDIO) -> tuple[StoredTranscription, list[StoredSegment]]:
    found = await find_result(store, audio, digests)
    assert found is not None
    return found[0], list(found[1])


async def test_a_result_comes_with_all_of_its_segments(writing: Writing, store: Database) -> None:
    spoken = [segment("one", [Word(0.1, 0.4, "one", 0.9)]), segment(" two ", start=3.0), segment("  ", start=5.0)]
    stereo = [Segment(6.0, 7.0, "left", -0.1, 0.0, 1.0, 0.2, (), 0), Segment(6.5, 7.0, "right", -0.1, 0.0, 1.0, 0.2)]
    await write(writing, transcript(1, text_sha256=ONE, segments=(*spoken, *stereo)))
    row, segments = await find(store, ONE)
    assert (row.id, row.text, row.options_sha256) == (coordinates(1).row_id(), "one two left right", ONE)
    assert [each.text for each in segments] == ["one", " two ", "  ", "left", "right"]
    assert [each.channel for each in segments] == [None, None, None, 0, None]
    assert segments[0].words == [{"start": 0.1, "end": 0.4, "word": "one", "probability": 0.9}]
    assert segments[3].words == []


async def test_only_the_same_audio_with_the_same_digest_fits(writing: Writing, store: Database) -> None:
    await write(writing, transcript(1, text_sha256=ONE), transcript(2, text_sha256=None), failure(3))
    assert await find_result(store, "cd" * 32, [ONE]) is None
    assert await find_result(store, AUDIO, [OTHER]) is None
    assert await find_result(store, AUDIO, []) is None
    assert (await find(store, OTHER, ONE))[0].id == coordinates(1).row_id()


async def test_the_newest_wins_over_all_digests_and_revisions(
    writing: Writing, store: Database, sql: Connection
) -> None:
    await write(writing, transcript(1, "first", text_sha256=ONE))
    await write(writing, transcript(2, "second", text_sha256=OTHER))
    assert (await find(store, ONE, OTHER))[0].text == "second"
    again = transcript(1, "again", text_sha256=ONE, job={"redo": Redo(1)})
    await write(writing, again)
    row, (heard,) = await find(store, ONE, OTHER)
    assert (row.revision, row.text, heard.text) == (1, "again", "again")
    assert (await find(store, OTHER))[0].text == "second"


async def test_a_recording_without_speech_has_a_result(writing: Writing, store: Database) -> None:
    await write(writing, transcript(1, text_sha256=ONE, segments=(), speech_seconds=0.0, covered_seconds=0.0))
    row, segments = await find(store, ONE)
    assert (row.text, row.speech_coverage_ratio, segments) == ("", None, [])


async def test_a_result_whose_segments_are_gone_is_none(writing: Writing, store: Database, sql: Connection) -> None:
    """Retention drops whole months of segments, and rows one by one."""
    await write(writing, transcript(1, "one", "two", text_sha256=ONE))
    await sql.execute("DELETE FROM transcript_segments WHERE segment_index = 1")
    assert await find_result(store, AUDIO, [ONE]) is None
    await sql.execute("DELETE FROM transcript_segments")
    assert await find_result(store, AUDIO, [ONE]) is None


async def test_among_many_of_the_same_the_newest_is_read_from_the_index(store: Database, sql: Connection) -> None:
    """As of hold music: a sort of all of them for each would take longer and longer."""
    await sql.execute(
        """
        INSERT INTO transcriptions
        SELECT gen_random_uuid(), 0, NULL, 'cluster', 'jobs', 0, n, 0, NULL, NULL, 'file:///x', $1, $2, 1, 1, 0, NULL,
               NULL, 'transcribe', 'local', 'demo', '', 1, '{}', NULL, false, NULL, '{}',
               now() - make_interval(secs => n)
        FROM generate_series(1, 20000) n
        """,
        AUDIO,
        ONE,
    )
    await sql.execute("ANALYZE transcriptions")
    newest = await sql.fetchrow("SELECT id, created_at FROM transcriptions ORDER BY created_at DESC LIMIT 1")
    row, _ = await find(store, ONE, OTHER)
    assert row.id == newest["id"]
    (plan,) = json.loads(await sql.fetchval(f"EXPLAIN (FORMAT JSON, ANALYZE) {_NEWEST}", AUDIO, [ONE, OTHER]))
    scans = list(scanned(plan["Plan"]))
    assert [scan["Index Name"] for scan in scans] == ["transcriptions_content"]
    assert scans[0]["Actual Rows"] <= 1


def scanned(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The scans of the table in a plan."""
    if plan.get("Relation Name") == "transcriptions":
        yield plan
    for part in plan.get("Plans", ()):
        yield from scanned(part)


async def test_trouble_is_a_service_error(store: Database, sql: Connection) -> None:
    await sql.execute("ALTER TABLE transcriptions RENAME TO gone")
    with pytest.raises(ServiceError, match="look up a result"):
        await find_result(store, AUDIO, [ONE])
