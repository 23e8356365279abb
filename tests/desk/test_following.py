"""A job is followed by events until it ends, by a bounded number of clients; and who has the token may ask often."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.desk.conftest import Office, ask, filled, served
from v2td.admin import jobs_events
from v2td.errors import ErrorClass
from v2td.jobs import Coordinates, Failure, Job, SourceRecord

BODY = {"audio_url": "https://user:canary@example.com/a.wav?sig=canary", "id": "call"}


class Following:
    """The events of a stream, one by one."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        self._answer = answer

    async def next(self) -> tuple[str, dict[str, Any]] | None:
        """Id and state of the next one; None at the end."""
        number = ""
        async with asyncio.timeout(15):
            async for line in self._answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    number = value
                elif name == "data":
                    return number, json.loads(value)
        return None

    async def until(self, state: str) -> tuple[str, dict[str, Any]]:
        """The first one with the state."""
        while True:
            found = await self.next()
            assert found is not None
            if found[1]["state"] == state:
                return found


async def test_a_stream_tells_of_every_change_and_ends_with_the_job(office: Office) -> None:
    async with office.desk() as desk, served(desk) as session:
        _, submitted = await ask(session, "POST", "/v1/jobs", json=BODY)
        async with session.get(submitted["links"]["events"]) as answer:
            events = Following(answer)
            queued = await events.until("queued")
            assert queued[1]["position"] == submitted["offset"]
            record = (await office.records())[0]
            at = Coordinates(desk._submitting._producer.cluster_id, record.topic, *_place(record))
            assert str(at.row_id()) == submitted["id"]
            trail = office.board.open(Job(at, BODY["audio_url"], job_id="call"))
            trail.stage = "prepare"
            trail.windows_known = 3
            _, running = await events.until("running")
            assert (running["progress"]["stage"], running["progress"]["windows_known"]) == ("prepare", 3)
            assert "canary" not in json.dumps(running)
            assert (await ask(session, "GET", "/v1/jobs/call"))[1]["id"] == submitted["id"]
            trail.windows_heard.add(0)
            following = await events.next()
            assert following is not None
            assert following[1]["progress"]["windows_done"] == 1
            office.board.close(trail, None)  # given up, as when a partition goes
            await events.until("queued")
            await office.sql(
                "INSERT INTO window_results VALUES ($1, 0, '', '{}'), ($1, 1, '', '{}'), ($1, 1, 'x', '{}')",
                submitted["id"],
            )
            assert (await events.until("running"))[1]["windows_saved"] == 2
            await office.sql(
                """
                INSERT INTO failures (id, cluster_id, topic, kafka_partition, kafka_offset, record_index, error_class,
                    reason, attempts, headers) VALUES ($1, 'c', $2, $3, $4, 0, 'cancelled', 'by api', 1, '[]')
                """,
                *(submitted["id"], submitted["topic"], submitted["partition"], submitted["offset"]),
            )
            number, ended = await events.until("cancelled")
            assert ended["fault"]["reason"] == "by api"
            assert await events.next() is None
        async with session.get(submitted["links"]["events"], headers={"Last-Event-ID": number}) as answer:
            assert answer.status == 204
        # Asked again, it may be an instance that remembers more of the job, or one that remembers nothing.
        again = office.board.open(Job(at, BODY["audio_url"], job_id="call", priority=2))
        again.add("fetch", again.began, 1.0)
        reason = Failure(at, ErrorClass.CANCELLED, "by api", 1, SourceRecord(None, None, ()))
        office.board.close(again, reason)
        async with session.get(submitted["links"]["events"], headers={"Last-Event-ID": number}) as answer:
            assert answer.status == 204
        async with session.get(submitted["links"]["events"], headers={"Last-Event-ID": "another"}) as answer:
            assert [(await Following(answer).next() or ("", {}))[0]] == [number]


def _place(record: Any) -> tuple[int, int, int]:
    return record.partition, record.offset, record.timestamp


async def test_streams_are_few_and_end_with_the_server(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_events, "MAX_STREAMS", 1)
    async with office.desk() as desk, aiohttp.ClientSession() as others:
        async with served(desk) as session:
            _, submitted = await ask(session, "POST", "/v1/jobs", json=BODY)
            path = submitted["links"]["events"]
            async with session.get(path) as answer:
                assert await Following(answer).next() is not None
                status, problem = await ask(session, "GET", path)
                assert (status, "1 streams" in problem["detail"]) == (503, True)
            async with asyncio.timeout(10):  # the client is gone: its place is free again
                while True:
                    assert session._base_url is not None
                    answer = await others.get(session._base_url.join(URL(path)), headers=session.headers)
                    if answer.status == 200:
                        break
                    await asyncio.sleep(0.05)
            events = Following(answer)
            assert await events.next() is not None
        assert await events.next() is None


async def test_the_token_may_ask_often_and_no_other(office: Office) -> None:
    (job, *_), _ = await filled(office)
    async with office.desk() as desk, served(desk, requests_per_second=1) as session:
        for _ in range(30):
            assert (await ask(session, "GET", f"/v1/jobs/{job}"))[0] == 200
        guess = {"Authorization": "Bearer a guess of sixteen characters"}
        statuses = [(await ask(session, "GET", f"/v1/jobs/{job}", headers=guess))[0] for _ in range(12)]
        assert statuses[0] == 401
        assert statuses[-1] == 429
        assert (await ask(session, "GET", f"/v1/jobs/{job}"))[0] == 200
