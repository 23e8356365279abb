"""What a dead daemon leaves unfinished: windows that were heard are not heard again, and what kills is put away."""

from __future__ import annotations

import asyncio
import difflib

import pytest

from tests.daemon.conftest import Daemon, World
from v2td import bundled, failpoints

LONG = next(each for each in bundled.recordings() if each.seconds > 60 and each.language == "en")
SHORT = next(each for each in bundled.recordings() if each.seconds < 30)
ONE_SLOT = {"engine__slots": 1, "engine__batch_windows": 1, "testing__failpoints": True}


async def until_count(world: World, table: str, count: int) -> None:
    async with asyncio.timeout(60):
        while len(await world.rows(f"SELECT FROM {table}")) < count:
            await asyncio.sleep(0.05)


def words_right(heard: str, said: str) -> float:
    return difflib.SequenceMatcher(None, heard.split(), said.split(), autojunk=False).ratio()


async def value_of(daemon: Daemon, metric: str) -> float:
    lines = (await daemon.metrics()).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{metric} ", f"{metric}{{")))


async def test_a_restart_goes_on_where_it_was_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.submit({"audio_url": f"{world.web}/{LONG.name}"})
    monkeypatch.setenv(failpoints.VARIABLE, "slot.batch=sleep1@*")
    async with world.daemon(**ONE_SLOT, pipeline__progress_seconds=0.3) as daemon:
        await until_count(world, "window_results", 2)
        await daemon.kill()
    saved = len(await world.rows("SELECT FROM window_results"))
    assert await world.finished() == 0
    monkeypatch.delenv(failpoints.VARIABLE)
    async with world.daemon(engine__slots=1, pipeline__progress_seconds=0.3) as daemon:
        await world.until_finished(1, 60)
        assert await value_of(daemon, "v2td_windows_resumed_total") == saved >= 2
        assert await daemon.terminate() == 0
    (row,) = await world.rows("SELECT text, timings FROM transcriptions")
    timings = row["timings"] if isinstance(row["timings"], str) else ""
    assert timings.count('"slot": -1') == saved
    assert words_right(row["text"], LONG.text) > 0.98
    assert await world.rows("SELECT FROM window_results") == []


async def test_the_windows_of_another_audio_are_not_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording behind the URL was replaced meanwhile."""
    other = next(each for each in bundled.recordings() if each.seconds > 60 and each.language == "vi")
    served = world.folder / "served.ogg"
    served.write_bytes(LONG.path.read_bytes())
    roots = {"fetch__file_roots": [str(world.folder)]}
    await world.submit({"audio_url": served.as_uri()})
    monkeypatch.setenv(failpoints.VARIABLE, "slot.batch=sleep1@*")
    async with world.daemon(**ONE_SLOT, **roots, pipeline__progress_seconds=0.3) as daemon:
        await until_count(world, "window_results", 1)
        await daemon.kill()
    served.write_bytes(other.path.read_bytes())
    monkeypatch.delenv(failpoints.VARIABLE)
    async with world.daemon(engine__slots=1, **roots) as daemon:
        await world.until_finished(1, 60)
        assert await value_of(daemon, "v2td_windows_resumed_total") == 0
        assert await daemon.terminate() == 0
    (row,) = await world.rows("SELECT text FROM transcriptions")
    assert words_right(row["text"], other.text) > 0.98
    assert await world.rows("SELECT FROM window_results") == []


@pytest.mark.parametrize("place", ["slot.batch", "decoder.piece"])
async def test_a_job_that_kills_processes_over_restarts_is_quarantined(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    await world.submit({"id": "killer", "audio_url": f"{world.web}/{SHORT.name}"})
    monkeypatch.setenv(failpoints.VARIABLE, f"{place}=kill")
    async with world.daemon(**ONE_SLOT, speech__decoders=1) as daemon:
        await until_count(world, "child_deaths", 1)
        await daemon.kill()  # while the process that died is brought up again
    assert await world.finished() == 0
    async with world.daemon(**ONE_SLOT, speech__decoders=1) as daemon:
        await world.until_finished(1, 60)
        assert await daemon.terminate() == 0
    (row,) = await world.rows("SELECT job_id, error_class, reason FROM failures")
    assert (row["job_id"], row["error_class"]) == ("killer", "poison")
    assert "2 processes died" in row["reason"]
    assert await world.rows("SELECT FROM child_deaths") == []
    (letter,) = await world.dead_letter_records()
    assert dict(letter.headers)["v2td-error-class"] == b"poison"


async def test_too_many_failures_pause_the_intake(world: World) -> None:
    await world.submit(*({"audio_url": f"{world.web}/no-such-{n}.ogg"} for n in range(40)))
    circuit = {"pipeline__breaker_jobs": 10, "pipeline__breaker_pause_seconds": 4, "pipeline__max_in_flight": 2}
    async with world.daemon(**circuit) as daemon:
        async with asyncio.timeout(30):
            while (status := await daemon.status())["ready"]:
                await asyncio.sleep(0.05)
        assert "too many jobs fail" in status["not_ready_because"]
        assert await value_of(daemon, "v2td_circuit_open") == 1
        await asyncio.sleep(1)
        while_open = await world.finished()
        assert 10 <= while_open <= 10 + 2 * 2
        await asyncio.sleep(1)
        assert await world.finished() == while_open
        await world.until_finished(while_open + 3, 30)  # the pause ends, ten are tried, and three tell enough
        await asyncio.sleep(1)
        assert await world.finished() <= while_open + 10
        assert await daemon.terminate() == 0
