"""What the API does not do, and how it says so: to the official client, and to whoever speaks raw HTTP."""

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.admin.serving import BEARER, Daemon, raw, rejected
from tests.admin.speaking import Told, api, client_of
from v2td.admin import serve
from v2td.config import AdminSettings, ApiSettings
from v2td.errors import ErrorClass, JobError, NoRoomError, ProviderFailedError, ServiceError
from v2td.fetch.spool import Spool
from v2td.metrics import API_REQUESTS

PATH = "/v1/audio/transcriptions"
BOUNDARY = "frontier"
HEADERS = {**BEARER, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
FILE = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n'
END = b"--frontier--\r\n"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with Spool(tmp_path) as spool:
        yield Told(spool)


def counted(result: str) -> float:
    return float(API_REQUESTS.labels(result)._value.get())


def field(name: str, value: str) -> bytes:
    return f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


@asynccontextmanager
async def asking(
    told: Told, admin: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    async with api(Daemon(transcriber=told), admin, **settings) as url, aiohttp.ClientSession(url) as session:
        yield session


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


class TestFields:
    @pytest.mark.parametrize(
        ("fields", "status", "code", "param", "said"),
        [
            ({"model": "gpt-9"}, 404, "model_not_found", "model", "'gpt-9' is none of those that are there (demo"),
            ({"language": "english"}, 400, "invalid_value", "language", "did you mean 'en'?"),
            ({"response_format": "xml"}, 400, "invalid_value", "response_format", "'xml'"),
            ({"temperature": "2"}, 400, "invalid_value", "temperature", "less than or equal to 1"),
            ({"temperature": "nan"}, 400, "invalid_value", "temperature", "temperature: "),
            ({"beam_size": "17"}, 400, "invalid_value", "beam_size", "less than or equal to 16"),
            ({"stream": "perhaps"}, 400, "invalid_value", "stream", "'perhaps'"),
            ({"chunking_strategy": "none"}, 400, "invalid_value", "chunking_strategy", "'auto'"),
            ({"prompt": "a\0b"}, 400, "invalid_value", "prompt", "NUL"),
            ({"prompt": "x" * 5000}, 400, "invalid_value", "prompt", "4096"),
            ({"timestamp_granularities[]": "word"}, 400, "invalid_value", None, "needs response_format verbose_json"),
            ({"stream": "true", "response_format": "srt"}, 400, "invalid_value", None, "needs response_format json"),
            ({"language": "en", "languages[]": "vi"}, 400, "invalid_value", None, "leave one out"),
            ({"languge": "en"}, 400, "unknown_parameter", None, "did you mean language"),
            ({"model[]": "demo"}, 400, "unknown_parameter", None, "unknown field 'model[]'"),
            ({"include[]": "logprobs"}, 400, "unknown_parameter", None, "unknown field 'include[]'"),
        ],
    )
    async def test_a_wrong_one_is_named(
        self, told: Told, *, fields: dict[str, str], status: int, code: str, param: str | None, said: str
    ) -> None:
        before = counted("refused")
        body = FILE + b"".join(field(name, value) for name, value in fields.items()) + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"], error["param"]) == (status, code, param)
            assert error["type"] == "invalid_request_error"
            assert said in error["message"]
        assert (told.asked, told.files) == ([], [])
        assert counted("refused") == before + 1

    async def test_an_empty_one_is_as_good_as_none_and_brackets_may_be_left_out(self, told: Told) -> None:
        told.go.set()
        fields = {"language": "", "model": "", "timestamp_granularities": "word", "response_format": "verbose_json"}
        body = b"".join(field(name, value) for name, value in fields.items()) + FILE + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 200
        (asked,) = told.asked
        assert (asked.model, asked.options.language, asked.options.word_timestamps) == (None, None, True)
        assert told.heard == [b"sound"]

    async def test_one_that_is_no_text_or_there_twice_is_refused(self, told: Told) -> None:
        async with asking(told) as session:
            for more, said in (
                (field("prompt", "x").replace(b"x\r", b"\xff\r"), "prompt: is not UTF-8"),
                (field("model", "demo") * 2, "model: is there 2 times"),
                (FILE, "file: is there twice"),
                (field("keywords[]", "x") * 200, "more than 200 fields"),
            ):
                async with session.post(PATH, data=FILE + more + END, headers=HEADERS) as answer:
                    assert answer.status == 400
                    assert said in (await answer.json())["error"]["message"]
        assert told.files == []


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (END, "file: is missing"),
            (field("model", "demo") + END, "file: is missing"),
            (b"", "not valid multipart"),
            (b"--other\r\n\r\n--other--\r\n", "not valid multipart"),
            (FILE, "not valid multipart"),
            (FILE.replace(b'; name="file"', b"") + END, "each part is a field with a name"),
            (b"--frontier\r\nContent-Disposition: form-data; name", "each part is a field with a name"),
            (b"--frontier\r\n" + b"X: y\r\n" * 1000 + b"\r\n" + END, "not valid multipart"),
            (b"--frontier\r\n" + b"X" * 200_000 + END, "not valid multipart"),
            (b"--frontier\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n" + END, "each part is a field"),
        ],
    )
    async def test_what_is_no_form_is_refused(self, told: Told, body: bytes, said: str) -> None:
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 400
            assert said in (await answer.json())["error"]["message"]
        assert (told.asked, told.files) == ([], [])

    @pytest.mark.parametrize(
        "disposition",
        [
            'form-data; name="file"; filename="a call.wav"',
            'form-data; filename="name=x; name=y"; name="file"',
            "form-data; name=file; filename*=UTF-8''%E1%BB%87.wav",
            'form-data; name="file"; filename="a \\"call\\".wav"; size=5;',
            'form-data;name="file";filename="\u1ec7.wav"',
        ],
    )
    async def test_clients_write_heads_of_parts_in_many_ways(self, told: Told, disposition: str) -> None:
        told.go.set()
        head, rest = FILE.split(b"form-data", 1)
        body = head + disposition.encode() + rest[rest.index(b"\r") :] + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 200
        assert told.heard == [b"sound"]

    @pytest.mark.parametrize(
        "disposition",
        [
            "form-data",
            "",
            "attachment; name=file",
            "form-data; name=file; name=file",
            'form-data; name="file',
            "form-data; name",
        ],
    )
    async def test_a_head_that_names_no_field_is_refused(self, told: Told, disposition: str) -> None:
        head, rest = FILE.split(b"form-data", 1)
        body = head + disposition.encode() + rest[rest.index(b"\r") :] + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 400
            assert "each part is a field with a name" in (await answer.json())["error"]["message"]

    @pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/mixed; boundary=frontier"])
    async def test_other_kinds_are_refused(self, told: Told, kind: str) -> None:
        headers = {**BEARER, "Content-Type": kind}
        async with asking(told) as session, session.post(PATH, data=FILE + END, headers=headers) as answer:
            assert answer.status == 415
            assert "multipart/form-data" in (await answer.json())["error"]["message"]

    async def test_a_form_without_a_boundary_is_refused(self, told: Told) -> None:
        headers = {**BEARER, "Content-Type": "multipart/form-data"}
        async with asking(told) as session, session.post(PATH, data=FILE + END, headers=headers) as answer:
            assert answer.status == 400

    @pytest.mark.parametrize("seed", range(30))
    async def test_damaged_forms_are_refused_or_taken_and_leave_nothing(self, told: Told, seed: int) -> None:
        chance, told_body = (
            random.Random(seed),
            bytearray(field("model", "demo") + FILE + field("stream", "false") + END),
        )
        told.go.set()
        async with asking(told) as session:
            for _ in range(20):
                body = bytearray(told_body)
                for _ in range(chance.randint(1, 4)):
                    at = chance.randrange(len(body))
                    match chance.randrange(3):
                        case 0:
                            body[at] = chance.randrange(256)
                        case 1:
                            del body[at : at + chance.randint(1, 30)]
                        case _:
                            body[at:at] = body[: chance.randrange(len(body))]
                async with session.post(PATH, data=bytes(body), headers=HEADERS) as answer:
                    assert answer.status in {200, 400, 404}, bytes(body)
        assert told.files == []

    async def test_a_long_recording_is_refused_announced_or_not(self, told: Told) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield FILE.removesuffix(b"\r\n")
            for _ in range(100):
                yield b"x" * 10_000
            yield b"\r\n" + END

        before = rejected("body")
        async with asking(told, {"max_body_bytes": 1000}, max_bytes=50_000) as session:
            whole = b"".join([each async for each in chunks()])
            for data in (whole, chunks()):
                async with session.post(PATH, data=data, headers=HEADERS) as answer:
                    error = (await answer.json())["error"]
                    assert (answer.status, error["code"], error["param"]) == (413, "too_large", "file")
                    assert "api.max_bytes" in error["message"]
            async with session.post(PATH, data=FILE + field("prompt", "x" * 1001) + END, headers=HEADERS) as answer:
                assert answer.status == 413
                assert "admin.max_body_bytes" in (await answer.json())["error"]["message"]
        assert rejected("body") == before + 3
        assert (told.asked, told.files) == ([], [])

    async def test_one_of_the_longest_that_may_be_is_taken(self, told: Told) -> None:
        told.go.set()
        sound = random.Random(1).randbytes(5_000_000)
        async with asking(told, max_bytes=len(sound)) as session:
            body = FILE.replace(b"sound", sound) + END
            async with session.post(PATH, data=io.BytesIO(body), headers=HEADERS) as answer:
                assert answer.status == 200
        assert told.heard == [sound]
        assert told.asked[0].audio.size_bytes == len(sound)

    async def test_who_stops_sending_is_not_waited_for(self, told: Told) -> None:
        before = rejected("slow")
        async with asking(told, {"request_seconds": 0.3}) as session:
            answer = await raw(session, _head(1000) + FILE)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"admin.request_seconds" in answer
        assert rejected("slow") == before + 1
        assert told.files == []

    async def test_who_waits_to_be_invited_sends_nothing_to_a_refusal(self, told: Told) -> None:
        told.go.set()
        expecting = b"Expect: 100-continue\r\n"
        async with asking(told) as session:
            body = FILE + END
            invited = await raw(session, _head(len(body), expecting + b"Connection: close\r\n"), body)
            assert invited.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
            wrong = _head(len(body), expecting).replace(b"Bearer a", b"Bearer b")
            assert (await raw(session, wrong)).startswith(b"HTTP/1.1 401 ")
            assert (await raw(session, _head(10**9, expecting))).startswith(b"HTTP/1.1 413 ")
            assert (await raw(session, _head(len(body), b"Expect: luck\r\n"))).startswith(b"HTTP/1.1 417 ")
        assert len(told.asked) == 1


class TestLimits:
    async def test_too_many_at_once_are_to_come_again(self, told: Told) -> None:
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

    async def test_who_is_gone_is_not_transcribed(self, told: Told) -> None:
        before = counted("failed")
        async with asking(told, concurrency=1) as session:
            for body in (FILE + END, FILE + field("stream", "true") + END):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(_text(session, body), 0.5)
                await until(lambda: told.files == [] and told.cancelled == len(told.asked))
            told.go.set()
            async with session.post(PATH, data=FILE + END, headers=HEADERS) as answer:  # its place is free
                assert answer.status == 200
        assert (told.cancelled, counted("failed")) == (2, before + 2)

    async def test_who_is_gone_in_the_middle_of_a_body_leaves_nothing(
        self, told: Told, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with asking(told, concurrency=1) as session:
            assert session._base_url is not None
            assert session._base_url.port is not None
            _reader, writer = await asyncio.open_connection("127.0.0.1", session._base_url.port)
            writer.write(_head(1_000_000) + FILE)
            await until(lambda: len(told.files) == 1)
            writer.close()
            await until(lambda: told.files == [])
            told.go.set()
            async with session.post(PATH, data=FILE + END, headers=HEADERS) as answer:
                assert answer.status == 200
        assert not caplog.records

    async def test_the_time_is_limited_and_not_tried_again(self, told: Told) -> None:
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

    async def test_a_connection_at_work_gives_way_to_no_other(self, told: Told) -> None:
        async with asking(told, {"max_connections": 3}) as session:
            post = asyncio.create_task(_text(session))
            await until(lambda: len(told.asked) == 1)
            assert session._base_url is not None
            opened = [await asyncio.open_connection("127.0.0.1", session._base_url.port) for _ in range(6)]
            await until(lambda: sum(reader.at_eof() or reader.exception() is not None for reader, _ in opened) >= 3)
            told.go.set()
            assert json.loads(await post)["text"] == "Hello."
            for _, writer in opened:
                writer.close()

    async def test_a_client_that_does_not_read_is_cut_off(self, told: Told) -> None:
        told.pieces = ("word " * 100_000,) * 100
        async with asking(told, {"request_seconds": 0.5}) as session:
            assert session._base_url is not None
            _reader, writer = await asyncio.open_connection("127.0.0.1", session._base_url.port, limit=1000)
            body = FILE + field("stream", "1") + END
            writer.write(_head(len(body)) + body)
            await until(lambda: told.cancelled == 1)
            await until(lambda: told.files == [])
            writer.close()


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "status", "code", "retry_after", "again"),
        [
            (JobError(ErrorClass.NOT_AUDIO, "no audio"), 400, "not_audio", None, None),
            (JobError(ErrorClass.TOO_LONG, "too long"), 400, "too_long", None, None),
            (JobError(ErrorClass.TOO_LARGE, "too large"), 413, "too_large", None, None),
            (JobError(ErrorClass.DECODER_CRASH, "it died"), 422, "decoder_crash", None, None),
            (JobError(ErrorClass.POISON, "a bug"), 500, "poison", None, "false"),
            (ProviderFailedError("down", 17.2), 503, "provider_error", "18", None),
            (ProviderFailedError("down"), 503, "provider_error", "5", None),
            (JobError(ErrorClass.PROVIDER_ERROR, "not that"), 502, "provider_error", None, None),
            (NoRoomError("spool", "/var/spool: full"), 503, "unavailable", "5", None),
            (ServiceError("load", "/etc/secret"), 503, "unavailable", "5", None),
            (ZeroDivisionError("a bug"), 500, None, None, None),
        ],
    )
    async def test_each_has_its_status(
        self, told: Told, *, error: Exception, status: int, code: str | None, retry_after: str | None, again: str | None
    ) -> None:
        told.error = error
        told.go.set()
        before = counted("failed")
        async with asking(told) as session:
            async with session.post(PATH, data=FILE + END, headers=HEADERS) as answer:
                said = (await answer.json())["error"]
                assert (answer.status, said["code"]) == (status, code)
                assert answer.headers.get("Retry-After") == retry_after
                assert answer.headers.get("x-should-retry") == again
            async with session.post(PATH, data=FILE + field("stream", "true") + END, headers=HEADERS) as answer:
                assert (answer.status, answer.content_type) == (200, "text/event-stream")
                assert json.loads((await answer.text()).removeprefix("data: ")) == {"error": said}
        if isinstance(error, JobError):
            assert said["message"] == error.reason
        else:
            assert not {"/var/spool", "/etc/secret", "a bug"} & set(said["message"].split())
        assert counted("failed") == before + 2
        assert told.files == []

    async def test_what_was_said_comes_before_the_error(self, told: Told) -> None:
        told.pieces, told.error = ("One.", " Two. "), JobError(ErrorClass.TRUNCATED, "it ends early")
        told.go.set()
        async with api(Daemon(transcriber=told)) as url, client_of(url) as client:
            stream = aiter(await client.audio.transcriptions.create(model="demo", file=b"sound", stream=True))
            for expected in ("One.", " Two."):
                event = await anext(stream)
                assert event.type == "transcript.text.delta"
                assert event.delta == expected
            with pytest.raises(openai.APIError, match="it ends early"):
                await anext(stream)

    async def test_nothing_is_taken_while_nothing_is_ready(self, told: Told) -> None:
        daemon = Daemon(transcriber=told, not_ready="stopping")
        before = counted("refused")
        async with api(daemon) as url, client_of(url) as client:
            with pytest.raises(openai.InternalServerError, match="not ready: stopping") as caught:
                await client.audio.transcriptions.create(model="demo", file=b"sound")
            assert (caught.value.status_code, caught.value.response.headers["Retry-After"]) == (503, "5")
            assert [each.id for each in (await client.models.list()).data] == ["demo", "larger/one"]
        assert counted("refused") == before + 1

    async def test_who_waits_at_the_end_is_told(self, told: Told) -> None:
        told.pieces = ("One.",)
        async with aiohttp.ClientSession() as session:
            async with api(Daemon(transcriber=told)) as url:
                whole = asyncio.create_task(_answer(session, url + PATH, FILE + END))
                await until(lambda: len(told.asked) == 1)
                streamed = asyncio.create_task(_answer(session, url + PATH, FILE + field("stream", "1") + END))
                await until(lambda: len(told.asked) == 2)
            status, said = await whole
            assert (status, json.loads(said)["error"]["code"]) == (503, "unavailable")
            status, said = await streamed
            first, last, rest = said.split("\n\n")
            assert (status, rest) == (200, "")
            assert json.loads(first.removeprefix("data: ")) == {"type": "transcript.text.delta", "delta": "One."}
            assert json.loads(last.removeprefix("data: "))["error"]["message"] == "stopping"
        assert (told.cancelled, told.files) == (2, [])


class TestGuard:
    async def test_the_token_is_asked_for_everywhere(self, told: Told) -> None:
        async with api(Daemon(transcriber=told)) as url, client_of(url, api_key="somebody else's") as client:
            with pytest.raises(openai.AuthenticationError, match="not the token") as caught:
                await client.audio.transcriptions.create(model="demo", file=b"sound")
            assert caught.value.type == "authentication_error"
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
            with pytest.raises(openai.AuthenticationError):
                await client.models.retrieve("demo")
        async with api(Daemon(transcriber=told), {"token": None}) as url, client_of(url) as client:
            with pytest.raises(openai.PermissionDeniedError, match=r"admin\.token"):
                await client.models.list()
        assert told.asked == []

    async def test_the_rate_is_limited_as_openai_says_it(self, told: Told) -> None:
        async with api(Daemon(transcriber=told), {"requests_per_second": 1}) as url, client_of(url) as client:
            for _ in range(10):
                await client.models.list()
            with pytest.raises(openai.RateLimitError, match=r"admin\.requests_per_second"):
                await client.models.list()

    @pytest.mark.parametrize("openai_on", [False, True])
    async def test_there_is_nothing_unless_it_is_turned_on(self, told: Told, openai_on: bool) -> None:
        view = Daemon(transcriber=None if openai_on else told).view()
        settings = AdminSettings.model_validate({"port": 0, "token": BEARER["Authorization"][7:]})
        async with (
            serve(settings, view, ApiSettings(openai=openai_on)) as url,
            aiohttp.ClientSession(url, headers=BEARER) as session,
            session.get("/v1/models") as answer,
        ):
            assert answer.status == 404


async def _answer(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, str]:
    async with session.post(url, data=body, headers=HEADERS) as answer:
        return answer.status, await answer.text()


async def _text(session: aiohttp.ClientSession, body: bytes = FILE + END) -> str:
    async with session.post(PATH, data=body, headers=HEADERS) as answer:
        return await answer.text()


def _head(length: int, more: bytes = b"") -> bytes:
    lines = (f"POST {PATH} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in HEADERS.items()))
    return "\r\n".join((*lines, f"Content-Length: {length}", "")).encode() + more + b"\r\n"
