"""whisper.cpp's own server, built of the sources of the installed pywhispercpp, with the bundled model."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from aiohttp import web

from tests.providers.hearing import Told, decoding, text_of
from tests.services import build, whisper_server
from tests.services.processes import free_ports
from tests.speech.sounds import bundled, encode_channels, read
from v2td.bundled import ggml_file
from v2td.config import WhisperCppSettings
from v2td.errors import ErrorClass, JobError, ProviderFailedError, ProviderRefusedError
from v2td.jobs import Heard, Options, Span, Window
from v2td.providers.whisper_cpp import WhisperCppChild
from v2td.providers.whisper_cpp_answer import likely_languages, segments_of
from v2td.providers.whisper_cpp_server import WhisperCppServer, wav
from v2td.providers.whisper_cpp_worker import WindowRequest, WindowSound

pytestmark = [pytest.mark.slow, pytest.mark.services]  # a server of its own, built by python -m tests.services build

EN, VI = bundled("en-01.flac"), bundled("vi-01.flac")
ENGLISH = Options(language="en")


def settings_of(url: str, **changed: Any) -> WhisperCppSettings:
    return WhisperCppSettings(name="cpp_server", server_url=url, **changed)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[whisper_server.Server]:
    async with whisper_server.running(build.built("whisper_server"), ggml_file(), tmp_path) as server:
        yield server


@pytest.fixture
async def provider(server: whisper_server.Server) -> AsyncIterator[WhisperCppServer]:
    async with WhisperCppServer(settings_of(server.url, model_name="demo-micro")) as provider:
        yield provider


async def hear(
    provider: WhisperCppServer | WhisperCppChild, folder: Path, path: Path, options: Options, told: Told | None = None
) -> Heard:
    async with decoding(folder, path, options, told) as recording:
        return await provider.transcribe(recording)


async def test_it_says_what_the_child_says_and_when(provider: WhisperCppServer, tmp_path: Path) -> None:
    told = Told()
    async with WhisperCppChild(WhisperCppSettings(name="child", model=ggml_file(), threads=1)) as child:
        for recording in (EN, VI, bundled("vi-03.ogg")):
            for options in (Options(), Options(language=recording.language, word_timestamps=True)):
                here = await hear(provider, tmp_path, recording.path, options, told)
                there = await hear(child, tmp_path, recording.path, options)
                assert (here.language, here.model) == (there.language, "demo-micro")
                assert text_of(here) == text_of(there)
                assert len(here.segments) == len(there.segments)
                for one, other in zip(here.segments, there.segments, strict=True):
                    assert (one.start, one.end, one.text) == (other.start, other.end, other.text)
                    assert one.compression_ratio == other.compression_ratio
                    if options.word_timestamps:
                        assert one.words
                        assert other.words
                        assert [(each.text, each.start, each.end) for each in one.words] == [
                            (each.text, each.start, each.end) for each in other.words
                        ]
    assert told.progress > 0
    assert told.deaths == 0


async def test_a_long_recording_comes_window_by_window(provider: WhisperCppServer, tmp_path: Path) -> None:
    recording = bundled("en-long.ogg")
    heard = await hear(provider, tmp_path, recording.path, Options(), told := Told())
    assert (heard.language, list(told.texts)) == ("en", [window.index for window in heard.windows])
    assert jiwer.wer(recording.text.lower(), text_of(heard).lower()) < 0.1


async def test_channels_and_languages(provider: WhisperCppServer, tmp_path: Path) -> None:
    encode_channels([read(EN.path), read(VI.path)], path := tmp_path / "call.wav")
    heard = await hear(provider, tmp_path, path, Options(channels="split"))
    assert heard.timings["channel_languages"] == {"0": "en", "1": "vi"}
    for options, language in (
        (Options(languages=("vi", "fr")), "vi"),
        (Options(multilingual=True), "en"),
        (Options(language="en", task="translate", prompt="Hello.", hotwords="Hanoi", beam_size=1), "en"),
    ):
        assert (await hear(provider, tmp_path, EN.path, options)).language == language


async def test_a_server_that_goes_and_comes_back(
    provider: WhisperCppServer, server: whisper_server.Server, tmp_path: Path
) -> None:
    assert await provider.health() is None
    server.kill()
    assert f"{server.url}/health" in (await provider.health() or "")
    told = Told()
    with pytest.raises(ProviderFailedError, match=f"{server.url}/inference: "):
        await hear(provider, tmp_path, EN.path, ENGLISH, told)
    assert told.deaths == 0, "no process of ours"
    await server.start()
    assert await provider.health() is None
    assert text_of(await hear(provider, tmp_path, EN.path, ENGLISH)) == EN.text


async def test_a_server_that_is_killed_in_the_middle_of_a_window(
    provider: WhisperCppServer, server: whisper_server.Server, tmp_path: Path
) -> None:
    server.freeze()
    job = asyncio.create_task(hear(provider, tmp_path, EN.path, ENGLISH, told := Told()))
    async with asyncio.timeout(30):
        while not told.progress:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # the window is on its way
    server.kill()
    with pytest.raises(ProviderFailedError, match=f"{server.url}/inference: "):
        await asyncio.wait_for(job, 10)


async def test_a_frozen_server_is_given_up_and_found_ill(
    server: whisper_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v2td.providers.whisper_cpp_server.HEALTH_SECONDS", 0.5)
    async with WhisperCppServer(settings_of(server.url, window_seconds=1)) as provider:
        server.freeze()
        assert await provider.health() == f"{server.url}/health: no answer in time"
        with pytest.raises(ProviderFailedError, match="no answer in time"):
            await hear(provider, tmp_path, EN.path, ENGLISH)
        server.thaw()
        assert await provider.health() is None


async def test_a_cancelled_job_leaves_the_server_to_the_next(
    provider: WhisperCppServer, server: whisper_server.Server, tmp_path: Path
) -> None:
    server.freeze()
    job = asyncio.create_task(hear(provider, tmp_path, bundled("en-long.ogg").path, ENGLISH, told := Told()))
    async with asyncio.timeout(30):
        while not told.progress:
            await asyncio.sleep(0.01)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    server.thaw()
    assert text_of(await hear(provider, tmp_path, VI.path, Options(language="vi"))) == VI.text


async def test_a_server_may_come_after_us(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = whisper_server.Server(build.built("whisper_server") / whisper_server.PROGRAM, ggml_file(), tmp_path, port)
    async with WhisperCppServer(settings_of(server.url)) as provider:
        assert await provider.health() is not None
        with pytest.raises(ProviderFailedError):
            await hear(provider, tmp_path, EN.path, ENGLISH)
        try:
            await server.start()
            assert (await hear(provider, tmp_path, EN.path, ENGLISH)).model == "whisper.cpp"
        finally:
            server.kill()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def stand_in(handler: Handler) -> AsyncIterator[str]:
    """What answers in the place of whisper.cpp's server as that never does, or only for other models."""
    app = web.Application()
    app.router.add_post("/inference", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"segments": [')
    assert request.transport is not None
    request.transport.abort()
    return response


def answering(**said: Any) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"language": "vietnamese", **said})

    return handler


def refusing(status: int, text: str = "", **headers: str) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return handler


async def nonsense(_request: web.Request) -> web.Response:
    return web.Response(text="<html>it works</html>")


async def a_list(_request: web.Request) -> web.Response:
    return web.json_response([1])


SEGMENT = {"text": " Hello.", "start": 0.0, "end": 1.0, "avg_logprob": -0.1}


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (refusing(500, '{"error":"failed to process audio"}'), "answers 500: .*failed to process audio"),
        (refusing(404), "answers 404"),
        (refusing(302, Location="http://127.0.0.1:1/"), "answers 302"),
        (half, "/inference: "),
        (nonsense, "answers no JSON: .*it works"),
        (a_list, "answers list, and no object"),
        (answering(), "without segments"),
        (answering(segments=[1]), "without segments"),
        (answering(segments=[SEGMENT | {"text": None}]), "a text that is NoneType"),
        (answering(segments=[SEGMENT | {"start": "0"}]), "start = 0"),
        (answering(segments=[SEGMENT | {"start": -1}]), "start = -1"),
        (answering(segments=[SEGMENT | {"end": True}]), "end = True"),
        (answering(segments=[SEGMENT | {"avg_logprob": {}}]), "avg_logprob = {}"),
        (answering(segments=[SEGMENT | {"words": [{"word": " Hello."}]}]), "start = None"),
        (answering(segments=[SEGMENT | {"words": "Hello"}]), "words that are none"),
    ],
)
async def test_nonsense_is_the_servers_failure(handler: Handler, said: str, tmp_path: Path) -> None:
    async with stand_in(handler) as url, WhisperCppServer(settings_of(url)) as provider:
        with pytest.raises(ProviderFailedError, match=said):
            await hear(provider, tmp_path, EN.path, Options(language="en", word_timestamps=True))


async def test_what_it_asks_us_to_wait_is_passed_on(tmp_path: Path) -> None:
    async with stand_in(refusing(503, **{"Retry-After": "7"})) as url, WhisperCppServer(settings_of(url)) as provider:
        with pytest.raises(ProviderFailedError) as caught:
            await hear(provider, tmp_path, EN.path, ENGLISH)
    assert caught.value.retry_after == 7


async def test_a_model_for_english_alone_is_found_out(tmp_path: Path) -> None:
    handler = answering(language="english", segments=[SEGMENT])
    async with stand_in(handler) as url, WhisperCppServer(settings_of(url)) as provider:
        assert provider.capabilities.languages == frozenset({"en"})
        assert provider.capabilities.tasks == frozenset({"transcribe"})
        assert (await hear(provider, tmp_path, EN.path, Options())).language == "en"
        for options in (Options(language="vi"), Options(task="translate")):
            with pytest.raises(ProviderRefusedError, match="English alone"):
                await hear(provider, tmp_path, EN.path, options)


async def test_another_model_behind_it_is_found_out(tmp_path: Path) -> None:
    language = "vietnamese"

    async def handler(request: web.Request) -> web.Response:
        if language == "gone":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"language": language, "segments": [SEGMENT]})

    async with stand_in(handler) as url, WhisperCppServer(settings_of(url)) as provider:
        assert provider.capabilities.languages is None
        language = "english"
        with pytest.raises(ProviderFailedError, match="another model"):  # English, heard in what is Vietnamese
            await hear(provider, tmp_path, VI.path, Options(language="vi"))
        with pytest.raises(ProviderRefusedError, match="English alone"):
            await hear(provider, tmp_path, VI.path, Options(language="vi"))
        language = "gone"
        with pytest.raises(ProviderFailedError):
            await hear(provider, tmp_path, EN.path, ENGLISH)
        language = "vietnamese"
        assert (await hear(provider, tmp_path, VI.path, Options(language="vi"))).language == "vi"


async def test_it_is_told_what_a_message_says(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        form = await request.post()
        asked.append(
            {name: each.file.read() if isinstance(each, web.FileField) else each for name, each in form.items()}
        )
        return web.json_response({"language": "vietnamese", "segments": []})

    async with stand_in(handler) as url, WhisperCppServer(settings_of(url, beam_size=3)) as provider:
        options = Options(language="vi", task="translate", prompt="Xin chào.", hotwords="Hanoi", word_timestamps=True)
        await hear(provider, tmp_path, VI.path, options)
    asked = asked[1:]  # the first one asks for languages
    assert {name: asked[0][name] for name in ("language", "translate", "beam_size", "prompt", "token_timestamps")} == {
        "language": "vi",
        "translate": "true",
        "beam_size": "3",
        "prompt": "Hanoi Xin chào.",
        "token_timestamps": "true",
    }
    assert asked[0]["file"].startswith(b"RIFF")


@pytest.mark.parametrize("concurrency", [0, 2])
async def test_as_many_windows_go_up_at_once_as_it_may_have_jobs(concurrency: int, tmp_path: Path) -> None:
    under_way = most = 0
    together = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        nonlocal under_way, most
        await request.read()
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            together.set()
        with suppress(TimeoutError):  # who is alone waits in vain
            await asyncio.wait_for(together.wait(), 1)
        under_way -= 1
        return web.json_response({"language": "vietnamese", "segments": []})

    async with stand_in(handler) as url:
        settings = settings_of(url, concurrency=concurrency)
        async with WhisperCppServer(settings) as provider, asyncio.TaskGroup() as group:
            for number in range(4):
                (tmp_path / str(number)).mkdir()
                group.create_task(hear(provider, tmp_path / str(number), EN.path, ENGLISH))
    assert most == (concurrency or 1)


async def test_pcm_that_is_gone_is_no_fault_of_the_provider(provider: WhisperCppServer, tmp_path: Path) -> None:
    async with decoding(tmp_path, EN.path, ENGLISH) as recording:
        with pytest.raises(JobError, match="PCM is gone") as caught:
            await provider.transcribe(replace(recording, pcm=tmp_path / "gone.pcm"))
    assert caught.value.error_class is ErrorClass.INFERENCE_CRASH


def test_fingerprints_tell_models_apart_and_not_places() -> None:
    def of(url: str, **changed: Any) -> str:
        return WhisperCppServer(settings_of(url, **changed)).fingerprint

    assert of("http://a:1") != of("http://b:1")
    assert of("http://a:1", model_name="large") == of("http://b:1/", model_name="large")
    assert of("http://a:1", model_name="large") != of("http://a:1", model_name="large", beam_size=1)


def test_wav_is_read_back(tmp_path: Path) -> None:
    sound = np.array([0, 0.5, -0.5, 1.5, -1.5, 3 / 32768], np.float32)
    (tmp_path / "a.wav").write_bytes(wav(sound))
    assert read(tmp_path / "a.wav").tolist() == [0, 16384, -16384, 32767, -32768, 3]


def request_of(language: str) -> WindowRequest:
    sound = WindowSound(Path("pcm"), 1, Window(0, (Span(0, 160_000),), ()))
    return WindowRequest(sound, "transcribe", language, 1, "", word_timestamps=True)


def token(text: str, start: float) -> dict[str, Any]:
    return {"word": text, "start": start, "end": start + 1, "probability": 0.5}


def test_words_are_put_together_from_tokens_and_parts_of_letters() -> None:
    broken = "\N{REPLACEMENT CHARACTER}"
    for language, text, tokens, words in (
        ("en", " It's ten.", [" It", "'s", " ten", "."], [" It's", " ten."]),
        ("vi", " Bảy bốn", [" B", broken, broken, "y", " b", "ốn"], [" Bảy", " bốn"]),
        ("zh", "你好吗。", ["你", broken, broken, "吗", "。"], ["你", "好", "吗", "。"]),
        ("zh", "你好", ["你", broken, broken], ["你", "好"]),
    ):
        said = [token(each, index) for index, each in enumerate(tokens)]
        segment = {"text": text, "start": 0, "end": 10, "avg_logprob": None, "words": said}
        (found,) = segments_of({"segments": [segment]}, request_of(language))
        assert [word.text for word in found.words or ()] == words
        assert (found.words or ())[-1].end == len(tokens)


def test_languages_are_those_that_we_know() -> None:
    said = {"language_probabilities": {"en": 0.2, "vi": 0.7, "xx": 0.9}}
    assert likely_languages(said, ()) == (("vi", 0.7), ("en", 0.2))
    assert likely_languages(said, ("en", "fr")) == (("en", 0.2),)
    assert likely_languages(said, ("fr", "de")) == (("fr", 0.0),)
    with pytest.raises(ProviderFailedError, match="language_probabilities"):
        likely_languages({}, ())


def test_the_server_is_of_the_version_that_is_installed() -> None:
    version = importlib.import_module("importlib.metadata").version("pywhispercpp")
    assert version == whisper_server.VERSION
    assert json.loads((build.built("whisper_server") / "stamp.json").read_text())["whisper_server"] == version
