"""What the API bounds: how many, how long, and for how long nobody listens."""

import asyncio
import json

import aiohttp
import openai
import pytest

from tests.admin.asking import END, FILE, HEADERS, PATH, answer_of, asking, counted, field, head, until
from tests.admin.serving import Daemon
from tests.admin.speaking import Told, api, client_of


async def test_too_many_at_once_are_to_come_again(told: Told) -> None:
    before = counted("busy"), counted("ok")
    async with api(Daemon(transcriber=told), concurrency=1) as url, client_of(url) as client:
        create = client.audio.transcriptions.create
        first = asyncio.create_task(create(model="demo", file=b"one"))
        await until(lambda: len(told.asked) == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            await create(model="demo", file=b"x" * 1_000_000)
        assert caught.value.response.headers["Retry-After"] == "1"
        assert "api.concurrency" in str(caught.value)
        second = asyncio.create_task(
            client.with_options(max_retries=2).audio.transcriptions.create(model="demo", file=b"two")
        )
        await until(lambda: counted("busy") == before[0] + 2)
        told.go.set()
        assert [(await each).text for each in (first, second)] == ["Hello."] * 2
    assert counted("ok") == before[1] + 2
    assert told.heard == [b"one", b"two"]


async def test_who_is_gone_is_not_transcribed(told: Told) -> None:
    before = counted("failed")
    async with asking(told, concurrency=1) as session:
        for body in (FILE + END, FILE + field("stream", "true") + END):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer_of(session, body), 0.5)
            await until(lambda: told.files == [] and told.cancelled == len(told.asked))
        told.go.set()
        async with session.post(PATH, data=FILE + END, headers=HEADERS) as answer:  # its place is free
            assert answer.status == 200
    assert (told.cancelled, counted("failed")) == (2, before + 2)


async def test_who_is_gone_in_the_middle_of_a_body_leaves_nothing(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    async with asking(told, concurrency=1) as session:
        assert session._base_url is not None
        assert session._base_url.port is not None
        _reader, writer = await asyncio.open_connection("127.0.0.1", session._base_url.port)
        writer.write(head(1_000_000) + FILE)
        await until(lambda: len(told.files) == 1)
        writer.close()
        await until(lambda: told.files == [])
        told.go.set()
        async with session.post(PATH, data=FILE + END, headers=HEADERS) as answer:
            assert answer.status == 200
    assert not caplog.records


async def test_the_time_is_limited_and_not_tried_again(told: Told) -> None:
    async with (
        api(Daemon(transcriber=told), request_seconds=0.3) as url,
        client_of(url, max_retries=2) as client,
    ):
        with pytest.raises(openai.InternalServerError, match=r"api\.request_seconds") as caught:
            await client.audio.transcriptions.create(model="demo", file=b"sound")
        assert caught.value.status_code == 504
        stream = await client.audio.transcriptions.create(model="demo", file=b"sound", stream=True)
        with pytest.raises(openai.APIError, match=r"api\.request_seconds"):
            await anext(aiter(stream))
    assert (len(told.asked), told.cancelled, told.files) == (2, 2, [])


async def test_a_connection_at_work_gives_way_to_no_other(told: Told) -> None:
    async with asking(told, {"max_connections": 3}) as session:
        post = asyncio.create_task(answer_of(session))
        await until(lambda: len(told.asked) == 1)
        assert session._base_url is not None
        opened = [await asyncio.open_connection("127.0.0.1", session._base_url.port) for _ in range(6)]
        await until(lambda: sum(reader.at_eof() or reader.exception() is not None for reader, _ in opened) >= 3)
        told.go.set()
        assert json.loads((await post)[1])["text"] == "Hello."
        for _, writer in opened:
            writer.close()


async def test_a_client_that_does_not_read_is_cut_off(told: Told) -> None:
    told.pieces = ("word " * 100_000,) * 100
    async with asking(told, {"request_seconds": 0.5}) as session:
        assert session._base_url is not None
        _reader, writer = await asyncio.open_connection("127.0.0.1", session._base_url.port, limit=1000)
        body = FILE + field("stream", "1") + END
        writer.write(head(len(body)) + body)
        await until(lambda: told.cancelled == 1)
        await until(lambda: told.files == [])
        writer.close()


async def test_who_waits_at_the_end_is_told(told: Told) -> None:
    told.pieces = ("One.",)
    async with aiohttp.ClientSession() as session:
        async with api(Daemon(transcriber=told)) as url:
            whole = asyncio.create_task(answer_of(session, url=url))
            await until(lambda: len(told.asked) == 1)
            streamed = asyncio.create_task(answer_of(session, FILE + field("stream", "1") + END, url))
            await until(lambda: len(told.asked) == 2)
        status, said = await whole
        assert (status, json.loads(said)["error"]["code"]) == (503, "unavailable")
        status, said = await streamed
        first, last, rest = said.split("\n\n")
        assert (status, rest) == (200, "")
        assert json.loads(first.removeprefix("data: ")) == {"type": "transcript.text.delta", "delta": "One."}
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "stopping"
    assert (told.cancelled, told.files) == (2, [])


async def test_who_is_still_sending_at_the_end_is_told_too(told: Told) -> None:
    async with api(Daemon(transcriber=told)) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(head(1_000_000) + FILE)
        await until(lambda: len(told.files) == 1)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"stopping" in answer
    assert (told.asked, told.files) == ([], [])


async def test_a_comment_keeps_a_quiet_stream_open(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2td.admin.sse.BEAT_SECONDS", 0.02)
    async with asking(told) as session:
        body = FILE + field("stream", "true") + END
        async with session.post(PATH, data=body, headers=HEADERS) as answer:
            for _ in range(3):
                assert await answer.content.readline() == b": still at it\n"
                assert await answer.content.readline() == b"\n"
            told.go.set()
            rest = (await answer.text()).replace(": still at it\n\n", "")
    assert [json.loads(each.removeprefix("data: "))["type"] for each in rest.split("\n\n") if each] == [
        "transcript.text.delta",
        "transcript.text.done",
    ]


async def test_the_official_client_does_not_mind_the_comments(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2td.admin.sse.BEAT_SECONDS", 0.02)
    async with api(Daemon(transcriber=told)) as url, client_of(url) as client:
        stream = await client.audio.transcriptions.create(model="demo", file=b"sound", stream=True)
        asyncio.get_running_loop().call_later(0.2, told.go.set)
        assert [event.type async for event in stream] == ["transcript.text.delta", "transcript.text.done"]
