"""The same recording many times: one is transcribed, and each job has full rows."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.daemon.conftest import Daemon, Row, World
from tests.services import redis as service
from v2td import bundled

SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)
ONE, OTHER = SHORT[0], SHORT[1]
TOKEN = "a token of more than sixteen characters"
CACHED = {"cache__results": True}
OWN = {"id", "job_id", "kafka_partition", "kafka_offset", "record_timestamp", "audio_url", "created_at"}
OF_THE_WORK = {"duration", "timings", "cached_from", "route", "cost"}


async def found(daemon: Daemon) -> dict[str, int]:
    """Look-ups so far by where the text was found."""
    counts = re.findall(r'v2td_result_cache_total\{found="(\w+)"\} (\d+)', await daemon.metrics())
    return {level: int(count) for level, count in counts if int(count)}


async def heard_seconds(daemon: Daemon, jobs: int) -> float:
    """Seconds of audio that the engine was given until so many jobs were done; nothing else counts as transcribed."""
    async with asyncio.timeout(10):
        while f'v2td_jobs_finished_total{{outcome="transcribed"}} {jobs}.0' not in (told := await daemon.metrics()):
            await asyncio.sleep(0.05)  # counted behind the commit
    given = re.search(r'v2td_provider_audio_seconds_total\{provider="local"\} ([\d.]+)', told)
    durations = re.findall(r"v2t_transcription_duration_seconds_count\{.*\} (\d+)", told)
    counted = re.search(r"v2td_audio_seconds_total ([\d.]+)", told)
    seconds = float(given.group(1)) if given else 0.0
    assert counted is not None
    assert float(counted.group(1)) == pytest.approx(seconds, abs=0.1)
    assert sum(map(int, durations)) == round(seconds / ONE.seconds)
    return seconds


def jobs(world: World, count: int, **options: Any) -> list[dict[str, Any]]:
    """Jobs of one recording under as many addresses: the bytes count."""
    return [{"audio_url": f"{world.web}/{ONE.name}?copy={number}", **options} for number in range(count)]


async def check_full_rows(world: World, count: int) -> None:
    """Every job has the first one's text and segments, and says whose they are."""
    rows = await world.rows("SELECT * FROM transcriptions ORDER BY cached_from IS NOT NULL, kafka_offset")
    assert len(rows) == count
    origin, *others = rows
    assert origin["cached_from"] is None
    assert origin["text"] == ONE.text
    segments = await segments_of(world, origin)
    assert len(segments) == len(ONE.segments)
    for row in others:
        assert row["cached_from"] == origin["id"]
        assert without(row, OWN | OF_THE_WORK) == without(origin, OWN | OF_THE_WORK)
        assert await segments_of(world, row) == segments


def without(row: Row, columns: set[str]) -> Row:
    return {name: value for name, value in row.items() if name not in columns}


async def segments_of(world: World, row: Row) -> list[Row]:
    query = "SELECT * FROM transcript_segments WHERE transcription_id = $1 ORDER BY segment_index"
    return [without(each, {"transcription_id", "created_at"}) for each in await world.rows(query, row["id"])]


async def test_many_at_once_and_later_again(world: World) -> None:
    await world.submit(*jobs(world, 40))
    async with world.daemon(**CACHED) as daemon:
        await world.until_finished(40, 60)
        assert await found(daemon) == {"none": 1, "in_flight": 39}
        assert await heard_seconds(daemon, 40) == pytest.approx(ONE.seconds, abs=0.1)
        assert await daemon.terminate() == 0
    await check_full_rows(world, 40)

    await world.submit(*jobs(world, 5))
    async with world.daemon(**CACHED) as daemon:  # which has nothing in memory
        await world.until_finished(45, 60)
        assert await found(daemon) == {"postgres": 1, "in_flight": 4}
        assert await heard_seconds(daemon, 5) == 0
        await world.submit({"audio_url": f"{world.web}/{OTHER.name}"}, *jobs(world, 2, word_timestamps=True))
        await world.until_finished(48, 60)
        assert (await found(daemon))["none"] == 2
        assert await daemon.terminate() == 0
    words = await world.rows(
        "SELECT s.words FROM transcript_segments s JOIN transcriptions t ON t.id = s.transcription_id"
        " WHERE t.job_id IS NULL AND s.words IS NOT NULL"
    )
    assert len(words) == 2 * len(ONE.segments)
    await world.rows("DELETE FROM transcriptions WHERE options_sha256 <> $1", (await first(world))["options_sha256"])
    await world.rows("DELETE FROM transcriptions WHERE audio_sha256 <> $1", (await first(world))["audio_sha256"])
    await check_full_rows(world, 45)
    assert await world.uncommitted() == {}


async def first(world: World) -> Row:
    (row,) = await world.rows("SELECT * FROM transcriptions ORDER BY created_at, cached_from IS NOT NULL LIMIT 1")
    return row


async def test_without_the_setting_each_is_transcribed(world: World) -> None:
    await world.submit(*jobs(world, 3))
    async with world.daemon() as daemon:
        await world.until_finished(3, 60)
        assert await found(daemon) == {}
        assert await heard_seconds(daemon, 3) == pytest.approx(3 * ONE.seconds, abs=0.1)
        assert await daemon.terminate() == 0
    assert {row["cached_from"] for row in await world.rows("SELECT cached_from FROM transcriptions")} == {None}


async def test_copies_of_what_cannot_be_read_fail_each_by_itself(world: World) -> None:
    await world.submit(*({"id": str(n), "audio_url": f"{world.web}/manifest.json?copy={n}"} for n in range(20)))
    async with world.daemon(**CACHED) as daemon:
        await world.until_finished(20, 60)
        assert await daemon.terminate() == 0
    failed = await world.rows("SELECT job_id, error_class FROM failures")
    assert {row["job_id"] for row in failed} == {str(n) for n in range(20)}
    assert {row["error_class"] for row in failed} == {"not_audio"}
    assert await world.uncommitted() == {}


async def test_the_daemon_dies_with_all_of_them_under_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.submit(*jobs(world, 30))
    with monkeypatch.context() as patch:
        patch.setenv("V2TD_FAILPOINTS", "write.copied=kill")  # texts were handed on, and no row is durable
        async with world.daemon(testing__failpoints=True, **CACHED) as daemon:
            assert await daemon.process.wait() == -9
    assert await world.finished() == 0
    async with world.daemon(**CACHED) as daemon:
        await world.until_finished(30, 60)
        assert await daemon.terminate() == 0
    await check_full_rows(world, 30)
    assert await world.uncommitted() == {}


async def test_by_way_of_redis_and_without_it(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    async with service.running(folder) as redis:
        cached = {**CACHED, "cache__redis_url": redis.url}
        await world.submit(*jobs(world, 1))
        async with world.daemon(**cached) as daemon:
            await world.until_finished(1, 60)
            assert await daemon.terminate() == 0
        (origin,) = await world.rows("SELECT * FROM transcriptions")
        await world.rows("DELETE FROM transcriptions")  # of the text Redis alone knows now
        await world.submit(*jobs(world, 1))
        async with world.daemon(**cached) as daemon:
            await world.until_finished(1, 60)
            assert await found(daemon) == {"redis": 1}
            redis.kill()
            await world.submit({"audio_url": f"{world.web}/{OTHER.name}"})
            await world.until_finished(2, 60)
            assert await daemon.terminate() == 0
            written = daemon.log.read_text()
        assert redis.password not in written
        assert "without" in written
    again, other = await world.rows("SELECT * FROM transcriptions ORDER BY kafka_offset")
    assert (again["text"], again["cached_from"]) == (ONE.text, origin["id"])
    assert len(await segments_of(world, again)) == len(ONE.segments)
    assert (other["text"], other["cached_from"]) == (OTHER.text, None)


async def test_an_upload_and_a_job_share_a_text_and_the_row_names_nobody(world: World) -> None:
    """What came by HTTP is kept nowhere."""
    settings = {"api__openai": True, "admin__token": TOKEN, **CACHED}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with world.daemon(**settings) as daemon, aiohttp.ClientSession(headers=bearer) as session:

        async def upload() -> str:
            form = aiohttp.FormData({"model": "demo"})
            form.add_field("file", ONE.path.read_bytes(), filename=ONE.name)
            async with session.post(f"http://127.0.0.1:{daemon.port}/v1/audio/transcriptions", data=form) as answer:
                assert answer.status == 200, await answer.text()
                return str((await answer.json())["text"])

        assert await upload() == ONE.text
        await world.submit(*jobs(world, 2, model="demo"))
        await world.until_finished(2, 60)
        assert await upload() == ONE.text
        assert await found(daemon) == {"none": 1, "in_flight": 3}
        assert await daemon.terminate() == 0
    rows = await world.rows("SELECT text, cached_from, timings->>'cached' AS cached FROM transcriptions")
    assert [tuple(row.values()) for row in rows] == 2 * [(ONE.text, None, "in_flight")]


async def test_a_redo_asks_nobody_and_is_found_from_then_on(world: World, tmp_path: Path) -> None:
    other = shutil.copytree(bundled.model_folder(), tmp_path / "other")  # the same model under another name
    await world.submit(*jobs(world, 2))
    async with world.daemon(**CACHED) as daemon:
        await world.until_finished(2, 60)
        assert await daemon.terminate() == 0
    origin = await first(world)
    async with world.daemon(engine__model=str(other), **CACHED) as daemon:
        words = (
            "redo",
            "--job",
            str(origin["id"]),
            "--model",
            str(other),
            "--config",
            str(world.folder / "config.toml"),
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "v2td", *words)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert await found(daemon) == {}
        await world.submit(*jobs(world, 1))
        await world.until_finished(4, 60)
        assert await found(daemon) == {"in_flight": 1}
        assert await daemon.terminate() == 0
    rows = await world.rows("SELECT revision, text, model, cached_from FROM transcriptions ORDER BY created_at")
    again, later = rows[2:]
    assert tuple(again.values()) == (1, ONE.text, str(other), None)
    assert tuple(later.values()) == (0, ONE.text, str(other), origin["id"])
