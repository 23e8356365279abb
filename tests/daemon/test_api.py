"""The real daemon's API, asked by the official client while Kafka's jobs go on."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest

from tests.daemon.conftest import Daemon, World
from tests.living import freeze
from v2td.bundled import recordings

pytestmark = pytest.mark.services

TOKEN = "canary-of-the-api-endpoint"
SHORT = next(each for each in recordings() if each.language == "en" and each.seconds < 30)
LONG = next(each for each in recordings() if each.language == "en" and each.seconds > 30)


@asynccontextmanager
async def api(world: World, **settings: Any) -> AsyncIterator[tuple[Daemon, openai.AsyncOpenAI]]:
    """A daemon that serves the API, and a client of it."""
    async with (
        world.daemon(api__openai=True, admin__token=TOKEN, engine__slots=1, **settings) as daemon,
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{daemon.port}/v1", api_key=TOKEN, max_retries=0) as client,
    ):
        yield daemon, client


async def test_an_upload_is_heard_before_what_waits_and_kept_nowhere(world: World) -> None:
    waiting = 24
    async with api(world) as (daemon, client):
        create = client.audio.transcriptions.create
        pid = await _freeze(daemon)
        await world.submit(*({"audio_url": LONG.path.as_uri()} for _ in range(waiting)))
        await _until_busy(daemon)
        asking = asyncio.create_task(create(model="whisper-1", file=SHORT.path))
        async with asyncio.timeout(20):
            while not list((world.folder / "spool").rglob("tmp*")):
                await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGCONT)
        answer = await asking
        assert await world.finished() < waiting / 2
        assert answer.text == SHORT.text
        verbose = await create(
            model="demo", file=SHORT.path, response_format="verbose_json", timestamp_granularities=["word"]
        )
        assert verbose.language == "english"
        assert verbose.words is not None
        assert " ".join(each.word for each in verbose.words) == SHORT.text
        deltas, done = await _streamed(client, LONG.path.read_bytes())
        assert len(deltas) > 1
        assert "".join(deltas) == done
        with pytest.raises(openai.BadRequestError) as caught:
            await create(model="demo", file=b"no audio at all")
        assert caught.value.code == "not_audio"
        assert [each.id for each in (await client.models.list()).data] == ["demo"]
        assert "v2td_api_requests_total" in (metrics := await daemon.metrics())
        assert 'v2td_api_requests_total{result="ok"} 3.0' in metrics
        assert 'v2td_api_requests_total{result="failed"} 1.0' in metrics
        await world.until_finished(waiting, 100)
        assert list((world.folder / "spool").rglob("tmp*")) == []
    rows = await world.rows("SELECT topic, text FROM transcriptions")
    assert [row["topic"] for row in rows] == [world.topic] * waiting
    assert SHORT.text not in {row["text"] for row in rows}
    assert await world.rows("SELECT 1 FROM failures") == []
    assert TOKEN not in daemon.log.read_text()
    assert SHORT.text not in daemon.log.read_text()


async def test_a_client_that_goes_away_leaves_its_place_to_others(world: World) -> None:
    async with api(world, api__concurrency=1) as (daemon, client):
        pid = await _freeze(daemon)
        asking = asyncio.create_task(client.audio.transcriptions.create(model="demo", file=LONG.path))
        await _until_busy(daemon)
        with pytest.raises(openai.RateLimitError):
            await client.audio.transcriptions.create(model="demo", file=SHORT.path)
        asking.cancel()
        async with asyncio.timeout(20):
            while list((world.folder / "spool").rglob("tmp*")):
                await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGCONT)
        answer = await client.audio.transcriptions.create(model="demo", file=SHORT.path)
        assert answer.text == SHORT.text


async def test_each_of_many_gets_its_own_text(world: World) -> None:
    asked = [each for each in recordings() if each.seconds < 30] * 3
    async with api(world, api__concurrency=4, admin__requests_per_second=1000) as (daemon, client):
        patient = client.with_options(max_retries=100)
        create = patient.audio.transcriptions.create
        answers = await asyncio.gather(
            *(create(model="demo", file=each.path, language=each.language) for each in asked)
        )
        assert [answer.text for answer in answers] == [each.text for each in asked]
        busy = re.search(r'v2td_api_requests_total\{result="busy"\} (\d+)', await daemon.metrics())
        assert busy is not None
        assert int(busy[1]) > 0
        await _pause(daemon)  # which is about Kafka
        assert (await create(model="demo", file=SHORT.path)).text == SHORT.text


async def test_a_slot_that_dies_costs_time_only(world: World) -> None:
    async with api(world) as (daemon, client):
        pid = await _freeze(daemon)
        asking = asyncio.create_task(_streamed(client, LONG.path.read_bytes()))
        await _until_busy(daemon)
        os.kill(pid, signal.SIGKILL)
        deltas, done = await asking
        assert "".join(deltas) == done
        assert done.startswith(LONG.text[:40])


async def test_who_waits_when_the_daemon_stops_is_told_to_come_again(world: World) -> None:
    async with api(world) as (daemon, client):
        await _freeze(daemon)
        asking = asyncio.create_task(client.audio.transcriptions.create(model="demo", file=SHORT.path))
        await _until_busy(daemon)
        ended = asyncio.create_task(daemon.terminate())
        with pytest.raises(openai.InternalServerError, match="stopping") as caught:
            await asking
        assert caught.value.status_code == 503
        assert await ended == 0


async def _streamed(client: openai.AsyncOpenAI, recording: bytes) -> tuple[list[str], str]:
    stream = await client.audio.transcriptions.create(model="demo", file=recording, stream=True)
    deltas: list[str] = []
    async for event in stream:
        if event.type == "transcript.text.delta":
            deltas.append(event.delta)
        elif event.type == "transcript.text.done":
            return deltas, event.text
    raise AssertionError("no end")


async def _freeze(daemon: Daemon) -> int:
    """Stop the only slot, so that what it gets certainly is under way; its pid."""
    (slot,) = (await daemon.status())["slots"]
    pid = int(slot["pid"])
    freeze(pid)
    return pid


async def _pause(daemon: Daemon) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}", headers=headers) as session,
        session.post("/v1/intake/pause", json={}) as answer,
    ):
        assert answer.ok, await answer.text()
    async with asyncio.timeout(20):
        while not (await daemon.status())["paused"]:
            await asyncio.sleep(0.05)


async def _until_busy(daemon: Daemon) -> None:
    async with asyncio.timeout(20):
        while not any(slot["state"] == "busy" for slot in (await daemon.status())["slots"]):
            await asyncio.sleep(0.05)
