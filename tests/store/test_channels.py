"""Who spoke is in the row of what was said."""

from dataclasses import replace

from tests.store.conftest import Writing
from tests.store.outcomes import segment, transcript
from v2td.store.connection import Connection


async def test_segments_keep_their_channel(writing: Writing, sql: Connection) -> None:
    said = [("hello", 0), ("yes", 1), ("mixed", None)]
    segments = tuple(replace(segment(text, start=second), channel=each) for second, (text, each) in enumerate(said))
    async with writing() as writer:
        await writer.write(transcript(1, segments=segments))
    rows = await sql.fetch("SELECT text, channel FROM transcript_segments ORDER BY segment_index")
    assert [tuple(row) for row in rows] == said
