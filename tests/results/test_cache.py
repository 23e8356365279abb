"""The cache of results over the real Postgres: a text is made once, and every job has full rows."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.store.conftest import Writing
from tests.store.outcomes import coordinates, segment, transcript
from v2td.config import CacheSettings, DatabaseSettings
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Audio, Job, Outcome, Redo, Transcript, Word
from v2td.results import Found, Lease, ResultCache
from v2td.store import Database, open_database
from v2td.store.connection import Connection

AUDIO = "ab" * 32
ONE, OTHER = "01" * 32, "02" * 32
FILE = Audio(Path("/nowhere"), 160_044, AUDIO, temporary=True)


def looks(found: str) -> float:
    return REGISTRY.get_sample_value("v2td_result_cache_total", {"found": found}) or 0.0


@pytest.fixture
def counted() -> Callable[[], dict[str, int]]:
    """How often a text was found where, since the test began."""
    levels = ("in_flight", "redis", "postgres", "none")
    before = {level: looks(level) for level in levels}
    return lambda: {level: n for level in levels if (n := int(looks(level) - before[level]))}


def heard(offset: int, *texts: str, **changes: Any) -> Transcript:
    return transcript(offset, *texts, **({"text_sha256": ONE} | changes))


def job(offset: int, **changes: Any) -> Job:
    return transcript(offset, job=changes).job


async def write(writing: Writing, *outcomes: Outcome) -> None:
    async with writing() as writer:
        await asyncio.gather(*map(writer.write, outcomes))


def text_of(lease: Lease, offset: int) -> Transcript:
    assert lease.found is not None
    return lease.found.transcript(job(offset), FILE, time.monotonic() - 0.5, {"fetch": 0.1})


async def test_another_job_gets_full_rows(cache: ResultCache, writing: Writing, sql: Connection) -> None:
    segments = (
        segment("one", [Word(0.5, 0.9, "one", 0.75)]),
        segment(" two ", [], start=3.25),
        segment("three", start=6.5),
    )
    origin = heard(
        1,
        segments=segments,
        truncated=True,
        timings={"fetch": 9.0, "damage": {"bad_packets": 2}, "windows": [], "flags": ["repetition"]},
        route={"rule": "any"},
        cost=0.02,
    )
    await write(writing, origin)
    async with cache.lease(AUDIO, [OTHER, ONE]) as lease:
        second = text_of(lease, 2)
    await write(writing, second)
    rows = await sql.fetch("SELECT * FROM transcriptions ORDER BY kafka_offset")
    own = {"id", "job_id", "kafka_offset", "audio_url", "duration", "timings", "cached_from", "created_at"}
    charged = {"route", "cost"}  # nobody was asked, and nothing is to be paid
    for column, value in rows[0].items():
        if column not in own | charged:
            assert rows[1][column] == value, column
    assert rows[1]["cached_from"] == rows[0]["id"]
    assert rows[1]["timings"] == {
        "fetch": 0.1,
        "damage": {"bad_packets": 2},
        "flags": ["repetition"],
        "cached": "postgres",
    }
    assert 0.5 <= rows[1]["duration"] < 60
    assert (rows[1]["route"], rows[1]["cost"]) == (None, None)
    first, again = [
        await sql.fetch(
            "SELECT * FROM transcript_segments WHERE transcription_id = $1 ORDER BY segment_index", row["id"]
        )
        for row in rows
    ]
    own_of_segment = {"transcription_id", "created_at"}
    assert [{k: v for k, v in row.items() if k not in own_of_segment} for row in first] == [
        {k: v for k, v in row.items() if k not in own_of_segment} for row in again
    ]
    assert len(first) == 3


async def test_of_a_chain_the_first_is_named(cache: ResultCache, writing: Writing, store: Database) -> None:
    await write(writing, heard(1))
    async with cache.lease(AUDIO, [ONE]) as lease:
        second = text_of(lease, 2)
    await write(writing, second)
    async with (
        ResultCache(store, CacheSettings(results=True)) as other_daemon,
        other_daemon.lease(AUDIO, [ONE]) as lease,
    ):
        assert text_of(lease, 3).cached_from == coordinates(1).row_id()


async def test_the_own_row_read_again_is_no_others(cache: ResultCache, writing: Writing, store: Database) -> None:
    """The one ahead was killed before its row was durable; one that waited has its text and names it."""
    await write(writing, heard(2, cached_from=coordinates(1).row_id()))
    async with cache.lease(AUDIO, [ONE]) as lease:
        assert text_of(lease, 1).cached_from is None
        assert text_of(lease, 3).cached_from == coordinates(1).row_id()


async def test_a_text_that_becomes_no_row_is_named_by_none(cache: ResultCache) -> None:
    async with cache.lease(AUDIO, [ONE]) as lease:
        lease.settle(heard(1), becomes_row=False)
    async with cache.lease(AUDIO, [ONE]) as lease:
        assert text_of(lease, 2).cached_from is None
        assert text_of(lease, 2).timings["cached"] == "in_flight"


async def test_of_many_at_once_one_is_transcribed(
    cache: ResultCache, writing: Writing, sql: Connection, counted: Callable[[], dict[str, int]]
) -> None:
    transcribed = 0

    async def run(offset: int) -> Transcript:
        nonlocal transcribed
        async with cache.lease(AUDIO, [ONE]) as lease:
            if lease.found is not None:
                return text_of(lease, offset)
            transcribed += 1
            await asyncio.sleep(0.05)
            made = heard(offset)
            lease.settle(made)
            return made

    transcripts = await asyncio.gather(*map(run, range(100)))
    assert transcribed == 1
    assert counted() == {"none": 1, "in_flight": 99}
    await write(writing, *transcripts)
    rows = await sql.fetch("SELECT cached_from, text, timings FROM transcriptions ORDER BY kafka_offset")
    assert [row["cached_from"] for row in rows] == [None, *(99 * [coordinates(0).row_id()])]
    assert {row["text"] for row in rows} == {"good morning everyone"}
    assert await sql.fetchval("SELECT count(*) FROM transcript_segments") == 200


async def test_many_at_once_look_into_postgres_once(
    cache: ResultCache, writing: Writing, counted: Callable[[], dict[str, int]]
) -> None:
    await write(writing, heard(1))

    async def run(offset: int) -> Transcript:
        async with cache.lease(AUDIO, [ONE]) as lease:
            return text_of(lease, offset)

    transcripts = await asyncio.gather(*map(run, range(2, 30)))
    assert {each.cached_from for each in transcripts} == {coordinates(1).row_id()}
    assert counted() == {"postgres": 1, "in_flight": 27}


@pytest.mark.parametrize("how", ["fails", "leaves", "is cancelled"])
async def test_who_waits_survives_the_one_ahead(cache: ResultCache, how: str) -> None:
    inside = asyncio.Event()

    async def ahead() -> None:
        async with cache.lease(AUDIO, [ONE]) as lease:
            assert lease.found is None
            inside.set()
            await asyncio.sleep(0.05 if how != "is cancelled" else 60)
            if how == "fails":
                raise JobError(ErrorClass.INFERENCE_CRASH, "died of it")

    transcribed = []

    async def behind(offset: int) -> Found | None:
        async with cache.lease(AUDIO, [ONE]) as lease:
            if lease.found is None:
                await asyncio.sleep(0.02)
                transcribed.append(offset)
                lease.settle(heard(offset))
            return lease.found

    first = asyncio.create_task(ahead())
    await inside.wait()
    others = [asyncio.create_task(behind(offset)) for offset in range(2, 8)]
    await asyncio.sleep(0.02)
    if how == "is cancelled":
        first.cancel()
    (ended,) = await asyncio.gather(first, return_exceptions=True)
    assert type(ended).__name__ == {"fails": "JobError", "leaves": "NoneType", "is cancelled": "CancelledError"}[how]
    found = await asyncio.gather(*others)
    assert transcribed == [2]
    assert [each is None for each in found] == [True, False, False, False, False, False]


async def test_the_one_ahead_is_cancelled_while_it_looks_into_postgres(
    cache: ResultCache, store: Database, writing: Writing, sql: Connection
) -> None:
    await write(writing, heard(1))
    async with sql.transaction():
        await sql.execute("LOCK TABLE transcriptions IN ACCESS EXCLUSIVE MODE")  # so that the look-up hangs

        async def run(offset: int) -> Transcript:
            async with cache.lease(AUDIO, [ONE]) as lease:
                return text_of(lease, offset)

        first, second = asyncio.create_task(run(2)), asyncio.create_task(run(3))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.1)
        assert not second.done()
    assert (await second).cached_from == coordinates(1).row_id()
    assert first.cancelled()


async def test_a_text_of_another_provider_is_not_for_all(cache: ResultCache) -> None:
    """The provider that was asked first failed, and another one did it."""
    async with asyncio.TaskGroup() as group, cache.lease(AUDIO, [ONE]) as ahead:
        assert ahead.found is None

        async def strict() -> bool:
            async with cache.lease(AUDIO, [ONE]) as lease:
                return lease.found is None

        async def either() -> Transcript:
            async with cache.lease(AUDIO, [ONE, OTHER]) as lease:
                return text_of(lease, 3)

        alone, served = group.create_task(strict()), group.create_task(either())
        await asyncio.sleep(0.02)
        ahead.settle(heard(1, text_sha256=OTHER, provider="fallback"))
    assert alone.result()
    assert served.result().provider == "fallback"
    assert served.result().text_sha256 == OTHER


async def test_a_redo_is_found_from_then_on(cache: ResultCache, writing: Writing, store: Database) -> None:
    await write(writing, heard(1, "before"))
    async with cache.lease(AUDIO, [ONE]) as lease:
        assert text_of(lease, 2).text == "before"
    again = heard(1, "after", job={"redo": Redo(1)})
    cache.settle(again)
    async with cache.lease(AUDIO, [ONE]) as lease:
        assert text_of(lease, 3).text == "after"
    await write(writing, again)
    async with ResultCache(store, CacheSettings(results=True)) as later, later.lease(AUDIO, [ONE]) as lease:
        assert text_of(lease, 3).text == "after"


async def test_what_the_settings_refuse_by_now_is_not_found(store: Database, writing: Writing) -> None:
    """As a damaged recording that was accepted once."""
    await write(writing, heard(1, truncated=True))
    settings = CacheSettings(results=True)
    cache = ResultCache(store, settings, accept_truncated=False)
    async with cache, cache.lease(AUDIO, [ONE]) as lease:
        assert lease.found is None


async def test_nothing_to_look_for_is_nobodys_wait(cache: ResultCache, counted: Callable[[], dict[str, int]]) -> None:
    async with cache.lease(AUDIO, []) as one, cache.lease(AUDIO, []) as other:
        assert one.found is None
        assert other.found is None
        one.settle(heard(1))
    assert counted() == {}


async def test_a_postgres_that_hangs_is_left_alone(
    cache: ResultCache, sql: Connection, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v2td.results.cache.LOOK_SECONDS", 0.2)
    await write(writing, heard(1))
    async with sql.transaction():
        await sql.execute("LOCK TABLE transcriptions IN ACCESS EXCLUSIVE MODE")
        for _ in range(50):
            async with cache.lease(AUDIO, [ONE]) as lease:
                assert lease.found is None
    async with asyncio.timeout(20):
        while True:
            async with cache.lease(AUDIO, [ONE]) as lease:
                if lease.found is not None:
                    break
            await asyncio.sleep(0.1)
    assert lease.found.level == "postgres"


async def test_thousands_of_look_ups_at_once_leave_the_writer_its_connections(
    schema: None, settings: DatabaseSettings, writing: Writing, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pool has two; who asked it for one, and had to wait for all the others, would take Postgres for dead."""
    impatient = settings.model_copy(update={"connect_seconds": 1, "pool_min": 2})

    async def look(cache: ResultCache, number: int) -> None:
        async with cache.lease(f"{number:064x}", [ONE]) as lease:
            assert lease.found is None

    async with open_database(impatient) as database, ResultCache(database, CacheSettings(results=True)) as cache:
        await write(writing, heard(0, audio_sha256="cd" * 32))  # which makes the partitions
        async with asyncio.TaskGroup() as group, writing(database=database) as writer:
            for number in range(4000):
                group.create_task(look(cache, number))
            await writer.write(heard(1))
        async with cache.lease(AUDIO, [ONE]) as lease:
            assert lease.found is not None
    assert "without" not in "".join(capsys.readouterr())


async def test_without_postgres_all_is_transcribed_and_found_again_later(
    schema: None, settings: DatabaseSettings, sql: Connection, counted: Callable[[], dict[str, int]]
) -> None:
    async with open_database(settings) as database, ResultCache(database, CacheSettings(results=True)) as cache:
        await sql.execute("ALTER TABLE transcriptions RENAME TO away")
        for audio in ("01", "02", "03"):
            async with cache.lease(audio * 32, [ONE]) as lease:
                assert lease.found is None
        assert counted() == {"none": 3}
        await sql.execute("ALTER TABLE away RENAME TO transcriptions")
        await asyncio.sleep(1.1)  # of the rest
        async with cache.lease("04" * 32, [ONE]) as lease:
            assert lease.found is None
            lease.settle(heard(1, audio_sha256="04" * 32))
        async with cache.lease("04" * 32, [ONE]) as lease:
            assert lease.found is not None
