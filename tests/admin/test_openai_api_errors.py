"""How the API says what went wrong, to the official client above all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.admin.asking import END, FILE, HEADERS, PATH, asking, counted, field
from tests.admin.serving import BEARER, Daemon
from tests.admin.speaking import Told, api, client_of
from v2td.admin import serve
from v2td.config import AdminSettings
from v2td.errors import ErrorClass, JobError, NoRoomError, ProviderFailedError, ServiceError
from v2td.fetch.spool import Incoming


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

    async def test_a_request_is_found_in_the_log(self, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
        told.go.set()
        create: Any
        async with api(Daemon(transcriber=told)) as url, client_of(url) as client:
            create = client.audio.transcriptions.with_raw_response.create
            numbers = [(await create(model="demo", file=b"sound")).request_id]
            numbers.append((await create(model="demo", file=b"sound", stream=True)).request_id)
            with pytest.raises(openai.NotFoundError) as caught:
                await create(model="gpt-9", file=b"sound")
            numbers.append(caught.value.request_id)
        lines = capsys.readouterr().out.splitlines()
        for number, event in zip(numbers, ("transcribed", "transcribed", "not transcribed"), strict=True):
            (line,) = [line for line in lines if number and number in line]
            assert f" {event} on demand " in line
        assert not [line for line in lines if "Hello." in line]

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

    @pytest.mark.parametrize("length", [5, 500_000])
    async def test_a_full_disk_asks_to_come_again(
        self, told: Told, monkeypatch: pytest.MonkeyPatch, length: int
    ) -> None:
        @contextmanager
        def full() -> Iterator[Incoming]:
            with FileIO("/dev/full", "w") as file:
                yield Incoming(Path("/dev/full"), file)

        monkeypatch.setattr(told, "receive", full)
        before = counted("failed")
        async with api(Daemon(transcriber=told)) as url, client_of(url) as client:
            with pytest.raises(openai.InternalServerError, match="no room") as caught:
                await client.audio.transcriptions.create(model="demo", file=bytes(length))
            assert (caught.value.status_code, caught.value.response.headers["Retry-After"]) == (503, "5")
        assert counted("failed") == before + 1

    async def test_nothing_is_taken_while_nothing_is_ready(self, told: Told) -> None:
        daemon = Daemon(transcriber=told, not_ready="stopping")
        before = counted("refused")
        async with api(daemon) as url, client_of(url) as client:
            with pytest.raises(openai.InternalServerError, match="not ready: stopping") as caught:
                await client.audio.transcriptions.create(model="demo", file=b"sound")
            assert (caught.value.status_code, caught.value.response.headers["Retry-After"]) == (503, "5")
            assert [each.id for each in (await client.models.list()).data] == ["demo", "larger/one"]
        assert counted("refused") == before + 1


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

    async def test_there_is_nothing_unless_it_is_turned_on(self) -> None:
        settings = AdminSettings.model_validate({"port": 0, "token": BEARER["Authorization"][7:]})
        async with (
            serve(settings, Daemon().view()) as url,
            aiohttp.ClientSession(url, headers=BEARER) as session,
            session.get("/v1/models") as answer,
        ):
            assert answer.status == 404
