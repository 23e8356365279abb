"""The real daemon's jobs API: from a request to files of the transcript, and what people may do about jobs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.daemon.conftest import Daemon, World
from v2td.bundled import recordings

pytestmark = pytest.mark.services

TOKEN = "canary-of-the-jobs-endpoint"
SHORT = next(each for each in recordings() if each.language == "en" and each.seconds < 30)
LONG = next(each for each in recordings() if each.language == "en" and each.seconds > 30)
MEDIA = {
    "json": "application/json",
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "tsv": "text/tab-separated-values",
    "md": "text/markdown",
}


@asynccontextmanager
async def serving(world: World, **settings: Any) -> AsyncIterator[tuple[Daemon, aiohttp.ClientSession]]:
    """A daemon with the API, and a client of it."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        world.daemon(admin__token=TOKEN, engine__slots=1, **settings) as daemon,
        aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}", headers=headers) as session,
    ):
        yield daemon, session


async def ask(session: aiohttp.ClientSession, method: str, path: str, **more: Any) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with session.request(method, path, **more) as answer:
        return answer.status, await answer.json(content_type=None)


async def followed(session: aiohttp.ClientSession, path: str) -> list[tuple[str, dict[str, Any]]]:
    """All events of a stream, with their ids."""
    events: list[tuple[str, dict[str, Any]]] = []
    number = ""
    async with session.get(path) as answer:
        assert answer.content_type == "text/event-stream"
        async for line in answer.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                number = value
            elif name == "data":
                events.append((number, json.loads(value)))
    return events


async def test_from_requests_to_transcripts_and_what_people_do_meanwhile(world: World) -> None:
    async with serving(world, pipeline__max_in_flight=1, pipeline__attempts=1) as (daemon, session):
        await from_a_request_to_the_transcript(world, daemon, session)
        await what_people_may_do_about_jobs(world, daemon, session)
    assert TOKEN not in daemon.log.read_text()


async def paused(daemon: Daemon, session: aiohttp.ClientSession) -> None:
    """Have the intake take up nothing."""
    assert (await ask(session, "POST", "/v1/intake/pause"))[0] == 202
    async with asyncio.timeout(20):
        while "v2td_kafka_paused 1.0" not in await daemon.metrics():  # a poll that is under way still brings records
            await asyncio.sleep(0.05)


async def from_a_request_to_the_transcript(world: World, daemon: Daemon, session: aiohttp.ClientSession) -> None:
    body = {"audio_url": f"{world.web}/{LONG.path.name}?key=canary", "id": "call/1", "language": "en"}
    key = {"Idempotency-Key": "a-key"}
    await paused(daemon, session)
    async with session.post("/v1/jobs", json=body, headers=key) as answer:
        assert answer.status == 202
        first = await answer.json()
        assert answer.headers["Location"] == first["links"]["self"] == f"/v1/jobs/{first['id']}"
    assert (first["job_id"], first["topic"]) == ("call/1", world.topic)
    async with session.post("/v1/jobs", json=dict(reversed(body.items())), headers=key) as answer:
        assert (answer.status, answer.headers["Idempotency-Replayed"], await answer.json()) == (200, "true", first)
    assert (await ask(session, "POST", "/v1/jobs", json=body | {"task": "translate"}, headers=key))[0] == 422
    following = asyncio.create_task(followed(session, first["links"]["events"]))
    status, state = await ask(session, "GET", "/v1/jobs/call%2F1")
    assert (status, state["id"], state["state"]) == (200, first["id"], "queued")
    assert "canary" not in state["audio_url"]
    assert (await ask(session, "POST", "/v1/intake/resume", json={}))[0] == 202
    async with asyncio.timeout(60):
        events = await following
    states = [state["state"] for _, state in events]
    assert states[0] == "queued"
    assert states[-1] == "transcribed"
    assert set(states[:-1]) <= {"queued", "running"}
    progress = [state["progress"] for _, state in events if state["progress"]]
    assert [each["windows_done"] for each in progress] == sorted(each["windows_done"] for each in progress)
    last = events[-1][1]
    assert {each["stage"] for each in last["steps"]} >= {"fetch", "prepare", "transcribe", "write"}
    assert last["heard"]["language"] == "en"
    async with session.get(first["links"]["events"], headers={"Last-Event-ID": events[-1][0]}) as answer:
        assert answer.status == 204
    for wanted, media in MEDIA.items():
        async with session.get(f"/v1/transcripts/{first['id']}", params={"format": wanted}) as answer:
            assert (answer.status, answer.content_type) == (200, media)
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{first["id"]}.{wanted}"'
            text = await answer.text()
            assert LONG.text.split()[0] in text
    listed = (await ask(session, "GET", "/v1/jobs"))[1]
    assert [each["id"] for each in listed["data"]] == [first["id"]]
    assert listed["next"] is None
    word = LONG.text.split()[1].strip(",.")
    found = (await ask(session, "GET", "/v1/transcripts", params={"query": word, "language": "en"}))[1]
    assert [each["id"] for each in found["data"]] == [first["id"]]
    assert found["data"][0]["passages"]
    assert (await ask(session, "DELETE", first["links"]["self"]))[0] == 409
    assert 'v2td_submissions_total{result="ok"} 1.0' in (metrics := await daemon.metrics())
    assert 'v2td_submissions_total{result="repeated"} 1.0' in metrics
    assert len(await world.records(world.topic)) == 1


async def what_people_may_do_about_jobs(world: World, daemon: Daemon, session: aiohttp.ClientSession) -> None:
    await paused(daemon, session)
    jobs = [(await ask(session, "POST", "/v1/jobs", json={"audio_url": SHORT.path.as_uri()}))[1] for _ in range(3)]
    missing = {"audio_url": f"{world.web}/not-there.wav", "id": "missing"}
    assert (await ask(session, "POST", "/v1/jobs", json=missing))[0] == 202
    waiting = jobs[-1]["links"]["self"]
    assert (await ask(session, "GET", waiting))[1]["state"] == "queued"
    assert (await ask(session, "PATCH", waiting, json={"priority": 0}))[0] == 202
    assert (await ask(session, "PATCH", waiting, json={"priority": 10}))[0] == 422
    assert (await ask(session, "DELETE", waiting))[0] == 202
    assert (await ask(session, "POST", "/v1/intake/pause", json={"instance": "nobody"}))[0] == 422
    assert (await ask(session, "POST", "/v1/intake/resume", json={}))[0] == 202
    await world.until_finished(5, 60)
    assert (await ask(session, "GET", waiting))[1]["state"] == "cancelled"
    status, failed = await ask(session, "GET", "/v1/jobs/missing")
    assert (status, failed["state"], failed["fault"]["error_class"]) == (200, "failed", "not_found")
    assert (await ask(session, "POST", "/v1/jobs/missing/replay"))[0] == 202
    async with asyncio.timeout(30):
        while (await ask(session, "GET", "/v1/jobs/missing"))[1]["state"] != "failed":
            await asyncio.sleep(0.1)
    listed = (await ask(session, "GET", "/v1/jobs", params={"class": "not_found"}))[1]["data"]
    assert [each["job_id"] for each in listed] == ["missing"]
    acts = (await ask(session, "GET", "/v1/audit"))[1]["data"]
    assert [each["action"] for each in acts] == [
        *("replay", "resume", "cancel", "priority", "pause"),
        *("resume", "pause"),
    ]
    assert {each["actor"] for each in acts} == {"api"}
