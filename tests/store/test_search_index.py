"""The search index: used, the same answers with it as without, made anew where it was interrupted, and dumped."""

import asyncio
import os
import subprocess
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.services.postgres import find_binaries
from tests.store.conftest import Writing, until
from tests.store.outcomes import segment, transcript
from tests.store.test_search import FOUND, SAID, found
from v2td.bundled import recordings
from v2td.errors import ServiceError
from v2td.store import Database, search
from v2td.store import search_index as index
from v2td.store.connection import Connection


@pytest.fixture
async def said(store: Database, writing: Writing) -> Database:
    """The small ones of test_search, and Vietnamese of the demo's recordings."""
    async with writing() as writer:
        for number, (language, *texts) in SAID.items():
            segments = tuple(segment(text, start=10.0 * at) for at, text in enumerate(texts))
            await writer.write(transcript(number, language=language, segments=segments))
    return store


def nothing(_: index.Building) -> None:
    """Nobody looks at the progress."""


async def test_the_same_with_the_index_as_without_and_after_a_dump(
    said: Database, database: str, sql: Connection
) -> None:
    assert await index.look(database) is None
    state = await index.build(database, nothing)
    assert state.whole
    assert state.size_bytes > 0
    assert await index.build(database, nothing) == state, "it is there already"
    assert {query: await found(said, query) for query in FOUND} == FOUND

    await sql.execute("INSERT INTO transcriptions SELECT (jsonb_populate_record(t, jsonb_build_object("
                      "'id', gen_random_uuid(), 'text', 'filler ' || n))).* "
                      "FROM transcriptions t, generate_series(1, 3000) n WHERE kafka_offset = 1")  # fmt: skip
    branch = search._BRANCH.format(number=0, query=8, configs=9)
    plan = await sql.fetch(
        "EXPLAIN " + search._PAGE.format(branches=branch),
        *(None, None, None, None, None, 20, [None], "'train'", ["english"]),
    )
    assert f"Bitmap Index Scan on {search.INDEX}" in "\n".join(row[0] for row in plan)

    copy = await _copied(database, sql)
    try:
        state_there = await index.look(copy)
        assert state_there is not None
        assert state_there.whole
        connection = await asyncpg.connect(copy)
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM transcriptions "
                "WHERE v2td_text_vector(v2td_text_search(language), text) @@ 'duong'"
            )
            == 1
        )
        await connection.close()
    finally:
        await sql.execute(f'DROP DATABASE "{urlsplit(copy).path[1:]}" WITH (FORCE)')
    assert await index.drop(database)
    assert not await index.drop(database)


async def _copied(dsn: str, sql: Connection) -> str:
    """Return the DSN of a database into which this one was dumped and restored, as people do it."""
    copy = f"{dsn}_copy"
    await sql.execute(f'CREATE DATABASE "{urlsplit(copy).path[1:]}"')
    binaries = find_binaries()
    assert binaries is not None

    def dump_and_restore() -> None:
        dump = subprocess.run([binaries / "pg_dump", "-Fc", "-d", dsn], capture_output=True, check=True).stdout
        subprocess.run([binaries / "pg_restore", "--exit-on-error", "-d", copy], input=dump, env=os.environ, check=True)

    await asyncio.to_thread(dump_and_restore)
    return copy


async def test_what_an_interrupted_making_left_is_made_anew(said: Database, database: str) -> None:
    phases: list[str] = []
    async with said.acquire() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("DELETE FROM transcriptions WHERE false")  # the making waits for who writes
        making = asyncio.create_task(index.build(database, lambda building: phases.append(building.phase)))

        async def waits() -> bool:
            return any("waiting" in phase for phase in phases)

        await until(waits)
        with pytest.raises(ServiceError, match="already"):
            await index.build(database, nothing)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        await transaction.rollback()
    state = await index.look(database)
    assert state is not None
    assert not state.whole
    assert await found(said, "run") == [1], "an index that is not whole is no index"
    assert (await index.build(database, nothing)).whole


async def test_whatever_is_said_can_be_written_with_the_index(said: Database, database: str, writing: Writing) -> None:
    """A tsvector holds 1 MB, and no text may be too much for it: of the largest the beginning is found."""
    await index.build(database, nothing)
    text = "beginning " + " ".join(f"w{number}-x{number}" for number in range(100_000)) + " finish"
    hostile = ("a" * 3000, "\u200b" * 10, "\U0001f600", "https://a.b/" + "c/" * 5000, "\ud55c" * 40_000, "'\\|&!<->:*")
    async with writing() as writer:
        for number, each in enumerate((text, *hostile), 100):
            await writer.write(transcript(number, each))
    assert await found(said, "beginning") == [100]


async def test_vietnamese_is_found_with_and_without_accents(store: Database, writing: Writing) -> None:
    """Of what the demo's recordings say: every recording by words of its own, as they are and as they are typed."""
    heard = [each for each in recordings() if each.language == "vi" and each.seconds < 30]
    async with writing() as writer:
        for number, each in enumerate(heard):
            segments = tuple(segment(part.text, start=part.start) for part in each.segments)
            await writer.write(transcript(number, language="vi", segments=segments))
    assert len(heard) > 4
    for number, each in enumerate(heard):
        words = each.text.split(". ")[0].rstrip(".")
        assert number in await found(store, words)
        async with store.acquire() as connection:
            plain = await connection.fetchval(
                "SELECT translate(regexp_replace(normalize($1, NFD), '[\\u0300-\\u036f]', '', 'g'), 'đĐ', 'dD')", words
            )
        assert plain.isascii()
        assert number in await found(store, f'"{plain}"')
